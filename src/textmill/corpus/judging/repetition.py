"""Repeated lines, paragraphs and n-grams of a text, counted exactly as datatrove's GopherRepetitionFilter scans them,
in time linear in the words. Touches nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from textmill.corpus.judging.words import BASE
from textmill.corpus.kernels import inline, kernel

_SEPARATOR = np.uint64(0xD6E8FEB86659FD93)
_SCATTER = np.uint64(0x9FB21C651E98DF25)
"""Odd multiplier, whose product has its best bits at the top."""


@inline
def clear(table: np.ndarray, items: int) -> int:
    """Empty the first slots of a table, twice as many as items and a power of two; 64 less the bits of a slot."""
    shift = 60
    while (1 << (64 - shift)) < 2 * items:
        shift -= 1
    table[: 1 << (64 - shift)] = 0
    return shift


@inline
def first_of(table: np.ndarray, shift: int, keys: np.ndarray, at: int) -> int:
    """Where the key of item `at` was entered first; enters it when it is new, and returns `at`."""
    key = keys[at]
    slot = np.int64((key * _SCATTER) >> np.uint64(shift))
    last = (1 << (64 - shift)) - 1
    found = at
    while table[slot] != 0:
        if keys[table[slot] - 1] == key:
            found = table[slot] - 1
            break
        slot = (slot + 1) & last
    if found == at:
        table[slot] = at + 1
    return found


@inline
def _entry(key: np.uint64) -> np.uint64:
    """What stands for a key in a table of keys; never 0, which marks a free slot. One bit of 64 is lost, after the
    product has spread every bit of the key over those that stay."""
    return (key * _SCATTER) | np.uint64(1)


@inline
def _place(seen: np.ndarray, shift: int, entry: np.uint64) -> int:
    """Slot that holds the entry, or the free one where it belongs."""
    slot: Any = np.int64(entry >> np.uint64(shift))
    last = (1 << (64 - shift)) - 1
    while seen[slot] != 0 and seen[slot] != entry:
        slot = (slot + 1) & last
    return slot


@kernel
def top_ngram(grams: np.ndarray, sizes: np.ndarray, count: int, order: int, seen: np.ndarray, tally: np.ndarray) -> int:
    """Characters that the most frequent n-gram covers: its length with joining spaces, times its count.

    Of equally frequent ones the first to appear counts.

    Args:
        grams: uint64 [>= count], a hash of each n-gram.
        sizes: int32, characters of each word.
        count: number of n-grams.
        order: words in one.
        seen: room for a hash table, uint64.
        tally: room for its counts, int32.
    """
    shift = clear(seen, count)
    best = 0
    for at in range(count):
        entry = _entry(grams[at])
        slot = _place(seen, shift, entry)
        if seen[slot] == 0:
            seen[slot] = entry
            tally[slot] = 0
        tally[slot] += 1
        best = max(best, tally[slot])
    for at in range(count):
        if tally[_place(seen, shift, _entry(grams[at]))] == best:
            length = order - 1
            for word in range(at, at + order):
                length += sizes[word]
            return length * best
    return 0


@kernel
def repeated_ngrams(grams: np.ndarray, ends: np.ndarray, count: int, order: int, seen: np.ndarray) -> int:
    """Characters in n-grams that occurred before, none counted twice: past a repeated one the scan goes on behind it.

    Args:
        grams: uint64 [>= count], hash of each n-gram's characters.
        ends: int64 [words + 1], characters of all words before each word.
        count: number of n-grams.
        order: words in one.
        seen: room for a hash table, uint64.
    """
    shift = clear(seen, count)
    at = found = 0
    while at < count:
        entry = _entry(grams[at])
        slot = _place(seen, shift, entry)
        if seen[slot] == 0:
            seen[slot] = entry
            at += 1
        else:
            found += ends[at + order] - ends[at]
            at += order
    return found


@kernel
def extend(grams: np.ndarray, hashes: np.ndarray, powers: np.ndarray, count: int, order: int) -> None:
    """From hashes of (n-1)-grams to those of n-grams, equal when the joined characters are equal."""
    for at in range(count):
        grams[at] = grams[at] * powers[at + order - 1] + hashes[at + order - 1]


@kernel
def extend_apart(grams: np.ndarray, hashes: np.ndarray, count: int, order: int) -> None:
    """The same, equal only when the words are equal one by one."""
    for at in range(count):
        grams[at] = grams[at] * _SEPARATOR + hashes[at + order - 1]


@kernel
def repeated_pieces(
    data: np.ndarray, low: int, high: int, breaks: int, keys: np.ndarray, table: np.ndarray, out: np.ndarray
) -> None:
    """Pieces of a text between runs of at least `breaks` line feeds that occurred before.

    Args:
        data: uint8 [bytes].
        low: first byte.
        high: byte after the last.
        breaks: 1 for lines, 2 for paragraphs.
        keys: room for hashes, uint64 [pieces].
        table: room for a hash table, int32.
        out: int64 [3], receives pieces, repeated pieces, and characters in these.
    """
    feeds: Any = np.int64(0)
    for place in range(low, high):  # compiled to a few wide instructions
        feeds += data[place] == 10
    shift = clear(table, feeds // breaks + 1)  # there are no more pieces than that
    repeated = characters = number = 0
    at = low
    while at <= high:
        value, size = np.uint64(0), 0
        while at < high:
            if data[at] == 10:
                run = at
                while at < high and data[at] == 10:
                    at += 1
                if at - run >= breaks:
                    break
                at = run
            value = value * BASE + np.uint64(data[at] + 1)
            size += (data[at] & 0xC0) != 0x80
            at += 1
        else:
            at = high + 1
        keys[number] = value
        if first_of(table, shift, keys, number) != number:
            repeated += 1
            characters += size
        number += 1
    out[0], out[1], out[2] = number, repeated, characters
