"""Trigram models with interpolated, modified Kneser-Ney smoothing, as flat tables. Touches nothing.

Chen and Goodman (1998, "An Empirical Study of Smoothing Techniques for Language Modeling", section 3.6), with the
discounts of its equation 26. Nothing is sampled or approximated; rare trigrams are pruned only above a limit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from textmill.corpus.kernels import inline, kernel, mix

UNKNOWN, BEGIN = 0, 1
"""Symbols that every vocabulary has: one that it lacks, and the begin of a sequence."""

_SHIFT = np.uint64(21)
_FREE = np.uint64(0xFFFFFFFFFFFFFFFF)
MOST_SYMBOLS = 1 << 21
"""A trigram is packed into 63 bits."""


class Tables(NamedTuple):
    """Log probabilities (base 2) and back-off weights; arrays may come from a file as they are.

    Attributes:
        single: float32 [symbols, 2], log probability of a symbol alone, and its weight as a context.
        pair_keys: uint64 [2**k], context and symbol packed, open addressing.
        pair_values: float32 [2**k, 2], log probability, and weight as a context.
        triple_keys: uint64 [2**k]; triple_values: float32 [2**k], log probability.
    """

    single: np.ndarray
    pair_keys: np.ndarray
    pair_values: np.ndarray
    triple_keys: np.ndarray
    triple_values: np.ndarray


@inline
def find(keys: np.ndarray, key: np.uint64) -> int:
    """Slot of a key, -1 when it is not there."""
    mask = np.uint64(len(keys) - 1)
    slot = mix(key) & mask
    while keys[slot] != key:
        if keys[slot] == _FREE:
            return -1
        slot = (slot + np.uint64(1)) & mask
    return np.int64(slot)  # type: ignore[return-value]  # int() would leave it unsigned


@kernel
def _insert(keys: np.ndarray, table: np.ndarray) -> None:
    """Slot int64 [n] of every key, put into `table`; keys differ."""
    mask = np.uint64(len(table) - 1)
    for place in range(len(keys)):
        slot = mix(keys[place]) & mask
        while table[slot] != _FREE:
            slot = (slot + np.uint64(1)) & mask
        table[slot] = keys[place]


@kernel
def _slots(keys: np.ndarray, table: np.ndarray, out: np.ndarray) -> None:
    for place in range(len(keys)):
        out[place] = find(table, keys[place])


def hashed(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A table at most half full of the keys uint64 [n], and the slot of each, int64 [n]."""
    size = 16
    while size < 2 * len(keys):
        size *= 2
    table = np.full(size, _FREE, dtype=np.uint64)
    _insert(keys, table)
    slots = np.empty(len(keys), dtype=np.int64)
    _slots(keys, table, slots)
    return table, slots


@inline
def log_probability(
    single: np.ndarray,
    pair_keys: np.ndarray,
    pair_values: np.ndarray,
    triple_keys: np.ndarray,
    triple_values: np.ndarray,
    first: int,
    second: int,
    symbol: int,
    context: int,
) -> tuple[float, int]:
    """Log probability (base 2) of a symbol after two others, and the slot of (second, symbol).

    `context` is the slot of (first, second), -1 for none; the first symbol after BEGIN has none.
    """
    pair = (np.uint64(second) << _SHIFT) | np.uint64(symbol)
    slot = find(pair_keys, pair)
    weight = 0.0
    if context >= 0:
        triple = find(triple_keys, (np.uint64(first) << np.uint64(42)) | pair)
        if triple >= 0:
            return np.float64(triple_values[triple]), slot
        weight = np.float64(pair_values[context, 1])
    if slot >= 0:
        return weight + np.float64(pair_values[slot, 0]), slot
    return weight + np.float64(single[second, 1]) + np.float64(single[symbol, 0]), slot


def _discounts(counts: np.ndarray) -> np.ndarray:
    """What is taken from counts of 0, 1, 2 and 3 or more, float64 [4]; a fallback where a count of counts is nil."""
    n1, n2, n3, n4 = (int(np.count_nonzero(counts == value)) for value in (1, 2, 3, 4))
    if min(n1, n2, n3, n4) == 0:
        return np.array([0.0, 0.5, 1.0, 1.5])
    share = n1 / (n1 + 2 * n2)
    values = np.array([0.0, 1 - 2 * share * n2 / n1, 2 - 3 * share * n3 / n2, 3 - 4 * share * n4 / n3])
    valid = np.all(values[1:] > 0) and np.all(values[1:] < [1, 2, 3])
    return values if valid else np.array([0.0, 0.5, 1.0, 1.5])


def _level(
    contexts: np.ndarray, counts: np.ndarray, lower: np.ndarray, kept: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One order of the recursion.

    Args:
        contexts: of each n-gram, sorted, [n].
        counts: adjusted counts, int64 [n].
        lower: probability of each n-gram's last symbol at the order below, float64 [n].
        kept: which n-grams stay in the model, bool [n].

    Returns:
        the interpolated probability of each n-gram [n], the distinct contexts, and the weight of each.
    """
    starts = np.flatnonzero(np.concatenate([[True], contexts[1:] != contexts[:-1]]))
    sizes = np.diff(np.concatenate([starts, [len(contexts)]]))
    totals = np.add.reduceat(counts, starts).astype(np.float64)
    discounted = counts - _discounts(counts)[np.minimum(counts, 3)]
    weights = 1.0 - np.add.reduceat(np.where(kept, discounted, 0.0), starts) / totals
    weights = np.maximum(weights, 1e-12)
    spread = np.repeat(np.arange(len(starts)), sizes)
    return discounted / totals[spread] + weights[spread] * lower, contexts[starts], weights


def estimate(ids: np.ndarray, symbols: int, most: int) -> Tables:
    """Fit a trigram model.

    Args:
        ids: int64 [n], sequences one after the other, each begun by BEGIN.
        symbols: how many there are, UNKNOWN and BEGIN included; at most MOST_SYMBOLS.
        most: trigrams and pairs that are kept without pruning those that were seen once.
    """
    ids = ids.astype(np.uint64)
    begin = np.uint64(BEGIN)
    inner = ids[1:] != begin
    pairs, pair_counts = np.unique(((ids[:-1] << _SHIFT) | ids[1:])[inner], return_counts=True)
    inner = (ids[1:-1] != begin) & (ids[2:] != begin)
    triples, triple_counts = np.unique(
        ((ids[:-2] << np.uint64(42)) | (ids[1:-1] << _SHIFT) | ids[2:])[inner], return_counts=True
    )
    low = np.uint64((1 << 42) - 1)
    # Adjusted counts: of how many symbols an n-gram is the continuation. Nothing precedes BEGIN: there counts stay.
    continued, continuations = np.unique(triples & low, return_counts=True)
    adjusted = pair_counts.astype(np.int64)
    from_begin = (pairs >> _SHIFT) == begin
    adjusted[~from_begin] = 0
    adjusted[np.searchsorted(pairs, continued)] += continuations
    adjusted = np.maximum(adjusted, 1)

    last = (pairs & np.uint64((1 << 21) - 1)).astype(np.int64)
    counts = np.bincount(last, minlength=symbols).astype(np.int64)
    total = float(counts.sum())
    discounted = counts - _discounts(counts[counts > 0])[np.minimum(counts, 3)]
    # BEGIN is never predicted, so the uniform distribution below is over the others.
    probability = discounted / total + (1.0 - discounted.sum() / total) / (symbols - 1)
    probability[BEGIN] = 1e-30

    keep_triples = triple_counts > 1 if len(triples) > most else np.ones(len(triples), bool)
    keep_pairs = np.ones(len(pairs), bool)
    if len(pairs) > most:
        keep_pairs = (adjusted > 1) | np.isin(pairs, triples[keep_triples] >> _SHIFT)
    pair_p, pair_contexts, pair_weights = _level(pairs >> _SHIFT, adjusted, probability[last], keep_pairs)
    below = pair_p[np.searchsorted(pairs, triples & low)]
    triple_p, triple_contexts, triple_weights = _level(triples >> _SHIFT, triple_counts, below, keep_triples)

    single = np.zeros((symbols, 2), dtype=np.float32)
    single[:, 0] = np.log2(probability)
    single[pair_contexts.astype(np.int64), 1] = np.log2(pair_weights)
    values = np.zeros((len(pairs), 2), dtype=np.float32)
    values[:, 0] = np.log2(pair_p)
    values[np.searchsorted(pairs, triple_contexts), 1] = np.log2(triple_weights)
    pair_keys, slots = hashed(pairs[keep_pairs])
    pair_values = np.zeros((len(pair_keys), 2), dtype=np.float32)
    pair_values[slots] = values[keep_pairs]
    triple_keys, slots = hashed(triples[keep_triples])
    triple_values = np.zeros(len(triple_keys), dtype=np.float32)
    triple_values[slots] = np.log2(triple_p[keep_triples])
    return Tables(single, pair_keys, pair_values, triple_keys, triple_values)
