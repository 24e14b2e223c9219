"""One chunk of text between white space, split into words as spaCy's blank English tokenizer does. Touches nothing.

From both ends of a chunk marks are split off one after the other (brackets, quotes, final stops, units after a
number) until what is left is a known exception or has nothing more to give; a web address stays whole, anything else
is cut at hyphens, slashes, ellipses and symbols inside. Known exceptions that the affixes tore apart (an emoticon,
`and/or`) are put together again at the end.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from textmill.corpus.judging.addresses import is_address, is_digit
from textmill.corpus.judging.classes import (
    ALPHA,
    BACK,
    BEFORE_DOT,
    DIGIT,
    DOT,
    FRONT,
    ICON,
    JOINT,
    LOWER,
    PREFIX,
    QUOTE,
    SUFFIX,
    UPPER,
)
from textmill.corpus.kernels import inline, kernel, mix

BASE = np.uint64(0x9E3779B97F4A7C15)
"""Multiplier of the polynomial hash of a word: the hash of a concatenation follows from those of its parts."""

EXCEPTION, UNIT, TORN = 1, 2, 4
"""Kinds of known strings; TORN ones come apart under the affix rules and are put together afterwards."""

SLOTS = 1 << 13
"""Size of the hash table of known strings."""
LONGEST = 12
"""Characters of the longest known string."""
MASKS = SLOTS
"""Where in the tables the length masks begin, PAIRS the pairs, ROWS the rows of the strings, ROW numbers each."""
PAIRS = MASKS + 2 * 128
ROWS = PAIRS + 2 * 128
ROW = 24
KIND, PIECES, WORDS = 1, 2, 10
"""Places in a row; the hash stands first."""

_DOT, _PLUS, _MINUS, _DOLLAR, _COLON, _CARET, _DEGREE, _ELLIPSIS = 46, 43, 45, 36, 58, 94, 0xB0, 0x2026


class Lexicon(NamedTuple):
    """Tables of the splitter; two arrays, because each array costs every call.

    Attributes:
        flags: uint32 [SIZE], `classes()`.
        tables: int64, one after the other:
            [SLOTS], open addressing by hash to the place of a string's row, 0 for none;
            [2, 128] of ASCII characters, lengths (as bits) of the exceptions that begin with it, that end with it;
            [128, 2] bits: whether a torn exception begins with the one character and its second word with the other
            (characters beyond ASCII go by 0 in both);
            [strings, ROW] hash, kind, number of pieces and the end of each, in characters, number of words into which
            the affix rules tear it and the end of each.
    """

    flags: np.ndarray
    tables: np.ndarray


@inline
def known(tables: np.ndarray, value: np.uint64) -> int:
    """Where the row of the known string with this hash begins, 0 for none."""
    slot = np.int64(mix(value) & np.uint64(SLOTS - 1))
    while tables[slot] != 0 and np.uint64(tables[tables[slot]]) != value:
        slot = (slot + 1) & (SLOTS - 1)
    return tables[slot]


@inline
def may_be_known(tables: np.ndarray, first: int, last: int, size: int) -> bool:
    """Whether any exception of this size begins and ends with these characters; rules out nearly all words."""
    lengths = tables[MASKS + (first if first < 128 else 0)] & tables[MASKS + 128 + (last if last < 128 else 0)]
    return size <= LONGEST and (lengths >> size) & 1 != 0


@kernel
def _find(codes: np.ndarray, low: int, high: int, tables: np.ndarray, kind: int) -> int:
    value = np.uint64(0)
    for at in range(low, high):
        value = value * BASE + np.uint64(codes[at] + 1)
    found = known(tables, value)
    return found if found and tables[found + KIND] & kind else 0


@inline
def _exception(codes: np.ndarray, low: int, high: int, tables: np.ndarray, kind: int) -> int:
    """Row of the exception codes[low:high] of this kind, 0 for none."""
    found = 0
    if high > low and may_be_known(tables, codes[low], codes[high - 1], high - low):
        found = _find(codes, low, high, tables, kind)
    return found


@kernel
def _prefix(codes: np.ndarray, flags: np.ndarray, low: int, high: int) -> int:
    """Characters to split off the front."""
    first = codes[low]
    if first == _DOT:
        at = low
        while at < high and codes[at] == _DOT:
            at += 1
        return at - low if at - low > 1 else 0
    if first == _PLUS:
        return 1 if low + 1 == high or not is_digit(codes[low + 1]) else 0
    if flags[low] & PREFIX:
        return 1
    if first == 85 and high - low > 2 and codes[low + 1] == 83 and codes[low + 2] == _DOLLAR:
        return 3
    return 2 if first in (65, 67) and high - low > 1 and codes[low + 1] == _DOLLAR else 0


@kernel
def _stop(codes: np.ndarray, flags: np.ndarray, low: int, high: int) -> int:
    """Characters to split off codes[low:high], which ends in a full stop."""
    at = high
    while at > low and codes[at - 1] == _DOT:
        at -= 1
    if high - at > 1:
        return high - at
    if at == low:
        return 0
    if flags[at - 1] & BEFORE_DOT:
        return 1
    if at - low > 1 and flags[at - 1] & flags[at - 2] & UPPER:
        return 1
    return 1 if at - low > 1 and codes[at - 2] == _DEGREE and codes[at - 1] in (70, 102, 67, 99, 75, 107) else 0


@kernel
def _suffix(codes: np.ndarray, flags: np.ndarray, low: int, high: int) -> int:
    """Characters to split off the end of codes[low:high], units aside."""
    last = codes[high - 1]
    if last == _DOT:
        return _stop(codes, flags, low, high)
    before = codes[high - 2] if high - low > 1 else -1
    if flags[high - 1] & SUFFIX:
        return 2 if last == _ELLIPSIS and before == _ELLIPSIS else 1
    return 2 if last in (115, 83) and before in (39, 0x2019) else 0


@kernel
def _unit(codes: np.ndarray, low: int, high: int, tables: np.ndarray) -> int:
    """Characters of the unit, currency or plus sign that codes[low:high] ends in, right after a digit; else 0."""
    at = high
    while at > low and high - at < 6 and not is_digit(codes[at - 1]):
        at -= 1
    if at in (high, low) or not is_digit(codes[at - 1]):
        return 0
    if high - at == 1 and codes[at] == _PLUS:
        return 1
    return high - at if _find(codes, at, high, tables, UNIT) else 0


@kernel
def _infix(codes: np.ndarray, flags: np.ndarray, at: int, low: int, high: int) -> int:
    """Characters of the mark at `at` that cuts codes[low:high], 0 when there is none."""
    code = codes[at]
    if flags[at] & ICON or code == _ELLIPSIS:
        return 1
    if code == _DOT and at + 1 < high and codes[at + 1] == _DOT:
        end = at
        while end < high and codes[end] == _DOT:
            end += 1
        return end - at
    if at == low or at + 1 >= high:
        return 0
    before, after = flags[at - 1], flags[at + 1]
    number = is_digit(codes[at - 1])
    if code == _DOT:
        return 1 if before & (LOWER | QUOTE) and after & (UPPER | QUOTE) else 0
    if code == 44:
        return 1 if before & after & ALPHA else 0
    if number and code in (_PLUS, _MINUS, 42, _CARET) and (is_digit(codes[at + 1]) or codes[at + 1] == _MINUS):
        return 1
    if not (before & ALPHA or number):
        return 0
    if code in (_MINUS, 0x2013, 0x2014, 126):
        if after & ALPHA:
            return 1
        end = at
        while end < high and codes[end] == code and end - at < 4:
            end += 1
        most = 3 if code == _MINUS else 2 if code == 0x2014 else 1
        return end - at if end - at <= most and end < high and flags[end] & ALPHA else 0
    return 1 if code in (_COLON, 60, 62, 61, 47) and after & ALPHA else 0


@inline
def _put(ends: np.ndarray, count: int, at: int, found: int, tables: np.ndarray) -> int:
    """Append the pieces of exception `found`, which begins at `at`."""
    pieces = tables[found + PIECES]
    for piece in range(pieces):
        ends[count + piece] = at + tables[found + PIECES + 1 + piece]
    return count + pieces


@kernel
def _torn(codes: np.ndarray, first: int, last: int, ends: np.ndarray, tables: np.ndarray) -> int:
    """Row of the exception that words first..last make up, torn as the affix rules tear it; 0 for none."""
    low = ends[first - 1] if first else 0
    found = _exception(codes, low, ends[last], tables, TORN)
    if found == 0 or tables[found + WORDS] != last - first + 1:
        return 0
    for word in range(first, last + 1):
        if tables[found + WORDS + 1 + word - first] != ends[word] - low:
            return 0
    return found


@inline
def _may_be_torn(tables: np.ndarray, first: int, second: int) -> bool:
    column = second if second < 128 else 0
    return (tables[PAIRS + 2 * (first if first < 128 else 0) + (column >> 6)] >> (column & 63)) & 1 != 0


@kernel
def _mend(codes: np.ndarray, count: int, ends: np.ndarray, tables: np.ndarray) -> int:
    """Put torn exceptions together again, the longest first and the earlier of two equally long ones.

    A candidate that overlaps an earlier one is passed over, and blocks what overlaps it all the same.
    """
    old = len(ends) - count  # the far end of `ends` is free by now
    chosen, spans, seen = old - count, old - 2 * count, old - 3 * count
    for word in range(count):
        ends[old + word], ends[chosen + word], ends[spans + word], ends[seen + word] = ends[word], 0, 1, 0
    for longest in range(min(count, LONGEST), 1, -1):
        for first in range(count - longest + 1):
            if not _may_be_torn(tables, codes[ends[first - 1] if first else 0], codes[ends[first]]):
                continue
            found = _torn(codes, first, first + longest - 1, ends, tables)
            if found:
                if not ends[seen + first] and not ends[seen + first + longest - 1]:
                    ends[chosen + first], ends[spans + first] = found, longest
                for word in range(first, first + longest):
                    ends[seen + word] = 1
    word = total = 0
    while word < count:
        if ends[chosen + word]:
            total = _put(ends, total, ends[old + word - 1] if word else 0, ends[chosen + word], tables)
        else:
            ends[total] = ends[old + word]
            total += 1
        word += ends[spans + word]
    return total


@kernel
def split_chunk(
    codes: np.ndarray, flags: np.ndarray, high: int, seen: int, ends: np.ndarray, tables: np.ndarray, special: bool
) -> int:
    """Split one chunk into words.

    Args:
        codes: its characters, int32 [>= high], no white space.
        flags: their classes, uint32 [>= high].
        high: number of characters, at least 1.
        seen: all their classes together.
        ends: receives the end of each word, int32 [>= 8 high + 64].
        tables: of the lexicon.
        special: heed the exceptions; without, affixes and infixes only.

    Returns:
        number of words.
    """
    low, count, last = 0, 0, -1
    bottom = len(ends)  # ends of suffixes are stacked from the far end, the outermost first
    whole = 0
    while low < high and high - low != last:
        if special:
            whole = _exception(codes, low, high, tables, EXCEPTION)
            if whole:
                break
        last = high - low
        front = back = 0
        if flags[low] & FRONT:
            front = _prefix(codes, flags, low, high)
            if front and special:
                whole = _exception(codes, low + front, high, tables, EXCEPTION)
        if front:
            ends[count] = low + front
            count += 1
            if whole:
                low += front
                break
        if flags[high - 1] & BACK and low + front < high:
            back = _suffix(codes, flags, low + front, high)
            if seen & DIGIT:
                back = max(back, _unit(codes, low + front, high, tables))
            if back:
                bottom -= 1
                ends[bottom] = high
                if special:
                    whole = _exception(codes, low, high - back, tables, EXCEPTION)
                    if whole:
                        if front:
                            count -= 1
                        high -= back
                        break
        low += front
        high -= back
    if low < high:
        if whole:
            count = _put(ends, count, low, whole, tables)
        elif not seen & JOINT or (seen & DOT and is_address(codes, flags, low, high)):
            ends[count] = high
            count += 1
        else:
            at, start = low, low
            while at < high:
                width = _infix(codes, flags, at, low, high) if flags[at] & JOINT else 0
                if width and at > low:
                    if at > start:
                        ends[count] = at
                        count += 1
                    start = at + width
                    ends[count] = start
                    count += 1
                at += max(width, 1)
            if start < high:
                ends[count] = high
                count += 1
    for at in range(len(ends) - bottom):
        ends[count + at] = ends[bottom + at]
    count += len(ends) - bottom
    if not special:
        return count
    start = 0
    for word in range(1, count):
        second = ends[word - 1]
        if _may_be_torn(tables, codes[start], codes[second]):
            return _mend(codes, count, ends, tables)
        start = second
    return count
