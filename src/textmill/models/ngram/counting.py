"""From the longest n-grams of a text to the counted n-grams of every order, in one pass. May hold arrays on disk."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from textmill.base.errors import Failure
from textmill.corpus.kernels import kernel
from textmill.models.ngram.sorting import Chunk

MOST_GRAMS = (1 << 31) - 1
"""N-grams of one order that an index can name."""


class Space:
    """Where arrays live: in memory, or in files of a folder, mapped, so that the system can take their pages back.

    Args:
        folder: for the files; None for memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._numbers = itertools.count()

    def empty(self, length: int, dtype: type) -> np.ndarray:
        """An array of zeros on disk, an uninitialized one in memory."""
        if self.folder is None or length == 0:
            return np.empty(length, dtype=dtype)
        path = self.folder / f"array-{next(self._numbers)}"
        with path.open("wb") as stream:  # its place is taken now: a mapping of a full disk would end the program
            os.posix_fallocate(stream.fileno(), 0, length * np.dtype(dtype).itemsize)
        made = np.asarray(np.memmap(path, dtype=dtype, mode="r+", shape=(length,)))
        path.unlink()  # the mapping keeps the file until the array goes
        return made

    def column(self, dtype: type) -> Column:
        """An empty array that grows."""
        path = None if self.folder is None else self.folder / f"column-{next(self._numbers)}"
        return Column(np.dtype(dtype), path)


class Column:
    """An array that grows at its end, in memory or in a file."""

    def __init__(self, dtype: np.dtype, path: Path | None) -> None:
        self.dtype, self.path, self.length = dtype, path, 0
        self._parts: list[np.ndarray] = []
        self._stream = None if path is None else path.open("wb")

    def append(self, values: np.ndarray) -> None:
        """Add values; they are copied."""
        self.length += len(values)
        if self._stream is not None:
            self._stream.write(np.ascontiguousarray(values, dtype=self.dtype).data)
        else:
            self._parts.append(values.astype(self.dtype))

    def finish(self) -> np.ndarray:
        """The array; nothing can be added after."""
        if self._stream is None or self.path is None:
            found = np.concatenate(self._parts) if self._parts else np.empty(0, dtype=self.dtype)
            self._parts = []
            return found
        self._stream.close()
        if not self.length:
            self.path.unlink()
            return np.empty(0, dtype=self.dtype)
        found = np.asarray(np.memmap(self.path, dtype=self.dtype, mode="r+"))
        self.path.unlink()
        return found


@dataclass
class Level:
    """The distinct n-grams of one order, in suffix order.

    Attributes:
        first: int32 [n], the word that each begins with.
        last: int32 [n], the word that each ends with.
        suffix: int32 [n], where the n-gram without its first word stands in the order below; ascending.
        context: int32 [n], where the n-gram without its last word stands in the order below.
        adjusted: int32 [n], how many distinct words come before it; its count where it begins a sentence or is of
            the highest order.
        counts: int32 [n], how often it occurs.
        histogram: int64 [5], how many n-grams have the adjusted count 1, 2, 3 and 4, as discounts are made of it.
    """

    first: np.ndarray
    last: np.ndarray
    suffix: np.ndarray
    context: np.ndarray
    adjusted: np.ndarray
    counts: np.ndarray
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(5, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.last)


@kernel
def _scan(
    words: np.ndarray,
    counts: np.ndarray,
    begin: int,
    previous: np.ndarray,
    state: np.ndarray,
    opened: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
    suffix: np.ndarray,
    adjusted: np.ndarray,
    raw: np.ndarray,
    made: np.ndarray,
    closed: np.ndarray,
) -> None:
    """Read n-grams of the highest order and note those of every order as they begin and end.

    state int64 [2 + 3 order]: whether there was an n-gram before, how many orders are open, then for each order how
    many n-grams began, and the adjusted and the raw count of the open one. The outputs are [order, room].
    """
    order = words.shape[1]
    adjusted_at, raw_at = 2 + order, 2 + 2 * order
    for row in range(len(words)):
        level = 0
        if state[0]:
            while level < state[1] and words[row, level] == previous[level]:
                level += 1
        for k in range(level, state[1]):  # these n-grams end: other words follow
            adjusted[k, closed[k]] = state[adjusted_at + k]
            raw[k, closed[k]] = state[raw_at + k]
            closed[k] += 1
        for k in range(level):
            state[raw_at + k] += counts[row]
        if level > 0:
            state[adjusted_at + level - 1] += 1
        k = level
        while True:
            # The n-gram of k + 1 words begins with words[row, k].
            at = made[k]
            first[k, at] = words[row, k]
            last[k, at] = words[row, 0]
            suffix[k, at] = opened[k - 1] if k > 0 else 0
            made[k] += 1
            if k == order - 1:
                adjusted[k, at] = counts[row]
                raw[k, at] = counts[row]
                break
            opened[k] = state[2 + k]
            state[2 + k] += 1
            state[raw_at + k] = counts[row]
            if words[row, k] == begin:
                state[adjusted_at + k] = counts[row]  # nothing comes before it, so its count stays
                k += 1
                break
            state[adjusted_at + k] = 1
            k += 1
        state[1] = k
        state[0] = 1
        for back in range(order):
            previous[back] = words[row, back]


@kernel
def _find_contexts(
    first: np.ndarray,
    suffix: np.ndarray,
    contexts_below: np.ndarray,
    first_below: np.ndarray,
    bounds: np.ndarray,
    out: np.ndarray,
) -> int:
    """For each n-gram the place of its context one order below. Gives how many have none there (out: -1).

    The context of `a b c` is `a b`: of the n-grams that extend `b`, which is the context of its suffix `b c`, the one
    that begins with `a`. Those stand together, at bounds[b] to bounds[b + 1], sorted by their first word.
    """
    missing = 0
    low, high, previous = np.int64(0), np.int64(0), np.int64(-1)
    for place in range(len(first)):
        below = np.int64(contexts_below[suffix[place]])
        if below < 0:
            out[place] = -1
            missing += 1
            continue
        if suffix[place] != previous:
            previous = np.int64(suffix[place])
            low = np.int64(bounds[below])
        high = np.int64(bounds[below + 1])
        word = first[place]
        while low < high:  # within one suffix the first words ascend, so `low` never goes back
            middle = (low + high) >> 1
            if first_below[middle] < word:
                low = middle + 1
            else:
                high = middle
        if low < bounds[below + 1] and first_below[low] == word:
            out[place] = low
        else:
            out[place] = -1
            missing += 1
    return missing


@kernel
def _fill_bounds(suffix: np.ndarray, bounds: np.ndarray) -> None:
    at = 0
    for below in range(len(bounds) - 1):
        bounds[below] = at
        while at < len(suffix) and suffix[at] == below:
            at += 1
    bounds[len(bounds) - 1] = at


def extensions(suffix: np.ndarray, below: int, space: Space) -> np.ndarray:
    """Where the n-grams that extend each of `below` n-grams to the left begin, int32 [below + 1]; `suffix` ascends."""
    bounds = space.empty(below + 1, np.int32)
    _fill_bounds(suffix, bounds)
    return bounds


@kernel
def _histogram(values: np.ndarray, out: np.ndarray) -> None:
    for value in values:
        if 0 < value < 5:
            out[value] += 1


def find_contexts(levels: list[Level], space: Space) -> None:
    """Fill in the contexts of all orders, from the second on (in the second they are the first words).

    Raises:
        ValueError: the context of an n-gram is not there.
    """
    for k in range(1, len(levels)):
        level = levels[k]
        if k == 1:
            level.context = level.first
            continue
        below = levels[k - 1]
        level.context = space.empty(len(level), np.int32)
        bounds = extensions(below.suffix, len(levels[k - 2]), space)
        if _find_contexts(level.first, level.suffix, below.context, below.first, bounds, level.context):
            raise ValueError(f"an n-gram of order {k + 1} has no context")


def count_orders(chunks: Iterable[Chunk], order: int, begin: int, vocabulary: int, space: Space) -> list[Level]:
    """Every order's n-grams, from 1 to `order`.

    Order 1 has an entry for each id below `vocabulary`, counted 0 where it never occurs; the others hold what occurs.
    As in KenLM (Heafield, Pouzyrevsky, Clark and Koehn 2013, section 3.2), an n-gram that begins a sentence keeps its
    count in the lower orders, since no word comes before it. One oddity of lmplz that shows in its figures is kept
    too: in the histograms of the lower orders, the very last n-gram stands with its plain count.

    Args:
        chunks: all n-grams of the highest order in suffix order, as `SortedGrams.chunks` gives them.
        order: 1 to 6.
        begin: the id that begins sentences.
        vocabulary: number of ids, `begin` included.
        space: where the arrays go.
    """
    columns = [[space.column(np.int32) for _ in range(5)] for _ in range(order)]
    previous = np.full(order, -1, dtype=np.int32)
    state = np.zeros(2 + 3 * order, dtype=np.int64)
    opened = np.zeros(order, dtype=np.int64)
    for words, counts in chunks:
        room = len(words) + 1
        first, last, suffix, adjusted, raw = (np.empty((order, room), dtype=np.int32) for _ in range(5))
        made, closed = np.zeros(order, dtype=np.int64), np.zeros(order, dtype=np.int64)
        _scan(
            words, counts, begin, previous, state, opened, first, last, suffix, adjusted, raw, made, closed
        )  # fmt: skip
        closed[order - 1] = made[order - 1]
        for k in range(order):
            for column, values, length in zip(
                columns[k], (first, last, suffix, adjusted, raw), (made, made, made, closed, closed), strict=True
            ):
                column.append(values[k, : length[k]])
        if max(column[0].length for column in columns) > MOST_GRAMS:
            raise Failure(
                "There are too many n-grams.",
                f"One order has more than {MOST_GRAMS:,}.",
                "Count less text, or a lower --order.",
            )
    last_counts = []
    for k in range(int(state[1])):
        adjusted_last, raw_last = int(state[2 + order + k]), int(state[2 + 2 * order + k])
        columns[k][3].append(np.array([adjusted_last]))
        columns[k][4].append(np.array([raw_last]))
        last_counts.append((adjusted_last, raw_last))
    levels = []
    for k, parts in enumerate(columns):
        first, last, suffix, adjusted, raw = (part.finish() for part in parts)
        level = Level(first, last, suffix, np.empty(0, dtype=np.int32), adjusted, raw)
        _histogram(adjusted, level.histogram)
        if k < len(last_counts):
            for value, step in zip(last_counts[k], (-1, 1), strict=True):
                if 0 < value < 5:
                    level.histogram[value] += step
        levels.append(level)
    _spread(levels, vocabulary)
    find_contexts(levels, space)
    return levels


def _spread(levels: list[Level], vocabulary: int) -> None:
    """Give order 1 an entry for each id, so that an id names its unigram."""
    unigrams = levels[0]
    dense = []
    for counts in (unigrams.adjusted, unigrams.counts):
        values = np.zeros(vocabulary, dtype=np.int32)
        values[unigrams.last] = counts
        dense.append(values)
    if len(levels) > 1:
        levels[1].suffix = unigrams.last[levels[1].suffix]
    ids = np.arange(vocabulary, dtype=np.int32)
    nothing = np.zeros(0, dtype=np.int32)
    levels[0] = Level(ids, ids, nothing, nothing, dense[0], dense[1], unigrams.histogram)
