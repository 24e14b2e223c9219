"""Batches: every token a target exactly once an epoch, a pure function of seed and step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from textmill.base.errors import Failure
from textmill.tokens.batches import IGNORED, Batches, permute, validation_blocks
from textmill.tokens.shards import Shards
from textmill.tokens.tokenizer import Tokenizer

MakeShards = Callable[..., Shards]


def distinct(make_shards: MakeShards, count: int) -> Shards:
    """A split of `count` different tokens (0, the end, among them), so that a target names its position."""
    return make_shards([range(1, count)], dtype="uint32")


@given(
    count=st.integers(1, 200),
    context=st.integers(1, 40),
    rows=st.integers(1, 9),
    seed=st.integers(0, 2**64 - 1),
)
@example(count=1, context=8, rows=3, seed=0)  # less text than one context
@example(count=64, context=8, rows=4, seed=0)  # everything divides
@example(count=65, context=8, rows=4, seed=0)  # nothing divides
@settings(max_examples=50, deadline=None)
def test_every_token_is_a_target_exactly_once_an_epoch(
    make_shards: MakeShards, count: int, context: int, rows: int, seed: int
) -> None:
    batches = Batches(distinct(make_shards, count), context, rows, seed)
    epochs = 3
    steps = math.ceil(epochs * batches.blocks / rows)
    tokens, targets = (
        np.concatenate(part) for part in zip(*(batches.batch(step) for step in range(steps)), strict=True)
    )
    assert tokens.shape == targets.shape == (steps * rows, context)
    assert tokens.dtype == targets.dtype == np.int64
    for epoch in range(epochs):
        part = targets[epoch * batches.blocks : (epoch + 1) * batches.blocks]
        assert sorted(part[part != IGNORED].tolist()) == list(range(count))
    learned = targets != IGNORED
    assert ((tokens[learned] % count + 1) % count == targets[learned]).all()  # the target follows its token
    assert (tokens[:, 1:] == (tokens[:, :-1] + 1) % count).all()  # every row is consecutive text


def test_a_batch_depends_on_seed_and_step_alone(make_shards: MakeShards) -> None:
    shards = distinct(make_shards, 1000)
    forward = [Batches(shards, 16, 4, 7).batch(step) for step in range(20)]
    again = Batches(shards, 16, 4, 7)
    for step in reversed(range(20)):
        for first, second in zip(again.batch(step), forward[step], strict=True):
            assert (first == second).all()
    other = Batches(shards, 16, 4, 8).batch(0)[0]
    assert (other != forward[0][0]).any()


def test_the_order_of_rows_does_not_depend_on_the_batch_size(make_shards: MakeShards) -> None:
    shards = distinct(make_shards, 500)
    small = np.concatenate([Batches(shards, 8, 2, 3).batch(step)[0] for step in range(12)])
    large = np.concatenate([Batches(shards, 8, 6, 3).batch(step)[0] for step in range(4)])
    assert (small == large).all()


def test_a_curriculum_is_read_in_its_order_once_and_mixed_after_it(make_shards: MakeShards) -> None:
    shards = distinct(make_shards, 1_000)
    shards.in_order = True
    batches = Batches(shards, context=8, rows=5, seed=3)
    steps = batches.blocks // 5
    first = np.concatenate([batches.batch(step)[0].ravel() for step in range(steps)])
    assert np.array_equal(first[:800], shards.read(0, 800))
    later = np.concatenate([batches.batch(step)[0].ravel() for step in range(steps, 2 * steps)])
    assert not np.array_equal(later[:800], first[:800])


def test_epochs_cut_at_other_places_and_go_in_another_order(make_shards: MakeShards) -> None:
    shards = distinct(make_shards, 6400)
    batches = Batches(shards, 64, 100, 1)
    assert (batches.blocks, batches.steps_per_epoch, batches.epoch_of(0), batches.epoch_of(1)) == (
        100,
        1.0,
        0,
        1,
    )
    first, second = batches.batch(0)[0][:, 0], batches.batch(1)[0][:, 0]
    assert first[0] % 64 != second[0] % 64
    assert (np.argsort(first) != np.argsort(second)).mean() > 0.9
    assert abs(np.corrcoef(np.arange(100), first)[0, 1]) < 0.3


@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
@example(size=1, key=0)
@example(size=2, key=0)
@settings(max_examples=60, deadline=None)
def test_permute_is_a_permutation(size: int, key: int) -> None:
    found = permute(np.arange(size), size, np.full(size, key, dtype=np.uint64))
    assert sorted(found.tolist()) == list(range(size))


def test_permute_is_even() -> None:
    keys = np.arange(24_000, dtype=np.uint64)
    places = np.stack([permute(np.full(len(keys), i), 4, keys) for i in range(4)], axis=1)
    _, counts = np.unique(places @ np.array([64, 16, 4, 1]), return_counts=True)
    assert len(counts) == 24  # all orders of four occur, each about a thousand times
    assert counts.min() > 850
    assert counts.max() < 1150


def test_a_billion_blocks_cost_nothing() -> None:
    began = time.perf_counter()
    found = permute(np.arange(512), 10**9 + 7, np.zeros(512, dtype=np.uint64))
    assert len(set(found.tolist())) == 512
    assert found.max() < 10**9 + 7
    assert time.perf_counter() - began < 1


def test_an_empty_split_is_told(make_shards: MakeShards) -> None:
    shards = make_shards([])
    with pytest.raises(Failure, match="no text"):
        Batches(shards, 8, 2, 0)
    with pytest.raises(Failure, match="no text"):
        validation_blocks(shards, 8, 100, np.ones(512, dtype=np.int64))


@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=30),
    context=st.integers(1, 40),
    limit=st.integers(1, 2000),
)
@settings(max_examples=50, deadline=None)
def test_validation_blocks_read_documents_from_their_starts(
    make_shards: MakeShards, lengths: list[int], context: int, limit: int
) -> None:
    rng = np.random.default_rng(len(lengths))
    documents = [rng.integers(1, 512, size=length).tolist() for length in lengths]
    shards = make_shards(documents)
    byte_lengths = rng.integers(1, 9, size=512)
    byte_lengths[0] = 0
    inputs, targets, size = validation_blocks(shards, context, limit, byte_lengths)
    assert inputs.shape == targets.shape
    assert inputs.shape[1] == context
    flat_inputs, flat_targets = inputs.ravel(), targets.ravel()
    scored = int((flat_targets != IGNORED).sum())
    assert (flat_targets[:scored] != IGNORED).all()  # only the end is padding
    assert len(flat_targets) - scored < context
    assert scored <= max(limit, 1)
    assert size == int(byte_lengths[flat_targets[:scored]].sum())
    if shards.tokens <= limit:
        assert flat_targets[:scored].tolist() == shards.read(0, shards.tokens).tolist()
        assert flat_inputs[:scored].tolist() == [0, *shards.read(0, shards.tokens - 1).tolist()]
        assert size == sum(int(byte_lengths[ids].sum()) for ids in documents if ids)


def test_a_limit_spreads_over_the_documents(make_shards: MakeShards) -> None:
    shards = make_shards([[i + 1] * 99 for i in range(200)], shard_tokens=5000)
    _, targets, size = validation_blocks(shards, 50, 2000, np.ones(512, dtype=np.int64))
    seen = set(targets.ravel().tolist()) - {0, IGNORED}
    assert max(seen) > 180
    assert len(seen) >= 16
    assert size == 2000


def test_bytes_come_from_the_tokenizer_beside_the_shards(make_shards: MakeShards, tokenizer: Tokenizer) -> None:
    text = "Mr. Speaker, 我们的世界 🙂"
    shards = make_shards([tokenizer.encode(text)])
    tokenizer.save(shards.folder)
    assert validation_blocks(shards, 8, 1000).bytes == len(text.encode())
