"""Settings of n-gram models. Imports neither torch nor numba."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Literal

from textmill.base.errors import UsageError

MAX_ORDER = 6
Smoothing = Literal["kneser-ney", "witten-bell", "add-k", "maximum-likelihood"]
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
"""Discounts of counts 1, 2 and 3+ where a text is too small or too regular to estimate them (lmplz's defaults)."""


def check_order(order: int) -> None:
    """Raise a UsageError for an order that is not possible."""
    if not 1 <= order <= MAX_ORDER:
        raise UsageError(
            f"An n-gram model of order {order} cannot be made.", fix=f"Choose an order from 1 to {MAX_ORDER}."
        )


def thresholds(prune: tuple[int, ...], order: int) -> tuple[int, ...]:
    """The highest count that is pruned, for each order; the last value given holds for all that follow.

    Raises:
        UsageError: the counts fall, are negative, or are more than the orders.
    """
    given = " ".join(map(str, prune))
    if len(prune) > order:
        raise UsageError(
            f"{len(prune)} pruning counts were given for a model of order {order}.",
            "There is one count for each order, from 1 up.",
            f"Give at most {order}, as --prune 0 0 1.",
        )
    if any(count < 0 for count in prune) or any(low > high for low, high in itertools.pairwise(prune)):
        raise UsageError(
            f'The pruning counts "{given}" cannot be used.',
            "They must not be negative nor fall from one order to the next: an n-gram needs its own parts.",
            "Give them as --prune 0 0 1.",
        )
    return (*prune, *([prune[-1] if prune else 0] * (order - len(prune))))


@dataclass(frozen=True)
class TrainingConfig:
    """How n-grams become a model."""

    order: int = 3
    """Words of the longest n-gram, 1 to 6. Higher ones pay with more text: 3 below a few MB, 5 above."""
    smoothing: Smoothing = "kneser-ney"
    """How probability is kept for what was not seen. kneser-ney: interpolated and modified, as lmplz's, the best.
    witten-bell: needs no discounts, for class-like or very small vocabularies. add-k: each n-gram counted k times
    more, for teaching. maximum-likelihood: none; what was not seen is impossible."""
    k: float = 1.0
    """What add-k adds to each count; 1 is Laplace."""
    prune: tuple[int, ...] = ()
    """For each order from 1 the highest count of the n-grams that are left out; the last holds for all higher ones."""
    discount_fallback: tuple[float, ...] | None = None
    """Kneser-Ney discounts of counts 1, 2 and 3+ for the orders whose own cannot be estimated; without them such a
    text is refused."""

    def __post_init__(self) -> None:
        check_order(self.order)
        thresholds(self.prune, self.order)
        if not 0 < self.k < float("inf"):
            raise UsageError(f"add-k cannot add {self.k} to the counts.", fix="Give a positive --k, such as 0.1.")
        if self.discount_fallback is not None:
            self.fallback()

    def fallback(self) -> tuple[float, float, float] | None:
        """The discounts of counts 1, 2 and 3+ to fall back on; the last given stands for those that are missing."""
        given = self.discount_fallback
        if given is None:
            return None
        if not 1 <= len(given) <= 3 or not all(0 <= value <= at for value, at in zip(given, (1, 2, 3), strict=False)):
            raise UsageError(
                f"The fallback discounts {given} are not possible.",
                "There are up to three, for counts 1, 2 and 3 or more; none may be below 0 or above its count.",
                "Give for example --discount-fallback 0.5 1 1.5.",
            )
        one, two, more = (given[min(at, len(given) - 1)] for at in range(3))
        return one, two, more


@dataclass(frozen=True)
class NGramConfig:
    """The n-gram family over the token ids of a run."""

    vocabulary: int
    """Number of token ids, V."""
    document_end: int = 0
    """Id of the document-end token, which stands before and after each document."""
    order: int = 5
    """Tokens of the longest n-gram, 1 to 6."""
    smoothing: Smoothing = "kneser-ney"
    """As in `TrainingConfig`."""
    k: float = 1.0
    """What add-k adds."""
    prune: tuple[int, ...] = ()
    """As in `TrainingConfig`; order 1 is never pruned, since every token must have a probability."""
    discount_fallback: tuple[float, ...] = field(default=FALLBACK_DISCOUNTS)
    """Kneser-Ney discounts where a corpus is too small to estimate its own."""

    def __post_init__(self) -> None:
        for name in ("prune", "discount_fallback"):  # JSON knows lists alone
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.vocabulary < 1 or not 0 <= self.document_end < self.vocabulary:
            raise UsageError(
                f"A vocabulary of {self.vocabulary} tokens with document end {self.document_end} is not possible."
            )
        self.training()

    def training(self) -> TrainingConfig:
        """The settings of the estimation."""
        prune = (0, *self.prune[1:]) if self.prune else ()
        return TrainingConfig(self.order, self.smoothing, self.k, prune, self.discount_fallback)

    @property
    def matmul_parameters(self) -> int:
        """Weights that multiply each token: none, n-grams are looked up."""
        return 0

    def flops_per_token(self) -> float:
        """Floating-point operations of training a token; counting takes next to none."""
        return 0.0
