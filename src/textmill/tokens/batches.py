"""Training batches and validation blocks, cut from shards without losing a token. Reads shards alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from textmill.base.errors import Failure
from textmill.tokens.shards import Shards
from textmill.tokens.tokenizer import Tokenizer

IGNORED = -1
"""Target of a position that is not to be learned or scored."""

_ROUNDS = 8


def _mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer (Steele, Lea and Flood 2014): each bit of the result depends on every bit."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def permute(index: np.ndarray, size: int, key: np.ndarray) -> np.ndarray:
    """Where `index` goes in the permutation of 0 to `size` - 1 that `key` names, in constant memory.

    A Feistel network over the next power of two, walked until it lands inside (cycle walking: Black and
    Rogaway 2002, "Ciphers with arbitrary finite domains").

    Args:
        index: positions [N], each below `size`.
        size: how many there are to permute.
        key: uint64 [N]; equal keys name the same permutation.

    Returns:
        int64 [N].
    """
    bits = max(2, (size - 1).bit_length())
    low = bits // 2
    result = index.astype(np.uint64)
    outside = np.arange(len(result))
    while len(outside):
        left_bits, right_bits = bits - low, low
        left = result[outside] >> np.uint64(low)
        right = result[outside] & np.uint64((1 << low) - 1)
        keys = key[outside]
        for turn in range(_ROUNDS):  # an even number, so that both halves end with the widths they began with
            mask = np.uint64((1 << left_bits) - 1)
            mixed = _mix(keys ^ _mix(right + np.uint64(turn << 48))) & mask
            left, right = right, left ^ mixed
            left_bits, right_bits = right_bits, left_bits
        result[outside] = (left << np.uint64(low)) | right
        outside = outside[result[outside] >= np.uint64(size)]
    return result.astype(np.int64)


class Batches:
    """Training batches, a pure function of (seed, step): resuming needs no state but the step.

    The split's documents in stored order are one ring of tokens. Each epoch cuts the ring into blocks at new
    places and visits them in a new order; rows flow over from one epoch into the next. Every epoch has each
    token as a target exactly once, so no text is cropped away. Where the ring does not divide into whole blocks, one
    block an epoch reaches back over tokens of the block before, and those targets are -1. A corpus whose documents
    are in the order of a curriculum is read in that order in the first epoch, and mixed in those after it.

    Args:
        shards: the training split.
        context: tokens in a row.
        rows: rows in a batch.
        seed: names the order.

    Attributes:
        blocks: rows that make one epoch.
        steps_per_epoch: batches that make one epoch.
    """

    def __init__(self, shards: Shards, context: int, rows: int, seed: int) -> None:
        if shards.tokens == 0:
            raise Failure(
                f"There is no text to train on: the split {shards.split} of {shards.folder} is empty.",
                fix="Add documents to the corpus.",
            )
        self.shards, self.context, self.rows, self.seed = shards, context, rows, seed
        self.blocks = -(-shards.tokens // context)
        self.steps_per_epoch = self.blocks / rows
        self._spare = self.blocks * context - shards.tokens

    def epoch_of(self, step: int) -> int:
        """The epoch in which the first row of batch `step` stands, counted from 0."""
        return step * self.rows // self.blocks

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and targets of batch `step`.

        Returns:
            tokens int64 [rows, context], and targets int64 [rows, context]: the token that follows each, -1
            where it is not to be learned.
        """
        count = self.shards.tokens
        row = step * self.rows + np.arange(self.rows, dtype=np.int64)
        epoch, index = np.divmod(row, self.blocks)
        key = _mix(_mix(np.full(self.rows, self.seed % (1 << 64), dtype=np.uint64)) + epoch.astype(np.uint64))
        block = permute(index, self.blocks, key)
        offset = (_mix(key) % np.uint64(count)).astype(np.int64)
        if self.shards.in_order:
            block, offset = np.where(epoch == 0, index, block), np.where(epoch == 0, 0, offset)
        last = block == self.blocks - 1
        start = (offset + block * self.context - np.where(last, self._spare, 0)) % count
        window = np.stack([self._ring(int(first), self.context + 1) for first in start])
        tokens, targets = window[:, :-1].copy(), window[:, 1:].copy()
        targets[last, : self._spare] = IGNORED
        return tokens, targets

    def _ring(self, start: int, length: int) -> np.ndarray:
        """`length` ids from `start`, going on from the beginning after the end as often as needed."""
        count = self.shards.tokens
        if start + length <= count:
            return self.shards.read(start, start + length)
        pieces = [self.shards.read(start, count)]
        length -= count - start
        while length > 0:
            pieces.append(self.shards.read(0, min(length, count)))
            length -= count
        return np.concatenate(pieces)


class StreamBatches:
    """Training batches whose rows go on from step to step, for models that carry their state on.

    The split's documents in stored order are one ring of tokens, cut into `rows` streams of equal length that begin
    at a place drawn by `seed`. Row r of step s + 1 begins where row r of step s ended; when a stream ends, it goes on
    into the next one, so after one epoch each row has read another part. A pure function of (seed, step).

    Args:
        shards: the training split.
        context: tokens in a row.
        rows: rows in a batch.
        seed: names the place where the first row begins.

    Attributes:
        blocks: rows of `context` tokens that make one epoch.
        steps_per_epoch: batches that make one epoch.
    """

    def __init__(self, shards: Shards, context: int, rows: int, seed: int) -> None:
        self._ring = Batches(shards, context, rows, seed)._ring
        self.shards, self.context, self.rows, self.seed = shards, context, rows, seed
        self.blocks = -(-shards.tokens // context)
        self.steps_per_epoch = self.blocks / rows
        first = int(_mix(np.array([seed % (1 << 64)], dtype=np.uint64))[0] % np.uint64(shards.tokens))
        self._starts = (first + np.arange(rows) * shards.tokens // rows) % shards.tokens

    def epoch_of(self, step: int) -> int:
        """The epoch in which batch `step` stands, counted from 0."""
        return step * self.rows // self.blocks

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and targets of batch `step`: int64 [rows, context] each."""
        starts = (self._starts + step * self.context) % self.shards.tokens
        window = np.stack([self._ring(int(first), self.context + 1) for first in starts])
        return window[:, :-1].copy(), window[:, 1:].copy()


class ValidationBlocks(NamedTuple):
    """What the loss during training is measured on."""

    inputs: np.ndarray
    """int64 [N, context]."""
    targets: np.ndarray
    """int64 [N, context]; -1 where there is nothing to score."""
    bytes: int
    """UTF-8 bytes that the targets stand for: bits per byte = total nats / ln 2 / bytes."""


def validation_blocks(
    shards: Shards, context: int, limit_tokens: int, byte_lengths: np.ndarray | None = None
) -> ValidationBlocks:
    """Non-overlapping blocks of all documents, or of the first parts of evenly spread ones.

    Each document is read from its start, after a document-end token, as when generating.

    Args:
        shards: the validation split.
        context: tokens in a block.
        limit_tokens: how many targets at most; the whole split when it has no more.
        byte_lengths: [V], bytes of each token; read from the tokenizer beside the shards when left out.
    """
    if shards.tokens == 0:
        raise Failure(f"There is no text in the split {shards.split} of {shards.folder}.")
    if byte_lengths is None:
        byte_lengths = Tokenizer.load(shards.folder).byte_lengths
    inputs: list[np.ndarray] = []
    targets: list[np.ndarray] = []
    for i, length in _spread(shards, limit_tokens):
        first = int(shards.ends[i - 1]) if i else 0
        target = shards.read(first, first + length)
        inputs.append(np.concatenate(([shards.document_end], target[:-1])))
        targets.append(target)
    flat_inputs, flat_targets = np.concatenate(inputs), np.concatenate(targets)
    count = -(-len(flat_targets) // context)
    padded_inputs = np.full(count * context, shards.document_end, dtype=np.int64)
    padded_targets = np.full(count * context, IGNORED, dtype=np.int64)
    padded_inputs[: len(flat_inputs)] = flat_inputs
    padded_targets[: len(flat_targets)] = flat_targets
    return ValidationBlocks(
        padded_inputs.reshape(count, context),
        padded_targets.reshape(count, context),
        int(byte_lengths[flat_targets].sum()),
    )


def _spread(shards: Shards, limit: int) -> list[tuple[int, int]]:
    """(document, tokens of it) for documents evenly spread over the split, `limit` tokens in all at most."""
    lengths = np.diff(shards.ends, prepend=0)
    if shards.tokens <= limit:
        return [(i, int(length)) for i, length in enumerate(lengths)]
    wanted = -(-shards.documents * limit // shards.tokens)
    count = min(shards.documents, limit, max(wanted, 16))
    chosen = np.arange(count) * shards.documents // count
    left = limit
    result = []
    for turn, i in enumerate(chosen):
        take = min(int(lengths[i]), left // (count - turn))
        left -= take
        if take:
            result.append((int(i), take))
    return result
