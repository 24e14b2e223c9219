"""Measure a run's model beside its baselines, held out or on other texts. Writes evaluation/NAME.json."""

from __future__ import annotations

import dataclasses
import math
import re
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from textmill.base.errors import Failure, UsageError
from textmill.base.files import hash_json, read_json, write_json
from textmill.base.run import Run
from textmill.base.settings import show_count
from textmill.evaluation.baselines import add_compressors, add_ngram, add_unigram
from textmill.evaluation.held_out import HeldOut
from textmill.evaluation.measurement import Clock, Measurement
from textmill.evaluation.score import score_model
from textmill.tokens.shards import Shards
from textmill.tokens.tokenizer import Tokenizer

if TYPE_CHECKING:
    from textmill.base.progress import Progress
    from textmill.evaluation.config import EvaluationConfig

MODEL_SHARE = 0.6
"""Share of a time limit that scoring the model may take; the baselines have the rest."""
PROBE_TOKENS = 4096
"""Tokens scored to learn how fast the model is, when time is limited."""
FEWEST_TOKENS = 8192
"""Held-out tokens that are scored at the least (or all there are)."""


def evaluate_run(
    run: Run,
    config: EvaluationConfig,
    progress: Progress,
    *,
    split: str = "test",
    time_limit: float | None = None,
    reuse: bool = False,
) -> dict[str, Any]:
    """Measure the run's model on one of its held-out splits, and write `evaluation/SPLIT.json`.

    Args:
        run: a run with finished tokens and model.
        config: the settings.
        progress: where to report.
        split: "test" or "validation".
        time_limit: seconds for all of it. Fewer documents, training tokens or rows are then measured where
            needed, and the figures' signatures and the measurement's notes say so.
        reuse: give the measurement back that is there, if it was made of this very model with these settings.

    Returns:
        the measurement, as written.
    """
    clock = Clock(time_limit)
    tokens = _require(run)
    path = run / "evaluation" / f"{split}.json"
    key = hash_json([run.fingerprint("model"), dataclasses.asdict(config), split])
    if reuse and path.exists() and (known := read_json(path)).get("key") == key:
        return dict(known)
    shards = Shards(tokens, split)
    if shards.documents == 0:
        raise UsageError(
            f"The {split} split of {run.path} holds no document.",
            "The corpus is so small that none fell into it.",
            f"Name other texts to measure on: textmill evaluate {run.path} other_texts/",
        )
    measurement = _measure(run, split, f"split:{split}", shards, config, progress, clock)
    result = measurement.result(f"{split} split of {run.path.resolve().name}") | {"key": key}
    write_json(path, result)
    return result


def evaluate_texts(
    run: Run,
    paths: list[str],
    config: EvaluationConfig,
    progress: Progress,
    *,
    time_limit: float | None = None,
) -> dict[str, Any]:
    """Measure the run's model on other texts, and write `evaluation/NAME.json`, NAME being made of their
    names.

    The texts are read, cleaned and deduplicated as a corpus is, and cut into the run's own tokens. Nothing is
    trained on them. `data.overlap` counts the documents that are exact copies of training documents.

    Args:
        run: a run with finished tokens and model.
        paths: files, folders, globs or samples, as `textmill corpus` takes them.
        config: the settings.
        progress: where to report.
        time_limit: seconds for the measurement, reading the texts not counted.

    Returns:
        the measurement, as written.
    """
    tokenizer = Tokenizer.load(_require(run))
    with tempfile.TemporaryDirectory(prefix="textmill-evaluate-") as folder:
        ids, identities, languages = _read_texts(
            Path(folder) / "texts", paths, tokenizer, _corpus_settings(run), _piece_size(run), progress
        )
    known = _training_documents(run)
    overlap = len(known & identities)
    description = ", ".join(paths)
    name = _name(run, paths, description)
    measurement = _measure(run, name, f"text:{name}", ids, config, progress, Clock(time_limit))
    if overlap:
        measurement.notes.append(
            f"{overlap} of these {len(identities)} documents or pieces are training text of this model: "
            "the figures of everything that learned from them are too good."
        )
        progress.say(measurement.notes[-1])
    result = measurement.result(description, overlap=overlap, languages=languages)
    write_json(run / "evaluation" / f"{name}.json", result)
    return result


def _require(run: Run) -> Path:
    run.require("model", f"textmill train {run.path}")
    return run.require("tokens", f"textmill tokenize {run.path}")


def _measure(
    run: Run,
    name: str,
    source: str,
    ids: np.ndarray | Shards,
    config: EvaluationConfig,
    progress: Progress,
    clock: Clock,
) -> Measurement:
    from textmill.models.load import load_model

    tokens = run / "tokens"
    tokenizer, train = Tokenizer.load(tokens), Shards(tokens, "train")
    model = load_model(run / "model", precision=config.precision)
    if model.vocabulary != tokenizer.vocabulary:
        raise Failure(
            f"The model and the tokenizer of {run.path} do not belong together.",
            f"The model knows {model.vocabulary:,} tokens, the tokenizer {tokenizer.vocabulary:,}.",
            f"Train the model again: textmill train {run.path}",
        )
    device = getattr(model, "device", None)
    stride = None if model.context is None else max(1, round(model.context * config.stride_share))
    held_out = HeldOut.draw(ids, tokenizer, config.max_tokens, config.seed)
    reason = "as max_tokens asks"
    affordable = _affordable(model, held_out, tokenizer, stride, device, clock)
    if affordable < held_out.tokens:
        held_out = HeldOut.draw(ids, tokenizer, affordable, config.seed)
        reason = "so that scoring them fits into the time"
    measurement = Measurement(name, source, held_out, tokenizer, config, progress, clock)
    if len(held_out.documents) < held_out.available:
        measurement.notes.append(
            f"Measured on {len(held_out.documents)} of {held_out.available} documents, drawn at random, {reason}."
        )
    size = _size(model)
    add_unigram(measurement, train)
    measurement.add_model(
        model,
        name="textmill",
        label="Textmill",
        kind="model",
        parameters=size,
        facts={"family": model.family, "precision": precision_of(model)},
        note=" ".join([f"{show_count(size)} parameters.", *doubts_of(model)]),
        stride=stride,
        device=device,
    )
    _add_quantized(measurement, model, size, stride)
    add_ngram(measurement, train)
    add_compressors(measurement, train)
    return measurement


def _add_quantized(measurement: Measurement, model: Any, size: int, stride: int | None) -> None:
    """The same model as `generate` and `serve` run it with rounded weights."""
    config = measurement.config
    if not config.weights:
        return
    from textmill.evaluation.quantized import Quantized

    exact = next(row["bits_per_byte"] for row in measurement.rows if row["name"] == "textmill")
    for weights in dict.fromkeys(config.weights):
        kept = f"{weights} weights" + (f", {config.cache} cache" if config.cache != "float32" else "")
        measurement.add_model(
            Quantized(model, weights, config.cache),
            name=f"textmill-{weights}" + (f"-{config.cache}-cache" if config.cache != "float32" else ""),
            label=f"Textmill, {kept}",
            kind="model",
            parameters=size,
            facts={"family": model.family, "precision": weights, "cache": config.cache},
            stride=stride,
        )
        cost = measurement.rows[-1]["bits_per_byte"] - exact
        precise = precision_of(model)
        measurement.notes.append(f"{kept}: {cost:+.4f} bits per byte against the model as it is ({precise}).")


def precision_of(model: Any) -> str:
    """The arithmetic of a model, for its signature."""
    return str(getattr(model, "compute_dtype", "torch.float64")).removeprefix("torch.")


def doubts_of(model: Any) -> list[str]:
    """What must be known to read the figure of a family that has no exact likelihood."""
    found = []
    if getattr(model, "pseudo_likelihood", False):
        found.append("A pseudo-likelihood: each token is guessed from both sides. Not comparable with the others.")
    if getattr(model, "bound", False):
        samples = getattr(model, "samples", None)
        drawn = f" with {samples} samples" if samples else ""
        found.append(f"An upper bound on its bits per byte (importance weighting{drawn}).")
    return found


def _size(model: Any) -> int:
    """Trained values of a model."""
    for name in ("size", "parameters"):
        value = getattr(model, name, None)
        if isinstance(value, int):
            return value
    return sum(parameter.numel() for parameter in model.parameters())


def _affordable(
    model: Any, held_out: HeldOut, tokenizer: Tokenizer, stride: int | None, device: Any, clock: Clock
) -> int:
    """Held-out tokens that the model can score in its share of the time."""
    if math.isinf(clock.left()):
        return held_out.tokens
    probe = np.concatenate(held_out.documents[:64])[:PROBE_TOKENS]
    seconds = math.inf
    for _ in range(2):  # the first read pays for what is set up once
        began = time.monotonic()
        score_model(model, [probe], tokenizer, stride=stride, device=device)
        seconds = min(seconds, time.monotonic() - began)
    return max(FEWEST_TOKENS, int(MODEL_SHARE * clock.left() / seconds * len(probe)))


def _read_texts(
    folder: Path,
    paths: list[str],
    tokenizer: Tokenizer,
    configuration: dict[str, Any],
    piece_size: int | None,
    progress: Progress,
) -> tuple[np.ndarray, set[str], list[str]]:
    """Clean documents of `paths`: their tokens (each followed by its end), their ids, their languages.

    Where the run's own documents were cut into pieces of `piece_size` characters, the ids are those of pieces.
    """
    import pyarrow.parquet as parquet

    from textmill.corpus.build import build_corpus
    from textmill.corpus.cleaning.text import document_pieces
    from textmill.corpus.config import CorpusConfig, reading_only
    from textmill.corpus.split import document_id

    texts = Run.create(folder)
    # The run's own settings, so that the same text becomes the same documents.
    names = {field.name for field in dataclasses.fields(CorpusConfig)}
    settings = {key: value for key, value in configuration.items() if key in names}
    build_corpus(paths, texts, reading_only(CorpusConfig(**settings)), progress)
    pieces: list[np.ndarray] = []
    identities: set[str] = set()
    languages: set[str] = set()
    for path in sorted((texts / "corpus").glob("documents-*.parquet")):
        for batch in parquet.ParquetFile(path).iter_batches(256, columns=["id", "text", "language"]):
            columns = batch.to_pydict()
            for identity, text in zip(columns["id"], columns["text"], strict=True):
                if piece_size is None or len(text) <= piece_size:
                    identities.add(identity)
                else:
                    identities.update(document_id(part.encode()) for part in document_pieces(text, piece_size))
            languages.update(language for language in columns["language"] if language)
            for ids in tokenizer.encode_batch(columns["text"]):
                pieces.append(np.array([*ids, tokenizer.document_end], dtype=np.int64))
    return np.concatenate(pieces), identities, sorted(languages)


def _corpus_settings(run: Run) -> dict[str, Any]:
    """The configuration that the run's corpus was built with; empty where the corpus was deleted."""
    try:
        return dict(read_json(run / "corpus" / "stage.json")["configuration"])
    except (OSError, KeyError, TypeError, ValueError):
        return {}


def _piece_size(run: Run) -> int | None:
    """Characters of the pieces that the run's documents were cut into; None where they were left whole."""
    try:
        return int(read_json(run / "corpus" / "card.json")["cut"]["characters"])
    except (OSError, KeyError, TypeError, ValueError):
        return None


def _training_documents(run: Run) -> set[str]:
    """Ids of the run's training documents; none where the corpus was deleted."""
    import pyarrow.parquet as parquet

    known: set[str] = set()
    for path in sorted((run / "corpus").glob("documents-*.parquet")):
        for batch in parquet.ParquetFile(path).iter_batches(columns=["id", "split"]):
            columns = batch.to_pydict()
            pairs = zip(columns["id"], columns["split"], strict=True)
            known.update(identity for identity, split in pairs if split == "train")
    return known


def _name(run: Run, paths: list[str], description: str) -> str:
    """A file name for other texts: `other_texts`; with a hash where another measurement has that name."""
    words = [re.sub(r"\W+", "_", path.rstrip("/").rsplit("/", 1)[-1]).strip("_").lower() for path in paths[:3]]
    name = "_".join(filter(None, words))[:80] or "texts"
    if len(paths) > 3:
        name += f"_and_{len(paths) - 3}_more"
    if name in ("train", "validation", "test"):
        name = f"texts_{name}"
    file = run / "evaluation" / f"{name}.json"
    if file.exists() and read_json(file).get("data", {}).get("description") != description:
        name += f"_{hash_json(paths)[:6]}"
    return name
