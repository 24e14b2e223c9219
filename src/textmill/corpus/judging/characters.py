"""What characters and lines a text is made of, counted in one pass over the bytes. Touches nothing."""

from __future__ import annotations

import unicodedata
from typing import NamedTuple

import numpy as np

from textmill.corpus.kernels import code_at, kernel, width_of
from textmill.corpus.tables import stored
from textmill.corpus.texts import Texts

OTHER, SPACE, SYMBOL, LOWER, HAN, KANA, HANGUL, UPPER, DIGIT = range(9)
"""Character classes. SYMBOL: punctuation too. LOWER: every letter that is neither uppercase nor of the three East
Asian scripts. OTHER: combining marks, controls, numbers that are no decimal digits."""

CLASSES = 9
_TABLE_SIZE = 0x20000

COLUMNS = {
    "characters": "Length in Unicode code points.",
    "characters_weighted": "Length in which a Chinese, Japanese or Korean character counts as three.",
    "symbol_ratio": "Punctuation and symbols, as a share of the characters that are no spaces.",
    "letter_share": "Letters of any script, as a share of the characters that are no spaces.",
    "digit_share": "Decimal digits, as a share of the characters that are no spaces.",
    "space_share": "Spaces and line ends, as a share of all characters.",
    "uppercase_share": "Uppercase letters, as a share of all letters.",
    "han_share": "Chinese characters, as a share of the characters that are no spaces.",
    "kana_share": "Japanese kana, as a share of the characters that are no spaces.",
    "hangul_share": "Korean Hangul, as a share of the characters that are no spaces.",
    "lines": "Lines that are not empty.",
    "mean_line_length": "Mean length of the lines that are not empty, in characters.",
    "longest_line": "Length of the longest line, in characters.",
}
"""What `measure` gives: column and meaning."""


class Counts(NamedTuple):
    """What `count` finds in n texts.

    Attributes:
        classes: int64 [n, 9], characters of each class.
        lines: int64 [n], lines that are not empty.
        longest: int64 [n], characters of the longest line.
        breaks: int64 [n], line feeds.
    """

    classes: np.ndarray
    lines: np.ndarray
    longest: np.ndarray
    breaks: np.ndarray


@stored()
def class_table() -> np.ndarray:
    """Character class by code point, uint8 [0x20001]; the last entry stands for all planes above, which are Han."""
    table = np.full(_TABLE_SIZE + 1, OTHER, dtype=np.uint8)
    by_category = {"Zs": SPACE, "Zl": SPACE, "Zp": SPACE, "Lu": UPPER, "Lt": UPPER, "Nd": DIGIT}
    by_first = {"P": SYMBOL, "S": SYMBOL, "L": LOWER}
    for code in range(_TABLE_SIZE):
        category = unicodedata.category(chr(code))
        table[code] = by_category.get(category) or by_first.get(category[0], OTHER)
    table[[9, 10]] = SPACE
    for first, last, kind in (
        (0x3041, 0x30FF, KANA),
        (0x31F0, 0x31FF, KANA),
        (0xFF66, 0xFF9D, KANA),
        (0x3005, 0x3007, HAN),
        (0x3400, 0x4DBF, HAN),
        (0x4E00, 0x9FFF, HAN),
        (0xF900, 0xFAFF, HAN),
        (0x1100, 0x11FF, HANGUL),
        (0x3130, 0x318F, HANGUL),
        (0xAC00, 0xD7AF, HANGUL),
    ):
        span = table[first : last + 1]
        span[span != SYMBOL] = kind
    table[_TABLE_SIZE] = HAN
    return table


@kernel
def _count(
    data: np.ndarray, offsets: np.ndarray, table: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    count = len(offsets) - 1
    classes = np.zeros((count, CLASSES), np.int64)
    lines, longest, breaks = np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros(count, np.int64)
    histogram = np.empty(128, np.int64)
    for row in range(count):
        histogram[:] = 0
        at, stop = offsets[row], offsets[row + 1]
        begin, extra = at, np.int64(0)  # a line's bytes, and how many of them continue a character
        while at < stop:
            byte = data[at]
            if byte < 0x80:
                histogram[byte] += 1
                if byte == 10:
                    length = at - begin - extra
                    lines[row] += length > 0
                    longest[row] = max(longest[row], length)
                    begin, extra = at + 1, np.int64(0)
                at += 1
            else:
                width = width_of(byte)
                classes[row, table[min(code_at(data, at, width), _TABLE_SIZE)]] += 1
                extra += width - 1
                at += width
        length = stop - begin - extra
        lines[row] += length > 0
        longest[row] = max(longest[row], length)
        breaks[row] = histogram[10]
        for byte in range(128):
            classes[row, table[byte]] += histogram[byte]
    return classes, lines, longest, breaks


def count(texts: Texts) -> Counts:
    """Count characters by class, and lines, of n texts."""
    return Counts(*_count(texts.data, texts.offsets, class_table()))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def measure(texts: Texts) -> dict[str, np.ndarray]:
    """Measure n texts.

    Returns:
        COLUMNS, [n] each: `characters`, `characters_weighted`, `lines` and `longest_line` int64, the rest float64.
    """
    found = count(texts)
    kinds = found.classes
    total = kinds.sum(axis=1)
    visible = total - kinds[:, SPACE]
    east = kinds[:, HAN] + kinds[:, KANA] + kinds[:, HANGUL]
    letters = kinds[:, LOWER] + kinds[:, UPPER] + east
    return {
        "characters": total,
        "characters_weighted": total + 2 * east,
        "symbol_ratio": _share(kinds[:, SYMBOL], visible),
        "letter_share": _share(letters, visible),
        "digit_share": _share(kinds[:, DIGIT], visible),
        "space_share": _share(kinds[:, SPACE], total),
        "uppercase_share": _share(kinds[:, UPPER], letters),
        "han_share": _share(kinds[:, HAN], visible),
        "kana_share": _share(kinds[:, KANA], visible),
        "hangul_share": _share(kinds[:, HANGUL], visible),
        "lines": found.lines,
        "mean_line_length": _share(total - found.breaks, found.lines),
        "longest_line": found.longest,
    }
