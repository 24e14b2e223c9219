"""Mixtures of two language models: linear, log-linear, and with a cache of the document so far. Touches nothing.

The weight is fitted on the validation documents and the result measured on the test documents too, which it never saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

CACHE_TOKENS = 1000
"""Tokens that the cache remembers (Kuhn and De Mori 1990)."""
LOG_LINEAR_TOKENS = 4096
"""Tokens of each split that a log-linear mixture is fitted and measured on: it needs whole distributions."""


@dataclass(frozen=True)
class Scored:
    """Log-probabilities of one model on the drawn documents of a split, as far as it came.

    Attributes:
        log_probs: float64 [tokens], nats.
        lengths: int64 [documents].
    """

    log_probs: np.ndarray
    lengths: np.ndarray


def fit_linear(first: np.ndarray, second: np.ndarray, rounds: int = 60) -> float:
    """The weight of the second model that makes the mixture of both most likely.

    Args:
        first, second: float64 [tokens], log-probabilities in nats of the same tokens.
        rounds: of halving the interval that holds the weight.

    Returns:
        w from 0 to 1 in p = (1 - w) p1 + w p2. The likelihood is concave in w, so its slope has one sign on each side
        of the maximum, which halving finds (EM, as Jelinek and Mercer 1980 do it, creeps where w nears 0 or 1).
    """
    gain = np.expm1(np.clip(second - first, -700, 700))  # p2 / p1 - 1

    def slope(weight: float) -> float:
        with np.errstate(divide="ignore", over="ignore"):
            return float(np.mean(gain / (1 + weight * gain)))

    low, high = 0.0, 1.0
    if slope(0.0) <= 0:
        return 0.0
    if slope(1.0) >= 0:
        return 1.0
    for _ in range(rounds):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return (low + high) / 2


def mix_linear(first: np.ndarray, second: np.ndarray, weight: float) -> np.ndarray:
    """Log-probabilities of the linear mixture, float64 [tokens]."""
    with np.errstate(divide="ignore"):
        return np.logaddexp(np.log1p(-weight) + first, np.log(weight) + second)


def cache_log_probs(documents: Sequence[np.ndarray], size: int = CACHE_TOKENS) -> np.ndarray:
    """Log-probability of each token under the share that it has among the last `size` tokens of its document.

    -inf where it is not among them; the first token of a document has an empty cache.
    """
    found = []
    for ids in documents:
        order = np.argsort(ids, kind="stable")
        ranked = ids[order]
        place = np.arange(len(ids))
        # For each token, how many equal ones came before it, and how many of those are out of the window.
        begins = np.searchsorted(ranked, ids, side="left")
        rank = np.empty(len(ids), np.int64)
        rank[order] = place
        before = rank - begins
        outside = np.empty(len(ids), np.int64)
        keys = ranked.astype(np.int64) * (len(ids) + 1) + order
        outside = np.searchsorted(keys, ids.astype(np.int64) * (len(ids) + 1) + np.maximum(0, place - size)) - begins
        count = before - np.minimum(outside, before)
        held = np.minimum(place, size)
        with np.errstate(divide="ignore"):
            found.append(np.log(count) - np.log(np.maximum(held, 1)))
    return np.concatenate(found) if found else np.zeros(0)


def common(first: Scored, second: Scored) -> tuple[np.ndarray, np.ndarray, int]:
    """The log-probabilities of both on the documents that both scored, and how many documents those are."""
    documents = min(len(first.lengths), len(second.lengths))
    tokens = int(first.lengths[:documents].sum())
    return first.log_probs[:tokens], second.log_probs[:tokens], documents


class LogLinear:
    """p(w) proportional to p1(w)^a p2(w)^b, with a and b fitted by maximum likelihood (Klakow 1998).

    Args:
        models: two language models of one vocabulary that can be read from left to right.
        document_begin: what every document is read after.
    """

    def __init__(self, models: tuple[Any, Any], document_begin: int) -> None:
        self.models, self.document_begin = models, document_begin
        self.weights = (0.5, 0.5)

    def distributions(self, documents: Sequence[np.ndarray], tokens: int) -> tuple[torch.Tensor, ...]:
        """Log-probabilities [n, V] of both models, and the targets [n], of the first `tokens` tokens or so."""
        parts: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        left = tokens
        for ids in documents:
            if left <= 0:
                break
            ids = ids[: min(left, 512)]
            left -= len(ids)
            read = torch.from_numpy(np.concatenate(([self.document_begin], ids[:-1])).astype(np.int64))[None]
            with torch.inference_mode():
                one, two = (model.read(read, model.start(1))[0][0].float() for model in self.models)
            parts.append((one, two, torch.from_numpy(ids.astype(np.int64))))
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))

    def nats(self, both: tuple[torch.Tensor, ...], weights: torch.Tensor) -> torch.Tensor:
        """Mean nats of the targets; convex in the weights."""
        one, two, targets = both
        total = torch.zeros(())
        for start in range(0, len(targets), 512):
            rows = slice(start, start + 512)
            mixed = weights[0] * one[rows] + weights[1] * two[rows]
            chosen = mixed.gather(1, targets[rows, None])[:, 0]
            total = total + (mixed.logsumexp(1) - chosen).sum()
        return total / len(targets)

    def fit(self, both: tuple[torch.Tensor, ...]) -> tuple[float, float]:
        """Weights (a, b) that make these targets most likely."""
        both = (both[0].clone(), both[1].clone(), both[2].clone())
        weights = torch.tensor([0.5, 0.5], requires_grad=True)
        optimizer = torch.optim.LBFGS([weights], max_iter=25, line_search_fn="strong_wolfe")

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = self.nats(both, weights)
            loss.backward()
            return loss

        optimizer.step(closure)
        self.weights = (float(weights.detach()[0]), float(weights.detach()[1]))
        return self.weights
