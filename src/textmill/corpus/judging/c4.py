"""C4's rules for lines and documents (Raffel et al. 2020, section 2.2), as datatrove's C4QualityFilter and
C4ParagraphFilter apply them. Touches nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from textmill.base.errors import UsageError, nearest
from textmill.corpus.judging.classes import DECIMAL, LINE_BREAK, PUNCTUATION, SENTENCE, SIZE, SPACE
from textmill.corpus.judging.rules import Rule
from textmill.corpus.judging.splitting import Lexicon, split_chunk
from textmill.corpus.judging.words import Words, lexicon, read_chunk, room
from textmill.corpus.kernels import code_at, kernel, width_of
from textmill.corpus.texts import Texts

MAX_WORD = 1000
"""Characters; a line with a longer word is removed."""
MIN_WORDS = 3
"""A line with fewer words, as white space cuts them, is removed."""

LINE_RULES = {
    "c4": "Removes lines that do not end in . ? ! or a quotation mark, have fewer than 3 words or a word of more than "
    "1,000 characters, mention javascript, or speak of cookies, terms of use or privacy policies; strips citation "
    "marks like [1] and [edit].",
    "c4-any-ending": "The same, but a line may end in anything, which is how FineWeb uses it.",
}
"""Names that `clean_lines` knows, each with what it does."""

_MEANINGS = {
    "sentences": "Sentences in the lines that stay.",
    "lorem_ipsum": "1 when a line says lorem ipsum before any has a curly bracket, else 0.",
    "curly_bracket": "1 when a line has a curly bracket before any says lorem ipsum, else 0.",
    "lines": "Lines before any is removed.",
    "lines_kept": "Lines that stay.",
}
_PARAGRAPH = "c4_third_longest_line"

COLUMNS = {
    **{f"c4_{name}": meaning for name, meaning in _MEANINGS.items()},
    **{f"c4_any_ending_{name}": f"Lines ending in anything: {meaning}" for name, meaning in _MEANINGS.items()},
    _PARAGRAPH: "Characters of the third longest line, 0 when there are fewer than three.",
}

_SOURCE = "Raffel et al. 2020 (arXiv 1910.10683), section 2.2; datatrove 0.10.1 C4QualityFilter"


def _rules(prefix: str) -> tuple[Rule, ...]:
    return (
        Rule("lorem_ipsum", f"{prefix}_lorem_ipsum", "max", 0, "Placeholder text: lorem ipsum.", source=_SOURCE),
        Rule(
            "curly_bracket",
            f"{prefix}_curly_bracket",
            "max",
            0,
            "A curly bracket in a line that would stay: program code.",
            source=_SOURCE,
        ),
        Rule("too_few_sentences", f"{prefix}_sentences", "min", 5, "Hardly any sentence is left.", source=_SOURCE),
    )


RULES: tuple[Rule, ...] = _rules("c4")
"""C4QualityFilter, in its order; names are datatrove's reasons."""
ANY_ENDING_RULES: tuple[Rule, ...] = _rules("c4_any_ending")
"""The same with `filter_no_terminal_punct=False`."""
PARAGRAPH_RULES: tuple[Rule, ...] = (
    Rule(
        "too_few_paragraphs",
        _PARAGRAPH,
        "min",
        200,
        "Fewer than three lines of 200 characters.",
        source="Xue et al. 2021 (arXiv 2010.11934), section 3.1; datatrove 0.10.1 C4ParagraphFilter",
    ),
)
"""C4ParagraphFilter, mC4's rule."""

_LOREM, _SCRIPT, _POLICY, _CURLY = 1, 2, 4, 8
_PHRASES = (
    (b"lorem ipsum", _LOREM, 8),
    (b"javascript", _SCRIPT, 0),
    (b"terms of use", _POLICY, 7),
    (b"privacy policy", _POLICY, 3),
    (b"cookie policy", _POLICY, 3),
    (b"uses cookies", _POLICY, 8),
    (b"use of cookies", _POLICY, 10),
    (b"use cookies", _POLICY, 7),
)
"""Phrase, what it means, and the place of its rarest letter, at which the search looks for it."""


def _phrases() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(phrases uint8 [n, 16] padded with zeros; int64 [n, 3] of length, meaning, rare place; triggers bool [256])."""
    letters = np.zeros((len(_PHRASES), 16), dtype=np.uint8)
    facts = np.zeros((len(_PHRASES), 3), dtype=np.int64)
    triggers = np.zeros(256, dtype=np.bool_)
    for number, (phrase, meaning, rare) in enumerate(_PHRASES):
        letters[number, : len(phrase)] = np.frombuffer(phrase, dtype=np.uint8)
        facts[number] = len(phrase), meaning, rare
        triggers[[phrase[rare], phrase[rare : rare + 1].upper()[0]]] = True
    triggers[ord("{")] = True
    return letters, facts, triggers


@kernel
def _citation(data: np.ndarray, at: int, high: int, flags: np.ndarray) -> int:
    """Bytes of the citation mark that begins at the square bracket `at`: [12], [], [edit], [citation needed]; or 0."""
    place = at + 1
    while place < high:
        width = width_of(data[place])
        code = code_at(data, place, width)
        if code >= SIZE or not flags[code] & DECIMAL:
            break
        place += width
    if place < high and data[place] == 93:
        return place + 1 - at
    if place != at + 1:
        return 0
    for word in (b"edit]", b"citation needed]"):
        if at + 1 + len(word) <= high:
            same = True
            for index in range(len(word)):
                same &= data[at + 1 + index] == word[index]
            if same:
                return len(word) + 1
    return 0


@kernel
def _mentions(
    data: np.ndarray, low: int, high: int, letters: np.ndarray, facts: np.ndarray, triggers: np.ndarray
) -> int:
    """What a line mentions, whatever the case: the sum of the meanings of the phrases in it."""
    found = 0
    for at in range(low, high):
        if not triggers[data[at]]:
            continue
        if data[at] == 123:
            found |= _CURLY
            continue
        for phrase in range(len(facts)):
            begin = at - facts[phrase, 2]
            if begin < low or begin + facts[phrase, 0] > high:
                continue
            same = True
            for index in range(facts[phrase, 0]):
                byte = data[begin + index]
                if byte >= 65 and byte <= 90:
                    byte |= 32
                if byte != letters[phrase, index]:
                    same = False
                    break
            if same:
                found |= facts[phrase, 1]
    return found


@kernel
def count_sentences(data: np.ndarray, low: int, high: int, words: Words, lexicon: Lexicon) -> int:
    """Sentences of a text: after a word that is an end mark, the next word that is no punctuation begins a new one."""
    flags = lexicon.flags
    at, splits = low, 0
    ended = content = begun = False
    while at < high:
        start = at
        while at < high:
            width = width_of(data[at])
            code = code_at(data, at, width)
            if code >= SIZE or not lexicon.flags[code] & SPACE:
                break
            at += width
        blank = at - start - (1 if start > low and at > start and data[start] == 32 else 0)
        if blank > 0:  # more than the one space between words counts as a word of its own
            begun = True
            if ended:
                splits += 1
                ended = content = False
        if at >= high:
            break
        size, after, seen = read_chunk(data, at, high, flags, words.codes, words.flags)
        begun = True
        if not seen & SENTENCE:
            marks: Any = np.uint32(0xFFFFFFFF)
            if ended:
                for place in range(size):
                    marks &= words.flags[place]
            if ended and not marks & PUNCTUATION:
                splits += 1
                ended = False
            content = True
            at = after
            continue
        pieces = split_chunk(words.codes, words.flags, size, seen, words.ends, lexicon.tables, True)
        first = 0
        for piece in range(pieces):
            last = words.ends[piece]
            mark = last - first == 1 and words.flags[first] & SENTENCE != 0
            if ended and not mark:
                marks = np.uint32(0xFFFFFFFF)
                for place in range(first, last):
                    marks &= words.flags[place]
                if not marks & PUNCTUATION:
                    splits += 1
                    ended = content = False
            elif mark:
                ended = True
            content = True
            first = last
        at = after
    if not begun:
        return 0
    return splits + (1 if content else 0)


@kernel
def _clean(
    data: np.ndarray,
    offsets: np.ndarray,
    terminal: bool,
    words: Words,
    lexicon: Lexicon,
    letters: np.ndarray,
    facts: np.ndarray,
    triggers: np.ndarray,
    kept: np.ndarray,
    places: np.ndarray,
    out: np.ndarray,
) -> None:
    total = 0
    places[0] = 0
    flags = lexicon.flags
    for row in range(len(offsets) - 1):
        at, end = offsets[row], offsets[row + 1]
        base, lines, stay, sentences, stop = total, 0, 0, 0, 0
        while at < end:
            first, last = -1, at  # the line without white space around it
            count, size, longest = 0, 0, 0
            bracket = False
            lines += 1
            while at < end:
                byte = data[at]
                width = 1 if byte < 0x80 else width_of(byte)
                code = np.int64(byte) if width == 1 else code_at(data, at, width)
                kind = flags[code] if code < SIZE else np.uint32(0)
                at += width
                if kind & SPACE:
                    size = 0
                    if kind & LINE_BREAK:
                        if code == 13 and at < end and data[at] == 10:
                            at += 1
                        break
                    continue
                if first < 0:
                    first = at - width
                last = at
                count += size == 0
                size += 1
                longest = max(longest, size)
                bracket |= code == 91
            if first < 0 or longest > MAX_WORD:
                continue
            begin = total + (1 if stay else 0)
            write = begin
            if bracket:
                read = first
                while read < last:
                    skip = _citation(data, read, last, flags) if data[read] == 91 else 0
                    if skip:
                        read += skip
                    else:
                        kept[write] = data[read]
                        write += 1
                        read += 1
            else:
                kept[write : write + last - first] = data[first:last]
                write += last - first
            if terminal:
                if write == begin or kept[write - 1] not in (46, 63, 33, 34, 39):
                    continue
                if write - begin > 2 and kept[write - 1] == 46 and kept[write - 2] == 46 and kept[write - 3] == 46:
                    continue
            if count < MIN_WORDS:
                continue
            found = _mentions(kept, begin, write, letters, facts, triggers)
            if found & _LOREM:
                stop |= 0 if stop else _LOREM
            if found & _SCRIPT:
                continue
            if found & _CURLY:
                stop |= 0 if stop else _CURLY
            if found & _POLICY:
                continue
            sentences += count_sentences(kept, begin, write, words, lexicon)
            if stay:
                kept[total] = 10
            stay += 1
            total = write
        low, high = base, total
        while low < high:  # a removed citation can leave white space at an end of the text
            width = width_of(kept[low])
            code = code_at(kept, low, width)
            if code >= SIZE or not flags[code] & SPACE:
                break
            low += width
        while high > low:
            start = high - 1
            while kept[start] & 0xC0 == 0x80:
                start -= 1
            code = code_at(kept, start, width_of(kept[start]))
            if code >= SIZE or not flags[code] & SPACE:
                break
            high = start
        if low > base:
            for place in range(low, high):
                kept[base + place - low] = kept[place]
        total = base + high - low
        places[row + 1] = total
        out[0, row] = sentences
        out[1, row] = stop & _LOREM != 0
        out[2, row] = stop & _CURLY != 0
        out[3, row] = lines
        out[4, row] = stay


@kernel
def _third(data: np.ndarray, offsets: np.ndarray, out: np.ndarray) -> None:
    for row in range(len(offsets) - 1):
        one = two = three = 0
        size = lines = 0
        for at in range(offsets[row], offsets[row + 1] + 1):
            if at < offsets[row + 1] and data[at] != 10:
                size += (data[at] & 0xC0) != 0x80
                continue
            lines += 1
            if size > one:
                one, two, three = size, one, two
            elif size > two:
                two, three = size, two
            elif size > three:
                three = size
            size = 0
        out[row] = three if lines > 2 else 0


def clean_lines(texts: Texts, rules: str = "c4") -> tuple[Texts, dict[str, np.ndarray]]:
    """Remove the lines that C4 removes.

    Args:
        texts: n texts.
        rules: a name out of LINE_RULES.

    Returns:
        the texts of the lines that stay, joined by line feeds, and the columns `c4_…` or `c4_any_ending_…` of them,
        float64 [n].

    Raises:
        UsageError: no line rules of this name.
    """
    if rules not in LINE_RULES:
        known = ", ".join(LINE_RULES)
        raise UsageError(f'There are no line rules "{rules}".{nearest(rules, LINE_RULES)}', fix=f"Known ones: {known}.")
    offsets = np.ascontiguousarray(texts.offsets)
    kept = np.empty(int(offsets[-1] - offsets[0]) + len(texts) + 1, dtype=np.uint8)
    places = np.empty(len(texts) + 1, dtype=np.int64)
    out = np.zeros((len(_MEANINGS), len(texts)))
    longest = int(texts.sizes.max(initial=0))
    _clean(texts.data, offsets, rules == "c4", room(longest), lexicon(), *_phrases(), kept, places, out)
    prefix = rules.replace("-", "_")
    columns = {f"{prefix}_{name}": column for name, column in zip(_MEANINGS, out, strict=True)}
    return Texts(kept[: int(places[-1])].copy(), places), columns


def measure(texts: Texts) -> dict[str, np.ndarray]:
    """The columns of COLUMNS, float64 [n] each; the texts stay as they are."""
    third = np.empty(len(texts))
    _third(texts.data, np.ascontiguousarray(texts.offsets), third)
    return {**clean_lines(texts, "c4")[1], **clean_lines(texts, "c4-any-ending")[1], _PARAGRAPH: third}
