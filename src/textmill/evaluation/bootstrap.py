"""Percentile bootstrap intervals of bits per byte. Touches no files."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from textmill.evaluation.score import DocumentScores

FEWEST_DOCUMENTS = 20
"""With fewer documents than this, segments are resampled instead."""
MOST_UNITS = 5000
"""More units than this are first thrown together at random into so many groups: the same spread, faster."""
DRAWS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A 95% interval of bits per byte.

    Attributes:
        low, high: its bounds.
        unit: what was resampled, "doc" or "segment".
    """

    low: float
    high: float
    unit: str


def ratio_interval(
    nats: np.ndarray, sizes: np.ndarray, *, resamples: int = 1000, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float] | None:
    """Percentile bootstrap interval (Efron 1979) of sum(nats) / ln 2 / sum(sizes) over units drawn with
    replacement.

    Both sums are taken over the same drawn units, so that long documents weigh as they do in the figure
    itself.

    Args:
        nats: float [units].
        sizes: bytes [units].
        resamples: how many times the units are drawn.
        seed: of the draws.
        confidence: share of the resamples inside the interval.

    Returns:
        (low, high) in bits per byte; None when fewer than two units hold any byte, which say nothing about
        spread.
    """
    nats, sizes = np.asarray(nats, dtype=np.float64), np.asarray(sizes, dtype=np.float64)
    if np.count_nonzero(sizes) < 2:
        return None
    generator = np.random.default_rng(seed)
    units = len(nats)
    if units > MOST_UNITS:
        group = generator.permutation(units) % MOST_UNITS
        nats = np.bincount(group, weights=nats, minlength=MOST_UNITS)
        sizes = np.bincount(group, weights=sizes, minlength=MOST_UNITS)
        units = MOST_UNITS
    rows = max(1, DRAWS_AT_ONCE // units)
    found = []
    for begin in range(0, resamples, rows):
        drawn = generator.integers(0, units, size=(min(rows, resamples - begin), units))
        top, bottom = nats[drawn].sum(axis=1), sizes[drawn].sum(axis=1)
        found.append(top[bottom > 0] / bottom[bottom > 0] / math.log(2))
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(np.concatenate(found), [tail, 100 - tail])
    return float(low), float(high)


def interval(scores: DocumentScores, *, resamples: int = 1000, seed: int = 0) -> Interval | None:
    """The 95% interval of a model's bits per byte over documents like these.

    With fewer than `FEWEST_DOCUMENTS` documents, segments of `SEGMENT_TOKENS` tokens are resampled instead:
    such an interval tells how sure the figure is for these very documents, and is too narrow for others,
    since segments of one document are alike. None when there is too little text for either.
    """
    if len(scores.first_segments) >= FEWEST_DOCUMENTS:
        unit, nats, sizes = "doc", scores.nats, scores.bytes
    else:
        unit, nats, sizes = "segment", scores.segment_nats, scores.segment_bytes
    bounds = ratio_interval(nats, sizes, resamples=resamples, seed=seed)
    return None if bounds is None else Interval(*bounds, unit)
