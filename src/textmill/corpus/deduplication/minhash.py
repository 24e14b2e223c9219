"""MinHash signatures of texts: band keys to find candidates by, and a digest to estimate their similarity from.
Touches nothing but numba's cache of compiled code.

Broder, "On the resemblance and containment of documents" (1997); the digest keeps eight bits of each minimum as in
Li and König, "b-Bit Minwise Hashing" (2010).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from textmill.corpus.deduplication.shingles import batches, shingle
from textmill.corpus.kernels import kernel, mix
from textmill.corpus.texts import Texts

BANDS = 28
"""Bands: a pair is a candidate when it agrees in a whole one."""
ROWS = 4
"""Permutations of a band. 28 x 4 finds 99.95% of the pairs at Jaccard 0.7 (`recall_at`); the false candidates that it
finds besides cost an estimate each, as every candidate is verified."""
PERMUTATIONS = BANDS * ROWS
MATCH_BY_CHANCE = 1 / 256
"""How often eight bits of two different minima agree."""

_BLOCK = 2048
_PAD = 64
_S16 = np.uint32(16)
_S32 = np.uint64(32)
_SEED = 0x7E57


class Signatures(NamedTuple):
    """MinHash signatures of n texts.

    Attributes:
        keys: uint32 [n, BANDS]; equal where a band's four minima are equal. 0 in all bands: a text without words,
            which matches none.
        digest: uint8 [n, PERMUTATIONS]; eight bits of each minimum.
    """

    keys: np.ndarray
    digest: np.ndarray


def _parameters() -> tuple[np.ndarray, np.ndarray]:
    """Multipliers (odd) and addends of the permutations x -> a x + b modulo 2^32, by SplitMix64."""
    state, drawn = _SEED, []
    for _ in range(2 * PERMUTATIONS):
        state = (state + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        value = state
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        drawn.append((value ^ (value >> 31)) >> 32)
    return np.array(drawn[::2], np.uint32) | np.uint32(1), np.array(drawn[1::2], np.uint32)


_MULTIPLIERS, _ADDENDS = _parameters()


@kernel
def _sign(
    values: np.ndarray,
    offsets: np.ndarray,
    multipliers: np.ndarray,
    addends: np.ndarray,
    rows: int,
    keys: np.ndarray,
    digest: np.ndarray,
) -> None:
    lanes = multipliers.shape[0]
    block = np.empty(_BLOCK, np.uint32)
    minima = np.empty(lanes, np.uint32)
    for row in range(offsets.shape[0] - 1):
        start, stop = offsets[row], offsets[row + 1]
        if start == stop:
            keys[row] = 0
            digest[row] = 0
            continue
        minima[:] = np.uint32(0xFFFFFFFF)
        while start < stop:
            count = min(_BLOCK, stop - start)
            for at in range(count):
                block[at] = np.uint32(values[start + at] >> _S32)
            start += count
            # A multiple of the vector length leaves no remainder to a slow loop; a repeated value changes no minimum.
            padded = min((count + _PAD - 1) // _PAD * _PAD, _BLOCK)
            for at in range(count, padded):
                block[at] = block[count - 1]
            for lane in range(lanes):
                a, b, least = multipliers[lane], addends[lane], minima[lane]
                for at in range(padded):
                    least = min(least, np.uint32(np.uint32(a * block[at]) + b))
                minima[lane] = least
        for lane in range(lanes):
            digest[row, lane] = mix(np.uint64(minima[lane])) >> _S32 & np.uint64(0xFF)
        for band in range(lanes // rows):
            value = np.uint64(band)
            for lane in range(band * rows, (band + 1) * rows):
                value = mix(value ^ np.uint64(minima[lane])) + np.uint64(lane)
            key = np.uint32(mix(value) >> _S32)
            keys[row, band] = key if key != 0 else np.uint32(1)


def sign(texts: Texts) -> Signatures:
    """MinHash signatures of five-word shingles: 112 permutations in 28 bands of 4."""
    keys = np.empty((len(texts), BANDS), np.uint32)
    digest = np.empty((len(texts), PERMUTATIONS), np.uint8)
    for first, last in batches(texts):
        values, offsets, _ = shingle(texts, first, last)
        _sign(values, offsets, _MULTIPLIERS, _ADDENDS, ROWS, keys[first:last], digest[first:last])
    return Signatures(keys, digest)


def estimated_jaccard(matches: np.ndarray) -> np.ndarray:
    """Jaccard similarity estimated from the number of equal bytes of two digests; unbiased, so it may be below 0.

    Li and König (2010), theorem 1 for sets much smaller than the space of hashes: P[equal] = J + (1 - J) / 256.
    """
    return (np.asarray(matches) / PERMUTATIONS - MATCH_BY_CHANCE) / (1 - MATCH_BY_CHANCE)


def recall_at(similarity: float, bands: int = BANDS, rows: int = ROWS) -> float:
    """Probability that a pair of this Jaccard similarity agrees in a whole band: 1 - (1 - J^rows)^bands."""
    return 1 - (1 - similarity**rows) ** bands


def matches_beyond(similarity: float, probability: float) -> tuple[int, int]:
    """Bounds of the number of equal bytes of two digests at this Jaccard similarity.

    Returns:
        (low, high): fewer than `low`, and `high` or more, are each less likely than `probability`.
    """
    p = similarity + (1 - similarity) * MATCH_BY_CHANCE
    n = PERMUTATIONS
    mass = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
    low = max(k for k in range(n + 1) if math.fsum(mass[:k]) < probability)
    high = min((k for k in range(n + 1) if math.fsum(mass[k:]) < probability), default=n + 1)
    return low, high
