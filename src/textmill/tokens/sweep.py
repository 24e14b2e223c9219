"""What a vocabulary's size costs and brings: several sizes measured on one sample. Writes RUN/sweep.json."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from textmill.base.errors import Failure, UsageError
from textmill.base.files import write_json
from textmill.base.progress import Progress
from textmill.base.run import Run
from textmill.corpus.texts import Texts
from textmill.tokens.build import check_settings
from textmill.tokens.config import TokenizerConfig
from textmill.tokens.reading import measure_splits, sample_texts
from textmill.tokens.tokenizer import Tokenizer, round_vocabulary, train_tokenizer

SWEEP_FILE = "sweep.json"
DEFAULT_SIZES = (1024, 2048, 4096, 8192, 16_384)
TRAINING_BYTES = 16_000_000
"""Most text that the tokenizers and the scoring model learn from; a sweep is to take minutes."""
VALIDATION_BYTES = 2_000_000
WIDTH = 256
"""Width at which the embedding table's parameters are shown."""

Score = Callable[[np.ndarray, np.ndarray, int, int], float]
"""(training ids, held-out ids, vocabulary, document end) -> nats of the held-out ids, end tokens included."""


def sweep_vocabularies(
    run: Run, config: TokenizerConfig, sizes: Sequence[int], score: Score, progress: Progress
) -> dict[str, Any]:
    """Train a tokenizer of each size on one sample and measure it on the validation split.

    Bits per byte are those of a model that learned from the same sample, so sizes compare: the unit does not depend
    on the tokens. What a model of another family or a longer training would gain differs in size, seldom in order.

    Args:
        run: the run; its corpus stage must be finished.
        config: the settings; `vocabulary` has no effect here.
        sizes: token ids, each rounded up to a multiple of 64.
        score: the model that measures.
        progress: where to report.

    Returns:
        what is written to RUN/sweep.json: `{"kind", "training_bytes", "validation_bytes", "width", "rows": [{
        "vocabulary", "bytes_per_token", "bits_per_byte", "embedding_parameters", "train_seconds",
        "encode_megabytes_per_second" (of CPU time)}], "best": the vocabulary with the fewest bits per byte}`.
    """
    check_settings(config)
    if config.tokenizer is not None or config.vocabulary is not None or config.kind == "byte":
        raise UsageError(
            "There is nothing to sweep.",
            "The sizes are given with --sweep, and a tokenizer that is taken over or of bytes has only one.",
            "Leave out --vocabulary and --tokenizer, and choose a kind that learns.",
        )
    rounded = sorted({round_vocabulary(size) for size in sizes})
    corpus = run.require("corpus", f"textmill corpus my_texts/ --out {run.path}")
    bytes_of = measure_splits(corpus)
    if not bytes_of["train"] or not bytes_of["validation"]:
        raise Failure(
            "A sweep needs text to learn from and text to be measured on.",
            f"The {'training' if not bytes_of['train'] else 'validation'} split of {corpus} is empty.",
            "Add documents, then type the same command again.",
        )
    limit = min(config.sample_bytes, TRAINING_BYTES)
    training = list(sample_texts(corpus, bytes_of["train"], limit))
    held_out = Texts.from_strings(sample_texts(corpus, bytes_of["validation"], VALIDATION_BYTES, "validation"))
    if not len(held_out):
        raise Failure("The validation split is too small to measure anything.", fix="Add documents.")
    learned = Texts.from_strings(training)
    rows: list[dict[str, Any]] = []
    with progress.task("Sweeping vocabularies", len(rounded), "sizes") as task:
        for size in rounded:
            row = _measure(training, learned, held_out, size, config.kind, score)
            if rows and rows[-1]["vocabulary"] == row["vocabulary"]:
                break  # the text is too small to teach more
            rows.append(row)
            task.advance(1, f"{row['vocabulary']:,}: {row['bits_per_byte']:.4f} bits per byte")
    result = {
        "kind": config.kind,
        "training_bytes": int(learned.offsets[-1]),
        "validation_bytes": int(held_out.offsets[-1]),
        "width": WIDTH,
        "rows": rows,
        "best": min(rows, key=lambda row: float(row["bits_per_byte"]))["vocabulary"],
    }
    write_json(run / SWEEP_FILE, result)
    return result


def _measure(
    training: list[str],
    learned: Texts,
    held_out: Texts,
    size: int,
    kind: str,
    score: Score,
) -> dict[str, Any]:
    began = time.monotonic()
    tokenizer = train_tokenizer(training, size, kind=kind)
    seconds = time.monotonic() - began
    tokenizer.encode_texts(held_out)  # the first call also gets the encoder ready
    began = time.process_time()
    training_ids = _with_ends(tokenizer, learned)
    encoding = time.process_time() - began
    ids = _with_ends(tokenizer, held_out)
    nats = score(training_ids, ids, tokenizer.vocabulary, tokenizer.document_end)
    size_of_text = int(held_out.offsets[-1])
    return {
        "vocabulary": tokenizer.vocabulary,
        "bytes_per_token": size_of_text / (len(ids) - len(held_out)),
        "bits_per_byte": nats / math.log(2) / size_of_text,
        "embedding_parameters": tokenizer.vocabulary * WIDTH,
        "train_seconds": seconds,
        "encode_megabytes_per_second": int(learned.offsets[-1]) / 1e6 / max(encoding, 1e-9),
    }


def _with_ends(tokenizer: Tokenizer, texts: Texts) -> np.ndarray:
    """Ids of all texts (int64), each followed by the document end."""
    ids, offsets = tokenizer.encode_texts(texts)
    return np.insert(ids.astype(np.int64), offsets[1:], tokenizer.document_end)
