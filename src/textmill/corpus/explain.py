"""Why one document stayed or went: every rule's value for it. Reads a finished corpus, writes nothing."""

from __future__ import annotations

import difflib
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from textmill.base.errors import UsageError
from textmill.base.files import read_json
from textmill.base.progress import Progress
from textmill.base.run import Run
from textmill.corpus import measure
from textmill.corpus.config import CorpusConfig
from textmill.corpus.decide import ruling
from textmill.corpus.judging.rules import Rule

SHOWN_CHARACTERS = 400


def explain_document(run: Run, document: str) -> dict[str, Any]:
    """Every rule's value for one document.

    Args:
        run: its corpus must be finished.
        document: a source, the beginning of an id (at least six digits), or a file on disk that is then judged by
            this run's rules.

    Raises:
        UsageError: no such document, or the beginning of an id fits several.
    """
    folder = run.require("corpus", f"textmill corpus my_texts/ --out {run.path}")
    config = CorpusConfig(**read_json(folder / "stage.json")["configuration"])
    row = _find(folder, document)
    if row is None and Path(document).is_file():
        row = _measure_file(document, config)
    if row is None:
        raise UsageError(
            f"There is no document {document} in {run.path}.{_similar(folder, document)}",
            "It is neither a source, nor the beginning of an id, nor a file.",
            f'List some: textmill corpus query "select id, source from documents limit 20" --out {run.path}',
        )
    rules = [_one(rule, row) for rule in ruling(config).rules]
    return {
        "id": row["id"],
        "source": row["source"],
        "kept": "rule" not in row,
        "split": row.get("split", ""),
        "rule": row.get("rule", ""),
        "value": row.get("value", ""),
        "duplicate_of": row.get("duplicate_of", ""),
        "language": row["language"],
        "characters": row["characters"],
        "rules": rules,
        "measures": {
            name: value
            for name, value in sorted(row.items())
            if isinstance(value, int | float) and not isinstance(value, bool) and value == value
        },
        "notes": _notes(folder, row),
        "text": row["text"][:SHOWN_CHARACTERS] + ("…" if len(row["text"]) > SHOWN_CHARACTERS else ""),
    }


def _one(rule: Rule, row: dict[str, Any]) -> dict[str, Any]:
    value = row.get(rule.column)
    number = math.nan if value is None else float(value)
    applies = bool(rule.applies(np.array([row["language"]]))[0])
    return {
        "rule": rule.name,
        "column": rule.column,
        "value": None if math.isnan(number) else number,
        "bound": rule.bound,
        "threshold": rule.threshold,
        "applies": applies,
        "keeps": not (applies and bool(rule.drops(np.array([number]))[0])),
        "explanation": rule.explanation,
        "source": rule.source,
    }


def _tables(folder: Path) -> list[Path]:
    return sorted(folder.glob("documents-*.parquet")) + sorted(folder.glob("rejected-*.parquet"))


def _find(folder: Path, document: str) -> dict[str, Any] | None:
    """The row of a source or of the beginning of an id."""
    is_id = len(document) >= 6 and all(letter in "0123456789abcdef" for letter in document)
    found: list[tuple[Path, int]] = []
    for path in _tables(folder):
        names = pq.read_table(path, columns=["id", "source"])
        chosen = pc.equal(names["source"], document)
        if is_id:
            chosen = pc.or_(chosen, pc.starts_with(names["id"], document))
        found.extend((path, int(row)) for row in np.flatnonzero(chosen.to_numpy(zero_copy_only=False)))
    if not found:
        return None
    rows = [_row(path, at) for path, at in found[:20]]
    if is_id and len({row["id"] for row in rows}) > 1:
        raise UsageError(
            f"{document} is the beginning of several ids.",
            f"Among them {', '.join(row['id'] for row in rows[:3])}.",
            "Give more of it.",
        )
    return rows[0]


def _row(path: Path, at: int) -> dict[str, Any]:
    return dict(pq.read_table(path).slice(at, 1).to_pylist()[0])


def _measure_file(document: str, config: CorpusConfig) -> dict[str, Any] | None:
    """The first document of a file, measured as the run's were."""
    from textmill.corpus.chunks import plan_chunks
    from textmill.corpus.inputs import find_inputs
    from textmill.corpus.tally import Tally

    found = ruling(config)
    with tempfile.TemporaryDirectory() as folder:
        inputs, _ = find_inputs([document], Run.create(Path(folder) / "run"), Tally(), Progress("quiet"))
        chunk = plan_chunks(inputs, config, Tally())[0]
        (Path(folder) / measure.FOLDER).mkdir()
        job = measure.Job(chunk, folder, config, found.groups, found.line_rules, measure.Models())
        measure.measure_chunk(job)
        path = measure.paths_of(Path(folder), chunk.number)["parquet"]
        if not path.exists():
            return None
        row = dict(pq.read_table(path).slice(0, 1).to_pylist()[0])
    drops = [(rule, _one(rule, row)) for rule in found.rules]
    first = next(((rule, one) for rule, one in drops if not one["keeps"]), None)
    if row["unreadable"]:
        row["rule"], row["value"] = "binary", row["unreadable"]
    elif first is not None:
        row["rule"], row["value"] = first[0].name, f"{first[1]['value']:.4g}"
    else:
        row["split"] = "no split: it is not part of the corpus"
    return row


def _notes(folder: Path, row: dict[str, Any]) -> list[str]:
    notes = []
    if row.get("duplicate_of"):
        other = _find(folder, row["duplicate_of"])
        if other is not None:
            notes.append(f"It repeats {other['source']}, which stays.")
    personal = {name: row[name] for name in row if name.startswith("pii_") and name != "pii_total" and row[name]}
    if personal:
        listed = ", ".join(f"{count} {name.removeprefix('pii_')}" for name, count in sorted(personal.items()))
        notes.append(f"Personal data in it: {listed}.")
    return notes


def _similar(folder: Path, document: str) -> str:
    sources: list[str] = []
    for path in _tables(folder)[:20]:
        sources.extend(pq.read_table(path, columns=["source"])["source"].to_pylist()[:5000])
    close = difflib.get_close_matches(document, sources, 1, 0.6)
    return f" Did you mean {close[0]}?" if close else ""
