"""The tokens stage: trains the tokenizer on the training split, writes every split as shards.

Reads corpus/documents-*.parquet in bounded memory; writes tokens/.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from textmill.base.errors import Failure, UsageError
from textmill.base.files import read_json, write_json
from textmill.base.progress import Progress
from textmill.base.run import Run, Stage
from textmill.base.settings import to_mapping
from textmill.tokens.config import TokenizerConfig
from textmill.tokens.shards import INDEX_FILE, ShardWriter, shard_dtype
from textmill.tokens.tokenizer import round_vocabulary, train_tokenizer
from textmill.tokens.vocabulary import choose_vocabulary

SPLITS = ("train", "validation", "test")

_BATCH_ROWS = 16
_BATCH_CHARACTERS = 4_000_000
"""Text read before it is encoded."""
_SAMPLE_PIECE = 16_384
"""Characters in one piece of the tokenizer's training sample."""


def tokenize_corpus(
    run: Run, config: TokenizerConfig, progress: Progress, vocabulary: int | None = None
) -> dict[str, Any]:
    """Make `tokens/` from `corpus/`, or find it made.

    Args:
        run: the run; its corpus stage must be finished.
        config: the settings.
        progress: where to report.
        vocabulary: the planner's choice; the configuration's own `vocabulary` comes before it, a rule on the
            corpus size after it.

    Returns:
        the contents of `tokens/index.json`.
    """
    for name in ("sample_bytes", "shard_tokens"):
        if getattr(config, name) < 1:
            raise UsageError(f"{name} is {getattr(config, name):,}.", fix="Give a number above 0, or leave it out.")
    corpus = run.require("corpus", f"textmill corpus my_texts/ --out {run.path}")
    asked = config.vocabulary or vocabulary
    if asked is not None:
        asked = round_vocabulary(asked)
    stage = Stage(
        run,
        "tokens",
        inputs={"corpus": run.fingerprint("corpus")},
        configuration={**to_mapping(config), "vocabulary": asked},
    )
    if not stage.is_finished():
        with stage.work() as folder:
            _clear(folder)
            index = _build(corpus, folder, config, asked, progress)
            write_json(folder / INDEX_FILE, index)
            stage.counts = {
                "vocabulary": index["vocabulary"],
                **{
                    split: {key: entry[key] for key in ("documents", "tokens", "bytes")}
                    for split, entry in index["splits"].items()
                },
            }
    return dict(read_json(stage.folder / INDEX_FILE))


def _clear(folder: Path) -> None:
    """Remove what a killed attempt left: a shard fewer this time must not leave an old one behind."""
    for path in folder.iterdir():
        if path.suffix in (".bin", ".npy"):
            path.unlink()


def _build(
    corpus: Path, folder: Path, config: TokenizerConfig, vocabulary: int | None, progress: Progress
) -> dict[str, Any]:
    sizes = _measure(corpus)
    if not sizes["train"]:
        raise Failure(
            "There is no text to train a tokenizer on.",
            f"The training split of {corpus} is empty.",
            "Add documents, then type the same command again.",
        )
    if vocabulary is None:
        vocabulary = choose_vocabulary(sizes["train"]).vocabulary
    tokenizer = train_tokenizer(_sample(corpus, sizes["train"], config.sample_bytes), vocabulary, progress)
    tokenizer.save(folder)
    dtype = shard_dtype(tokenizer.vocabulary)
    writers = {
        split: ShardWriter(folder, split, dtype, tokenizer.document_end, config.shard_tokens) for split in SPLITS
    }
    with progress.task("Tokenizing", total=sum(sizes.values()), unit="B") as task:
        for texts, splits in _groups(corpus):
            read = 0
            for text, split, ids in zip(texts, splits, tokenizer.encode_arrays(texts), strict=True):
                size = len(text.encode())
                writers[split].add(ids, size)
                read += size
            task.advance(read)
        entries = {split: writer.close() for split, writer in writers.items()}
        tokens = sum(entry["tokens"] for entry in entries.values())
        task.update(task.done, f"{tokens:,} tokens of a vocabulary of {tokenizer.vocabulary:,}")
    return {
        "vocabulary": tokenizer.vocabulary,
        "dtype": dtype,
        "special": tokenizer.special,
        "document_end": tokenizer.document_end,
        "splits": entries,
    }


def _rows(corpus: Path, columns: list[str]) -> Iterator[Any]:
    """Record batches of the corpus in stored order, few rows at a time."""
    import pyarrow.parquet as parquet

    for path in sorted(corpus.glob("documents-*.parquet")):
        try:
            with parquet.ParquetFile(path) as file:
                yield from file.iter_batches(batch_size=_BATCH_ROWS, columns=columns)
        except (OSError, ValueError, KeyError) as error:  # pyarrow's errors are of these kinds
            raise Failure(
                f"{path} cannot be read.",
                str(error),
                f"Delete {corpus} and type the same command again.",
            ) from error


def _measure(corpus: Path) -> dict[str, int]:
    """UTF-8 bytes of text in each split."""
    import pyarrow.compute as compute

    sizes = dict.fromkeys(SPLITS, 0)
    for batch in _rows(corpus, ["text", "split"]):
        for split in SPLITS:
            chosen = batch.filter(compute.equal(batch["split"], split))["text"]
            sizes[split] += compute.sum(compute.binary_length(chosen)).as_py() or 0
    return sizes


def _groups(corpus: Path) -> Iterator[tuple[list[str], list[str]]]:
    """Texts and their splits in stored order, grouped to about _BATCH_CHARACTERS."""
    texts: list[str] = []
    splits: list[str] = []
    held = 0
    for batch in _rows(corpus, ["text", "split"]):
        for text_value, split in zip(batch["text"], batch["split"].to_pylist(), strict=True):
            text = text_value.as_py()  # one by one: a document may be hundreds of megabytes
            texts.append(text)
            splits.append(split)
            held += len(text)
            if held >= _BATCH_CHARACTERS:
                yield texts, splits
                texts, splits, held = [], [], 0
    if texts:
        yield texts, splits


def _sample(corpus: Path, size: int, limit: int) -> Iterator[str]:
    """At most about `limit` bytes of the training split's `size`, in pieces spread evenly over all of it.

    A running debt decides: every piece adds its share, and a piece is taken when the debt covers it. No chance
    is in it, so the same corpus gives the same sample.
    """
    share = min(1.0, limit / size)
    debt = 0.0
    for texts, splits in _groups(corpus):
        for text, split in zip(texts, splits, strict=True):
            if split != "train":
                continue
            if share == 1.0:
                yield text
                continue
            for start in range(0, len(text), _SAMPLE_PIECE):
                piece = text[start : start + _SAMPLE_PIECE]
                debt += share * len(piece)
                if debt >= len(piece):
                    debt -= len(piece)
                    yield piece
