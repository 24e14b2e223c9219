"""Every n-gram of a text with its count, in suffix order, in bounded memory. Writes temporary files when it must.

Suffix order compares the last word first, then the one before it, and so on: an n-gram then stands right behind the
shorter ones that it ends with, and one pass over the longest n-grams finds those of every order.

A block of text is sorted in memory; where one block does not hold it all, each block's distinct n-grams go to disk
and are merged.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from textmill.corpus.kernels import inline, kernel

CHUNK = 1 << 18
"""N-grams handed on at a time."""
BYTES_A_TOKEN = 64
"""Memory that counting takes for each token of a block: 17 bytes to sort it, the rest for its n-grams."""
LEAST_BLOCK = 1 << 12
"""Tokens of a block at the least."""
_SHIFT = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_SMALL = 24
"""Runs up to this length are sorted by insertion."""


@inline
def _before(tokens: np.ndarray, place: int, back: int, begin: int) -> int:
    """The token `back` places before `place`; BEGIN repeats for ever before the begin of a sentence."""
    for step in range(1, back + 1):
        if tokens[place - step] == begin:
            return begin
    return tokens[place - back]


@kernel
def _sort_run(keys: np.ndarray, places: np.ndarray, first: int, stop: int) -> None:
    """Sort keys[first:stop] ascending, taking the places along."""
    pending = np.empty((96, 2), dtype=np.int64)
    depth = 0
    low, high = first, stop
    while True:
        while high - low > _SMALL:
            a, b, c = keys[low], keys[(low + high) >> 1], keys[high - 1]
            pivot = max(min(a, b), min(max(a, b), c))
            left, right = low, high - 1
            while left <= right:
                while keys[left] < pivot:
                    left += 1
                while keys[right] > pivot:
                    right -= 1
                if left <= right:
                    keys[left], keys[right] = keys[right], keys[left]
                    places[left], places[right] = places[right], places[left]
                    left += 1
                    right -= 1
            # The smaller part first keeps the list of pending parts short.
            if right + 1 - low < high - left:
                pending[depth, 0], pending[depth, 1] = left, high
                high = right + 1
            else:
                pending[depth, 0], pending[depth, 1] = low, right + 1
                low = left
            depth += 1
        for place in range(low + 1, high):
            key, value = keys[place], places[place]
            at = place
            while at > low and keys[at - 1] > key:
                keys[at] = keys[at - 1]
                places[at] = places[at - 1]
                at -= 1
            keys[at] = key
            places[at] = value
        if depth == 0:
            return
        depth -= 1
        low, high = pending[depth, 0], pending[depth, 1]


@kernel
def _sort_block(
    tokens: np.ndarray,
    first: int,
    begin: int,
    order: int,
    starts: np.ndarray,
    keys: np.ndarray,
    places: np.ndarray,
    same: np.ndarray,
) -> int:
    """Sort the places of tokens[first:] (BEGIN aside) by the last `order` tokens, the last one first.

    `starts` int64 [vocabulary + 1] is zero on entry. `same` tells of each place whether its n-gram equals the one
    before it. Gives the number of places.
    """
    for place in range(first, len(tokens)):
        if tokens[place] != begin:
            starts[tokens[place] + 1] += 1
    for token in range(1, len(starts)):
        starts[token] += starts[token - 1]
    count = starts[len(starts) - 1]
    for place in range(first, len(tokens)):
        token = tokens[place]
        if token != begin:
            at = starts[token]
            starts[token] += 1
            places[at] = place
            key = np.uint64(0)
            if order > 1:
                key = np.uint64(_before(tokens, place, 1, begin)) << _SHIFT
            if order > 2:
                key |= np.uint64(_before(tokens, place, 2, begin))
            keys[at] = key
            same[at] = 1
    # starts[t] is now where the places of token t end.
    run = 0
    for token in range(len(starts) - 1):
        stop = starts[token]
        if stop > run:
            same[run] = 0
            if order > 1:
                _sort_run(keys, places, run, stop)
                for at in range(run + 1, stop):
                    same[at] = keys[at] == keys[at - 1]
        run = stop
    back = 3
    while back < order:
        run = 0
        while run < count:
            stop = run + 1
            while stop < count and same[stop]:
                stop += 1
            if stop - run > 1 and np.int64(keys[run] & _LOW) != begin:
                for at in range(run, stop):
                    place = places[at]
                    key = np.uint64(_before(tokens, place, back, begin)) << _SHIFT
                    if back + 1 < order:
                        key |= np.uint64(_before(tokens, place, back + 1, begin))
                    keys[at] = key
                _sort_run(keys, places, run, stop)
                for at in range(run + 1, stop):
                    same[at] = keys[at] == keys[at - 1]
            run = stop
        back += 2
    return count


@kernel
def _distinct(
    tokens: np.ndarray,
    places: np.ndarray,
    same: np.ndarray,
    at: int,
    begin: int,
    words: np.ndarray,
    counts: np.ndarray,
) -> tuple[int, int]:
    """Distinct n-grams from `at` on, last word first, into words int32 [m, order], and how often each occurs."""
    order = words.shape[1]
    made = 0
    while at < len(places) and made < len(words):
        place = np.int64(places[at])
        ended = False
        for back in range(order):
            if ended:
                words[made, back] = begin
            else:
                token = tokens[place - back]
                words[made, back] = token
                ended = token == begin
        at += 1
        count = 1
        while at < len(places) and same[at]:
            at += 1
            count += 1
        counts[made] = count
        made += 1
    return at, made


@inline
def _less(words: np.ndarray, one: int, other: int) -> bool:
    for back in range(words.shape[1]):
        if words[one, back] != words[other, back]:
            return words[one, back] < words[other, back]
    return False


@kernel
def _merge(
    words: np.ndarray,
    counts: np.ndarray,
    at: np.ndarray,
    stops: np.ndarray,
    heap: np.ndarray,
    size: int,
    out: np.ndarray,
    totals: np.ndarray,
) -> tuple[int, int]:
    """Merge sorted runs words[at[r]:stops[r]] until `out` is full; equal n-grams become one. Gives the number made
    and the size of the heap of runs, which is in order between calls."""
    order = words.shape[1]
    made = 0
    while size > 0:
        run = heap[0]
        here = at[run]
        fresh = made == 0
        if not fresh:
            for back in range(order):
                if out[made - 1, back] != words[here, back]:
                    fresh = True
                    break
        if fresh:
            if made == len(out):
                break
            for back in range(order):
                out[made, back] = words[here, back]
            totals[made] = 0
            made += 1
        totals[made - 1] += counts[here]
        at[run] += 1
        if at[run] == stops[run]:
            size -= 1
            heap[0] = heap[size]
        parent = 0
        while True:  # sift the run at the top down to where it belongs
            child = 2 * parent + 1
            if child >= size:
                break
            if child + 1 < size and _less(words, at[heap[child + 1]], at[heap[child]]):
                child += 1
            if not _less(words, at[heap[child]], at[heap[parent]]):
                break
            heap[parent], heap[child] = heap[child], heap[parent]
            parent = child
    return made, size


Chunk = tuple[np.ndarray, np.ndarray]
"""words int32 [m, order], the last word first, and counts int64 [m]."""


class SortedGrams:
    """Counts the n-grams of one order, a block of text at a time.

    Args:
        order: words of an n-gram, 1 to 6.
        begin: the id that begins each sentence, repeated before it as often as needed; no n-gram ends with it.
        folder: where blocks after the first go, as temporary files.
    """

    def __init__(self, order: int, begin: int, folder: Path) -> None:
        self.order, self.begin, self.folder = order, begin, folder
        self.tokens = 0
        """Places counted, sentence begins aside."""
        self._only: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self._runs: list[int] = []

    def add(self, tokens: np.ndarray, first: int, vocabulary: int) -> None:
        """Count the n-grams that end at tokens[first:].

        Args:
            tokens: ids int32; each sentence begins with `begin`. Before `first` stand `order - 1` tokens or the
                begin of a sentence.
            first: where to begin.
            vocabulary: every id is below it.
        """
        room = len(tokens) - first
        starts = np.zeros(vocabulary + 1, dtype=np.int64)
        keys = np.empty(room, dtype=np.uint64)
        places = np.empty(room, dtype=np.int32)
        same = np.empty(room, dtype=np.uint8)
        count = _sort_block(tokens, first, self.begin, self.order, starts, keys, places, same)
        del keys
        self.tokens += count
        if self._only is not None or self._runs:
            self._spill()
            self._only = (tokens, places[:count], same[:count])
            self._spill()
        else:
            self._only = (tokens, places[:count], same[:count])

    def _block(self) -> Iterator[Chunk]:
        assert self._only is not None
        tokens, places, same = self._only
        at = 0
        while at < len(places):
            words = np.empty((CHUNK, self.order), dtype=np.int32)
            counts = np.empty(CHUNK, dtype=np.int64)
            at, made = _distinct(tokens, places, same, at, self.begin, words, counts)
            yield words[:made], counts[:made]

    def _spill(self) -> None:
        """Append the block in memory to the runs on disk."""
        if self._only is None:
            return
        made = 0
        with (self.folder / "runs-words").open("ab") as words_file, (self.folder / "runs-counts").open("ab") as counts:
            for words, numbers in self._block():
                words_file.write(words.data)
                counts.write(numbers.data)
                made += len(numbers)
        if made:
            self._runs.append(made)
        self._only = None

    @property
    def on_disk(self) -> bool:
        """Whether the text was more than one block."""
        return bool(self._runs)

    def chunks(self) -> Iterator[Chunk]:
        """All n-grams in suffix order; to be asked for once."""
        if not self._runs:
            if self._only is not None:
                yield from self._block()
                self._only = None
            return
        bounds = np.concatenate(([0], np.cumsum(self._runs)))
        words = np.asarray(
            np.memmap(self.folder / "runs-words", dtype=np.int32, mode="c", shape=(int(bounds[-1]), self.order))
        )
        counts = np.asarray(np.memmap(self.folder / "runs-counts", dtype=np.int64, mode="c"))
        at, stops = bounds[:-1].copy(), bounds[1:].copy()
        firsts = words[at]
        heap = np.lexsort(firsts.T[::-1])  # what is sorted is a heap
        size = len(heap)
        while size:
            out = np.empty((CHUNK, self.order), dtype=np.int32)
            totals = np.empty(CHUNK, dtype=np.int64)
            made, size = _merge(words, counts, at, stops, heap, size, out, totals)
            yield out[:made], totals[:made]
        del words, counts
        for name in ("runs-words", "runs-counts"):
            (self.folder / name).unlink()
