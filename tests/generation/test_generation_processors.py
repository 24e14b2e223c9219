"""The processors give exactly what the classes of transformers give, on random scores."""

from __future__ import annotations

import math

import pytest
import torch

from textmill.generation import processors
from textmill.generation.config import SamplingConfig

transformers = pytest.importorskip("transformers")


@pytest.fixture(params=range(4))
def scores(request: pytest.FixtureRequest) -> torch.Tensor:
    """Random logits [3, 500], of several spreads."""
    generator = torch.Generator().manual_seed(request.param)
    return torch.randn(3, 500, generator=generator) * (request.param + 1)


@pytest.mark.parametrize("value", [0.3, 1.0, 1.7])
def test_temperature(scores: torch.Tensor, value: float) -> None:
    theirs = transformers.TemperatureLogitsWarper(value)(None, scores)
    assert torch.equal(processors.temperature(scores, value), theirs)


@pytest.mark.parametrize("k", [1, 7, 500, 10_000])
def test_top_k(scores: torch.Tensor, k: int) -> None:
    assert torch.equal(processors.top_k(scores, k), transformers.TopKLogitsWarper(k)(None, scores))


@pytest.mark.parametrize("p", [0.01, 0.5, 0.95, 1.0])
def test_top_p(scores: torch.Tensor, p: float) -> None:
    assert torch.equal(processors.top_p(scores, p), transformers.TopPLogitsWarper(p)(None, scores))


@pytest.mark.parametrize("p", [0.01, 0.2, 1.0])
def test_min_p(scores: torch.Tensor, p: float) -> None:
    assert torch.equal(processors.min_p(scores, p), transformers.MinPLogitsWarper(p)(None, scores))


@pytest.mark.parametrize("penalty", [0.8, 1.1, 2.0])
def test_repetition_penalty(scores: torch.Tensor, penalty: float) -> None:
    read = torch.randint(0, 500, (3, 40), generator=torch.Generator().manual_seed(1))
    seen = torch.zeros(3, 500, dtype=torch.bool).scatter(1, read, True)
    theirs = transformers.RepetitionPenaltyLogitsProcessor(penalty)(read, scores)
    assert torch.equal(processors.repetition_penalty(scores, seen, penalty), theirs)


def test_all_together_in_their_order(scores: torch.Tensor) -> None:
    log_probs = scores.log_softmax(-1)
    config = SamplingConfig(temperature=0.7, top_k=50, top_p=0.9, min_p=0.02)
    theirs = log_probs
    for warper in (
        transformers.TemperatureLogitsWarper(0.7),
        transformers.TopKLogitsWarper(50),
        transformers.TopPLogitsWarper(0.9),
        transformers.MinPLogitsWarper(0.02),
    ):
        theirs = warper(None, theirs)
    assert torch.equal(processors.truncate(log_probs, config), theirs)


@pytest.mark.parametrize("p", [0.01, 0.3, 0.9, 0.99])
def test_typical_p(scores: torch.Tensor, p: float) -> None:
    assert torch.equal(processors.typical_p(scores, p), transformers.TypicalLogitsWarper(p)(None, scores))


def test_top_p_of_a_flat_distribution_needs_more_than_the_first_candidates() -> None:
    flat = torch.randn(1, 20_000, generator=torch.Generator().manual_seed(0)) * 0.01
    kept = torch.isfinite(processors.top_p(flat, 0.9)).sum().item()
    theirs = torch.isfinite(transformers.TopPLogitsWarper(0.9)(None, flat)).sum().item()
    assert abs(kept - theirs) <= 2  # of 18,000: sums in float32 there, in float64 here


def test_top_n_sigma_is_the_papers_rule_and_does_not_depend_on_the_temperature(scores: torch.Tensor) -> None:
    kept = torch.isfinite(processors.top_n_sigma(scores, 1.5))
    for row, keeps in zip(scores.double(), kept, strict=True):
        limit = row.max() - 1.5 * row.std(correction=0)
        assert torch.equal(keeps, row >= limit)
    assert torch.equal(torch.isfinite(processors.top_n_sigma(scores / 3, 1.5)), kept)


def test_exclude_top_choices_leaves_the_least_likely_of_the_likely() -> None:
    probabilities = torch.tensor([0.05, 0.4, 0.12, 0.3, 0.1, 0.03])
    after = processors.exclude_top_choices(probabilities.log(), 0.11)
    assert torch.isfinite(after).tolist() == [True, False, True, False, True, True]
    assert torch.equal(processors.exclude_top_choices(probabilities.log(), 0.35), probabilities.log())  # one alone


def test_surprise_below_keeps_what_is_expected_and_at_least_one() -> None:
    probabilities = torch.tensor([0.5, 0.25, 0.125, 0.125])
    assert torch.isfinite(processors.surprise_below(probabilities.log(), 2.01)).tolist() == [True, True, False, False]
    assert torch.isfinite(processors.surprise_below(probabilities.log(), 0.0)).tolist() == [True, False, False, False]


def penalized(scores: torch.Tensor, seen: torch.Tensor, penalty: float) -> torch.Tensor:
    return processors.repetition_penalty(processors.center(scores), seen, penalty)


def test_the_penalty_does_not_depend_on_how_scores_are_shifted(scores: torch.Tensor) -> None:
    seen = torch.zeros_like(scores, dtype=torch.bool)
    seen[:, :100] = True
    assert torch.allclose(penalized(scores, seen, 1.3), penalized(scores.log_softmax(-1), seen, 1.3), atol=1e-4)


def test_a_repeated_token_of_probability_near_one_is_made_less_likely() -> None:
    log_probs = torch.tensor([[9.0, 0.0, 0.0, -1.0]]).log_softmax(-1)
    seen = torch.tensor([[True, False, False, False]])
    after = penalized(log_probs, seen, 1.5).softmax(-1)
    others_before, others_after = 1 - log_probs.exp()[0, 0], 1 - after[0, 0]
    assert others_after > 5 * others_before


def test_impossible_tokens_do_no_harm_to_the_penalty() -> None:
    log_probs = torch.tensor([[-0.1, -math.inf, -3.0, -4.0]])
    scores = penalized(log_probs, torch.ones(1, 4, dtype=torch.bool), 1.1)
    assert scores.softmax(-1)[0, 1] == 0
    assert torch.isfinite(scores[0, [0, 2, 3]]).all()


def test_scores_passed_in_stay_as_they_were(scores: torch.Tensor) -> None:
    before = scores.clone()
    config = SamplingConfig(temperature=0.5, top_k=3, top_p=0.5, min_p=0.3, typical_p=0.8, top_n_sigma=2)
    processors.truncate(scores, config)
    penalized(scores, torch.ones_like(scores, dtype=torch.bool), 1.2)
    assert torch.equal(scores, before)
