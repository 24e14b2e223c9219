"""Texts to shingles: hashes of runs of five normalized words. Touches nothing but numba's cache of compiled code.

Two texts that differ in case, accents, punctuation or spacing alone have the same shingles; numbers count as they
stand, lest tables of one form pass for repeats. Every character of a script that is written without spaces is a word
of its own, so that Chinese texts have shingles too.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator

import numpy as np

from textmill.corpus.kernels import FNV_BASIS, code_at, kernel, mix, width_of
from textmill.corpus.tables import stored
from textmill.corpus.texts import Texts

WORDS = 5
"""Words of a shingle, as in FineWeb and most others."""
BATCH = 4 << 20
"""Bytes of text whose shingles are made at once: they stay in the processor's cache until they are used."""

_TABLE = 0x20000
_OWN = 1 << 24
_IGNORED = -1
_PRIME = np.uint64(0x100000001B3)
_BASE = np.uint64(0x9E3779B97F4A7C15)
_SHORT = np.uint64(0xD1B54A32D192ED03)
_ONE = np.uint64(1)

_UNSPACED = (
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3021, 0x3035),
    (0x3040, 0x312F), (0x31A0, 0x31BF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),
)  # fmt: skip
# Thai and Lao, Burmese, Khmer, Han with radicals and extensions, kana, bopomofo. Planes 2 and 3 are Han as a whole.
_PLAIN = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3))
# Letters without case or accent to fold, most of the table.


def _within(code: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= code <= last for first, last in ranges)


@functools.cache
def fold_table() -> np.ndarray:
    """What each code point below 0x20000 counts as, int32 [0x20000]; see `_folds`."""
    table = _folds()
    table.flags.writeable = False
    return table


@stored()
def _folds() -> np.ndarray:
    """What each code point below 0x20000 counts as, int32 [0x20000].

    0 separates words (spaces, punctuation, symbols, control characters); -1 is passed over (combining marks, joiners,
    soft hyphens); anything else is the folded code point: lower case, compatibility form, without accents, digits of
    all scripts as ASCII; with 1 << 24 added where the character is a word by itself.
    """
    table = np.zeros(_TABLE, dtype=np.int32)
    for code in range(_TABLE):
        character = chr(code)
        category = unicodedata.category(character)
        if category in ("Mn", "Me") or (category == "Cf" and code != 0x200B):  # the zero-width space parts words
            table[code] = _IGNORED
        elif category[0] in "LN" or category == "Mc":
            folded = code if _within(code, _PLAIN) else _folded(character, category)
            table[code] = folded | (_OWN if _within(code, _UNSPACED) and not 48 <= folded <= 57 else 0)
    return table


def _folded(character: str, category: str) -> int:
    if category == "Nd":
        return 48 + unicodedata.digit(character)
    lower = character.casefold()
    base = [mark for mark in unicodedata.normalize("NFKD", lower) if unicodedata.category(mark) != "Mn"]
    if len(base) == 1:
        return ord(base[0].lower()) if len(base[0].lower()) == 1 else ord(base[0])
    return ord(lower) if len(lower) == 1 else ord(character)


@kernel
def _shingle(
    data: np.ndarray,
    offsets: np.ndarray,
    first: int,
    last: int,
    fold: np.ndarray,
    size: int,
    join_digits: bool,
    values: np.ndarray,
    places: np.ndarray,
    ends: np.ndarray,
) -> int:
    ring = np.zeros(size, np.uint64)
    begins = np.zeros(size, np.int64)
    top = _ONE
    for _ in range(size):
        top *= _BASE
    found = 0
    located = places.shape[0] > 0
    for row in range(first, last):
        at = offsets[row]
        stop = offsets[row + 1]
        words = 0
        slot = 0
        sum_ = np.uint64(0)
        hash_ = FNV_BASIS
        inside = False
        after_digit = False
        begin = at
        while at < stop or inside:
            width = 1
            folded = 0
            if at < stop:
                lead = data[at]
                if lead < 0x80:
                    folded = int(fold[lead])
                else:
                    width = width_of(lead)
                    code = code_at(data, at, width)
                    if code < _TABLE:
                        folded = int(fold[code])
                    elif code < 0x40000:
                        folded = code | _OWN
            if folded < 0:
                at += width
                continue
            if 0 < folded < _OWN:
                if not inside:
                    inside = True
                    begin = at
                at += width
                if join_digits and 48 <= folded <= 57:
                    if after_digit:
                        continue
                    after_digit = True
                    folded = 48
                else:
                    after_digit = False
                hash_ = (hash_ ^ np.uint64(folded)) * _PRIME
                continue
            end = at
            if inside:
                inside = False
                if folded == 0:  # else the character is a word of its own, met again in the next round
                    at += width
            else:
                at += width
                if folded == 0:
                    continue
                begin = end
                end = at
                hash_ = (hash_ ^ np.uint64(folded)) * _PRIME
            word = mix(hash_)
            hash_ = FNV_BASIS
            after_digit = False
            sum_ = sum_ * _BASE + word
            if words >= size:
                sum_ -= ring[slot] * top
            ring[slot] = word
            begins[slot] = begin
            slot = slot + 1 if slot + 1 < size else 0
            words += 1
            if words >= size:
                values[found] = mix(sum_)
                if located:
                    places[found, 0] = begins[slot]
                    places[found, 1] = end
                found += 1
        if 0 < words < size:
            values[found] = mix(sum_ ^ (np.uint64(words) * _SHORT))
            if located:
                places[found, 0] = begins[0]
                places[found, 1] = stop
            found += 1
        ends[row - first] = found
    return found


@kernel
def _compact(values: np.ndarray, offsets: np.ndarray) -> int:
    """Drop repeated values from sorted rows, in place."""
    kept = 0
    start = offsets[0]
    for row in range(offsets.shape[0] - 1):
        stop = offsets[row + 1]
        first = kept
        for at in range(start, stop):
            if kept == first or values[at] != values[kept - 1]:
                values[kept] = values[at]
                kept += 1
        offsets[row + 1] = kept
        start = stop
    return kept


def batches(texts: Texts, limit: int = BATCH) -> Iterator[tuple[int, int]]:
    """Ranges of rows of about `limit` bytes, at least one row each."""
    first = 0
    while first < len(texts):
        last = int(np.searchsorted(texts.offsets, texts.offsets[first] + limit, side="right")) - 1
        last = min(max(last, first + 1), first + (1 << 16))
        yield first, last
        first = last


def shingle(
    texts: Texts, first: int, last: int, words: int = WORDS, join_digits: bool = False, located: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every shingle of the texts `first` to `last` - 1, in order of occurrence.

    Args:
        texts: normalized here.
        first, last: rows.
        words: words of a shingle. A text of fewer has one shingle, of all its words; one without words has none.
        join_digits: a run of digits counts as one 0.
        located: say where each shingle stands.

    Returns:
        values uint64 [k]; offsets int64 [last - first + 1] of each text's values; places int64 [k, 2], the bytes of
        `texts.data` from the first word to the last ([0, 2] unless `located`).
    """
    size = int(texts.offsets[last] - texts.offsets[first])
    room = size // 2 + (last - first) + 1  # a word and a space are two bytes, a character that is a word three
    values = np.empty(room, np.uint64)
    places = np.empty((room if located else 0, 2), np.int64)
    offsets = np.zeros(last - first + 1, np.int64)
    found = _shingle(
        texts.data, texts.offsets, first, last, fold_table(), words, join_digits, values, places, offsets[1:]
    )
    return values[:found], offsets, places[:found]


def shingle_sets(texts: Texts, words: int = WORDS) -> tuple[np.ndarray, np.ndarray]:
    """The set of shingles of each text.

    Returns:
        values uint64 [k], sorted and unique within a text; offsets int64 [n + 1].
    """
    parts, counts = [], [np.zeros(1, np.int64)]
    for first, last in batches(texts):
        values, offsets, _ = shingle(texts, first, last, words)
        for row in range(last - first):  # NumPy's sort of one row is vectorized, a compiled one would not be
            values[offsets[row] : offsets[row + 1]].sort()
        kept = _compact(values, offsets)
        parts.append(values[:kept].copy())
        counts.append(np.diff(offsets))
    return np.concatenate([np.zeros(0, np.uint64), *parts]), np.cumsum(np.concatenate(counts))


@kernel
def _jaccards(
    values: np.ndarray, offsets: np.ndarray, left: np.ndarray, right: np.ndarray, similarity: np.ndarray
) -> None:
    for pair in range(left.shape[0]):
        i, i_end = offsets[left[pair]], offsets[left[pair] + 1]
        j, j_end = offsets[right[pair]], offsets[right[pair] + 1]
        union = (i_end - i) + (j_end - j)
        common = 0
        while i < i_end and j < j_end:
            a, b = values[i], values[j]
            common += a == b
            i += a <= b
            j += b <= a
        similarity[pair] = common / (union - common) if union > 0 else 0.0


def jaccards(values: np.ndarray, offsets: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Exact Jaccard similarity |A ∩ B| / |A ∪ B| of pairs of sets.

    Args:
        values, offsets: as from `shingle_sets`.
        left, right: int64 [pairs], rows.

    Returns:
        float64 [pairs]; 0 for two empty sets.
    """
    similarity = np.zeros(len(left))
    _jaccards(values, offsets, np.asarray(left, np.int64), np.asarray(right, np.int64), similarity)
    return similarity
