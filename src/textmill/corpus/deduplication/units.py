"""Exact deduplication of lines and paragraphs across the corpus. Writes nothing but unnamed temporary files, and those
only when the hashes exceed the memory allowed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from textmill.base.errors import Failure
from textmill.corpus.deduplication.buckets import scratch
from textmill.corpus.deduplication.spans import Spans, remove_spans
from textmill.corpus.kernels import FNV_BASIS, kernel, mix
from textmill.corpus.texts import Texts

Unit = Literal["line", "paragraph"]
MINIMUM = 40
"""Bytes (without surrounding white space) from which a unit is compared at all: brackets, list marks and headings stay
however often they occur. 40 bytes are seven English words or thirteen Chinese characters."""
MEMORY = 256 << 20
"""Bytes for hashes, and again for the table that finds the first of each."""

_PRIME = np.uint64(0x100000001B3)
_NEWLINE = np.uint64(10)
_S40 = np.uint64(40)
_SLOT = 12


@kernel
def _units(
    data: np.ndarray,
    offsets: np.ndarray,
    paragraphs: bool,
    minimum: int,
    hashes: np.ndarray,
    begins: np.ndarray,
    ends: np.ndarray,
) -> int:
    """Hash and beginning of each unit; a paragraph takes the blank lines after it along, a line its newline."""
    found = 0
    for row in range(offsets.shape[0] - 1):
        at = offsets[row]
        stop = offsets[row + 1]
        before = found
        hash_ = FNV_BASIS
        size = 0
        closed = True
        while at < stop:
            line = at
            while at < stop and data[at] <= 0x20 and data[at] != 10:
                at += 1
            first = at
            last = at
            while at < stop and data[at] != 10:
                if data[at] > 0x20:
                    last = at + 1
                at += 1
            at += 1
            blank = last == first
            if not (paragraphs and blank):
                if closed or not paragraphs:
                    begins[found] = line if found > before else offsets[row]
                    found += 1
                    hash_ = FNV_BASIS
                    size = 0
                closed = False
                hash_ = (hash_ ^ _NEWLINE) * _PRIME
                for place in range(first, last):
                    hash_ = (hash_ ^ np.uint64(data[place])) * _PRIME
                size += last - first
                value = mix(hash_)
                hashes[found - 1] = np.uint64(0) if size < minimum else max(value, np.uint64(1))
            else:
                closed = True
        ends[row] = found
    return found


def _found(texts: Texts, unit: Unit, minimum: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    room = int(np.count_nonzero(texts.data == 10)) + len(texts)
    hashes, begins = np.empty(room, np.uint64), np.empty(room, np.int64)
    offsets = np.zeros(len(texts) + 1, np.int64)
    found = _units(texts.data, texts.offsets, unit == "paragraph", minimum, hashes, begins, offsets[1:])
    return hashes[:found], begins[:found], offsets


def unit_hashes(texts: Texts, unit: Unit, minimum: int = MINIMUM) -> tuple[np.ndarray, np.ndarray]:
    """Hash of each line, or of each paragraph (separated by blank lines), without white space around its lines.

    Args:
        texts: n texts.
        unit: "line" or "paragraph".
        minimum: bytes; shorter units get the hash 0 and count as no repeat of anything.

    Returns:
        hashes uint64 [k], offsets int64 [n + 1] of each text's units.
    """
    hashes, _, offsets = _found(texts, unit, minimum)
    return hashes, offsets


@kernel
def _first(
    hashes: np.ndarray, part: int, parts: int, copies: int, table: np.ndarray, seen: np.ndarray, keep: np.ndarray
) -> None:
    mask = np.uint64(table.shape[0] - 1)
    divisor = np.uint64(parts)
    wanted = np.uint64(part)
    for at in range(hashes.shape[0]):
        value = hashes[at]
        if value == 0 or (value >> _S40) % divisor != wanted:
            continue
        slot = value & mask
        while table[slot] != 0 and table[slot] != value:
            slot = (slot + np.uint64(1)) & mask
        table[slot] = value
        if seen[slot] < copies:
            seen[slot] += 1
        else:
            keep[at] = False


def first_occurrences(parts: Sequence[np.ndarray], copies: int = 1, memory_bytes: int = MEMORY) -> list[np.ndarray]:
    """Which units stay: the first `copies` of each hash, in order.

    Args:
        parts: uint64 arrays in order, memory maps for example; read as often as the memory needs. 0 always stays.
        copies: how many of each stay.
        memory_bytes: for the table of hashes; beside it a byte a unit.

    Returns:
        bool arrays of the same lengths.
    """
    keep = [np.ones(len(part), bool) for part in parts]
    total = sum(int(np.count_nonzero(part)) for part in parts)
    count = max(1, -(-total * 4 * _SLOT // max(memory_bytes, 1)))
    expected = total / count
    room = 1 << int(2 * (expected + 8 * expected**0.5) + 64).bit_length()
    for number in range(count):
        table, seen = np.zeros(room, np.uint64), np.zeros(room, np.uint32)
        for part, kept in zip(parts, keep, strict=True):
            _first(part, number, count, copies, table, seen, kept)
    return keep


def remove_units(texts: Texts, unit: Unit, keep: np.ndarray) -> Texts:
    """The texts without some of their units.

    Args:
        texts: those that `unit_hashes` was given.
        unit: the same.
        keep: bool [k], one a unit.
    """
    _, begins, offsets = _found(texts, unit, 0)
    gone = np.flatnonzero(~keep)
    if not len(gone):
        return texts
    row = np.searchsorted(offsets, gone, side="right") - 1
    ends = np.append(begins[1:], texts.offsets[-1])
    ends[offsets[1:][np.diff(offsets) > 0] - 1] = texts.offsets[1:][np.diff(offsets) > 0]
    start = texts.offsets[row]
    return remove_spans(texts, Spans(row, begins[gone] - start, ends[gone] - start))


class UnitIndex:
    """Repeated units of a corpus that is read twice, in the same order: `add` all texts, `finish`, `remove` from all.

    Args:
        unit: "line" or "paragraph".
        copies: how many of each stay, the first ones.
        minimum: bytes; shorter units stay.
        memory_bytes: beyond it, hashes go to a temporary file.
    """

    def __init__(self, unit: Unit, copies: int = 1, minimum: int = MINIMUM, memory_bytes: int = MEMORY) -> None:
        self._unit: Unit = unit
        self._copies, self._minimum, self._memory = copies, minimum, memory_bytes
        self._hashes: list[np.ndarray] = []
        self._keep: list[np.ndarray] = []
        self._held = self._next = 0
        self.units = self.repeats = 0

    def add(self, texts: Texts) -> None:
        """Note the units of a batch."""
        hashes, _ = unit_hashes(texts, self._unit, self._minimum)
        if self._held + hashes.nbytes > self._memory:
            stored = scratch(hashes.shape, np.uint64, 0)
            stored[:] = hashes
            hashes = stored
        else:
            hashes = hashes.copy()
            self._held += hashes.nbytes
        self._hashes.append(hashes)

    def finish(self) -> None:
        """Decide which units stay."""
        keep = first_occurrences(self._hashes, self._copies, self._memory)
        self.units = sum(len(part) for part in keep)
        self.repeats = self.units - sum(int(np.count_nonzero(part)) for part in keep)
        self._keep = [np.packbits(part) for part in keep]
        self._counts = [len(part) for part in keep]
        self._hashes = []

    def remove(self, texts: Texts) -> Texts:
        """The next batch without its repeated units.

        Raises:
            Failure: the batches are not those that were added.
        """
        at, self._next = self._next, self._next + 1
        _, offsets = unit_hashes(texts, self._unit, self._minimum)
        if at >= len(self._keep) or int(offsets[-1]) != self._counts[at]:
            raise Failure(
                "The corpus changed while its repeats were being removed.",
                f"Batch {at} does not hold the {self._unit}s that were counted in it.",
                "Run it again while nothing else writes to that folder.",
            )
        keep = np.unpackbits(self._keep[at], count=self._counts[at]).astype(bool)
        return remove_units(texts, self._unit, keep)
