"""English words as spaCy's blank English tokenizer splits them, compiled, over whole batches. Touches nothing.

A text is cut at white space into chunks, and the words of a chunk depend on nothing but the chunk. Chunks of plain
letters with a plain mark behind, most of English text, are settled at once; the others go through `split_chunk`.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from textmill.corpus.judging.classes import BACK, CJK, FRONT, JOINT, LETTER, SIZE, SPACE, SYMBOL, classes, money
from textmill.corpus.judging.exceptions import exceptions, units
from textmill.corpus.judging.splitting import (
    BASE,
    EXCEPTION,
    KIND,
    MASKS,
    PAIRS,
    PIECES,
    ROW,
    ROWS,
    SLOTS,
    TORN,
    UNIT,
    WORDS,
    Lexicon,
    known,
    may_be_known,
    split_chunk,
)
from textmill.corpus.kernels import code_at, inline, kernel, mix, width_of
from textmill.corpus.tables import stored
from textmill.corpus.texts import Texts

HAS_LETTER, HAS_CONTENT = 1, 2
"""Kinds of words: with an alphabetic character; with a character that is no symbol."""

_DOT = 46


class Words(NamedTuple):
    """Room for the words of one text; the first `count` of each array are its words.

    Attributes:
        hashes: uint64, polynomial hash of the characters.
        powers: uint64, BASE to the number of characters.
        sizes: int32, characters.
        kinds: uint8, HAS_LETTER and HAS_CONTENT.
        starts: int64, first byte, in the batch.
        codes: int32, characters of the chunk at hand.
        flags: uint32, their classes.
        ends: int32, ends of its words, in characters.
    """

    hashes: np.ndarray
    powers: np.ndarray
    sizes: np.ndarray
    kinds: np.ndarray
    starts: np.ndarray
    codes: np.ndarray
    flags: np.ndarray
    ends: np.ndarray


@inline
def _blank(data: np.ndarray, at: int, high: int) -> bool:
    return at == high or data[at] == 32 or (data[at] >= 9 and data[at] <= 13) or (data[at] >= 28 and data[at] <= 31)


@inline
def _letter(byte: int) -> bool:
    return ((byte | 32) >= 97) and ((byte | 32) <= 122)


@inline
def read_chunk(
    data: np.ndarray, low: int, high: int, classes: np.ndarray, codes: np.ndarray, flags: np.ndarray
) -> tuple[int, int, int]:
    """Decode the characters from byte `low` up to white space.

    Args:
        data: uint8 [bytes].
        low: first byte.
        high: byte after the last of the text.
        classes: uint32 [SIZE], the flag table.
        codes: receives the characters.
        flags: receives their classes.

    Returns:
        number of characters, byte after the last, all classes together.
    """
    at, size = low, 0
    seen: Any = np.uint32(0)
    while at < high:
        byte = data[at]
        width = 1 if byte < 0x80 else width_of(byte)
        code = np.int64(byte) if width == 1 else code_at(data, at, width)
        kind = classes[code] if code < SIZE else np.uint32(0)
        if kind & SPACE:
            break
        codes[size] = code
        flags[size] = kind
        seen |= kind
        size += 1
        at += width
    return size, at, seen


@kernel
def words_of(
    data: np.ndarray, low: int, high: int, words: Words, powers: np.ndarray, lexicon: Lexicon, apart: bool
) -> int:
    """Split one text into words.

    Args:
        data: uint8 [bytes], the batch.
        low: first byte of the text.
        high: byte after its last.
        words: receives them; room for high - low + 16 words.
        powers: BASE to the 0, 1, 2, … uint64 [64].
        lexicon: tables.
        apart: every Han, kana or hangul character is a word of its own.

    Returns:
        number of words.
    """
    hashes, scales, sizes, kinds, starts = words.hashes, words.powers, words.sizes, words.kinds, words.starts
    codes, flags, ends = words.codes, words.flags, words.ends
    classes, tables = lexicon.flags, lexicon.tables
    at, count = low, 0
    while at < high:
        if _blank(data, at, high):
            at += 1
            continue
        start, value = at, np.uint64(0)
        while at < high and _letter(data[at]):
            value = value * BASE + np.uint64(data[at] + 1)
            at += 1
        size = at - start
        plain: Any = False
        if size > 0 and size < 64:
            first: Any = np.int64(data[start])
            last: Any = np.int64(data[at - 1])
            if _blank(data, at, high):
                plain = not may_be_known(tables, first, last, size) or known(tables, value) == 0
            elif _blank(data, at + 1, high):
                mark: Any = np.int64(data[at])
                if mark == _DOT:
                    plain = last >= 97 or (size > 1 and data[at - 2] < 97)
                    if plain and may_be_known(tables, first, mark, size + 1):
                        plain = known(tables, value * BASE + np.uint64(_DOT + 1)) == 0
                else:
                    plain = mark in (44, 59, 58, 33, 63, 41, 34)
                if plain and may_be_known(tables, first, last, size):
                    plain = known(tables, value) == 0
        if plain:
            hashes[count] = value
            scales[count] = powers[size]
            sizes[count] = size
            kinds[count] = HAS_LETTER | HAS_CONTENT
            starts[count] = start
            count += 1
            if not _blank(data, at, high):
                hashes[count] = np.uint64(data[at] + 1)
                scales[count] = BASE
                sizes[count] = 1
                kinds[count] = 0
                starts[count] = at
                count += 1
                at += 1
            continue
        size, after, seen = read_chunk(data, start, high, classes, codes, flags)
        if size == 0:
            at = start + width_of(data[start])
            continue
        pieces = 1
        ends[0] = size
        if size > 1 and (
            seen & JOINT
            or flags[0] & FRONT
            or flags[size - 1] & BACK
            or may_be_known(tables, codes[0], codes[size - 1], size)
        ):
            pieces = split_chunk(codes, flags, size, seen, ends, tables, True)
        at = start
        place = 0
        for piece in range(pieces):
            end = ends[piece]
            while place < end:
                until = end
                if apart and seen & CJK:  # up to the next such character, or it alone
                    until = place + 1
                    while not flags[place] & CJK and until < end and not flags[until] & CJK:
                        until += 1
                value, scale, some, every = np.uint64(0), np.uint64(1), np.uint32(0), np.uint32(0xFFFFFFFF)
                starts[count] = at
                sizes[count] = until - place
                while place < until:
                    code = codes[place]
                    value = value * BASE + np.uint64(code + 1)
                    scale *= BASE
                    some |= flags[place]
                    every &= flags[place]
                    at += 1 if code < 0x80 else 2 if code < 0x800 else 3 if code < 0x10000 else 4
                    place += 1
                hashes[count] = value
                scales[count] = scale
                kinds[count] = (HAS_LETTER if some & LETTER else 0) | (0 if every & SYMBOL else HAS_CONTENT)
                count += 1
        at = after
    return count


def hash_of(word: str) -> int:
    """The polynomial hash of a word."""
    value = 0
    for character in word:
        value = (value * int(BASE) + ord(character) + 1) & 0xFFFFFFFFFFFFFFFF
    return value


def powers() -> np.ndarray:
    """BASE to the 0, 1, 2, … 63, uint64 [64]."""
    return np.array([pow(int(BASE), number, 1 << 64) for number in range(64)], dtype=np.uint64)


def room(bytes_: int) -> Words:
    """Room for the words of any text of at most so many bytes; memory is taken as it is filled, not before."""
    count = bytes_ + 16
    return Words(
        np.empty(count, np.uint64),
        np.empty(count, np.uint64),
        np.empty(count, np.int32),
        np.empty(count, np.uint8),
        np.empty(count, np.int64),
        np.empty(count, np.int32),
        np.empty(count, np.uint32),
        np.empty(8 * count, np.int32),
    )


def _tables(strings: list[str], kinds: list[int], cuts: list[list[int]], torn: list[list[int]]) -> Lexicon:
    tables = np.zeros(ROWS + ROW * len(strings), dtype=np.int64)
    masks, pairs = tables[MASKS:PAIRS].reshape(2, 128), tables[PAIRS:ROWS].reshape(128, 2)
    masks[:, 0] = -1
    for number, string in enumerate(strings):
        value = np.uint64(hash_of(string))
        row = ROWS + ROW * number
        slot = int(mix(value)) & (SLOTS - 1)
        while tables[slot]:
            slot = (slot + 1) & (SLOTS - 1)
        tables[slot], tables[row], tables[row + KIND] = row, value.astype(np.int64), kinds[number]
        for place, ends in ((PIECES, cuts[number]), (WORDS, torn[number])):
            tables[row + place] = len(ends)
            tables[row + place + 1 : row + place + 1 + len(ends)] = ends
        if kinds[number] & EXCEPTION:
            for side, edge in ((0, string[0]), (1, string[-1])):
                masks[side, ord(edge) if edge < "\x80" else 0] |= 1 << len(string)
        if torn[number]:
            first, second = (ord(letter) for letter in (string[0], string[torn[number][0]]))
            column = second if second < 128 else 0
            bits = pairs.view(np.uint64)
            bits[first if first < 128 else 0, column >> 6] |= np.uint64(1 << (column & 63))
    return Lexicon(classes(), tables)


@lru_cache(maxsize=1)
def lexicon() -> Lexicon:
    """The tables for English."""
    return Lexicon(classes(), _english())


@stored("judging/classes.py", "judging/exceptions.py", "judging/splitting.py", "kernels.py")
def _english() -> np.ndarray:
    """`Lexicon.tables` for English."""
    cut_up = exceptions()
    measures = units() | set(money())
    strings = [*cut_up, *sorted(measures - cut_up.keys())]
    kinds = [(EXCEPTION if string in cut_up else 0) | (UNIT if string in measures else 0) for string in strings]
    cuts = [np.cumsum([len(piece) for piece in cut_up.get(string, (string,))]).tolist() for string in strings]
    affixes = _tables(strings, kinds, cuts, [[] for _ in strings])
    torn: list[list[int]] = []
    for number, string in enumerate(strings):
        codes = np.array([ord(character) for character in string], dtype=np.int32)
        flags = affixes.flags[codes]
        ends = np.zeros(8 * len(codes) + 64, dtype=np.int32)
        count = split_chunk(codes, flags, len(codes), np.bitwise_or.reduce(flags), ends, affixes.tables, False)
        torn.append(ends[:count].tolist() if count > 1 and string in cut_up else [])
        kinds[number] |= TORN if torn[-1] else 0
    return _tables(strings, kinds, cuts, torn).tables


def split_words(texts: Texts) -> list[list[str]]:
    """The words of each text; for people and tests, the measures never leave the compiled code."""
    found = []
    for row in range(len(texts)):
        text = texts[row]
        words = room(len(text))
        count = words_of(np.frombuffer(text, np.uint8), 0, len(text), words, powers(), lexicon(), False)
        places = [*words.starts[:count].tolist(), len(text)]
        found.append([text[low:high].decode().strip() for low, high in pairwise(places)])
    return found
