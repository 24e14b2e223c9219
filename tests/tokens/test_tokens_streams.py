"""Batches for models that carry their state: each row goes on where it ended, an epoch reads every token once."""

from __future__ import annotations

import numpy as np
import pytest

from textmill.tokens.batches import StreamBatches
from textmill.tokens.shards import Shards


@pytest.fixture
def shards(make_corpus, speeches) -> Shards:
    from textmill.base.progress import Progress
    from textmill.tokens.build import tokenize_corpus
    from textmill.tokens.config import TokenizerConfig

    texts = [(text[:3000], "train") for text in speeches[:6]]
    run = make_corpus([*texts, (speeches[6][:2000], "validation"), (speeches[7][:2000], "test")])
    tokenize_corpus(run, TokenizerConfig(vocabulary=512), Progress("quiet"))
    return Shards(run / "tokens", "train")


def test_rows_go_on_from_step_to_step(shards):
    batches = StreamBatches(shards, 16, 4, seed=3)
    for step in (0, 1, 40, 200):
        tokens, targets = batches.batch(step)
        following, _ = batches.batch(step + 1)
        assert np.array_equal(tokens[:, 1:], targets[:, :-1])
        assert np.array_equal(targets[:, -1], following[:, 0])


def test_an_epoch_reads_every_token_and_is_a_function_of_seed_and_step(shards):
    batches = StreamBatches(shards, 16, 4, seed=3)
    text = np.asarray(shards.read(0, shards.tokens))
    steps = -(-shards.tokens // (16 * 4)) + 1
    counts = np.zeros(512, np.int64)
    for step in range(steps):
        counts += np.bincount(batches.batch(step)[1].ravel(), minlength=512)
    assert (counts >= np.bincount(text, minlength=512)).all()
    again = StreamBatches(shards, 16, 4, seed=3).batch(7)
    assert np.array_equal(again[0], batches.batch(7)[0])
    assert not np.array_equal(StreamBatches(shards, 16, 4, seed=4).batch(7)[0], again[0])
