"""The evidence lower bound's batches: a pure function of text, seed and step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from textmill.base.progress import Progress
from textmill.evaluation.score import score_model
from textmill.models.load import load_model
from textmill.models.variational.config import AutoencoderConfig, VaeConfig
from textmill.models.variational.segments import sentence_ends
from textmill.models.variational.vae import Vae
from textmill.tokens.shards import Shards
from textmill.tokens.tokenizer import Tokenizer
from textmill.training.config import PlanConfig, TrainingConfig
from textmill.training.objective_elbo import EvidenceLowerBound
from textmill.training.objectives import count_targets, make_objective, rows_of
from textmill.training.planning import plan_run
from textmill.training.train import train_model

CONFIG = VaeConfig(vocabulary=50, context=40, segment=8, latent=6, word_dropout=0.3, annealing_steps=10)


def rows(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and targets [16, 40], some of which do not count."""
    window = np.random.default_rng(seed).integers(0, 50, (16, 41))
    targets = window[:, 1:].copy()
    targets[2, :5] = -1
    return window[:, :-1].copy(), targets


def test_a_batch_is_made_again_to_the_bit():
    tokens, targets = rows()
    one = make_objective("evidence-lower-bound", CONFIG, {}, 3).batch(tokens, targets, 7)
    two = EvidenceLowerBound(CONFIG, {}, 3).batch(tokens, targets, 7)
    assert set(one) == {"tokens", "targets", "place", "dropped", "noise", "divergence_weight"}
    for name, value in one.items():
        assert torch.equal(value, two[name]), name
    for seed, step in ((4, 7), (3, 8)):
        other = EvidenceLowerBound(CONFIG, {}, seed).batch(tokens, targets, step)
        assert not torch.equal(other["dropped"], one["dropped"])
        assert not torch.equal(other["noise"], one["noise"])


def test_what_counts_is_in_segments_and_has_noise():
    tokens, targets = rows()
    batch = EvidenceLowerBound(CONFIG, {}, 0).batch(tokens, targets, 0)
    assert torch.equal(batch["place"] >= 0, batch["targets"] >= 0)
    assert int(batch["place"].max()) == CONFIG.segment - 1
    assert batch["noise"].shape == (16, int((batch["place"] == 0).sum(1).max()), 6)
    assert count_targets(batch) == 16 * 40 - 5


def test_word_dropout_hides_the_asked_share_and_the_weight_rises():
    tokens, targets = rows()
    objective = EvidenceLowerBound(CONFIG, {}, 0)
    hidden = [objective.batch(tokens, targets, step)["dropped"].float().mean() for step in range(20)]
    assert float(torch.stack(hidden).mean()) == pytest.approx(0.3, abs=0.02)
    weights = [float(objective.batch(tokens, targets, step)["divergence_weight"]) for step in (0, 5, 10, 99)]
    assert weights == pytest.approx([0, 0.5, 1, 1])


def test_a_micro_batch_is_a_part_of_the_batch():
    tokens, targets = rows()
    batch = EvidenceLowerBound(CONFIG, {}, 0).batch(tokens, targets, 4)
    part = rows_of(batch, 4, 4, 16, "cpu")
    assert torch.equal(part["noise"], batch["noise"][4:8])
    assert torch.equal(part["divergence_weight"], batch["divergence_weight"])


def test_an_autoencoder_needs_no_noise():
    tokens, targets = rows()
    batch = EvidenceLowerBound(AutoencoderConfig(vocabulary=50, segment=8), {}, 0).batch(tokens, targets, 4)
    assert set(batch) == {"tokens", "targets", "place", "dropped"}


@pytest.mark.slow
def test_a_vae_is_planned_trained_opened_and_scored_like_any_family(run):
    training = TrainingConfig(threads=1, validations=1, validation_tokens=2000)
    asked = PlanConfig(family="vae", steps=12, width=32, set=("reverse_path=aligned", "segment=32", "samples=2"))
    plan = plan_run(run, None, asked, training, Progress("quiet"))
    counts = train_model(run, plan, training, Progress("quiet"))
    assert counts["steps"] == 12
    model = load_model(run / "model", "cpu")
    tokenizer = Tokenizer.load(run / "model")
    assert isinstance(model, Vae)
    assert (model.config.reverse_path, model.config.segment) == ("aligned", 32)
    assert model.config.ends == sentence_ends(tokenizer)
    held = Shards(run / "tokens", "validation")
    document = held.read(0, int(held.ends[0])).astype(np.int64)[-300:]
    found = score_model(model, [document], tokenizer)
    assert found.context is None
    assert 1 < found.bits_per_byte < 6
