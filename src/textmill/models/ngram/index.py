"""Where an n-gram stands in a list, by the place of its context and its last word. Touches nothing."""

from __future__ import annotations

import numpy as np

from textmill.corpus.kernels import inline, kernel, mix

FREE = np.uint64(0xFFFFFFFFFFFFFFFF)
_SHIFT = np.uint64(32)


@inline
def pack(context: int, word: int) -> np.uint64:
    """A context's place and a word as one key."""
    return (np.uint64(context) << _SHIFT) | np.uint64(word)


@kernel
def _add(keys: np.ndarray, places: np.ndarray, contexts: np.ndarray, words: np.ndarray, first: int) -> int:
    """Enter n-grams as number `first` and on. Gives the row of one that is there already, or -1."""
    mask = np.uint64(len(keys) - 1)
    for row in range(len(words)):
        key = pack(contexts[row], words[row])
        slot = mix(key) & mask
        while keys[slot] != FREE:
            if keys[slot] == key:
                return row
            slot = (slot + np.uint64(1)) & mask
        keys[slot] = key
        places[slot] = first + row
    return -1


@kernel
def _find(keys: np.ndarray, places: np.ndarray, contexts: np.ndarray, words: np.ndarray, out: np.ndarray) -> None:
    mask = np.uint64(len(keys) - 1)
    for row in range(len(words)):
        out[row] = -1
        if contexts[row] < 0:
            continue
        key = pack(contexts[row], words[row])
        slot = mix(key) & mask
        while keys[slot] != FREE:
            if keys[slot] == key:
                out[row] = places[slot]
                break
            slot = (slot + np.uint64(1)) & mask


class Index:
    """A hash table over the n-grams of one order.

    Args:
        size: how many there will be.
    """

    def __init__(self, size: int) -> None:
        slots = 1 << max(4, (3 * size // 2).bit_length())
        self.keys = np.full(slots, FREE, dtype=np.uint64)
        self.places = np.zeros(slots, dtype=np.int32)

    def add(self, contexts: np.ndarray, words: np.ndarray, first: int) -> int:
        """Enter n-grams, int32 [n] each, as number `first` and on; the row of one that was there already, or -1."""
        return int(_add(self.keys, self.places, contexts, words, first))

    def find(self, contexts: np.ndarray, words: np.ndarray) -> np.ndarray:
        """Their numbers, int32 [n]; -1 where there is no such n-gram or the context is -1."""
        out = np.empty(len(words), dtype=np.int32)
        _find(self.keys, self.places, contexts, np.ascontiguousarray(words), out)
        return out
