"""Segments: a pure, causal rule that loses no token and agrees with reading token by token."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from textmill.models.variational.config import AutoencoderConfig
from textmill.models.variational.segments import end_table, ends_segment, pack, places, sentence_ends
from textmill.tokens.tokenizer import train_tokenizer

CONFIG = AutoencoderConfig(vocabulary=12, segment=7, shortest=3, document_end=0, ends=(1, 2))
ROWS = arrays(np.int64, st.tuples(st.integers(1, 4), st.integers(1, 40)), elements=st.integers(-1, 11))


@given(ROWS)
def test_places_follow_the_rule_token_by_token(targets):
    table = end_table(CONFIG)
    expected = np.full(targets.shape, -1)
    for row, line in enumerate(targets):
        place = 0
        for t, token in enumerate(line):
            if token < 0:
                place = 0
                continue
            expected[row, t] = place
            over = ends_segment(CONFIG, table, np.array([token]), np.array([place + 1]))[0]
            place = 0 if over else place + 1
    np.testing.assert_array_equal(places(CONFIG, targets), expected)


@given(ROWS, st.integers(0, 39))
def test_no_place_depends_on_what_follows(targets, cut):
    cut = min(cut, targets.shape[1] - 1)
    changed = targets.copy()
    changed[:, cut + 1 :] = 1
    np.testing.assert_array_equal(places(CONFIG, targets)[:, : cut + 1], places(CONFIG, changed)[:, : cut + 1])


@given(ROWS)
def test_packing_keeps_each_counted_token_once_with_the_one_before_it(targets):
    tokens = np.random.default_rng(0).integers(0, 12, targets.shape)
    place = places(CONFIG, targets)
    segments = pack(*(torch.from_numpy(part) for part in (tokens, targets, place)))
    inside = segments.content >= 0
    source = segments.source[inside].numpy()
    np.testing.assert_array_equal(source, np.flatnonzero(targets.reshape(-1) >= 0))
    np.testing.assert_array_equal(segments.content[inside].numpy(), targets.reshape(-1)[source])
    np.testing.assert_array_equal(segments.before[inside].numpy(), tokens.reshape(-1)[source])
    begins = [(row, number) for row in range(len(targets)) for number in range(int((place[row] == 0).sum()))]
    assert list(zip(segments.row.tolist(), segments.ordinal.tolist(), strict=True)) == begins


def test_sentences_of_two_languages_are_segments():
    text = 'He said: "Go on!" She went. 天下大势，分久必合。合久必分！ And then?\nThe end'
    tokenizer = train_tokenizer([text] * 3, 512, kind="character")
    ids = np.array([*tokenizer.encode(text), tokenizer.document_end])
    config = AutoencoderConfig(
        vocabulary=tokenizer.vocabulary, shortest=4, document_end=tokenizer.document_end, ends=sentence_ends(tokenizer)
    )
    cut = np.flatnonzero(places(config, ids[None])[0] == 0)[1:]
    found = [tokenizer.decode(part) for part in np.split(ids, cut)]
    assert found == [
        'He said: "Go on!',
        '" She went.',
        " 天下大势，分久必合。",
        "合久必分！",
        " And then?",
        "\nThe end",
    ]


def test_a_tokenizer_of_words_and_marks_ends_at_marks_with_quotes():
    tokenizer = train_tokenizer(['"Yes." "No!" They said. It is 3.5 today.'] * 50, 512)
    pieces = {tokenizer.decode([i]) for i in sentence_ends(tokenizer)}
    assert "." in pieces
    assert not any(piece.strip().isalnum() for piece in pieces)
