"""Passages that occurred before, found by suffix array: long repeats that cross lines, paragraphs and documents.
Reads /proc/meminfo; touches
nothing but numba's cache of compiled code.

Lee et al., "Deduplicating Training Data Makes Language Models Better" (2022), arXiv:2107.06499, section 4.1. The
lengths of common prefixes are computed in text order: Kärkkäinen, Manzini and Puglisi, "Permuted Longest-Common-Prefix
Array" (2009), algorithm 1.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from textmill.base.errors import Failure
from textmill.base.hardware import hardware
from textmill.corpus.deduplication.spans import Spans, remove_spans
from textmill.corpus.kernels import inline, kernel, width_of
from textmill.corpus.texts import Texts

__all__ = ["MINIMUM", "Spans", "memory_needed", "remove_spans", "repeated_spans"]

MINIMUM = 200
"""Bytes. 200 bytes are about 35 English words or 66 Chinese characters; the paper takes 50 tokens."""

_SEPARATOR = 0xFF
_SMALL = 1 << 31
_REACH = 64
# Bytes that a span is drawn in at either end, at most, so that it begins and ends between words.


@kernel
def _follow(suffixes: np.ndarray, before: np.ndarray) -> None:
    before[suffixes[0]] = -1
    for at in range(1, suffixes.shape[0]):
        before[suffixes[at]] = suffixes[at - 1]


@kernel
def _long(data: np.ndarray, before: np.ndarray, minimum: int, joined: np.ndarray) -> None:
    """Which suffixes share `minimum` bytes of their own text with the one before them in the suffix array."""
    size = data.shape[0]
    common = 0
    end = 0
    for at in range(size):
        if end <= at:
            end = at
            while end < size and data[end] != 0xFF:
                end += 1
        other = before[at]
        if other < 0:
            common = 0
            continue
        while at + common < size and other + common < size and data[at + common] == data[other + common]:
            common += 1
        joined[at] = common >= minimum and at + minimum <= end
        if common > 0:
            common -= 1


@kernel
def _mark(suffixes: np.ndarray, minimum: int, joined: np.ndarray) -> None:
    """Turn `joined` into marks where a passage begins that occurred before without overlapping."""
    size = suffixes.shape[0]
    at = 0
    while at < size:
        stop = at + 1
        first = suffixes[at]
        while stop < size and joined[suffixes[stop]]:
            first = min(first, suffixes[stop])
            stop += 1
        for place in range(at, stop):
            joined[suffixes[place]] = suffixes[place] >= first + minimum
        at = stop


@inline
def _in_word(data: np.ndarray, at: int) -> bool:
    """Whether the character of which `at` is a byte is an ASCII letter or digit or takes two bytes, as the letters of
    most other alphabets do; Chinese takes three."""
    if at < 0 or at >= data.shape[0]:
        return False
    while at > 0 and data[at] & 0xC0 == 0x80:
        at -= 1
    lead = data[at]
    return 48 <= lead <= 57 or 65 <= lead <= 90 or 97 <= lead <= 122 or 0xC2 <= lead < 0xE0


@kernel
def _spans(data: np.ndarray, marks: np.ndarray, minimum: int, begins: np.ndarray, ends: np.ndarray) -> int:
    """Unions of marked passages, drawn in to the edges of characters, and of words where one is near; only counted
    where there is no room."""
    found = 0
    at = 0
    size = data.shape[0]
    while at < size:
        if not marks[at]:
            at += 1
            continue
        begin = at
        end = at + minimum
        while at < size and (at < end or marks[at]):
            if marks[at]:
                end = at + minimum
            at += 1
        while begin < end and data[begin] & 0xC0 == 0x80:
            begin += 1
        while end > begin and end < size and data[end] & 0xC0 == 0x80:
            end -= 1
        edge = begin
        while edge < end and edge - begin <= _REACH and _in_word(data, edge - 1):
            edge += width_of(data[edge])
        if edge < end and edge - begin <= _REACH:
            begin = edge
        edge = end
        while edge > begin and end - edge <= _REACH and _in_word(data, edge) and _in_word(data, edge - 1):
            edge -= 1
            while data[edge] & 0xC0 == 0x80:
                edge -= 1
        if edge > begin and end - edge <= _REACH:
            end = edge
        if end > begin:
            if begins.shape[0] > 0:
                begins[found] = begin
                ends[found] = end
            found += 1
    return found


def memory_needed(size: int) -> int:
    """Bytes of memory that `repeated_spans` takes for texts of `size` bytes: ten a byte, eighteen from 2 GiB on."""
    return size * (10 if size < _SMALL else 18)


def _available() -> int:
    limit = hardware().memory_bytes
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return limit
    free = next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), limit)
    return min(limit, free)


def repeated_spans(
    texts: Texts, minimum: int = MINIMUM, memory_bytes: int | None = None, in_parts: bool = False
) -> Spans:
    """Every stretch of at least `minimum` bytes that occurred before, in an earlier text or earlier in its own.

    The first occurrence is never part of a span on its own account. Spans begin and end at the edges of characters,
    and between words where there is an edge within 64 bytes: of "one [...]" and "three [...]", which share the bytes
    from the last "e" on, the second keeps its "three ".

    Args:
        texts: in the order that decides what is first.
        minimum: bytes of a passage.
        memory_bytes: the limit; nine tenths of the free memory by default.
        in_parts: beyond the limit, look for repeats within runs of texts that fit into `memory_bytes`, instead of
            failing. Repeats across two parts are not found; the parts depend on the texts and `memory_bytes` alone.

    Raises:
        Failure: it needs more memory than the limit.
    """
    limit = _available() * 9 // 10 if memory_bytes is None else memory_bytes
    size = int(texts.offsets[-1]) + len(texts)
    if memory_needed(size) <= limit:
        return _repeated(texts, 0, len(texts), minimum)
    if not in_parts:
        raise Failure(
            "Finding repeated passages needs more memory than there is.",
            f"A suffix array of {size / 1e9:.2f} GB of text takes {memory_needed(size) / 1e9:.1f} GB; "
            f"{limit / 1e9:.1f} GB may be used.",
            "Leave out --repeated-substrings, or remove repeated paragraphs or lines first, which needs little memory.",
        )
    parts = [_repeated(texts, first, last, minimum) for first, last in _parts(texts, limit // 10)]
    return Spans(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _parts(texts: Texts, limit: int) -> list[tuple[int, int]]:
    """Runs of rows of at most `limit` bytes with a separator each; a longer text is a run by itself."""
    places = texts.offsets + np.arange(len(texts) + 1)
    found, first = [], 0
    while first < len(texts):
        last = max(int(np.searchsorted(places, places[first] + limit, side="right")) - 1, first + 1)
        found.append((first, last))
        first = last
    return found


def _repeated(texts: Texts, first: int, last: int, minimum: int) -> Spans:
    none = np.zeros(0, np.int64)
    places = texts.offsets[first : last + 1] - texts.offsets[first] + np.arange(last - first + 1)
    if places[-1] < 2 * minimum:
        return Spans(none, none, none)
    try:
        from pydivsufsort import divsufsort
    except ImportError as error:
        raise Failure(
            "Finding repeated passages needs the package pydivsufsort.",
            str(error),
            'Type: pip install "textmill[substrings]"',
        ) from error
    data = np.full(int(places[-1]), _SEPARATOR, np.uint8)
    for row in range(last - first):
        data[places[row] : places[row + 1] - 1] = texts.data[
            texts.offsets[first + row] : texts.offsets[first + row + 1]
        ]
    suffixes = divsufsort(data)
    before = np.empty_like(suffixes)
    _follow(suffixes, before)
    marks = np.zeros(len(data), bool)
    _long(data, before, minimum, marks)
    del before
    _mark(suffixes, minimum, marks)
    del suffixes
    room = _spans(data, marks, minimum, none, none)
    begins, ends = np.empty(room, np.int64), np.empty(room, np.int64)
    if room:
        _spans(data, marks, minimum, begins, ends)
    row_of = np.searchsorted(places, begins, side="right") - 1
    return Spans(row_of + first, begins - places[row_of], ends - places[row_of])
