"""Repeated passages: against a quadratic search, with Chinese, within its memory."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textmill.base.errors import Failure
from textmill.corpus.deduplication.substrings import memory_needed, remove_spans, repeated_spans
from textmill.corpus.texts import Texts


def covered(texts: Texts, minimum: int) -> list[list[bool]]:
    """Bytes in a window that occurred before, not overlapping its first occurrence; by plain search."""
    first: dict[bytes, tuple[int, int]] = {}
    made = []
    for row in range(len(texts)):
        text = texts[row]
        marks = [False] * len(text)
        for at in range(len(text) - minimum + 1):
            window = text[at : at + minimum]
            if window not in first:
                first[window] = (row, at)
            elif first[window][0] < row or first[window][1] + minimum <= at:
                marks[at : at + minimum] = [True] * minimum
        made.append(marks)
    return made


def in_word(character: str) -> bool:
    return (character.isascii() and character.isalnum()) or len(character.encode()) == 2


def drawn_in(text: str, marks: list[bool]) -> str:
    """What is left of a text when runs of marked bytes go, from edge to edge of characters and words."""
    whole, at = [], 0
    for character in text:
        width = len(character.encode())
        whole.append(all(marks[at : at + width]))
        at += width
    left, at = "", 0
    while at < len(text):
        if not whole[at]:
            left += text[at]
            at += 1
            continue
        stop = at
        while stop < len(text) and whole[stop]:
            stop += 1
        begins = [b for b in range(at, stop) if not (b and in_word(text[b - 1]))]
        begin = begins[0] if begins else at
        ends = [
            e for e in range(begin + 1, stop + 1) if not (e < len(text) and in_word(text[e]) and in_word(text[e - 1]))
        ]
        end = ends[-1] if ends else stop
        left += text[at:begin] + text[end:stop]
        if end == len(text):
            left = left.rstrip()
        at = stop
    return left


@settings(deadline=None, max_examples=200)
@given(st.lists(st.text(alphabet="ab中é ", max_size=20), max_size=6), st.integers(3, 9))
def test_the_same_as_plain_search(texts: list[str], minimum: int) -> None:
    given = Texts.from_strings(texts)
    left = remove_spans(given, repeated_spans(given, minimum)).strings()
    assert left == [drawn_in(text, marks) for text, marks in zip(texts, covered(given, minimum), strict=True)]


def test_across_documents_the_first_stays() -> None:
    chance = random.Random(0)
    words = ["".join(chance.choices("abcdefgh", k=6)) for _ in range(400)]
    passage = " ".join(words[:60])
    texts = Texts.from_strings([f"one {passage} two", f"three {passage} four", f"{passage}", "five"])
    found = repeated_spans(texts)
    assert found.row.tolist() == [1, 2]
    spaced = remove_spans(texts, found).strings()
    assert spaced[0] == texts.string(0)
    assert spaced[1] == "three four"  # the "e " that one and three share is not cut off
    assert spaced[2:] == ["", "five"]


def test_chinese_survives() -> None:
    passage = (
        "人工智能是计算机科学的一个分支，它企图了解智能的实质，并生产出一种新的能以人类智能相似的方式作出反应的智能机器。"
        * 2
    )
    texts = Texts.from_strings([f"甲{passage}乙", f"丙{passage}丁", f"也{passage[7:]}完"])
    left = remove_spans(texts, repeated_spans(texts)).strings()
    assert left == [texts.string(0), "丙丁", "也完"]


def test_a_repeat_may_not_cross_documents() -> None:
    chance = random.Random(1)
    half = ["".join(chance.choices("abcdefgh", k=150)) for _ in range(2)]
    texts = Texts.from_strings([half[0], half[1], half[0], half[1]])
    assert not len(repeated_spans(texts).row)


def test_periodic_text_keeps_one_window() -> None:
    texts = Texts.from_strings(["ab" * 100_000, "", "c"])
    left = remove_spans(texts, repeated_spans(texts, 200))
    assert left.strings() == ["ab" * 100, "", "c"]
    line = "one line over and over again\n" * 50_000
    left = remove_spans(Texts.from_strings([line]), repeated_spans(Texts.from_strings([line]), 200)).string(0)
    assert 200 <= len(left) <= 200 + 29


def test_too_little_memory_says_how_much_is_needed() -> None:
    texts = Texts.from_strings(["x" * 1_000_000])
    assert memory_needed(1_000_000) == 10_000_000
    with pytest.raises(Failure) as caught:
        repeated_spans(texts, memory_bytes=5_000_000)
    assert "0.0 GB" in caught.value.why
    assert "--repeated-substrings" in caught.value.fix


def test_in_parts() -> None:
    chance = random.Random(2)
    texts = ["".join(chance.choices("abcdefgh", k=1000)) for _ in range(10)]
    given = Texts.from_strings([*texts[:5], *texts[:5], *texts[5:], texts[0]])
    whole = repeated_spans(given)
    assert whole.row.tolist() == [5, 6, 7, 8, 9, 15]
    parts = repeated_spans(given, memory_bytes=100_200, in_parts=True)  # ten texts a part
    assert parts.row.tolist() == [5, 6, 7, 8, 9]
    assert np.array_equal(parts.end - parts.begin, [1000] * 5)


def test_nothing() -> None:
    for texts in ([], [""], ["", ""], ["short"]):
        assert not len(repeated_spans(Texts.from_strings(texts)).row)
