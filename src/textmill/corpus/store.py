"""Documents on disk: Parquet pieces of bounded size. Writes `documents-*.parquet` and
`rejected-*.parquet`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

GROUP_BYTES = 8 << 20
GROUP_ROWS = 20_000
FILE_BYTES = 128 << 20

DOCUMENT_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("source", pa.string()),
        ("language", pa.string()),
        ("meta", pa.string()),
        ("split", pa.string()),
        ("characters", pa.int64()),
        ("symbol_ratio", pa.float32()),
    ]
)
REJECTED_SCHEMA = DOCUMENT_SCHEMA.append(pa.field("rule", pa.string())).append(pa.field("value", pa.string()))


class Writer:
    """Writes rows into NAME-00000.parquet, NAME-00001.parquet, … in bounded memory.

    Args:
        folder: where.
        name: "documents" or "rejected".
        schema: of the rows.
    """

    def __init__(self, folder: Path, name: str, schema: pa.Schema) -> None:
        self.folder, self.name, self.schema = folder, name, schema
        self.files: list[Path] = []
        self._file: pq.ParquetWriter | None = None
        self._columns: list[list[Any]] = [[] for _ in schema]
        self._waiting = self._written = 0

    def add(self, row: tuple[Any, ...], size: int) -> None:
        """Add one row, in the schema's order; `size` is its text's bytes."""
        for column, value in zip(self._columns, row, strict=True):
            column.append(value)
        self._waiting += size
        if self._waiting >= GROUP_BYTES or len(self._columns[0]) >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._columns[0]:
            return
        arrays = [pa.array(column, kind.type) for column, kind in zip(self._columns, self.schema, strict=True)]
        self._columns = [[] for _ in self.schema]
        if self._file is None:
            path = self.folder / f"{self.name}-{len(self.files):05d}.parquet"
            self.files.append(path)
            self._file = _open(path, self.schema)
        self._file.write_table(pa.Table.from_arrays(arrays, schema=self.schema))
        self._written += self._waiting
        self._waiting = 0
        if self._written >= FILE_BYTES:
            self._file.close()
            self._file, self._written = None, 0

    def close(self) -> None:
        """Write what waits and finish the last file; with no row at all, one empty file."""
        self._flush()
        if not self.files:
            path = self.folder / f"{self.name}-00000.parquet"
            self.files.append(path)
            self._file = _open(path, self.schema)
        if self._file is not None:
            self._file.close()
            self._file = None


def _open(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        compression_level=3,
        use_dictionary=["language", "split", "rule", "meta"],
        write_statistics=["characters"],
    )


def move_documents(files: list[Path], moved: dict[str, str]) -> dict[str, tuple[str, int]]:
    """Give the documents named in `moved` (id to split) their new split, rewriting the files that hold them.

    Returns:
        the old split and the bytes of each moved document.
    """
    left = dict(moved)
    found: dict[str, tuple[str, int]] = {}
    for path in files:
        if not left:
            break
        ids = pq.read_table(path, columns=["id"])["id"].to_pylist()
        if not left.keys() & set(ids):
            continue
        beside = path.with_suffix(".new")
        with pq.ParquetFile(path) as source, _open(beside, source.schema_arrow) as target:
            for group in range(source.num_row_groups):
                table = source.read_row_group(group)
                rows = table.to_pydict()
                for at, identity in enumerate(rows["id"]):
                    if identity in left:
                        found[identity] = (rows["split"][at], len(rows["text"][at].encode()))
                        rows["split"][at] = left.pop(identity)
                target.write_table(pa.Table.from_pydict(rows, schema=source.schema_arrow))
        beside.replace(path)
    return found
