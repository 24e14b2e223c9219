"""Many texts made clean at once: exactly what `clean` gives for each, most of them without leaving compiled code.
Touches nothing.

A kernel reads the bytes once and finds the texts that are clean already, but for their ends and their carriage
returns. Only the others (control characters, what looks wrongly decoded, what may not be composed) go to `clean`.
"""

from __future__ import annotations

import unicodedata
from typing import Any, NamedTuple

import numpy as np

from textmill.corpus.cleaning.text import clean
from textmill.corpus.kernels import code_at, inline, kernel, width_of
from textmill.corpus.tables import stored
from textmill.corpus.texts import Texts

_BLOCK = 64
_SLOW = 255
_TABLE_SIZE = 0x30000
"""No character above this plane decomposes or combines (checked by the tests against `unicodedata`)."""

_PLAIN_SPANS = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x17000, 0x187FF), (0x20000, 0x2F7FF))
"""Ranges of thousands of characters that are all composed and combine with nothing before them."""


class CleanedTexts(NamedTuple):
    """Cleaned texts.

    Attributes:
        texts: n of them, in the order given; some may be empty.
        repaired: bool [n], whether a wrong decoding was undone.
        damage: float64 [n], share of the characters that were no text (control and replacement characters).
    """

    texts: Texts
    repaired: np.ndarray
    damage: np.ndarray


@stored()
def _table() -> np.ndarray:
    """What must be known of a code point to see that a text is clean, uint8 [0x30000].

    0: nothing. 255: `clean` must decide. Else its canonical combining class, whose order matters. This is the quick
    check of Unicode Standard Annex #15, section 9, with "maybe" read as "let clean decide".
    """
    table = np.zeros(_TABLE_SIZE, dtype=np.uint8)
    plain = np.zeros(_TABLE_SIZE, dtype=bool)
    for first, last in _PLAIN_SPANS:
        plain[first : last + 1] = True
    codes = np.flatnonzero(~plain).tolist()
    for code in codes:
        table[code] = unicodedata.combining(chr(code))
    for code in codes:
        character = chr(code)
        parts = unicodedata.decomposition(character)
        if parts and not parts.startswith("<"):
            if 0xD800 <= code <= 0xDFFF or unicodedata.normalize("NFC", character) != character:
                table[code] = _SLOW
            second = parts.split()[1:2]
            if second:  # may compose with what stands before it
                table[int(second[0], 16)] = _SLOW
    table[0x1161:0x1176] = table[0x11A8:0x11C3] = _SLOW  # Hangul vowels and finals compose by rule
    table[:9] = table[11:32] = table[0x7F:0xA0] = _SLOW
    table[0x0D] = 0  # the kernel sees to carriage returns itself
    table[[0x2028, 0x2029, 0xFEFF, 0xFFF9, 0xFFFA, 0xFFFB, 0xFFFD, 0xFFFE, 0xFFFF]] = _SLOW
    return table


@inline
def _leads_on(byte: int) -> bool:
    """Whether a byte begins a character that Latin-1 or Windows-1252 shows for a continuation byte of UTF-8."""
    return byte == 0xC2 or byte == 0xC5 or byte == 0xC6 or byte == 0xCB or byte == 0xE2 or byte == 0xEF


@inline
def _may_be_mojibake(data: np.ndarray, at: int, stop: int) -> bool:
    """Whether the character at `at`, whose first byte is C3, begins what a wrong decoding leaves."""
    second = data[at + 1]
    if at + 2 >= stop or second < 0x82 or second > 0xB4 or not _leads_on(data[at + 2]):
        return False
    if second < 0xA0:
        return True
    after = at + 2 + width_of(data[at + 2])
    return after < stop and _leads_on(data[after])


@kernel
def _scan(
    data: np.ndarray, offsets: np.ndarray, table: np.ndarray, repair: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Per text: 0 clean, 1 with carriage returns, 2 for `clean`; where it begins and ends without what is trimmed;
    its bytes after cleaning (0 for kind 2)."""
    count = len(offsets) - 1
    kinds = np.zeros(count, np.uint8)
    starts, ends, sizes = np.empty(count, np.int64), np.empty(count, np.int64), np.zeros(count, np.int64)
    for row in range(count):
        at, stop = offsets[row], offsets[row + 1]
        while at < stop and (data[at] == 10 or data[at] == 13):
            at += 1
        end = stop
        while end > at:
            last = data[end - 1]
            if last == 32 or last == 10 or last == 9 or last == 13:
                end -= 1
            elif end - 2 >= at and last == 0xA0 and data[end - 2] == 0xC2:
                end -= 2
            elif end - 3 >= at and last >= 0x80:
                a, b = data[end - 3], data[end - 2]
                if (
                    (a == 0xE3 and b == 0x80 and last == 0x80)
                    or (a == 0xE2 and b == 0x80 and (last <= 0x8A or last == 0xAF))
                    or (a == 0xE2 and b == 0x81 and last == 0x9F)
                    or (a == 0xE1 and b == 0x9A and last == 0x80)
                ):
                    end -= 3
                else:
                    break
            else:
                break
        starts[row], ends[row] = at, end
        # What is trimmed holds plain spaces only, unless a control character ends the trimming.
        returns, slow, before = np.int64(0), False, np.uint8(0)
        while at < stop and not slow:
            if at + _BLOCK <= stop:  # compiled to a few wide instructions
                high, low, cr = np.uint8(0), np.uint8(0), np.uint8(0)
                for place in range(at, at + _BLOCK):
                    byte = data[place]
                    high |= byte
                    cr |= np.uint8(byte == 13)
                    low |= np.uint8((byte < 32) & (byte != 10) & (byte != 9) & (byte != 13)) | np.uint8(byte == 127)
                if high < 0x80:
                    slow = low != 0
                    if cr:
                        for place in range(at, min(at + _BLOCK, end)):
                            returns += data[place] == 13 and place + 1 < end and data[place + 1] == 10
                        kinds[row] = 1
                    at += _BLOCK
                    before = np.uint8(0)
                    continue
            until = min(stop, at + _BLOCK)
            while at < until:
                byte = data[at]
                if byte < 0x80:
                    if byte == 13:
                        returns += at + 1 < end and data[at + 1] == 10
                        kinds[row] = 1
                    if table[byte]:
                        slow = True
                        break
                    before = np.uint8(0)
                    at += 1
                    continue
                width = width_of(byte)
                code = code_at(data, at, width)
                known = table[code] if code < _TABLE_SIZE else np.uint8(0)
                if known and (known == _SLOW or before > known):
                    slow = True
                    break
                before = known
                if repair and byte == 0xC3 and _may_be_mojibake(data, at, stop):
                    slow = True
                    break
                at += width
        if slow:
            kinds[row] = 2
        else:
            sizes[row] = end - starts[row] - returns
    return kinds, starts, ends, sizes


@kernel
def _write(
    data: np.ndarray, kinds: np.ndarray, starts: np.ndarray, ends: np.ndarray, out: np.ndarray, places: np.ndarray
) -> None:
    """Copy the texts of kinds 0 and 1 to their places, carriage returns made line feeds."""
    for row in range(len(kinds)):
        start, end, to = starts[row], ends[row], places[row]
        if kinds[row] == 0:
            out[to : to + end - start] = data[start:end]
        elif kinds[row] == 1:
            for at in range(start, end):
                byte = data[at]
                if byte == 13:
                    if at + 1 < end and data[at + 1] == 10:
                        continue
                    byte = np.uint8(10)
                out[to] = byte
                to += 1


def clean_batch(texts: Texts, repair: bool = True) -> CleanedTexts:
    """`clean` on each of n texts.

    Args:
        texts: n texts.
        repair: whether to look for mojibake.

    Returns:
        the same buffer where every text is clean already.
    """
    count = len(texts)
    repaired, damage = np.zeros(count, dtype=bool), np.zeros(count)
    kinds, starts, ends, sizes = _scan(texts.data, texts.offsets, _table(), repair)
    redone: dict[int, bytes] = {}
    for row in np.flatnonzero(kinds == 2).tolist():
        cleaned = clean(texts.string(row), repair)
        redone[row], repaired[row], damage[row] = cleaned.utf8, cleaned.repaired, cleaned.damage
        if cleaned.utf8 == texts[row]:
            del redone[row]
            kinds[row], starts[row], ends[row] = 0, texts.offsets[row], texts.offsets[row + 1]
        sizes[row] = len(cleaned.utf8)
    if not kinds.any() and np.array_equal(starts, texts.offsets[:-1]) and np.array_equal(ends, texts.offsets[1:]):
        return CleanedTexts(texts, repaired, damage)
    offsets = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(sizes, out=offsets[1:])
    out = np.empty(int(offsets[-1]), dtype=np.uint8)
    _write(texts.data, kinds, starts, ends, out, offsets)
    for row, utf8 in redone.items():
        out[offsets[row] : offsets[row + 1]] = np.frombuffer(utf8, dtype=np.uint8)
    return CleanedTexts(Texts(out, offsets), repaired, damage)


def clean_texts(texts: Texts, config: Any) -> CleanedTexts:
    """Clean n texts as a `CorpusConfig` asks.

    Always: what `clean` does. On request, in this order: `normalize="nfkc"`, `chinese="simplified"|"traditional"`,
    `collapse_spaces`.

    Args:
        texts: n texts.
        config: the corpus settings.

    Raises:
        UsageError: the `chinese` extra is not installed and a conversion was asked for.
    """
    found = clean_batch(texts, config.repair)
    changed = found.texts
    if getattr(config, "normalize", "nfc") == "nfkc":
        from textmill.corpus.cleaning.forms import compatibility

        changed = compatibility(changed)
    if getattr(config, "chinese", "keep") != "keep":
        from textmill.corpus.cleaning.forms import convert_chinese

        changed = convert_chinese(changed, config.chinese)
    if getattr(config, "collapse_spaces", False):
        from textmill.corpus.cleaning.spaces import collapse_spaces

        changed = collapse_spaces(changed)
    return found._replace(texts=changed)
