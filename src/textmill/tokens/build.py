"""The tokens stage: trains or takes over a tokenizer, writes every split as shards.

Reads corpus/documents-*.parquet in bounded memory; writes tokens/. A journal is kept after every PIECE_BYTES of text,
so that a stage that was killed goes on from there; the shards do not depend on where it was, nor on the number of
threads.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from textmill.base.errors import Failure, UsageError
from textmill.base.files import read_json, write_json
from textmill.base.progress import Progress
from textmill.base.run import STAGE_FILE, Run, Stage
from textmill.base.settings import to_mapping
from textmill.tokens.config import TokenizerConfig
from textmill.tokens.kinds import check_kind
from textmill.tokens.opening import describe_source, open_tokenizer
from textmill.tokens.reading import SPLITS, Group, measure_splits, read_groups, sample_texts
from textmill.tokens.shards import INDEX_FILE, ShardWriter, shard_dtype
from textmill.tokens.tokenizer import Tokenizer, round_vocabulary, train_tokenizer
from textmill.tokens.vocabulary import choose_vocabulary

JOURNAL_FILE = "journal.json"
PIECE_BYTES = 64 << 20
"""Text after which the shards are brought to disk; a killed stage does at most this much again."""
CHECKED_DOCUMENTS = 20
"""Documents of each row group that are decoded again, where the tokenizer may lose something."""


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
    check_settings(config)
    corpus = run.require("corpus", f"textmill corpus my_texts/ --out {run.path}")
    inputs: dict[str, Any] = {"corpus": run.fingerprint("corpus")}
    asked = None
    if config.tokenizer is not None:
        inputs["tokenizer"] = describe_source(config.tokenizer)
    elif config.kind != "byte":
        asked = config.vocabulary or vocabulary
        asked = None if asked is None else round_vocabulary(asked)
    configuration = {**to_mapping(config), "vocabulary": asked}
    stage = Stage(run, "tokens", inputs=inputs, configuration=configuration, version=2)
    if not stage.is_finished():
        with stage.work() as folder:
            index = _build(corpus, folder, config, asked, progress)
            write_json(folder / INDEX_FILE, index)
            _clear(folder, index["splits"])
            stage.counts = {
                "vocabulary": index["vocabulary"],
                **{
                    split: {key: entry[key] for key in ("documents", "tokens", "bytes")}
                    for split, entry in index["splits"].items()
                },
            }
    return dict(read_json(stage.folder / INDEX_FILE))


def check_settings(config: TokenizerConfig) -> None:
    """An error for settings that are impossible or would have no effect."""
    for name in ("sample_bytes", "shard_tokens"):
        if getattr(config, name) < 1:
            raise UsageError(f"{name} is {getattr(config, name):,}.", fix="Give a number above 0, or leave it out.")
    check_kind(config.kind)
    default = TokenizerConfig()
    if config.tokenizer is not None:
        for name in ("kind", "vocabulary", "sample_bytes"):
            if getattr(config, name) != getattr(default, name):
                raise UsageError(
                    f"{name} would have no effect.",
                    "The tokenizer is taken over as it is, so nothing is learned.",
                    f"Leave out {name}, or the path of the tokenizer.",
                )
    elif config.pattern is not None:
        raise UsageError(
            "pattern would have no effect.",
            "It belongs to a tokenizer that is taken over.",
            "Give the path of a .tiktoken file or a vocab.json too, or leave it out.",
        )
    elif config.kind == "byte" and config.vocabulary is not None:
        raise UsageError(
            "vocabulary would have no effect.",
            "A byte tokenizer always has the 256 bytes and the special tokens.",
            "Leave it out, or choose another kind.",
        )


def _order(corpus: Path) -> str:
    """The order that the corpus' training documents are in: "mixed", or the name of a curriculum."""
    return str(read_json(corpus / STAGE_FILE)["configuration"].get("order", "mixed"))


def _build(
    corpus: Path, folder: Path, config: TokenizerConfig, vocabulary: int | None, progress: Progress
) -> dict[str, Any]:
    sizes = measure_splits(corpus)
    if not sizes["train"]:
        raise Failure(
            "There is no text to train a tokenizer on.",
            f"The training split of {corpus} is empty.",
            "Add documents, then type the same command again.",
        )
    tokenizer = _tokenizer(corpus, folder, config, vocabulary, sizes["train"], progress)
    dtype = shard_dtype(tokenizer.vocabulary)
    journal = _journal(folder)
    writers = {
        split: ShardWriter(
            folder, split, dtype, tokenizer.document_end, config.shard_tokens, journal.get("writers", {}).get(split)
        )
        for split in SPLITS
    }
    loss = Loss(tokenizer, journal.get("loss"))
    done = pending = 0
    with progress.task("Tokenizing", total=sum(sizes.values()), unit="B") as task:
        task.update(journal.get("bytes", 0))
        for group in read_groups(corpus, tuple(journal.get("next", (0, 0)))):
            done = encode_group(tokenizer, group, writers, loss)
            task.advance(done)
            pending += done
            if pending >= PIECE_BYTES:
                state = {split: writer.commit() for split, writer in writers.items()}
                following = [group.place[0], group.place[1] + 1]
                write_json(
                    folder / JOURNAL_FILE,
                    {"next": following, "bytes": task.done, "writers": state, "loss": loss.counts},
                )
                pending = 0
        entries = {split: writer.close() for split, writer in writers.items()}
        tokens = sum(entry["tokens"] for entry in entries.values())
        task.update(task.done, f"{tokens:,} tokens of a vocabulary of {tokenizer.vocabulary:,}")
    return {
        "vocabulary": tokenizer.vocabulary,
        "kind": tokenizer.kind,
        "dtype": dtype,
        "special": tokenizer.special,
        "document_end": tokenizer.document_end,
        "order": _order(corpus),
        "lossless": tokenizer.lossless,
        **({} if tokenizer.lossless else {"loss": loss.counts}),
        "splits": entries,
    }


def _tokenizer(
    corpus: Path, folder: Path, config: TokenizerConfig, vocabulary: int | None, size: int, progress: Progress
) -> Tokenizer:
    """The tokenizer of a killed attempt, or the one taken over, or a new one."""
    if (folder / "tokenizer.json").exists():
        return Tokenizer.load(folder)
    if config.tokenizer is not None:
        tokenizer = open_tokenizer(config.tokenizer, config.pattern)
    else:
        wanted = vocabulary or choose_vocabulary(size).vocabulary
        sample = sample_texts(corpus, size, config.sample_bytes)
        tokenizer = train_tokenizer(sample, wanted, progress, config.kind)
    tokenizer.save(folder)
    return tokenizer


class Loss:
    """Counts what a tokenizer that is not lossless loses.

    Args:
        tokenizer: whose ids are counted.
        counts: of the pieces that were finished before.
    """

    def __init__(self, tokenizer: Tokenizer, counts: dict[str, int] | None = None) -> None:
        self.tokenizer = tokenizer
        names = ("unknown_tokens", "bytes", "decoded_bytes", "checked_documents", "changed_documents")
        self.counts = counts or dict.fromkeys(names, 0)

    def add(self, group: Group, ids: np.ndarray, offsets: np.ndarray) -> None:
        """Count the documents of one row group, each once."""
        if self.tokenizer.lossless:
            return
        if self.tokenizer.unknown is not None:
            self.counts["unknown_tokens"] += int(np.count_nonzero(ids == self.tokenizer.unknown))
        self.counts["bytes"] += int(group.texts.offsets[-1])
        self.counts["decoded_bytes"] += int(self.tokenizer.byte_lengths[ids].sum())
        for row in range(min(CHECKED_DOCUMENTS, len(group.texts))):
            found = self.tokenizer.decode_bytes(ids[offsets[row] : offsets[row + 1]].tolist())
            self.counts["checked_documents"] += 1
            self.counts["changed_documents"] += found != group.texts[row]


def encode_group(tokenizer: Tokenizer, group: Group, writers: dict[str, ShardWriter], loss: Loss) -> int:
    """Encode a row group and give each document to the writer of its split; returns the bytes written."""
    ids, offsets = tokenizer.encode_texts(group.texts)
    loss.add(group, ids, offsets)
    sizes, lengths = group.texts.sizes, np.diff(offsets)
    written = 0
    for split, writer in writers.items():
        rows = group.rows(split)
        if not len(rows):
            continue
        bounds = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lengths[rows], out=bounds[1:])
        if (np.diff(rows) > 0).all():
            taken = np.zeros(len(sizes), dtype=bool)
            taken[rows] = True
            chosen = ids if taken.all() else ids[np.repeat(taken, lengths)]
        else:
            chosen = ids[np.arange(bounds[-1]) + np.repeat(offsets[rows] - bounds[:-1], lengths[rows])]
        size = int(sizes[rows].sum())
        writer.add_many(chosen, bounds, size)
        written += size
    return written


def _journal(folder: Path) -> dict[str, Any]:
    """Where a killed attempt came to; an empty one where nothing can be used."""
    try:
        journal = dict(read_json(folder / JOURNAL_FILE))
    except (FileNotFoundError, json.JSONDecodeError):
        journal = {}
    known: set[str] = set()
    for split, state in journal.get("writers", {}).items():
        names = [shard["file"].removesuffix(".bin") for shard in state["shards"]]
        known |= {name + suffix for name in names for suffix in (".bin", ".ends.npy")}
        current = f"{split}-{len(names):05d}"
        known |= {f"{current}.bin", f"{current}.ends"} if state["documents"] else set()
    if any(not (folder / name).exists() for name in known):
        return {}
    for path in folder.iterdir():
        if path.suffix in (".bin", ".npy", ".ends") and path.name not in known:
            path.unlink()
    return journal


def _clear(folder: Path, splits: dict[str, Any]) -> None:
    """Remove what only served to go on, and any shard that the index does not name."""
    names = {shard["file"].removesuffix(".bin") for entry in splits.values() for shard in entry["shards"]}
    wanted = {name + suffix for name in names for suffix in (".bin", ".ends.npy")}
    for path in folder.iterdir():
        if path.name == JOURNAL_FILE or (path.suffix in (".bin", ".npy", ".ends") and path.name not in wanted):
            path.unlink()
