"""The baselines of a measurement: unigram, Kneser-Ney and the compressors, each fitted to the time left."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import zstandard

from textmill.base.settings import show_bytes, show_count
from textmill.evaluation.compressors import ZSTD_LEVEL, ZSTD_WINDOW_LOG, Compressed, Compressor, compress
from textmill.evaluation.measurement import Measurement
from textmill.models.ngram import NGram, draw_documents

if TYPE_CHECKING:
    from textmill.tokens.shards import Shards
    from textmill.tokens.tokenizer import Tokenizer

PROBE_TOKENS = 200_000
"""Tokens fitted to learn how fast this machine counts, when time is limited."""
FEWEST_TOKENS = 100_000
"""Fitting on fewer tokens than this, of a larger corpus, would say nothing."""
LEAST_PRIME = 1_000_000
"""Priming with fewer bytes than this, of a larger corpus, would say nothing."""
CAUTION = 2.0
"""Estimates are multiplied by this before they are held against the time left."""
SLOW_COMPRESSION = 500_000
"""Bytes a second that even a slow machine compresses."""
PRIMED_SLOWDOWN = 3.0
"""A compressor that looks back over a whole corpus is slower than over the held-out text alone."""

LABELS: dict[Compressor, str] = {"xz": "xz -9e", "zstd": "zstd -19"}


def add_unigram(measurement: Measurement, train: Shards) -> None:
    """Add the unigram row."""
    config = measurement.config
    began = time.monotonic()
    tokenizer = measurement.tokenizer
    model = NGram(tokenizer.vocabulary, tokenizer.document_end, order=1)
    model.fit(train, max_tokens=config.ngram_max_tokens, seed=config.seed)
    measurement.add_model(
        model,
        name="unigram",
        label="unigram",
        kind="baseline",
        parameters=model.parameters,
        facts=_fitted(model, train, config.seed),
        note=_cut_note(model, train),
        seconds=time.monotonic() - began,
    )


def add_ngram(measurement: Measurement, train: Shards) -> None:
    """Add the Kneser-Ney row, fitted on as much of the training split as the time left allows."""
    config, tokenizer, clock = measurement.config, measurement.tokenizer, measurement.clock
    label = f"Kneser-Ney {config.ngram_order}-gram"
    began = time.monotonic()
    model = NGram(tokenizer.vocabulary, tokenizer.document_end, config.ngram_order)
    most = min(train.tokens, config.ngram_max_tokens)
    if math.isfinite(clock.left()) and most > PROBE_TOKENS:
        model.fit(train, max_tokens=PROBE_TOKENS, seed=config.seed)
        pace = CAUTION * (time.monotonic() - began) / PROBE_TOKENS
        affordable = int(clock.left() / pace) - measurement.held_out.tokens
        if affordable < FEWEST_TOKENS:
            measurement.leave_out(label, f"fitting it takes longer than the {clock.left():.1f} s left.")
            return
        most = min(most, affordable)
    with measurement.progress.task(f"Counting {config.ngram_order}-grams", train.tokens, "tokens") as task:
        model.fit(train, max_tokens=most, seed=config.seed)
        task.update(model.tokens, total=model.tokens)
    measurement.add_model(
        model,
        name=f"kneser-ney-{config.ngram_order}",
        label=label,
        kind="baseline",
        parameters=model.parameters,
        facts={"order": config.ngram_order, **_fitted(model, train, config.seed)},
        note=_cut_note(model, train),
        seconds=time.monotonic() - began,
    )


def _fitted(model: NGram, train: Shards, seed: int) -> dict[str, Any]:
    if model.tokens == train.tokens:
        return {"fit": model.tokens}
    return {"fit": f"{model.tokens}of{train.tokens}", "draw": seed}


def _cut_note(model: NGram, train: Shards) -> str:
    if model.tokens == train.tokens:
        return ""
    return f"Fitted on {show_count(model.tokens)} of the {show_count(train.tokens)} training tokens."


def add_compressors(measurement: Measurement, train: Shards) -> None:
    """Add xz and zstd, each on the held-out text alone, and given the training text first."""
    text = measurement.held_out.text
    settings: dict[Compressor, dict[str, Any]] = {
        "xz": {"xz": "9e"},
        "zstd": {
            "zstd": ".".join(map(str, zstandard.ZSTD_VERSION)),
            "level": ZSTD_LEVEL,
            "long": ZSTD_WINDOW_LOG,
        },
    }
    if CAUTION * len(text) / SLOW_COMPRESSION > measurement.clock.left():
        for compressor in settings:
            measurement.leave_out(
                LABELS[compressor], f"it may take longer than the {measurement.clock.left():.1f} s left."
            )
        return
    with measurement.progress.task("Compressing", 2 * len(text), "B") as task:
        alone = _both(lambda compressor: compress(compressor, text))
        task.advance(2 * len(text))
    for compressor, facts in settings.items():
        done = alone[compressor]
        assert done is not None
        measurement.add_compressor(
            name=compressor,
            label=LABELS[compressor],
            size=done.size,
            seconds=done.seconds,
            facts={**facts, "prime": 0},
            note="The held-out text alone.",
        )
    if measurement.config.prime_bytes == 0:
        return
    pace = max(done.seconds for done in alone.values() if done is not None) / len(text)
    _add_primed(measurement, train, settings, pace)


def _add_primed(
    measurement: Measurement, train: Shards, settings: dict[Compressor, dict[str, Any]], pace: float
) -> None:
    text, clock = measurement.held_out.text, measurement.clock
    most = min(measurement.config.prime_bytes, train.bytes)
    if math.isfinite(clock.left()):
        affordable = int(clock.left() / (PRIMED_SLOWDOWN * pace)) - len(text)
        if affordable < min(train.bytes, LEAST_PRIME):
            for compressor in settings:
                measurement.leave_out(
                    f"{LABELS[compressor]} given the training text",
                    f"it may take longer than the {clock.left():.1f} s left.",
                )
            return
        most = min(most, affordable)
    prime = training_text(train, measurement.tokenizer, most, measurement.config.seed)
    with measurement.progress.task("Compressing after the training text", 2 * len(prime), "B") as task:
        timeout = clock.left() if math.isfinite(clock.left()) else None
        primed = _both(lambda compressor: compress(compressor, text, prime, timeout))
        task.advance(2 * len(prime))
    note = "Given the training text first."
    given: dict[str, Any] = {"prime": len(prime)}
    if len(prime) < train.bytes:
        note = f"Given {show_bytes(len(prime))} of the {show_bytes(train.bytes)} of training text first."
        given = {"prime": f"{len(prime)}of{train.bytes}", "prime-draw": measurement.config.seed}
    for compressor, facts in settings.items():
        done = primed[compressor]
        label = f"{LABELS[compressor]}, given the training text"
        if done is None:
            measurement.leave_out(label, "it ran out of time.")
            continue
        measurement.add_compressor(
            name=f"{compressor}-primed",
            label=label,
            size=done.size,
            seconds=done.seconds,
            facts={**facts, **given},
            note=note,
        )


def _both(work: Callable[[Compressor], Compressed]) -> dict[Compressor, Compressed | None]:
    """What both compressors make of it, side by side; None for one that ran out of time."""

    def attempt(compressor: Compressor) -> Compressed | None:
        try:
            return work(compressor)
        except TimeoutError:
            return None

    both: list[Compressor] = ["xz", "zstd"]
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(both, pool.map(attempt, both), strict=True))


def training_text(train: Shards, tokenizer: Tokenizer, most: int, seed: int) -> bytes:
    """At most `most` UTF-8 bytes of the training documents, drawn at random where they are more."""
    if train.bytes <= most:
        return tokenizer.decode_bytes(train.read(0, train.tokens).tolist())
    ids = draw_documents(train, tokenizer.document_end, int(most * train.tokens / train.bytes), seed)
    sizes = np.cumsum(tokenizer.byte_lengths[ids])
    return tokenizer.decode_bytes(ids[: int(np.searchsorted(sizes, most, side="right"))].tolist())
