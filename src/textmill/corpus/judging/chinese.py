"""Measures of Chinese documents, and the rules of two published Chinese corpora. Touches nothing.

Character n-grams and their duplicates are counted as Gopher's repetition rules count words (Rae et al. 2021, table
A1), over the characters that are no spaces. Words come from jieba's dictionary, by the package rjieba; without it
their columns are NaN, and a rule that needs them is an error.
"""

from __future__ import annotations

import importlib.util
import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from textmill.base.errors import UsageError
from textmill.corpus.cleaning.words import chinese_cutter
from textmill.corpus.judging.characters import DIGIT, HAN, SPACE, SYMBOL, class_table
from textmill.corpus.judging.rules import Rule
from textmill.corpus.kernels import code_at, inline, kernel, mix, width_of
from textmill.corpus.texts import Texts

_TOPS = (2, 3, 4)
_DUPLICATES = (5, 6, 7, 8, 9, 10, 13)
_ENDS = ("readmore", "展开", "更多", "。。。")
_BULLETS = ("•", "●", "-", "*", "·")
_COUNTED = 11
(_BRACKETS, _DIGITS, _SYMBOLS, _HANS, _SENTENCES, _MORE, _BULLET, _ENDED, _LINES, _HASHES, _DOTS) = range(_COUNTED)

WORD_COLUMNS = {
    "zh_words": "Words by jieba's dictionary, punctuation marks among them.",
    "zh_mean_word_length": "Mean length of those words, in characters.",
    "zh_hash_ratio": "Number signs for each word.",
    "zh_ellipsis_ratio": "Ellipses for each word.",
    "zh_word_entropy": "Entropy of the distribution of words, in nats.",
}
"""Columns that need the `chinese` extra."""

COLUMNS = {
    "zh_characters": "Length in characters.",
    "zh_han_share": "Chinese characters, as a share of the characters that are no spaces.",
    "zh_bracket_share": "The brackets 【 and 】, as a share of all characters.",
    "zh_digit_share": "Decimal digits, as a share of all characters.",
    "zh_punctuation": "Punctuation marks and symbols.",
    "zh_unique_share": "Different characters, as a share of all characters.",
    "zh_sentences": "Sentences: texts that end in 。！？.!?… or at the end of the document.",
    "zh_mean_line_length": "Mean length of the lines that are not blank, in characters.",
    "zh_more_lines": "Lines that end in readmore, 展开, 更多 or 。。。, as a share of the lines that are not blank.",
    "zh_bullet_lines": "Lines that begin with a bullet, as a share of the lines that are not blank.",
    "zh_ended_lines": "Lines that end in a sentence's end, as a share of the lines that are not blank.",
    **{f"zh_top_{n}gram": f"Characters in the most frequent {n}-gram of characters, as a share." for n in _TOPS},
    **{f"zh_duplicate_{n}gram": f"Characters in repeated {n}-grams of characters, as a share." for n in _DUPLICATES},
    **WORD_COLUMNS,
}
"""What `measure` gives: column and meaning."""

_MAP_CC = "MAP-CC (Du et al. 2024, Chinese Tiny LLM, arXiv 2404.04167)"
_WEB = "ChineseWebText (Chen et al. 2023, arXiv 2311.01149)"


def _rule(name: str, column: str, bound: str, threshold: float, explanation: str, source: str, strict: bool) -> Rule:
    return Rule(
        name,
        column,
        "min" if bound == "min" else "max",
        threshold,
        explanation,
        strict=strict,
        languages=("zh",),
        source=source,
    )


def _map_cc(name: str, column: str, bound: str, threshold: float, explanation: str, strict: bool = False) -> Rule:
    return _rule(f"map_cc_{name}", column, bound, threshold, explanation, _MAP_CC, strict)


def _web(name: str, column: str, bound: str, threshold: float, explanation: str) -> Rule:
    return _rule(f"chinese_web_{name}", column, bound, threshold, explanation, _WEB, False)


MAP_CC_RULES: tuple[Rule, ...] = (
    _map_cc("brackets", "zh_bracket_share", "max", 0.1, "Many 【】 mark headings, menus and advertisements."),
    _map_cc("sentences", "zh_sentences", "min", 1, "A single sentence is a title or a caption.", True),
    _map_cc("short", "zh_characters", "min", 50, "Too short to say something."),
    _map_cc("long", "zh_characters", "max", 10_000, "Very long pages are often lists, or many pages put together."),
    _map_cc(
        "word_length_min", "zh_mean_word_length", "min", 1.3, "Words of one character: ill-assorted or classical text."
    ),
    _map_cc("word_length_max", "zh_mean_word_length", "max", 10, "Very long words: no running text."),
    _map_cc("hashes", "zh_hash_ratio", "max", 0.1, "Many number signs mark tags."),
    _map_cc("ellipses", "zh_ellipsis_ratio", "max", 0.1, "Many ellipses mark cut-off previews."),
    _map_cc("digits", "zh_digit_share", "max", 0.3, "Many digits mark tables and codes."),
    _map_cc("read_more", "zh_more_lines", "max", 0.3, "Lines that ask to read on elsewhere are previews."),
    _map_cc("bullets", "zh_bullet_lines", "max", 0.9, "Nothing but a list."),
    _map_cc("punctuation", "zh_punctuation", "min", 0, "No punctuation at all: keywords.", True),
    _map_cc(
        "unique", "zh_unique_share", "min", 0.1, "Few different characters: repetitive, but also very long texts.", True
    ),
    _map_cc("entropy", "zh_word_entropy", "min", 3, "Few different words."),
    _map_cc("language", "language_confidence", "min", 0.4, "The language is in doubt."),
    *(
        _map_cc(f"top_{n}gram", f"zh_top_{n}gram", "max", most, f"One sequence of {n} characters fills much of it.")
        for n, most in zip(_TOPS, (0.20, 0.18, 0.16), strict=True)
    ),
    *(
        _map_cc(
            f"duplicate_{n}gram", f"zh_duplicate_{n}gram", "max", 0.60, f"Most sequences of {n} characters recur.", True
        )
        for n in _DUPLICATES
        if n <= 10
    ),
)
"""The document rules of MAP-CC. Left out: its removal of lines (no sentence's end, fewer than three words), which
`zh_ended_lines` measures, its lists of forbidden words, and its replacement of full-width characters."""

CHINESE_WEB_TEXT_RULES: tuple[Rule, ...] = (
    _web("short_lines", "zh_mean_line_length", "min", 10, "Short lines mark menus and lists, and verse."),
    _web("short", "zh_characters", "min", 200, "Too short to say something."),
    _web("han", "zh_han_share", "min", 0.3, "Hardly any Chinese."),
    _web("duplicates", "zh_duplicate_13gram", "max", 0.5, "Half of the text is repeated."),
)
"""The rules of ChineseWebText. Left out: sensitive words (see the toxicity columns), the removal of traditional
text (see `zh_traditional_share` and --chinese simplified), and the score of a fine-tuned BERT."""

RULES = MAP_CC_RULES + CHINESE_WEB_TEXT_RULES


def check(rules: Sequence[Rule]) -> None:
    """See to it that what the rules need is installed.

    Raises:
        UsageError: a rule needs words and the `chinese` extra is not installed.
    """
    for rule in rules:
        if rule.column in WORD_COLUMNS and importlib.util.find_spec("rjieba") is None:
            raise UsageError(
                f"The rule {rule.name} needs Chinese words.",
                "rjieba, which finds them, is not installed here.",
                'Type: pip install "textmill[chinese]"',
            )


@inline
def _is_end(code: int) -> bool:
    """Whether a character ends a sentence: 。！？.!?…"""
    return (
        code == 0x3002
        or code == 0xFF01
        or code == 0xFF1F
        or code == 46
        or code == 33
        or code == 63
        or code == 0x2026
        or code == 0xFF0E
    )


@inline
def _matches(data: np.ndarray, at: int, marks: np.ndarray, first: int, last: int) -> bool:
    """Whether `marks[first:last]` stands at `at`."""
    same = True
    for place in range(last - first):
        same = same and data[at + place] == marks[first + place]
    return same


@kernel
def _measure(
    data: np.ndarray,
    offsets: np.ndarray,
    table: np.ndarray,
    marks: np.ndarray,
    places: np.ndarray,
    ends: int,
    tops: np.ndarray,
    duplicates: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Counts int64 [n, 11]; characters, characters but spaces, different ones, and those in lines, int64 [n, 4];
    characters in the most frequent and in the repeated n-grams, int64 [n, len(tops)], [n, len(duplicates)]."""
    count = len(offsets) - 1
    counts, sizes = np.zeros((count, 11), np.int64), np.zeros((count, 4), np.int64)
    top, repeated = np.zeros((count, len(tops)), np.int64), np.zeros((count, len(duplicates)), np.int64)
    seen = np.full(0x30000, -1, np.int32)
    longest = 0
    for row in range(count):
        longest = max(longest, offsets[row + 1] - offsets[row])
    prefix = np.zeros(longest + 1, np.uint64)
    room = 16
    while room < 2 * longest:
        room *= 2
    slots, often = np.zeros(room, np.uint64), np.zeros(room, np.int32)
    base = np.uint64(0x9E3779B97F4A7C15)
    for row in range(count):
        at, stop = offsets[row], offsets[row + 1]
        begin, visible, line, dots, open_sentence = at, 0, 0, 0, False
        while at <= stop:
            if at == stop or data[at] == 10:
                if line:
                    last = at
                    while last > begin and (data[last - 1] == 32 or data[last - 1] == 9):
                        last -= 1
                    while begin < last and (data[begin] == 32 or data[begin] == 9):
                        begin += 1
                    counts[row, _LINES] += 1
                    for number in range(len(places) - 1):
                        first, after = places[number], places[number + 1]
                        size = after - first
                        if size > last - begin:
                            continue
                        if number < ends and _matches(data, last - size, marks, first, after):
                            counts[row, _MORE] += 1
                            break
                    for number in range(ends, len(places) - 1):
                        first, after = places[number], places[number + 1]
                        if after - first <= last - begin and _matches(data, begin, marks, first, after):
                            counts[row, _BULLET] += 1
                            break
                    back = last - 1
                    while back > begin and data[back] & 0xC0 == 0x80:
                        back -= 1
                    counts[row, _ENDED] += _is_end(code_at(data, back, width_of(data[back])))
                if at < stop:
                    sizes[row, 0] += 1
                    sizes[row, 2] += seen[10] != row
                    seen[10] = row
                line, dots = 0, 0
                at += 1
                begin = at
                continue
            width = width_of(data[at])
            code = code_at(data, at, width)
            kind = table[min(code, len(table) - 1)]
            at += width
            sizes[row, 0] += 1
            if seen[min(code, len(seen) - 1)] != row:
                seen[min(code, len(seen) - 1)] = row
                sizes[row, 2] += 1
            dots = dots + 1 if code == 46 else 0
            if kind == SPACE:
                line += line > 0
                continue
            line += 1
            sizes[row, 3] += 1
            counts[row, _DOTS] += (dots == 3) + (code == 0x2026)
            counts[row, _BRACKETS] += code == 0x3010 or code == 0x3011
            counts[row, _DIGITS] += kind == DIGIT
            counts[row, _SYMBOLS] += kind == SYMBOL
            counts[row, _HANS] += kind == HAN
            counts[row, _HASHES] += code == 35
            if _is_end(code):
                counts[row, _SENTENCES] += open_sentence
                open_sentence = False
            elif kind != SYMBOL:
                open_sentence = True
            prefix[visible + 1] = prefix[visible] * base + mix(np.uint64(code) + np.uint64(1))
            visible += 1
        counts[row, _SENTENCES] += open_sentence
        sizes[row, 1] = visible
        mask = 16
        while mask < 2 * visible:
            mask *= 2
        mask -= 1
        for number in range(len(tops) + len(duplicates)):
            is_top = number < len(tops)
            n = tops[number] if is_top else duplicates[number - len(tops)]
            power = np.uint64(1)
            for _ in range(n):
                power *= base
            place, best, twice = 0, 1, 0
            slots[: mask + 1] = 0
            while place + n <= visible:
                key = mix(prefix[place + n] - prefix[place] * power)
                slot = np.int64(key & np.uint64(mask))
                while slots[slot] != 0 and slots[slot] != key:
                    slot = (slot + 1) & mask
                if slots[slot] == 0:
                    slots[slot], often[slot] = key, 1
                    place += 1
                elif is_top:
                    often[slot] += 1
                    best = max(best, often[slot])
                    place += 1
                else:
                    twice += n
                    place += n
            if is_top:
                top[row, number] = n * best if best > 1 else 0
            else:
                repeated[row, number - len(tops)] = twice
                if twice == 0:  # then no longer sequence recurs either
                    break
    return counts, sizes, top, repeated


@lru_cache(maxsize=1)
def _marks() -> Texts:
    return Texts.from_strings([*_ENDS, *_BULLETS])


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def measure(texts: Texts) -> dict[str, np.ndarray]:
    """Measure n Chinese documents.

    Returns:
        COLUMNS, float64 [n] each; 0 for shares of nothing; WORD_COLUMNS are NaN without the `chinese` extra.
    """
    marks = _marks()
    tops, duplicates = np.array(_TOPS), np.array(_DUPLICATES)
    counts, sizes, top, repeated = _measure(
        texts.data, texts.offsets, class_table(), marks.data, marks.offsets, len(_ENDS), tops, duplicates
    )
    total, visible, different, in_lines = sizes.T
    lines = counts[:, _LINES]
    columns = {
        "zh_characters": total.astype(np.float64),
        "zh_han_share": _share(counts[:, _HANS], visible),
        "zh_bracket_share": _share(counts[:, _BRACKETS], total),
        "zh_digit_share": _share(counts[:, _DIGITS], total),
        "zh_punctuation": counts[:, _SYMBOLS].astype(np.float64),
        "zh_unique_share": _share(different, total),
        "zh_sentences": counts[:, _SENTENCES].astype(np.float64),
        "zh_mean_line_length": _share(in_lines, lines),
        "zh_more_lines": _share(counts[:, _MORE], lines),
        "zh_bullet_lines": _share(counts[:, _BULLET], lines),
        "zh_ended_lines": _share(counts[:, _ENDED], lines),
    }
    for number, n in enumerate(_TOPS):
        columns[f"zh_top_{n}gram"] = _share(top[:, number], visible)
    for number, n in enumerate(_DUPLICATES):
        columns[f"zh_duplicate_{n}gram"] = _share(repeated[:, number], visible)
    columns.update(_words(texts, counts, visible))
    return columns


def _words(texts: Texts, counts: np.ndarray, visible: np.ndarray) -> dict[str, np.ndarray]:
    """WORD_COLUMNS; words are what `cut` gives but for spaces, so their lengths add up to the visible characters."""
    found = {name: np.full(len(texts), np.nan) for name in WORD_COLUMNS}
    if importlib.util.find_spec("rjieba") is None:
        return found
    cut, log = chinese_cutter("A Chinese rule"), math.log
    for row in np.flatnonzero(visible).tolist():
        often = Counter(cut(texts.string(row)))
        for word in [word for word in often if word.isspace()]:
            del often[word]
        total = often.total()
        found["zh_words"][row] = total
        found["zh_mean_word_length"][row] = visible[row] / total
        found["zh_hash_ratio"][row] = counts[row, _HASHES] / total
        found["zh_ellipsis_ratio"][row] = counts[row, _DOTS] / total
        # -sum p log p with p = times / total, in which words that occur once fall away
        repeated = math.fsum([times * log(times) for times in often.values() if times > 1])
        found["zh_word_entropy"][row] = log(total) - repeated / total
    return found
