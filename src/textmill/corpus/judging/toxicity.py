"""Toxic and sexual words, counted in English and Chinese. Reads a list of further words if one is named.

All words are looked for at once, by the automaton of Aho and Corasick (1975, "Efficient string matching"). Words of
Latin letters must stand alone; Chinese has no borders of words, so a list of innocent phrases says where two
characters only meet by chance. A word counts once, in its longest form; ASCII capitals are read as small letters.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from textmill.base.errors import UsageError
from textmill.corpus.judging import lists
from textmill.corpus.judging.rules import Rule
from textmill.corpus.kernels import kernel
from textmill.corpus.texts import Texts

COLUMNS: dict[str, str] = {
    "toxic_words": "Profane words, slurs and calls to harm in the document.",
    "toxic_share": "Bytes of those words divided by the bytes of all letters and digits, 0 to 1.",
    "sexual_words": "Pornographic and explicit words in the document.",
    "sexual_share": "Bytes of those words divided by the bytes of all letters and digits, 0 to 1.",
}

RULES = (
    Rule(
        "toxic",
        "toxic_share",
        "max",
        0.01,
        "More than a hundredth of the text is profanity and slurs; a novel that swears has less than a thousandth.",
        source="own: 0.0001 in documentation and speeches, above 0.01 in insults of a few lines",
    ),
    Rule(
        "sexual",
        "sexual_share",
        "max",
        0.02,
        "More than a fiftieth of the text is explicit words; a medical text has less.",
        source="own",
    ),
)

_TOXIC, _SEXUAL, _ALLOWED = 0, 1, 2
_PENDING = 64
"""Words that wait to learn whether an innocent phrase around them follows; an older one is then believed."""


class Automaton(NamedTuple):
    """States of one byte each further into the words.

    Attributes:
        classes: uint8 [256], class of a byte; 0 for those in no word.
        steps: int32 [states, classes], the next state.
        output: int32 [states], the longest word that ends here, -1 for none.
        shorter: int32 [words], the next shorter word that ends where this one does, -1 for none.
        lengths: int32 [words], bytes.
        kinds: uint8 [words], toxic, sexual or allowed; 4 is added to those that must stand alone on the left, 8 on
            the right.
        longest: bytes of the longest word.
    """

    classes: np.ndarray
    steps: np.ndarray
    output: np.ndarray
    shorter: np.ndarray
    lengths: np.ndarray
    kinds: np.ndarray
    longest: int


def _is_latin(letter: str) -> bool:
    return letter.isalnum() and ord(letter) < 0x250


def build(words: list[tuple[str, int]]) -> Automaton:
    """The automaton of words, each with its kind; the first kind given to a word stays."""
    kinds_of: dict[bytes, int] = {}
    for word, kind in words:
        word = word.strip().lower()
        if word:
            sides = 4 * _is_latin(word[0]) + 8 * _is_latin(word[-1])
            kinds_of.setdefault(word.encode(), kind + sides)
    patterns = list(kinds_of)
    used = sorted({byte for pattern in patterns for byte in pattern})
    classes = np.zeros(256, dtype=np.uint8)
    classes[used] = np.arange(1, len(used) + 1)
    edges: list[dict[int, int]] = [{}]
    ends: list[int] = [-1]
    for number, pattern in enumerate(patterns):
        state = 0
        for byte in pattern:
            letter = int(classes[byte])
            if letter not in edges[state]:
                edges[state][letter] = len(edges)
                edges.append({})
                ends.append(-1)
            state = edges[state][letter]
        ends[state] = number
    steps = np.zeros((len(edges), len(used) + 1), dtype=np.int32)
    output = np.array(ends, dtype=np.int32)
    shorter = np.full(len(patterns), -1, dtype=np.int32)
    back = [0] * len(edges)
    waiting = deque([0])
    while waiting:
        state = waiting.popleft()
        if state:
            steps[state] = steps[back[state]]
            suffix = int(output[back[state]])
            if output[state] < 0:
                output[state] = suffix
            else:
                shorter[output[state]] = suffix
        for letter, target in edges[state].items():
            back[target] = int(steps[back[state], letter]) if state else 0
            steps[state, letter] = target
            waiting.append(target)
    lengths = np.array([len(pattern) for pattern in patterns], dtype=np.int32)
    kinds = np.array(list(kinds_of.values()), dtype=np.uint8)
    return Automaton(classes, steps, output, shorter, lengths, kinds, int(lengths.max(initial=0)))


def read_words(path: str | Path) -> list[str]:
    """The words of a file, one a line; empty lines and those that begin with # are skipped.

    Raises:
        UsageError: it cannot be read as UTF-8 text.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"The word list {path} cannot be read.", str(error), "Name a UTF-8 file with one word a line."
        ) from error
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


@lru_cache(maxsize=4)
def _automaton(extra: tuple[str, ...]) -> Automaton:
    return build(
        [
            *((word, _TOXIC) for word in extra),
            *(
                (word, _ALLOWED)
                for name in (lists.ALLOWED_ENGLISH, lists.ALLOWED_CHINESE)
                for word in lists.words(name)
            ),
            *((word, _TOXIC) for name in (lists.TOXIC_ENGLISH, lists.TOXIC_CHINESE) for word in lists.words(name)),
            *((word, _SEXUAL) for name in (lists.SEXUAL_ENGLISH, lists.SEXUAL_CHINESE) for word in lists.words(name)),
        ]
    )


@kernel
def _joined(data: np.ndarray, at: int, begin: int, end: int, right: bool) -> bool:
    """Whether the character before `at` (or, with `right`, at it) is a Latin letter, a digit or _."""
    if right:
        if at >= end:
            return False
        value = data[at]
        return 0xC3 <= value <= 0xC9 or 48 <= value <= 57 or 65 <= value <= 90 or 97 <= value <= 122 or value == 95
    if at <= begin:
        return False
    value = data[at - 1]
    if value >= 0x80:
        return value < 0xC0 and at - begin >= 2 and data[at - 2] >= 0xC3 and data[at - 2] <= 0xC9
    return 48 <= value <= 57 or 65 <= value <= 90 or 97 <= value <= 122 or value == 95


@kernel
def _count(
    data: np.ndarray,
    offsets: np.ndarray,
    classes: np.ndarray,
    steps: np.ndarray,
    output: np.ndarray,
    shorter: np.ndarray,
    lengths: np.ndarray,
    kinds: np.ndarray,
    longest: int,
    counts: np.ndarray,
    covered: np.ndarray,
    letters: np.ndarray,
) -> None:
    """Fill counts and covered int64 [n, 2] and letters int64 [n]."""
    begins = np.empty(_PENDING, np.int64)
    ends = np.empty(_PENDING, np.int64)
    sorts = np.empty(_PENDING, np.int64)  # kind; -1 for one that another holds
    for row in range(len(offsets) - 1):
        begin, end = offsets[row], offsets[row + 1]
        state = np.int32(0)
        oldest = newest = 0
        total = 0
        for at in range(begin, end):
            value = data[at]
            total += value >= 0x80 or 97 <= value <= 122 or 65 <= value <= 90 or 48 <= value <= 57
            if 65 <= value <= 90:
                value |= 32
            state = steps[state, classes[value]]
            word = output[state]
            while word >= 0:
                first, last, kind = at + 1 - lengths[word], at + 1, kinds[word]
                if not (
                    (kind & 4 and _joined(data, first, begin, end, False))
                    or (kind & 8 and _joined(data, last, begin, end, True))
                ):
                    sort = np.int64(kind & 3)
                    held = False
                    for place in range(oldest, newest):
                        slot = place % _PENDING
                        if sorts[slot] < 0:
                            continue
                        if begins[slot] <= first and ends[slot] >= last and (sorts[slot] == sort or sorts[slot] == 2):
                            held = True
                        elif first <= begins[slot] and (sorts[slot] == sort or sort == 2):
                            sorts[slot] = -1
                    if not held:
                        if newest - oldest == _PENDING:
                            slot = oldest % _PENDING
                            if 0 <= sorts[slot] < 2:
                                counts[row, sorts[slot]] += 1
                                covered[row, sorts[slot]] += ends[slot] - begins[slot]
                            oldest += 1
                        slot = newest % _PENDING
                        begins[slot], ends[slot], sorts[slot] = first, last, sort
                        newest += 1
                word = shorter[word]
            while oldest < newest and begins[oldest % _PENDING] + longest < at:
                slot = oldest % _PENDING
                if 0 <= sorts[slot] < 2:
                    counts[row, sorts[slot]] += 1
                    covered[row, sorts[slot]] += ends[slot] - begins[slot]
                oldest += 1
        for place in range(oldest, newest):
            slot = place % _PENDING
            if 0 <= sorts[slot] < 2:
                counts[row, sorts[slot]] += 1
                covered[row, sorts[slot]] += ends[slot] - begins[slot]
        letters[row] = total


def measure(texts: Texts, words: str | Path | None = None) -> dict[str, np.ndarray]:
    """The columns of `COLUMNS`, counts int32 [n], shares float64 [n].

    Args:
        texts: any.
        words: a file of further words, one a line, that count as toxic.

    Raises:
        UsageError: the file cannot be read.
    """
    automaton = _automaton(tuple(read_words(words)) if words else ())
    counts = np.zeros((len(texts), 2), dtype=np.int64)
    covered = np.zeros((len(texts), 2), dtype=np.int64)
    letters = np.zeros(len(texts), dtype=np.int64)
    _count(texts.data, texts.offsets, *automaton, counts, covered, letters)
    shares = covered / np.maximum(letters, 1)[:, None]
    return {
        "toxic_words": counts[:, 0].astype(np.int32),
        "toxic_share": shares[:, 0],
        "sexual_words": counts[:, 1].astype(np.int32),
        "sexual_share": shares[:, 1],
    }
