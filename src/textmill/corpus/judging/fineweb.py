"""FineWeb's own rules (Penedo et al. 2024, section 3.6), as datatrove's FineWebQualityFilter measures them.
Touches nothing."""

from __future__ import annotations

import numpy as np

from textmill.corpus.judging.classes import SIZE, SPACE, TERMINAL
from textmill.corpus.judging.repetition import clear, first_of
from textmill.corpus.judging.rules import Rule
from textmill.corpus.judging.words import BASE, Lexicon, Words, lexicon, powers, room, words_of
from textmill.corpus.kernels import code_at, kernel, width_of
from textmill.corpus.texts import Texts

SHORT_LINE = 30
"""Characters; a line of at most so many is short."""

COLUMNS = {
    "fineweb_lines": "Lines that are not blank.",
    "fineweb_terminal_lines": "Share of these that end in a terminal punctuation mark.",
    "fineweb_short_lines": "Share of these with at most 30 characters.",
    "fineweb_duplicate_line_characters": "Share of characters in lines that occurred before.",
    "fineweb_newline_ratio": "Line feeds for each word.",
}

_SOURCE = "Penedo et al. 2024 (arXiv 2406.17557), section 3.6; datatrove 0.10.1 FineWebQualityFilter"

RULES: tuple[Rule, ...] = (
    Rule("fineweb_empty", "fineweb_lines", "min", 1, "Every line is blank.", source=_SOURCE),
    Rule(
        "line_punct_ratio",
        "fineweb_terminal_lines",
        "min",
        0.12,
        "Hardly any line ends as a sentence does: menus and lists.",
        source=_SOURCE,
    ),
    Rule("short_line_ratio", "fineweb_short_lines", "max", 0.67, "Most lines are very short: a list.", source=_SOURCE),
    Rule(
        "char_dup_ratio",
        "fineweb_duplicate_line_characters",
        "max",
        0.01,
        "Too much of the text lies in repeated lines.",
        source=_SOURCE + " (the code's 0.01; the paper has 0.1)",
    ),
    Rule("list_ratio", "fineweb_newline_ratio", "max", 0.3, "A line feed after every few words.", source=_SOURCE),
)
"""In datatrove's order; names are its reasons, but for `fineweb_empty`, which it calls `empty`."""


@kernel
def _measure(
    data: np.ndarray,
    offsets: np.ndarray,
    apart: np.ndarray,
    words: Words,
    powers: np.ndarray,
    lexicon: Lexicon,
    keys: np.ndarray,
    sizes: np.ndarray,
    table: np.ndarray,
    out: np.ndarray,
) -> None:
    flags = lexicon.flags
    for row in range(len(offsets) - 1):
        low, end = offsets[row], offsets[row + 1]
        at, lines, short, terminal, characters, feeds = low, 0, 0, 0, 0, 0
        while at < end:
            value, size = np.uint64(0), 0
            blank = True
            kind = np.uint32(0)
            while at < end and data[at] != 10:
                byte = data[at]
                width = 1 if byte < 0x80 else width_of(byte)
                code = np.int64(byte) if width == 1 else code_at(data, at, width)
                kind = flags[code] if code < SIZE else np.uint32(0)
                blank &= kind & SPACE != 0
                value = value * BASE + np.uint64(code + 1)
                size += 1
                at += width
            feeds += at < end
            at += 1
            characters += size
            if not blank:
                keys[lines], sizes[lines] = value, size
                lines += 1
                short += size <= SHORT_LINE
                terminal += kind & TERMINAL != 0
        shift = clear(table, lines)
        repeated = 0
        for line in range(lines):
            if first_of(table, shift, keys, line) != line:
                repeated += sizes[line]
        out[0, row] = lines
        out[1, row] = terminal / lines
        out[2, row] = short / lines
        out[3, row] = repeated / characters
        out[4, row] = feeds / words_of(data, low, end, words, powers, lexicon, apart[row])


def measure(texts: Texts, apart: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The columns of COLUMNS, float64 [n] each; NaN where a ratio has no denominator.

    Args:
        texts: n texts; in FineWeb's order of work, those that `clean_lines(texts, "c4-any-ending")` leaves.
        apart: as for `gopher.measure`.
    """
    longest = int(texts.sizes.max(initial=0)) + 16
    slots = 16
    while slots < 2 * longest:
        slots *= 2
    out = np.empty((len(COLUMNS), len(texts)))
    _measure(
        texts.data,
        np.ascontiguousarray(texts.offsets),
        np.zeros(len(texts), np.bool_) if apart is None else np.ascontiguousarray(apart, np.bool_),
        room(longest),
        powers(),
        lexicon(),
        np.empty(longest, np.uint64),
        np.empty(longest, np.int64),
        np.empty(slots, np.int32),
        out,
    )
    return dict(zip(COLUMNS, out, strict=True))
