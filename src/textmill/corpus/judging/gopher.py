"""Gopher's rules for quality and repetition (Rae et al. 2021, section A1.1), as datatrove's GopherQualityFilter and
GopherRepetitionFilter measure them. Touches nothing."""

from __future__ import annotations

import numpy as np

from textmill.corpus.judging.classes import LINE_BREAK, SIZE, SPACE
from textmill.corpus.judging.repetition import extend, extend_apart, repeated_ngrams, repeated_pieces, top_ngram
from textmill.corpus.judging.rules import Rule
from textmill.corpus.judging.words import (
    HAS_CONTENT,
    HAS_LETTER,
    Lexicon,
    Words,
    hash_of,
    lexicon,
    powers,
    room,
    words_of,
)
from textmill.corpus.kernels import code_at, kernel, width_of
from textmill.corpus.texts import Texts

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
"""Words of which English prose has at least two."""

COLUMNS = {
    "gopher_characters": "Characters in the text.",
    "gopher_dup_para_frac": "Share of paragraphs that occurred before in the text.",
    "gopher_dup_para_char_frac": "Share of characters in such paragraphs.",
    "gopher_dup_line_frac": "Share of lines that occurred before in the text.",
    "gopher_dup_line_char_frac": "Share of characters in such lines.",
    **{
        f"gopher_top_{order}_gram": f"Share of characters in the most frequent sequence of {order} words."
        for order in range(2, 5)
    },
    **{
        f"gopher_duplicated_{order}_n_grams": f"Share of characters in sequences of {order} words that occurred before."
        for order in range(5, 11)
    },
    "gopher_words": "Words that are more than symbols.",
    "gopher_mean_word_length": "Mean length of these words, in characters.",
    "gopher_hash_ratio": "Hash signs for each word.",
    "gopher_ellipsis_ratio": "Ellipses for each word.",
    "gopher_bullet_lines": "Share of lines that begin with a bullet or a hyphen.",
    "gopher_ellipsis_lines": "Share of lines that end with an ellipsis.",
    "gopher_alphabetic_words": "Share of words with an alphabetic character.",
    "gopher_stop_words": "How many of the words the, be, to, of, and, that, have, with occur.",
}

_SOURCE = "Rae et al. 2021 (arXiv 2112.11446), table A1; datatrove 0.10.1 GopherRepetitionFilter"
_QUALITY = "Rae et al. 2021 (arXiv 2112.11446), section A1.1; datatrove 0.10.1 GopherQualityFilter"

REPETITION_RULES: tuple[Rule, ...] = (
    Rule("empty", "gopher_characters", "min", 1, "There is no text.", source=_SOURCE),
    Rule(
        "dup_para_frac", "gopher_dup_para_frac", "max", 0.3, "Too many paragraphs are repeated in full.", source=_SOURCE
    ),
    Rule(
        "dup_para_char_frac",
        "gopher_dup_para_char_frac",
        "max",
        0.2,
        "Too much of the text lies in repeated paragraphs.",
        source=_SOURCE,
    ),
    Rule("dup_line_frac", "gopher_dup_line_frac", "max", 0.3, "Too many lines are repeated in full.", source=_SOURCE),
    Rule(
        "dup_line_char_frac",
        "gopher_dup_line_char_frac",
        "max",
        0.2,
        "Too much of the text lies in repeated lines.",
        source=_SOURCE,
    ),
    *(
        Rule(
            f"top_{order}_gram",
            f"gopher_top_{order}_gram",
            "max",
            share,
            f"One sequence of {order} words makes up too much of the text.",
            source=_SOURCE,
        )
        for order, share in ((2, 0.2), (3, 0.18), (4, 0.16))
    ),
    *(
        Rule(
            f"duplicated_{order}_n_grams",
            f"gopher_duplicated_{order}_n_grams",
            "max",
            share,
            f"Too much of the text lies in repeated sequences of {order} words.",
            source=_SOURCE,
        )
        for order, share in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.1))
    ),
)
"""GopherRepetitionFilter, in its order; names are datatrove's reasons."""

QUALITY_RULES: tuple[Rule, ...] = (
    Rule("gopher_short_doc", "gopher_words", "min", 50, "Too few words to be prose.", source=_QUALITY),
    Rule("gopher_long_doc", "gopher_words", "max", 100_000, "Too many words for one document.", source=_QUALITY),
    Rule(
        "gopher_below_avg_threshold", "gopher_mean_word_length", "min", 3, "The words are very short.", source=_QUALITY
    ),
    Rule(
        "gopher_above_avg_threshold", "gopher_mean_word_length", "max", 10, "The words are very long.", source=_QUALITY
    ),
    Rule("gopher_too_many_hashes", "gopher_hash_ratio", "max", 0.1, "Hash signs instead of words.", source=_QUALITY),
    Rule(
        "gopher_too_many_ellipsis", "gopher_ellipsis_ratio", "max", 0.1, "Ellipses instead of words.", source=_QUALITY
    ),
    Rule("gopher_too_many_bullets", "gopher_bullet_lines", "max", 0.9, "Nothing but bullet points.", source=_QUALITY),
    Rule(
        "gopher_too_many_end_ellipsis",
        "gopher_ellipsis_lines",
        "max",
        0.3,
        "Many lines break off with an ellipsis, as teasers do.",
        source=_QUALITY,
    ),
    Rule(
        "gopher_below_alpha_threshold",
        "gopher_alphabetic_words",
        "min",
        0.8,
        "Too many words without a letter: tables, code, numbers.",
        source=_QUALITY,
    ),
    Rule(
        "gopher_enough_stop_words",
        "gopher_stop_words",
        "min",
        2,
        "Hardly any of the words that all English prose has.",
        source=_QUALITY,
    ),
)
"""GopherQualityFilter, in its order; names are datatrove's reasons."""

RULES: tuple[Rule, ...] = REPETITION_RULES + QUALITY_RULES

_NAMES = tuple(COLUMNS)
_TOP = _NAMES.index("gopher_top_2_gram")
_WORDS = _NAMES.index("gopher_words")


@kernel
def _lines(data: np.ndarray, low: int, high: int, flags: np.ndarray, out: np.ndarray) -> None:
    """Characters, hash signs, ellipses, lines, lines with a bullet, lines that end with an ellipsis; and the first
    and last byte of the text without white space around it: int64 [8]."""
    out[:] = 0
    characters = hashes = ellipses = lines = bullets = ends = 0
    first, last = -1, low
    at = low
    dots = 0  # full stops since the last ellipsis of three
    begun = trailing = bullet = False
    run = 0  # full stops right before here; white space at the end of a line does not count
    open_line = False
    while at < high:
        byte = data[at]
        width = 1 if byte < 0x80 else width_of(byte)
        code = np.int64(byte) if width == 1 else code_at(data, at, width)
        kind = flags[code] if code < SIZE else np.uint32(0)
        characters += 1
        at += width
        if code == 46:
            dots += 1
            if dots == 3:
                ellipses += 1
                dots = 0
        else:
            dots = 0
        if kind & SPACE:
            if kind & LINE_BREAK:
                if code == 13 and at < high and data[at] == 10:
                    characters += 1
                    at += 1
                lines += 1
                bullets += bullet
                ends += trailing
                begun = trailing = bullet = open_line = False
                run = 0
            else:
                open_line = True
                run = -1 if run > 0 else run
            continue
        if first < 0:
            first = at - width
        last = at
        open_line = True
        if code == 35:
            hashes += 1
        if not begun:
            begun = True
            bullet = code == 0x2022 or code == 45
        if code == 46:
            run = run + 1 if run > 0 else 1
            trailing = run >= 3
        else:
            run = 0
            trailing = code == 0x2026
            ellipses += trailing
    if open_line:
        lines += 1
        bullets += bullet
        ends += trailing
    out[0], out[1], out[2], out[3], out[4], out[5] = characters, hashes, ellipses, lines, bullets, ends
    out[6], out[7] = max(first, low), last


@kernel
def _measure(
    data: np.ndarray,
    offsets: np.ndarray,
    apart: np.ndarray,
    words: Words,
    powers: np.ndarray,
    lexicon: Lexicon,
    stops: np.ndarray,
    grams: np.ndarray,
    joined: np.ndarray,
    ends: np.ndarray,
    table: np.ndarray,
    seen: np.ndarray,
    tally: np.ndarray,
    out: np.ndarray,
) -> None:
    found = np.zeros(8, np.int64)
    pieces = np.zeros(3, np.int64)
    likely = np.uint64(0)  # bits of the hashes of the stop words; most words are ruled out by it
    for number in range(len(stops)):
        likely |= np.uint64(1) << (stops[number] >> np.uint64(58))
    for row in range(len(offsets) - 1):
        low, high = offsets[row], offsets[row + 1]
        _lines(data, low, high, lexicon.flags, found)
        characters = found[0]
        out[0, row] = characters
        for breaks in (2, 1):
            first, last = (found[6], found[7]) if breaks == 2 else (low, high)
            repeated_pieces(data, first, last, breaks, grams, table, pieces)
            out[5 - 2 * breaks, row] = pieces[1] / pieces[0]
            out[6 - 2 * breaks, row] = pieces[2] / characters
        count = words_of(data, low, high, words, powers, lexicon, apart[row])
        letters = content = length = stop = 0
        ends[0] = 0
        for word in range(count):
            letters += words.kinds[word] & HAS_LETTER
            ends[word + 1] = ends[word] + words.sizes[word]
            if words.kinds[word] & HAS_CONTENT:
                content += 1
                length += words.sizes[word]
            if words.sizes[word] <= 4 and (likely >> (words.hashes[word] >> np.uint64(58))) & np.uint64(1):
                for number in range(len(stops)):
                    if stops[number] == words.hashes[word]:
                        stop |= 1 << number
            grams[word] = words.hashes[word]
            joined[word] = words.hashes[word]
        stop_words = 0
        for number in range(len(stops)):
            stop_words += (stop >> number) & 1
        for order in range(2, 11):
            left = max(count - order + 1, 0)
            extend(joined, words.hashes, words.powers, left, order)
            if order < 5:
                extend_apart(grams, words.hashes, left, order)
                value = top_ngram(grams, words.sizes, left, order, seen, tally)
            else:
                value = repeated_ngrams(joined, ends, left, order, seen)
            out[_TOP + order - 2, row] = value / characters
        out[_WORDS, row] = content
        out[_WORDS + 1, row] = length / content
        out[_WORDS + 2, row] = found[1] / count
        out[_WORDS + 3, row] = found[2] / count
        out[_WORDS + 4, row] = found[4] / found[3]
        out[_WORDS + 5, row] = found[5] / found[3]
        out[_WORDS + 6, row] = letters / count
        out[_WORDS + 7, row] = stop_words


def measure(texts: Texts, apart: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The columns of COLUMNS, float64 [n] each; NaN where a ratio has no denominator (an empty text).

    Args:
        texts: n texts.
        apart: bool [n], texts in which every Han, kana or hangul character counts as a word, as it should in
            languages written without spaces; None for none, which is what datatrove's English splitter does.
    """
    offsets = np.ascontiguousarray(texts.offsets)
    longest = int(texts.sizes.max(initial=0)) + 16
    slots = 16
    while slots < 2 * longest:
        slots *= 2
    out = np.empty((len(COLUMNS), len(texts)))
    _measure(
        texts.data,
        offsets,
        np.zeros(len(texts), np.bool_) if apart is None else np.ascontiguousarray(apart, np.bool_),
        room(longest),
        powers(),
        lexicon(),
        np.array([hash_of(word) for word in STOP_WORDS], dtype=np.uint64),
        np.empty(longest, np.uint64),
        np.empty(longest, np.uint64),
        np.empty(longest + 1, np.int64),
        np.empty(slots, np.int32),
        np.empty(slots, np.uint64),
        np.empty(slots, np.int32),
        out,
    )
    return dict(zip(COLUMNS, out, strict=True))
