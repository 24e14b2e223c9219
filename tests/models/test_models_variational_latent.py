"""The latent arithmetic against closed forms: a linear-Gaussian model, Gaussian divergences, known schedules."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from textmill.base.errors import UsageError
from textmill.models.variational.config import VaeConfig, divergence_weight
from textmill.models.variational.latent import (
    active_units,
    divergence,
    free_divergence,
    gaussian_log_density,
    importance_bound,
    linear_path,
    mutual_information,
    spherical_path,
    standard_log_density,
)
from textmill.models.variational.noise import content_keys, normal

NOISE = 0.5


class LinearGaussian:
    """x = W z + NOISE e, z ~ N(0, I): the posterior and log p(x) have closed forms (factor analysis)."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.w = torch.randn(5, 2, generator=generator, dtype=torch.float64)
        z = torch.randn(400, 2, generator=generator, dtype=torch.float64)
        self.x = z @ self.w.T + NOISE * torch.randn(400, 5, generator=generator, dtype=torch.float64)
        precision = torch.eye(2, dtype=torch.float64) + self.w.T @ self.w / NOISE**2
        self.covariance = torch.linalg.inv(precision)
        self.mean = self.x @ self.w @ self.covariance / NOISE**2

    def log_p(self) -> torch.Tensor:
        """log p(x), exact: x ~ N(0, W W' + NOISE² I)."""
        covariance = self.w @ self.w.T + NOISE**2 * torch.eye(5, dtype=torch.float64)
        return torch.distributions.MultivariateNormal(torch.zeros(5, dtype=torch.float64), covariance).log_prob(self.x)

    def bound(self, samples: int, widen: float, seed: int = 1) -> torch.Tensor:
        """The bound with the exact posterior's covariance times `widen` as proposal."""
        q = torch.distributions.MultivariateNormal(self.mean, self.covariance * widen)
        torch.manual_seed(seed)
        z = q.sample((samples,)).transpose(0, 1)
        log_q = q.log_prob(z.transpose(0, 1)).T
        fit = gaussian_log_density(
            self.x[:, None], z @ self.w.T, torch.full((5,), 2 * math.log(NOISE), dtype=torch.float64)
        )
        return importance_bound(fit + standard_log_density(z), log_q)


def test_importance_bound_is_exact_with_the_exact_posterior():
    model = LinearGaussian()
    for samples in (1, 7):
        torch.testing.assert_close(model.bound(samples, 1.0), model.log_p())


def test_importance_bound_tightens_with_samples_toward_the_truth():
    model = LinearGaussian()
    truth = float(model.log_p().mean())
    gaps = [truth - float(model.bound(k, 3.0).mean()) for k in (1, 4, 16, 256)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 0.3
    assert abs(gaps[-1]) < 0.02
    # the gap at one sample is KL(q || posterior), known for Gaussians: (tr - d - log det) / 2
    assert gaps[0] == pytest.approx(0.5 * (2 * 3.0 - 2 - 2 * math.log(3.0)), abs=0.15)


def test_divergence_is_that_of_torch():
    torch.manual_seed(0)
    mean, log_variance = torch.randn(9, 4), torch.randn(9, 4)
    theirs = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, torch.exp(0.5 * log_variance)), torch.distributions.Normal(0.0, 1.0)
    )
    torch.testing.assert_close(divergence(mean, log_variance), theirs)
    torch.testing.assert_close(
        gaussian_log_density(mean, log_variance, log_variance),
        torch.distributions.Normal(log_variance, torch.exp(0.5 * log_variance)).log_prob(mean).sum(-1),
    )


def test_free_bits_stop_the_pull_of_dimensions_below_them_alone():
    mean = torch.zeros(6, 2, requires_grad=True)
    with torch.no_grad():
        mean[:, 0], mean[:, 1] = 0.1, 2.0
    each = divergence(mean, torch.zeros(6, 2))
    loss = free_divergence(each, 0.25)
    assert float(loss.detach()) == pytest.approx(6 * (0.25 + 2.0), rel=1e-6)
    loss.backward()
    assert torch.all(mean.grad[:, 0] == 0)
    assert torch.all(mean.grad[:, 1] == 2.0)
    assert float(free_divergence(each, 0.0).detach()) == pytest.approx(float(each.sum().detach()))


def test_mutual_information_of_a_gaussian_channel():
    """z = a x + s e with x ~ N(0, 1) has I = log(1 + a²/s²) / 2 in each dimension."""
    generator = torch.Generator().manual_seed(0)
    a, s = torch.tensor([1.0, 0.6]), torch.tensor([0.5, 1.0])
    mean = a * torch.randn(4000, 2, generator=generator)
    z = mean + s * torch.randn(4000, 2, generator=generator)
    exact = float(0.5 * torch.log(1 + (a / s) ** 2).sum())
    assert mutual_information(mean, (2 * s.log()).expand(4000, 2), z) == pytest.approx(exact, abs=0.05)


def test_no_divergence_means_no_information():
    z = torch.randn(300, 5)
    assert mutual_information(torch.zeros(300, 5), torch.zeros(300, 5), z) == pytest.approx(0.0, abs=1e-9)
    assert active_units(torch.zeros(300, 5)) == 0


def test_information_of_texts_told_apart_is_the_ceiling():
    mean = 100.0 * torch.arange(50.0)[:, None]
    assert mutual_information(mean, torch.zeros(50, 1), mean) == pytest.approx(math.log(50))


def test_active_units_are_those_whose_mean_moves():
    torch.manual_seed(0)
    mean = torch.randn(500, 3) * torch.tensor([1.0, 0.05, 0.2]) + 3
    assert active_units(mean) == 2


@given(st.integers(0, 5000), st.sampled_from(["none", "linear", "logistic", "cyclical"]))
def test_the_weight_stays_between_nothing_and_full(step, annealing):
    config = VaeConfig(annealing=annealing, annealing_steps=300, divergence_weight=0.8)
    assert 0 <= divergence_weight(config, step) <= 0.8
    assert divergence_weight(config, 5000) == 0.8


def test_weights_at_known_steps():
    def weights(annealing, *steps):
        config = VaeConfig(annealing=annealing, annealing_steps=100, cycles=2)
        return [round(divergence_weight(config, step), 4) for step in steps]

    assert weights("linear", 0, 25, 100) == [0.0, 0.25, 1.0]
    assert weights("logistic", 0, 50, 99) == [0.0025, 0.5, 0.9972]
    assert weights("cyclical", 0, 25, 50, 99, 100, 125, 200) == [0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0]


@given(st.integers(2, 9), st.integers(0, 1000))
def test_paths_begin_and_end_where_they_should(steps, seed):
    generator = torch.Generator().manual_seed(seed)
    first, last = torch.randn(2, 6, generator=generator)
    for path in (linear_path(first, last, steps), spherical_path(first, last, steps)):
        assert path.shape == (steps, 6)
        torch.testing.assert_close(path[0], first)
        torch.testing.assert_close(path[-1], last)


def test_the_spherical_path_keeps_the_length_and_equal_angles():
    first, last = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    path = spherical_path(first, last, 4)
    angles = torch.atan2(path[:, 1], path[:, 0])
    torch.testing.assert_close(path.norm(dim=1), torch.full((4,), 2.0))
    torch.testing.assert_close(angles, torch.linspace(0, math.pi / 2, 4))
    torch.testing.assert_close(spherical_path(first, 3 * first, 3), linear_path(first, 3 * first, 3))


def test_noise_is_normal_and_depends_on_the_text_alone():
    rows = np.arange(24).reshape(4, 6)
    keys = content_keys(rows, 7)
    values = normal(np.arange(2000, dtype=np.uint64), 50)
    assert values.mean() == pytest.approx(0, abs=0.01)
    assert values.std() == pytest.approx(1, abs=0.01)
    assert abs(np.corrcoef(values[:, 0], values[:, 1])[0, 1]) < 0.08
    padded = np.concatenate((rows, np.full((4, 3), -1)), 1)
    np.testing.assert_array_equal(content_keys(padded, 7), keys)
    np.testing.assert_array_equal(normal(keys[2:3], 3, 2), normal(keys, 3, 2)[2:3])
    assert len({*keys.tolist(), *content_keys(rows, 8).tolist()}) == 8


@pytest.mark.parametrize(
    "wrong",
    [
        {"annealing": "quadratic"},
        {"free_bits": -1.0},
        {"latent": 0},
        {"ends": (70000,)},
        {"word_dropout": 1.5},
        {"reverse_path": "both"},
        {"cell": "rnn"},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(UsageError):
        VaeConfig(**wrong)
