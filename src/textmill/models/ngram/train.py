"""Text to an n-gram model over words, in bounded memory. Reads texts, writes temporary files when it must."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from textmill.base.errors import Failure
from textmill.base.hardware import hardware
from textmill.models.ngram.config import TrainingConfig, thresholds
from textmill.models.ngram.counting import Space, count_orders
from textmill.models.ngram.estimation import Grams, estimate
from textmill.models.ngram.sorting import BYTES_A_TOKEN, LEAST_BLOCK, SortedGrams
from textmill.models.ngram.units import WORDS, Units
from textmill.models.ngram.words import BEGIN, GrowingWords, Words

SHARE = 0.5
"""Share of the machine's memory that counting takes when nobody says how much it may."""


@dataclass
class Trained:
    """An n-gram model over words and what it was made of.

    Attributes:
        words: the vocabulary; ids are places in it.
        grams: the n-grams.
        tokens: words counted, sentence ends included.
        types: distinct words, `<unk>`, `<s>` and `</s>` included, before pruning.
        on_disk: whether memory did not hold it all.
        unfinished: whether the last line had no newline, and so got no `</s>`.
    """

    words: Words
    grams: Grams
    tokens: int
    types: int
    on_disk: bool
    unfinished: bool


def block_tokens(memory: int | None) -> int:
    """Tokens of a block that counting in `memory` bytes allows; None takes a share of the machine's."""
    limit = int(SHARE * hardware().memory_bytes) if memory is None else memory
    return min(max(LEAST_BLOCK, limit // BYTES_A_TOKEN), (1 << 31) - 1)


def estimate_from(
    blocks: Iterable[tuple[np.ndarray, int, int]],
    config: TrainingConfig,
    begin: int,
    folder: Path,
    *,
    vocabulary: int | None = None,
) -> tuple[Grams, np.ndarray, SortedGrams]:
    """Count blocks of tokens and estimate a model.

    Args:
        blocks: tokens int32, where its new tokens begin, and how many ids there are so far; as for `SortedGrams.add`.
        config: order, smoothing, pruning.
        begin: the id that begins sentences.
        folder: for temporary files.
        vocabulary: as for `estimate`.

    Returns:
        the model, which ids are in it, and the counter.
    """
    counter, ids = SortedGrams(config.order, begin, folder), 0
    for tokens, first, known in blocks:
        counter.add(tokens, first, known)
        ids = known
    if not counter.tokens:
        raise Failure("There is nothing to count.", "The text holds no word.", "Give it text, one sentence a line.")
    space = Space(folder if counter.on_disk else None)
    levels = count_orders(counter.chunks(), config.order, begin, ids, space)
    for level in levels:
        # What this smoothing does not look at gives its memory back.
        if config.smoothing != "kneser-ney":
            level.adjusted = level.counts
        elif not any(thresholds(config.prune, config.order)):
            level.counts = level.adjusted
        level.first = level.first[:0]
    grams, present = estimate(levels, config, begin, space, vocabulary=vocabulary)
    return grams, present, counter


def train_words(
    blocks: Iterable[bytes | bytearray],
    config: TrainingConfig,
    *,
    units: Units = WORDS,
    memory: int | None = None,
    skip_special: bool = False,
    folder: Path | None = None,
) -> Trained:
    """Make an n-gram model of tokenized text, one sentence a line, as KenLM's lmplz does.

    Words are what stands between blanks, tabs and NUL bytes, byte for byte; an empty line is an empty sentence; a
    last line without newline has no end. With Kneser-Ney smoothing every probability and weight is lmplz's.

    Args:
        blocks: the text in blocks of whole lines.
        config: order, smoothing, pruning.
        units: what lines are cut into.
        memory: bytes that may be used; more text than fits goes through temporary files. None takes half of the
            machine's memory.
        skip_special: take `<s>`, `</s>` and `<unk>` in the text for blanks instead of refusing them.
        folder: where temporary files go; None takes the system's place.

    Raises:
        Failure: the text is empty, holds special words, or is too small or regular for Kneser-Ney.
    """
    words = GrowingWords(skip_special)
    room = block_tokens(memory)
    unfinished = False

    def encoded() -> Iterator[tuple[np.ndarray, int, int]]:
        nonlocal unfinished
        parts: list[np.ndarray] = []
        held = 0
        for block in blocks:
            unfinished = not block.endswith(b"\n")
            ids = words.learn(np.frombuffer(bytearray(units.cut(block)), dtype=np.uint8))
            if parts and held + len(ids) > room:
                yield np.concatenate(parts), 0, words.count
                parts, held = [], 0
            parts.append(ids)
            held += len(ids)
        if parts:
            joined = np.concatenate(parts) if len(parts) > 1 else parts[0]
            parts.clear()
            yield joined, 0, words.count

    with tempfile.TemporaryDirectory(prefix="textmill-ngrams-", dir=folder) as place:
        grams, present, counter = estimate_from(encoded(), config, BEGIN, Path(place))
        return Trained(words.only(present), grams, counter.tokens, words.count, counter.on_disk, unfinished)
