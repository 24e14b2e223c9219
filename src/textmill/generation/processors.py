"""From log-probabilities to a choice: small pure functions on scores [B, V]. Touches nothing.

Scores are logits up to a constant for each row. Each function returns new scores; a token that is ruled out
gets -inf. The formulas are those of the classes of the same name in `transformers.generation`, checked
against them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from textmill.generation.config import SamplingConfig

OUT = float("-inf")


def forbid(scores_BV: Tensor, forbidden_V: Tensor) -> Tensor:
    """Rule out the tokens marked in `forbidden_V` (bool)."""
    return scores_BV.masked_fill(forbidden_V, OUT)


def center(scores_BV: Tensor) -> Tensor:
    """Shift each row so that its finite scores have mean zero.

    The repetition penalty depends on where zero lies. Log-probabilities are never above zero, and there a
    token of probability 0.99 would hardly be punished (-0.01 * 1.1); trained logits lie around zero, and so
    do these.
    """
    finite = torch.isfinite(scores_BV)
    total = torch.where(finite, scores_BV, 0.0).sum(-1, keepdim=True)
    return scores_BV - total / finite.sum(-1, keepdim=True).clamp(min=1)


def repetition_penalty(scores_BV: Tensor, seen_BV: Tensor, penalty: float) -> Tensor:
    """Divide positive and multiply negative scores of tokens in `seen_BV` by `penalty` (CTRL, 4.1)."""
    punished = torch.where(scores_BV < 0, scores_BV * penalty, scores_BV / penalty)
    return torch.where(seen_BV, punished, scores_BV)


def temperature(scores_BV: Tensor, value: float) -> Tensor:
    """Divide the scores by the temperature (above 0)."""
    return scores_BV / value


def top_k(scores_BV: Tensor, k: int) -> Tensor:
    """Keep the k likeliest tokens, and those that tie with the last of them."""
    k = min(k, scores_BV.shape[-1])
    return scores_BV.masked_fill(scores_BV < torch.topk(scores_BV, k).values[..., -1:], OUT)


def top_p(scores_BV: Tensor, p: float) -> Tensor:
    """Keep the likeliest tokens whose probabilities reach `p`, at least one (Holtzman et al. 2020)."""
    ascending, order = torch.sort(scores_BV, descending=False)
    drop = ascending.softmax(-1).cumsum(-1) <= 1 - p
    drop[..., -1] = False
    return scores_BV.masked_fill(drop.scatter(-1, order, drop), OUT)


def min_p(scores_BV: Tensor, p: float) -> Tensor:
    """Keep tokens at least `p` times as likely as the likeliest one (Nguyen et al. 2024, sec. 3)."""
    probabilities = scores_BV.softmax(-1)
    best, where = probabilities.max(-1, keepdim=True)
    drop = probabilities < p * best
    return scores_BV.masked_fill(drop.scatter(-1, where, False), OUT)


def process(log_probs_BV: Tensor, config: SamplingConfig, forbidden_V: Tensor, seen_BV: Tensor | None) -> Tensor:
    """All of the above that `config` switches on, in the order that `transformers` applies them.

    Args:
        log_probs_BV: what the model says, [B, V] in nats.
        config: the settings.
        forbidden_V: tokens that may never come, bool [V].
        seen_BV: tokens already read or written, bool [B, V]; needed for the repetition penalty only.

    Returns:
        scores [B, V]: their argmax is the greedy choice, their softmax the distribution to draw from.
    """
    scores = log_probs_BV.float()
    if config.repetition_penalty != 1:
        assert seen_BV is not None, "the repetition penalty needs the tokens seen so far"
        scores = repetition_penalty(center(scores), seen_BV, config.repetition_penalty)
    scores = forbid(scores, forbidden_V)
    if config.temperature == 0:
        return scores
    scores = temperature(scores, config.temperature)
    if config.top_k:
        scores = top_k(scores, config.top_k)
    if config.top_p < 1:
        scores = top_p(scores, config.top_p)
    if config.min_p:
        scores = min_p(scores, config.min_p)
    return scores
