"""From log-probabilities to a choice: small pure functions on scores [..., V]. Touches nothing.

Scores are logits up to a constant for each row. Each function returns new scores; a token that is ruled out gets -inf.
The formulas are those of the classes of the same name in `transformers.generation`, checked against them, where both
have one; the others follow their papers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from textmill.generation.config import SamplingConfig

OUT = float("-inf")
FIRST_CANDIDATES = 512
"""Tokens that top_p sorts at first: nearly always enough, and a full sort of 50,000 takes milliseconds."""


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
    """Keep the likeliest tokens whose probabilities reach `p`, at least one (Holtzman et al. 2020).

    A token stays if those likelier than it hold less than `p`. Only as many tokens as that takes are sorted.
    """
    size, vocabulary = FIRST_CANDIDATES, scores_BV.shape[-1]
    if p >= 1:
        return scores_BV
    probabilities = scores_BV.softmax(-1)
    while True:
        size = min(size, vocabulary)
        best, where = torch.topk(probabilities, size)
        above = best.double().cumsum(-1) - best
        if size == vocabulary or bool((above[..., -1] >= p).all()):
            break
        size *= 8
    keep = above < p
    keep[..., 0] = True
    kept = torch.zeros_like(scores_BV, dtype=torch.bool).scatter(-1, where, keep)
    return scores_BV.masked_fill(~kept, OUT)


def min_p(scores_BV: Tensor, p: float) -> Tensor:
    """Keep tokens at least `p` times as likely as the likeliest one (Nguyen et al. 2024, sec. 3)."""
    probabilities = scores_BV.softmax(-1)
    best, where = probabilities.max(-1, keepdim=True)
    drop = probabilities < p * best
    return scores_BV.masked_fill(drop.scatter(-1, where, False), OUT)


def typical_p(scores_BV: Tensor, p: float) -> Tensor:
    """Keep the tokens whose surprise is nearest to the entropy, until they hold `p` (Meister et al. 2023)."""
    log_probs = scores_BV.log_softmax(-1)
    entropy = -(log_probs * log_probs.exp()).nansum(-1, keepdim=True)
    far, order = torch.sort((-log_probs - entropy).abs())
    sums = scores_BV.gather(-1, order).softmax(-1).cumsum(-1)
    last = (sums < p).sum(-1, keepdim=True).clamp(max=sums.shape[-1] - 1)
    drop = far > far.gather(-1, last)
    return scores_BV.masked_fill(drop.scatter(-1, order, drop), OUT)


def top_n_sigma(scores_BV: Tensor, n: float) -> Tensor:
    """Keep scores at least max - n standard deviations of the scores not ruled out yet (Tang et al. 2024, eq. 3)."""
    finite = torch.isfinite(scores_BV)
    count = finite.sum(-1, keepdim=True).clamp(min=1)
    safe = torch.where(finite, scores_BV, 0.0)
    mean = safe.sum(-1, keepdim=True) / count
    variance = torch.where(finite, (scores_BV - mean) ** 2, 0.0).sum(-1, keepdim=True) / count
    return scores_BV.masked_fill(scores_BV < scores_BV.amax(-1, keepdim=True) - n * variance.sqrt(), OUT)


def exclude_top_choices(scores_V: Tensor, threshold: float) -> Tensor:
    """Rule out every token of probability at least `threshold` but the least likely of them (XTC)."""
    probabilities = scores_V.softmax(-1)
    likely = (probabilities >= threshold).nonzero()[:, 0]
    if len(likely) < 2:
        return scores_V
    kept = likely[probabilities[likely].argmin()]
    drop = torch.zeros_like(scores_V, dtype=torch.bool)
    drop[likely] = True
    drop[kept] = False
    return scores_V.masked_fill(drop, OUT)


def surprise_below(scores_V: Tensor, limit: float) -> Tensor:
    """Keep tokens of at most `limit` bits of surprise, at least the likeliest (mirostat 2, algorithm 3, line 6)."""
    bits = scores_V.log_softmax(-1) / -0.6931471805599453
    drop = bits > limit
    drop[scores_V.argmax()] = False
    return scores_V.masked_fill(drop, OUT)


def truncate(scores_BV: Tensor, config: SamplingConfig) -> Tensor:
    """Temperature and every truncation that `config` switches on, in the order in which `transformers` applies them.

    Args:
        scores_BV: what may come, [..., V], penalties done.
        config: the settings, with a temperature above 0.

    Returns:
        scores whose softmax is the distribution to draw from (before XTC and mirostat, which are one row's own).
    """
    scores = temperature(scores_BV, config.temperature)
    if config.top_n_sigma:
        scores = top_n_sigma(scores, config.top_n_sigma)
    if config.top_k:
        scores = top_k(scores, config.top_k)
    if config.top_p < 1:
        scores = top_p(scores, config.top_p)
    if config.min_p and not config.mirostat:
        scores = min_p(scores, config.min_p)
    if config.typical_p < 1:
        scores = typical_p(scores, config.typical_p)
    return scores
