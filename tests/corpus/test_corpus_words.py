"""The word splitter gives the words that spaCy's blank English tokenizer gives."""

from __future__ import annotations

import json
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from textmill.corpus.judging.exceptions import exceptions
from textmill.corpus.judging.words import lexicon, powers, room, split_words, words_of
from textmill.corpus.texts import Texts

SPLITS = json.loads(Path(__file__).with_name("word_splits.json").read_text())
"""4,000 strings without white space, from technical documentation and at random out of hard characters, with the
sizes of the words that spaCy 3.8.18 makes of each."""


def words(text: str) -> list[str]:
    return split_words(Texts.from_strings([text]))[0]


def test_splits_recorded_strings_as_spacy_does() -> None:
    wrong = []
    for (string, sizes), got in zip(SPLITS, split_words(Texts.from_strings([one for one, _ in SPLITS])), strict=True):
        expected = [string[low:high] for low, high in pairwise([0, *accumulate(sizes)])]
        if got != expected:
            wrong.append((string, got, expected))
    assert not wrong, wrong[:10]


def test_splits_ordinary_english() -> None:
    text = "Don't go to U.S. shops (e.g. Mr. Smith's), they'll sell 10km of rope at 8a.m.; see www.example.com/a-b!"
    expected = "Do n't go to U.S. shops ( e.g. Mr. Smith 's ) , they 'll sell 10 km of rope at 8 a.m. ; see"
    assert words(text) == [*expected.split(), "www.example.com/a-b", "!"]


def test_exceptions_keep_their_pieces_wherever_they_stand() -> None:
    for string, pieces in exceptions().items():
        if string not in ("\\n", "\\t"):
            assert words(f"so {string} it") == ["so", *pieces, "it"]


def test_no_text_no_words_and_white_space_is_none() -> None:
    assert split_words(Texts.from_strings(["", " \n\t\u3000\x85\u2028", "a\xa0b"])) == [[], [], ["a", "b"]]


def test_han_characters_stand_apart_only_when_asked() -> None:
    data = np.frombuffer("教育的Python决定。ok".encode(), np.uint8)
    for apart, expected in ((False, 1), (True, 8)):
        assert words_of(data, 0, len(data), room(len(data)), powers(), lexicon(), apart) == expected


hard = st.text(
    st.sampled_from("aAsStmkI019.,;:!?()[]{}<>-–—_#*&'\"’‘“/=+^~%$€°²…|@\\© 中。“Ж\u200b\u0301\n\t"), max_size=60
)


@settings(max_examples=300, deadline=None)
@given(hard)
def test_words_are_the_text_without_its_white_space(text: str) -> None:
    assert "".join(words(text)) == "".join(text.split())


@settings(max_examples=200, deadline=None)
@given(st.lists(hard, max_size=6))
def test_a_chunk_is_split_alike_whatever_is_around_it(texts: list[str]) -> None:
    chunks = [chunk for text in texts for chunk in text.split()]
    apart = [word for chunk in chunks for word in words(chunk)]
    assert words(" \n".join(chunks)) == apart


def test_long_runs_take_linear_time() -> None:
    """A quadratic scan of these would take minutes."""
    size = 300_000
    for run in (".", "'", "a.", "a@", "://", "(", "1-", "x", "…", ":)", "中", "a" * 70 + "."):
        assert words(run * (size // len(run)))
