"""One measured chunk and the decisions over it to `documents-NNNNN.parquet` and `rejected-NNNNN.parquet`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from textmill.corpus.decide import KEPT, Chunks, Rows
from textmill.corpus.split import SPLITS

DECIDED = "decided"
GROUP_ROWS = 20_000
FIRST = ("id", "text", "source", "language", "meta", "split", "characters", "symbol_ratio")
"""The columns that every document has, in this order; judgement columns follow by name."""
INTERNAL = ("unreadable", "raw_bytes", "repaired", "origin", "kind")
_BYTES_PER_GROUP = 8 << 20


@dataclass(frozen=True)
class Job:
    """What a worker needs to write one chunk's documents."""

    folder: str
    number: int
    name: str
    first: bool
    reasons: tuple[str, ...]


def write_decisions(chunks: Chunks, rows: Rows, split: np.ndarray, copies: np.ndarray | None, number: int) -> None:
    """Put the decisions over one chunk where a worker finds them."""
    begin, end = int(chunks.starts[number]), int(chunks.starts[number + 1])
    folder = chunks.folder / DECIDED
    folder.mkdir(exist_ok=True)
    here = slice(begin, end)
    of = rows.kept_row[here]
    repeats = rows.identity[np.maximum(of, 0)]
    np.savez(
        folder / f"{number:05d}.npz",
        reason=rows.reason[here],
        value=rows.value[here],
        split=split[here],
        repeated=of >= 0,
        repeats=repeats,
        copies=np.zeros(0, np.int32) if copies is None else copies[here],
    )


def show_value(rule: str, value: float) -> str:
    """The value that a rule saw, for people and for the `value` column."""
    if rule == "binary":
        return f"{100 * value:.0f}% unreadable"
    if rule == "duplicate":
        return "exact"
    if value == int(value):
        return str(int(value))
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3g}"


def assemble_chunk(job: Job) -> int:
    """Write one chunk's kept and rejected documents, unless that is done; gives the chunk's number.

    A chunk may be one compressed file of any size, so it passes through in parts of a few megabytes.
    """
    folder = Path(job.folder)
    mark = folder / DECIDED / f"{job.number:05d}.done"
    if mark.exists():
        return job.number
    decided = dict(np.load(folder / DECIDED / f"{job.number:05d}.npz"))
    with pq.ParquetFile(folder / job.name / f"{job.number:05d}.parquet") as measured:
        judged = sorted(name for name in measured.schema_arrow.names if name not in (*FIRST, *INTERNAL))
        kept = Parts(folder / f"documents-{job.number:05d}.parquet")
        rejected = Parts(folder / f"rejected-{job.number:05d}.parquet")
        begin = 0
        for group in range(measured.num_row_groups):
            table = measured.read_row_group(group, use_threads=False)
            here = {name: values[begin : begin + table.num_rows] for name, values in decided.items()}
            begin += table.num_rows
            _split_table(table, here, judged, job.reasons, kept, rejected)
        kept.close(job.first)
        rejected.close(job.first)
    mark.touch()
    return job.number


def _split_table(
    table: pa.Table,
    decided: dict[str, np.ndarray],
    judged: list[str],
    reasons: tuple[str, ...],
    kept: Parts,
    rejected: Parts,
) -> None:
    reason = decided["reason"]
    table = table.append_column("split", pa.array([SPLITS[one] for one in decided["split"].tolist()], pa.string()))
    ordered = [*FIRST, *judged]
    if len(decided["copies"]):
        table = table.append_column("copies", pa.array(decided["copies"], pa.int32()))
        ordered.append("copies")
    stay, go = np.flatnonzero(reason == KEPT), np.flatnonzero(reason != KEPT)
    kept.add(table.select(ordered).take(pa.array(stay)) if len(go) else table.select(ordered))
    gone = table.select(ordered).take(pa.array(go))
    for name, values in _why(table, decided, go, reasons).items():
        gone = gone.append_column(name, values)
    place = gone.schema.get_field_index("split")
    rejected.add(gone.set_column(place, "split", pa.array([""] * len(go), pa.string())))


class Parts:
    """Tables gathered into row groups of about 8 MB in one file, which appears under its name when it is whole."""

    def __init__(self, path: Path) -> None:
        self.path, self.beside = path, path.with_suffix(".new")
        self._waiting: list[pa.Table] = []
        self._bytes = self._rows = 0
        self._empty: pa.Table | None = None
        self._writer: pq.ParquetWriter | None = None

    def add(self, table: pa.Table) -> None:
        """Add rows; strings become plain strings, as readers elsewhere expect."""
        fields = [
            pa.field(one.name, pa.string() if one.type == pa.large_string() else one.type) for one in table.schema
        ]
        table = table.cast(pa.schema(fields))
        if self._empty is None:
            self._empty = table.slice(0, 0)
        if table.num_rows == 0:
            return
        self._waiting.append(table)
        self._bytes += table.nbytes
        self._rows += table.num_rows
        if self._bytes >= _BYTES_PER_GROUP or self._rows >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting)
        self._waiting, self._bytes, self._rows = [], 0, 0
        self._open(table.schema).write_table(table, row_group_size=table.num_rows)

    def _open(self, schema: pa.Schema) -> pq.ParquetWriter:
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self.beside,
                schema,
                compression="zstd",
                compression_level=3,
                use_dictionary=[name for name in ("language", "split", "rule", "meta") if name in schema.names],
                write_statistics=["characters"],
            )
        return self._writer

    def close(self, even_empty: bool) -> None:
        """Finish the file; without a row there is one only where `even_empty` asks for it."""
        self._flush()
        if self._writer is None and even_empty and self._empty is not None:
            self._open(self._empty.schema)
        if self._writer is not None:
            self._writer.close()
            self.beside.replace(self.path)


def _why(table: pa.Table, decided: Any, dropped: np.ndarray, reasons: tuple[str, ...]) -> dict[str, pa.Array]:
    rules = [reasons[one] for one in decided["reason"][dropped].tolist()]
    values = decided["value"][dropped].tolist()
    unreadable = table["unreadable"].to_pylist()
    language = table["language"].to_pylist()
    shown = []
    for at, rule, value in zip(dropped.tolist(), rules, values, strict=True):
        if rule == "unreadable":
            shown.append(unreadable[at])
        elif rule == "language":
            shown.append(language[at] or "unknown")
        else:
            shown.append(show_value(rule, value))
    hexed = [f"{high:016x}{low:016x}" for high, low in decided["repeats"][dropped].tolist()]
    of = [name if is_one else "" for name, is_one in zip(hexed, decided["repeated"][dropped].tolist(), strict=True)]
    return {
        "rule": pa.array(["binary" if rule == "unreadable" else rule for rule in rules], pa.string()),
        "value": pa.array(shown, pa.string()),
        "duplicate_of": pa.array(of, pa.string()),
    }


def examples(chunks: Chunks, rows: Rows, limit: int) -> dict[int, np.ndarray]:
    """The first rows that each reason dropped."""
    found: dict[int, np.ndarray] = {}
    for number in range(len(rows.reasons)):
        found[number] = np.flatnonzero(rows.reason == number)[:limit]
    return found


def source_of(chunks: Chunks, wanted: np.ndarray) -> dict[int, tuple[str, str, str]]:
    """Source, the language and the reason that it is unreadable, of a few rows."""
    found: dict[int, tuple[str, str, str]] = {}
    places = np.searchsorted(chunks.starts, wanted, side="right") - 1
    for chunk in sorted(set(places.tolist())):
        table = pq.read_table(chunks.files[chunk], columns=["source", "language", "unreadable"], use_threads=False)
        for row in wanted[places == chunk].tolist():
            inside = row - int(chunks.starts[chunk])
            found[row] = tuple(table[name][inside].as_py() for name in ("source", "language", "unreadable"))  # type: ignore[assignment]
    return found
