"""Cross-validation of families by document folds. Writes `RUN/folds/K/` with token shards of their own.

All documents of the run, whatever split they were in, are dealt to K folds by a permutation of the seed; each fold is
held out once. A fold's held-out documents are halved: one half guides the training (validation), the other is the test.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from textmill.base.errors import UsageError
from textmill.base.files import hash_json, read_json, write_json
from textmill.base.run import Run
from textmill.tokens.shards import Shards, ShardWriter

FOLDER = "folds"
ALL_SPLITS = ("train", "validation", "test")


def check_folds(run: Run, folds: int) -> int:
    """The number of documents, if they suffice.

    Raises:
        UsageError: fewer than two folds, or too few documents.
    """
    count = sum(Shards(run / "tokens", split).documents for split in ALL_SPLITS)
    if folds < 2:
        raise UsageError(f"--folds {folds} is too few.", "Cross-validation needs two at the least.", "Give 2 to 10.")
    if count < 2 * folds:
        raise UsageError(
            f"{count} documents cannot be dealt to {folds} folds.",
            "Each needs two documents at the least.",
            f"Give --folds {max(2, count // 2)}, or more documents." if count >= 4 else "Give more documents.",
        )
    return count


def fold_run(run: Run, fold: int, folds: int, seed: int) -> Run:
    """The sub-run of one fold, with `tokens/` of its own.

    Args:
        run: with finished tokens.
        fold: 0 to folds - 1: the one that is held out.
        folds: how many there are.
        seed: of the deal.
    """
    place = Run.create(run.path / FOLDER / f"{fold + 1}-of-{folds}")
    target = place / "tokens"
    key = [run.fingerprint("tokens"), fold, folds, seed]
    if (target / "stage.json").exists() and read_json(target / "stage.json").get("fold") == key:
        return place
    scratch = place / "tokens.making"
    for old in (scratch, target):
        shutil.rmtree(old, ignore_errors=True)
    scratch.mkdir(parents=True)
    source = run / "tokens"
    record = read_json(source / "index.json")
    shards = [Shards(source, split) for split in ALL_SPLITS]
    owners = [(number, place) for number, one in enumerate(shards) for place in range(one.documents)]
    deal = np.random.default_rng(seed).permutation(len(owners)) % folds
    held = np.flatnonzero(deal == fold)
    wanted = {
        "train": np.flatnonzero(deal != fold),
        "validation": held[::2],
        "test": held[1::2],
    }
    sizes = _byte_lengths(source)
    splits = {}
    for split, chosen in wanted.items():
        writer = ShardWriter(scratch, split, record["dtype"], record["document_end"])
        for at in chosen.tolist():
            number, document = owners[at]
            ends = shards[number].ends
            ids = shards[number].read(int(ends[document - 1]) if document else 0, int(ends[document]) - 1)
            writer.add(ids, int(sizes[ids].sum()))
        splits[split] = writer.close()
    write_json(scratch / "index.json", {**record, "splits": splits})
    for path in source.iterdir():
        if path.name.startswith("tokenizer") or path.suffix in (".model", ".jinja"):
            shutil.copyfile(path, scratch / path.name)
    stage = read_json(source / "stage.json")
    write_json(scratch / "stage.json", {**stage, "fold": key, "fingerprint": hash_json(key)})
    scratch.rename(target)
    link = place / "corpus"
    if not link.exists():
        link.symlink_to(Path("..") / ".." / "corpus")
    return place


def _byte_lengths(folder: Path) -> Any:
    from textmill.tokens.tokenizer import Tokenizer

    return Tokenizer.load(folder).byte_lengths


def summary(boards: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per family over the folds: mean and standard deviation of the held-out bits per byte, and each fold's."""
    found: dict[str, list[float]] = {}
    for board in boards:
        for row in board["rows"]:
            if row["kind"] == "family":
                found.setdefault(row["family"], []).append(row["test_bits_per_byte"])
    return sorted(
        (
            {
                "family": name,
                "bits_per_byte": float(np.mean(values)),
                "deviation": float(np.std(values, ddof=1)) if len(values) > 1 else None,
                "folds": values,
            }
            for name, values in found.items()
        ),
        key=lambda row: float(row["bits_per_byte"]),  # type: ignore[arg-type]
    )
