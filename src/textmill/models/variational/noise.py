"""Noise as a pure function of integer keys: a segment meets the same samples in whatever batch it comes."""

from __future__ import annotations

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer (Steele, Lea and Flood 2014) of uint64 values, element by element."""
    with np.errstate(over="ignore"):
        values = values.astype(np.uint64) + _GOLDEN
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))


def key_of(*parts: int) -> np.uint64:
    """One key made of several numbers, in their order."""
    key = np.zeros(1, dtype=np.uint64)
    for part in parts:
        key = mix(key ^ mix(np.array([part % (1 << 64)], dtype=np.uint64)))
    return np.uint64(key[0])


def content_keys(content: np.ndarray, seed: int) -> np.ndarray:
    """A key for each segment's tokens, uint64 [n], whatever padding (-1) follows them.

    Args:
        content: int64 [n, S], -1 after a segment's end.
        seed: names another choice of keys.
    """
    keys = np.full(len(content), key_of(seed), dtype=np.uint64)
    for column in content.T:
        keys = np.where(column >= 0, mix(keys ^ mix(column.astype(np.uint64))), keys)
    return keys


def uniform(keys: np.ndarray, size: int) -> np.ndarray:
    """float64 [n, size] in (0, 1), a function of each key."""
    counters = mix(np.arange(size, dtype=np.uint64))
    bits = mix(keys[:, None] ^ counters[None, :]) >> np.uint64(11)
    return (bits.astype(np.float64) + 0.5) / float(1 << 53)


def normal(keys: np.ndarray, *shape: int) -> np.ndarray:
    """float32 [n, *shape] standard normal, a function of each key (Box and Muller 1958)."""
    size = int(np.prod(shape))
    half = -(-size // 2)
    u = uniform(keys, 2 * half)
    radius, angle = np.sqrt(-2 * np.log(u[:, :half])), 2 * np.pi * u[:, half:]
    both = np.concatenate((radius * np.cos(angle), radius * np.sin(angle)), 1)
    return both[:, :size].astype(np.float32).reshape(len(keys), *shape)
