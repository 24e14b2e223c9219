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
    ours = processors.process(log_probs, config, torch.zeros(500, dtype=torch.bool), None)
    assert torch.equal(ours, theirs)


def test_the_penalty_does_not_depend_on_how_scores_are_shifted(scores: torch.Tensor) -> None:
    seen = torch.zeros_like(scores, dtype=torch.bool)
    seen[:, :100] = True
    config = SamplingConfig(temperature=0, repetition_penalty=1.3)
    nothing = torch.zeros(500, dtype=torch.bool)
    first = processors.process(scores, config, nothing, seen)
    second = processors.process(scores.log_softmax(-1), config, nothing, seen)
    assert torch.allclose(first, second, atol=1e-4)


def test_a_repeated_token_of_probability_near_one_is_made_less_likely() -> None:
    log_probs = torch.tensor([[9.0, 0.0, 0.0, -1.0]]).log_softmax(-1)
    seen = torch.tensor([[True, False, False, False]])
    config = SamplingConfig(temperature=0, repetition_penalty=1.5)
    after = processors.process(log_probs, config, torch.zeros(4, dtype=torch.bool), seen).softmax(-1)
    others_before, others_after = 1 - log_probs.exp()[0, 0], 1 - after[0, 0]
    assert others_after > 5 * others_before


def test_forbidden_tokens_keep_no_probability_and_impossible_ones_do_no_harm() -> None:
    log_probs = torch.tensor([[-0.1, -math.inf, -3.0, -4.0]])
    forbidden = torch.tensor([True, False, False, False])
    config = SamplingConfig(repetition_penalty=1.1)
    scores = processors.process(log_probs, config, forbidden, torch.ones(1, 4, dtype=torch.bool))
    assert scores.softmax(-1)[0, :2].tolist() == [0, 0]
    assert torch.isfinite(scores[0, 2])


def test_scores_passed_in_stay_as_they_were(scores: torch.Tensor) -> None:
    before = scores.clone()
    config = SamplingConfig(temperature=0.5, top_k=3, top_p=0.5, min_p=0.3, repetition_penalty=1.2)
    seen = torch.ones_like(scores, dtype=torch.bool)
    processors.process(scores, config, torch.ones(500, dtype=torch.bool), seen)
    assert torch.equal(scores, before)
