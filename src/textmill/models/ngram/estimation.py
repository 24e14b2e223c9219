"""From counts to probabilities and back-off weights: Kneser-Ney, Witten-Bell, add-k, maximum likelihood. No files.

All four are one recursion. For an n-gram of word w after context c, whose count is n:

    p(w | c) = (n - D(n)) / total(c) + left(c) * p(w | c without its first word)

where D is what smoothing takes from a count, total(c) the sum of the counts after c (and what smoothing adds to it),
and left(c) the share of c that goes to the order below; it is the back-off weight of c in the ARPA format. It ends in
the uniform distribution over the vocabulary. Pruned n-grams give their counts to left(c), so sums stay 1.

The arithmetic is in single precision in KenLM's order of operations, so that figures agree to the last digit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from textmill.base.errors import Failure
from textmill.corpus.kernels import kernel
from textmill.models.ngram.config import FALLBACK_DISCOUNTS, TrainingConfig, thresholds
from textmill.models.ngram.counting import Level, Space


@dataclass
class Order:
    """The n-grams of one order in the model, in suffix order.

    Attributes:
        context: int32 [n], place of the n-gram without its last word in the order below; empty in order 1.
        last: int32 [n], the last word; in order 1 every id, in order.
        log10: float32 [n], base-10 logarithm of its probability.
        backoff: float32 [n], base-10 logarithm of its weight as a context.
    """

    context: np.ndarray
    last: np.ndarray
    log10: np.ndarray
    backoff: np.ndarray

    def __len__(self) -> int:
        return len(self.last)


@dataclass
class Grams:
    """An n-gram model as a list of n-grams for each order, from 1.

    Attributes:
        orders: the n-grams.
        discounts: for each order what was taken from counts 0, 1, 2 and 3 or more; empty without Kneser-Ney.
    """

    orders: list[Order]
    discounts: list[tuple[float, ...]]

    @property
    def order(self) -> int:
        """Words of the longest n-gram."""
        return len(self.orders)

    def words(self, k: int, first: int, stop: int) -> np.ndarray:
        """The words of n-grams `first` to `stop` of order k, int32 [n, k], the first word first."""
        found = np.empty((stop - first, k), dtype=np.int32)
        place: np.ndarray | slice = slice(first, stop)
        for at in range(k - 1, -1, -1):
            found[:, at] = self.orders[at].last[place]
            if at:
                place = self.orders[at].context[place]
        return found


class DiscountError(ValueError):
    """Discounts cannot be estimated from these counts."""


def estimate_discounts(histogram: np.ndarray) -> np.ndarray:
    """What Kneser-Ney takes from counts of 0, 1, 2 and 3 or more, float32 [4].

    D_j = j - (j + 1) Y n_(j+1) / n_j with Y = n_1 / (n_1 + 2 n_2) (Chen and Goodman 1998, equation 26).

    Args:
        histogram: int64 [5], how many n-grams have the adjusted count 1 to 4, at their own places.

    Raises:
        DiscountError: some n_j is 0, or a discount leaves the range 0 to j.
    """
    n = [np.float32(value) for value in histogram]
    for count in (1, 2, 3):
        if n[count] == 0:
            raise DiscountError(f"no n-gram has the adjusted count {count}")
    share = n[1] / np.float32(float(histogram[1]) + 2.0 * float(histogram[2]))
    found = np.zeros(4, dtype=np.float32)
    for j in (1, 2, 3):
        found[j] = np.float32(j) - np.float32(j + 1) * share * n[j + 1] / n[j]
        if not 0 <= found[j] <= j:
            raise DiscountError(f"the discount of count {j} would be {found[j]:.4g}, outside 0 to {j}")
    return found


def _discounts(level: Level, k: int, config: TrainingConfig) -> np.ndarray:
    try:
        return estimate_discounts(level.histogram)
    except DiscountError as error:
        fallback = config.fallback()
        if fallback is None:
            raise Failure(
                f"Kneser-Ney finds no discounts for order {k}: {error}.",
                "The text is very small, very regular or repeats itself; discounts are made of how many n-grams occur "
                "once, twice, three and four times.",
                "Remove repeated lines, or give discounts to fall back on: "
                f"--discount-fallback {' '.join(f'{value:g}' for value in FALLBACK_DISCOUNTS)}. "
                "Another --smoothing needs none.",
            ) from None
        return np.array([0.0, *fallback], dtype=np.float32)


@kernel
def _sum_contexts(
    context: np.ndarray,
    counts: np.ndarray,
    raw: np.ndarray,
    threshold: int,
    totals: np.ndarray,
    kept: np.ndarray,
    lost: np.ndarray,
) -> None:
    """For each context the sum of its counts, how many kept n-grams have the count 1, 2 and 3 or more, int32 [n, 3],
    and the sum of the counts of those that are pruned."""
    for place in range(len(counts)):
        here = context[place]
        count: Any = np.int64(counts[place])
        totals[here] += count
        if raw[place] <= threshold:
            lost[here] += count
        elif count > 0:
            kept[here, min(count, 3) - 1] += 1


@kernel
def _weigh_contexts(
    totals: np.ndarray,
    kept: np.ndarray,
    lost: np.ndarray,
    discounts: np.ndarray,
    types: float,
    added: float,
    total: np.ndarray,
    left: np.ndarray,
) -> None:
    """total(c) and left(c), float32, of each context. `types`: how much each distinct n-gram adds to both
    (Witten-Bell: 1); `added`: how much is added to both (add-k: k V)."""
    for here in range(len(totals)):
        if totals[here] == 0:
            total[here] = np.float32(1)
            left[here] = np.float32(1)
            continue
        more = types * (kept[here, 0] + kept[here, 1] + kept[here, 2]) + added
        weight = np.float32(0)
        for j in range(3):
            weight += discounts[j + 1] * np.float32(kept[here, j])
        weight += np.float32(np.float64(lost[here]) + more)
        total[here] = np.float32(np.float64(totals[here]) + more)
        left[here] = weight / total[here]


@kernel
def _probabilities(
    context: np.ndarray,
    suffix: np.ndarray,
    counts: np.ndarray,
    discounts: np.ndarray,
    total: np.ndarray,
    left: np.ndarray,
    below: np.ndarray,
    out: np.ndarray,
) -> None:
    for place in range(len(counts)):
        count = counts[place]
        here = context[place]
        share = (np.float32(count) - discounts[min(count, 3)]) / total[here]
        out[place] = share + left[here] * below[suffix[place]]


@kernel
def _logs(values: np.ndarray, places: np.ndarray, all_places: bool, out: np.ndarray) -> None:
    """Base-10 logarithms float32 of values[places], at most 0."""
    for at in range(len(out)):
        value = values[at] if all_places else values[places[at]]
        out[at] = min(np.float32(0), np.float32(math.log10(value)))


@kernel
def _keep(raw: np.ndarray, threshold: int, places: np.ndarray, renumber: np.ndarray) -> int:
    """Places of the n-grams that are not pruned, and for every one its new place. Gives their number."""
    count = 0
    for place in range(len(raw)):
        renumber[place] = count
        if raw[place] > threshold:
            places[count] = place
            count += 1
    return count


def _contexts(
    context: np.ndarray,
    counts: np.ndarray,
    raw: np.ndarray,
    threshold: int,
    discounts: np.ndarray,
    types: float,
    added: float,
    size: int,
    space: Space,
) -> tuple[np.ndarray, np.ndarray]:
    """total(c) and left(c) of the `size` contexts of one order, float32."""
    totals, lost = space.empty(size, np.int64), space.empty(size, np.int64)
    kept = space.empty(3 * size, np.int32).reshape(size, 3)
    for array in (totals, lost, kept):
        array[...] = 0
    _sum_contexts(context, counts, raw, threshold, totals, kept, lost)
    total, left = space.empty(size, np.float32), space.empty(size, np.float32)
    _weigh_contexts(totals, kept, lost, discounts, types, added, total, left)
    return total, left


def estimate(
    levels: list[Level],
    config: TrainingConfig,
    begin: int,
    space: Space,
    *,
    vocabulary: int | None = None,
    special: int = 3,
) -> tuple[Grams, np.ndarray]:
    """The model of these counts.

    Args:
        levels: as `count_orders` gives them; used up.
        config: smoothing and pruning.
        begin: the id that begins sentences; it has the probability 1, which nothing reads.
        space: where arrays go.
        vocabulary: words among which the uniform distribution is spread, all of them staying; None takes those that
            are not pruned, `begin` aside.
        special: ids below this are never pruned.

    Returns:
        the model; and for each id whether it is in it, bool. The model's ids are numbered anew, without those that
        are not.

    Raises:
        Failure: Kneser-Ney discounts cannot be estimated and there are none to fall back on.
    """
    limits = thresholds(config.prune, config.order)
    kneser_ney = config.smoothing == "kneser-ney"
    if vocabulary is None:
        present = levels[0].counts > limits[0]
        present[:special] = True
        words = int(present.sum()) - 1
    else:
        present = np.ones(len(levels[0]), dtype=np.bool_)
        words = vocabulary
    uniform = np.float32(1.0 / float(np.float32(words)))
    types = 1.0 if config.smoothing == "witten-bell" else 0.0
    added = config.k * words if config.smoothing == "add-k" else 0.0
    orders: list[Order] = []
    taken: list[tuple[float, ...]] = []
    below = np.array([uniform], dtype=np.float32)  # probabilities one order down, pruned n-grams included
    places = renumber = ids = nothing = np.zeros(
        0, dtype=np.int32
    )  # of the order below: what is kept, and its new places
    whole = True  # whether nothing of the order below is pruned
    begins = np.zeros(1, dtype=np.bool_)  # whether the n-grams of the order below begin a sentence
    for k in range(1, config.order + 1):
        level = levels[k - 1]
        levels[k - 1] = Level(*[np.zeros(0, dtype=np.int32)] * 6)
        counts = level.adjusted if kneser_ney else level.counts
        raw = np.where(present, limits[0] + 1, 0).astype(np.int32) if k == 1 else level.counts
        if k == 1:
            level.context = level.suffix = np.zeros(len(level), dtype=np.int32)
        discounts = np.zeros(4, dtype=np.float32)
        if kneser_ney:
            discounts = _discounts(level, k, config)
            taken.append(tuple(float(value) for value in discounts))
        total, left = _contexts(level.context, counts, raw, limits[k - 1], discounts, types, added, len(below), space)
        probabilities = space.empty(len(level), np.float32)
        _probabilities(level.context, level.suffix, counts, discounts, total, left, below, probabilities)
        if config.smoothing == "add-k" and k < config.order:
            # Only whole contexts are counted: the full length, or less at the begin of a sentence. Others hand on.
            left[~begins] = 1
            begins = level.last == begin if k == 1 else begins[level.context]
            probabilities[~begins] = uniform
        if k == 1:
            probabilities[begin] = 1
        else:
            _logs(left, places, whole, orders[-1].backoff)
        whole = bool(limits[k - 1] == 0 if k > 1 else present.all())
        context, last = level.context, level.last
        new = places = nothing
        here = len(level)
        if not whole:
            places, new = space.empty(len(level), np.int32), space.empty(len(level), np.int32)
            here = _keep(raw, limits[k - 1], places, new)
            places = places[:here]
            context, last = context[places], last[places]
        order = Order(
            context=nothing if k == 1 else context if not len(renumber) else renumber[context],
            last=np.arange(here, dtype=np.int32) if k == 1 else last if not len(ids) else ids[last],
            log10=space.empty(here, np.float32),
            backoff=space.empty(here, np.float32),
        )
        order.backoff[...] = 0
        _logs(probabilities, places, whole, order.log10)
        renumber = new
        if k == 1:
            ids = new
        orders.append(order)
        below = probabilities
    return Grams(orders, taken), present
