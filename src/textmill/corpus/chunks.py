"""From files to chunks: units of work of about 8 MB that any process can read alone. Reads the heads of files, and
large files once from end to end to find where their records begin."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, BinaryIO

import numpy as np

from textmill.corpus.config import CorpusConfig
from textmill.corpus.encoding import binary_kind, detect
from textmill.corpus.formats import LINES, PROSE, TABLES
from textmill.corpus.inputs import Input
from textmill.corpus.tally import Tally
from textmill.corpus.workforce import CHUNK_BYTES

CHUNK_FILES = 2_000

_PACKED = 4
"""A compressed file counts as this many times its size."""

_STEP = 4 << 20
_HEAD = 1 << 20
_WINDOW = 1 << 18
_BLANK_WITHIN = 1 << 20
"""A part of prose ends at a blank line when there is one in its last so many bytes, else at a line end."""

_LINE_SAFE = ("utf8", "cp", "gb", "big5", "euc", "koi8", "iso8859", "latin", "windows", "ascii", "mac", "shift")
"""Encodings, by the beginning of their names, in which a newline byte is always a newline."""


@dataclass(frozen=True)
class Part:
    """Which part of a file is read; of a whole file, all of it.

    Attributes:
        unit: "" for a whole file, else "bytes", "groups" (of a Parquet file's rows), "members" (of an archive),
            "pages" (of a MediaWiki dump, in bytes) or "shards" (of a data set).
        start, stop: in that unit; stop 0 for the end.
        first: records before `start`.
        index: number of this part, from 1; 0 for a whole file.
        encoding: the file's encoding, "" when it has still to be told.
        key: the column or key that holds the text, "" when it has still to be told.
        columns: names of a table's columns.
        delimiter: between a table's columns.
    """

    unit: str = ""
    start: int = 0
    stop: int = 0
    first: int = 0
    index: int = 0
    encoding: str = ""
    key: str = ""
    columns: tuple[str, ...] = ()
    delimiter: str = ""


WHOLE = Part()


@dataclass(frozen=True)
class Chunk:
    """Whole files, or a part of one. It can be pickled, and written as JSON.

    Attributes:
        number: its place in the order of reading.
        inputs: the files; one when `part` is a part of it.
        size: raw bytes, for progress.
        part: what is read of them.
    """

    number: int
    inputs: tuple[Input, ...]
    size: int
    part: Part = WHOLE

    def to_json(self) -> dict[str, Any]:
        """Everything, for `from_json`."""
        inputs = [{**asdict(item), "path": str(item.path)} for item in self.inputs]
        return {"number": self.number, "inputs": inputs, "size": self.size, "part": asdict(self.part)}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Chunk:
        """What `to_json` gave."""
        from pathlib import Path

        inputs = tuple(Input(**{**item, "path": Path(item["path"])}) for item in stored["inputs"])
        part = {**stored["part"], "columns": tuple(stored["part"]["columns"])}
        return cls(stored["number"], inputs, stored["size"], Part(**part))


def plan_chunks(inputs: list[Input], config: CorpusConfig, tally: Tally, chunk_bytes: int = CHUNK_BYTES) -> list[Chunk]:
    """Divide inputs into chunks: a function of the inputs and the settings, never of the number of workers.

    Small files are read together, up to `chunk_bytes` and 2,000 of them. A larger file of lines, of rows, of members
    or of pages is divided where its records begin; one that cannot be divided (a compressed stream, UTF-16, a
    malformed table) is a chunk of its own.

    Args:
        inputs: in the order of reading.
        config: the settings.
        tally: where problems are counted; those of planning show themselves again in reading, which counts them.
        chunk_bytes: about how many raw bytes a chunk has.
    """
    del tally  # nothing that planning meets is counted here: the readers meet it again
    chunks: list[Chunk] = []
    waiting: list[Input] = []
    weight = 0

    def close() -> None:
        nonlocal weight
        if waiting:
            chunks.append(Chunk(len(chunks), tuple(waiting), sum(item.size for item in waiting)))
        waiting.clear()
        weight = 0

    for item in inputs:
        own = item.size * (_PACKED if item.compression else 1)
        if item.kind != "hf" and own <= chunk_bytes * 3 // 2:
            if waiting and (weight + own > chunk_bytes or len(waiting) >= CHUNK_FILES):
                close()
            waiting.append(item)
            weight += own
            continue
        close()
        parts = _parts(item, config, chunk_bytes)
        if len(parts) < 2:
            chunks.append(Chunk(len(chunks), (item,), item.size))
            continue
        first = len(chunks)
        last, size = parts[-1]
        parts[-1] = (last, max(size, item.size - sum(size for _, size in parts[:-1])))  # with what lies around parts
        chunks.extend(
            Chunk(first + number, (item,), size, replace(part, index=number + 1))
            for number, (part, size) in enumerate(parts)
        )
    close()
    return chunks


Parts = list[tuple[Part, int]]


class FileBytes:
    """A file's bytes by position, without the resident memory of a map of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._number = file.fileno()
        self._size = os.fstat(self._number).st_size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, place: slice) -> bytes:
        start, stop, _ = place.indices(self._size)
        return os.pread(self._number, max(0, stop - start), start)

    def rfind(self, mark: bytes, start: int, end: int) -> int:
        """The last place of `mark` that lies within start and end, -1 when there is none."""
        while end - start >= len(mark):
            begin = max(start, end - _WINDOW)
            found = self[begin:end].rfind(mark)
            if found >= 0:
                return begin + found
            if begin == start:
                break
            end = begin + len(mark) - 1
        return -1

    def find(self, mark: bytes, start: int) -> int:
        """The first place of `mark` from start on, -1 when there is none."""
        while start < self._size:
            found = self[start : start + _WINDOW].find(mark)
            if found >= 0:
                return start + found
            start += _WINDOW - len(mark) + 1
        return -1


def _parts(item: Input, config: CorpusConfig, size: int) -> Parts:
    """The parts of one large file with their raw bytes; none when it stays whole."""
    if item.kind == "hf":
        from textmill.corpus.readers.hub import shards

        return shards(item)
    if item.compression:
        return []
    try:
        if item.kind == ".parquet":
            return _row_groups(item, size)
        if item.kind in (".zip", ".tar"):
            from textmill.corpus.readers.archive import member_ranges

            return member_ranges(item, size)
        if item.size < 1 or item.kind not in LINES | TABLES | PROSE | {".xml"}:
            return []
        with item.path.open("rb") as file:
            return _ranges(item, FileBytes(file), config, size)
    except (OSError, ValueError):
        return []  # the reader meets the same error, and counts it


def _row_groups(item: Input, size: int) -> Parts:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = pq.read_metadata(item.path)
    except pa.ArrowException:
        return []
    parts: Parts = []
    start = rows = first = weight = packed = 0
    for group in range(found.num_row_groups):
        row_group = found.row_group(group)
        weight += row_group.total_byte_size
        packed += sum(row_group.column(at).total_compressed_size for at in range(row_group.num_columns))
        rows += row_group.num_rows
        if weight >= size or group == found.num_row_groups - 1:
            parts.append((Part("groups", start, group + 1, first), packed))
            start, first, weight, packed = group + 1, rows, 0, 0
    return parts


def _ranges(item: Input, data: FileBytes, config: CorpusConfig, size: int) -> Parts:
    """Byte ranges of a file that end where a record does."""
    head = data[:_HEAD]
    if binary_kind(head[: 1 << 16]):
        return []
    encoding, skip = detect(head)
    if encoding == "utf-8" and not skip and head.isascii():
        encoding = _later_encoding(data)
    if not encoding.replace("-", "").replace("_", "").startswith(_LINE_SAFE):
        return []
    if b"\n" not in head and b"\r" in head:
        return []
    if item.kind == ".xml":
        from textmill.corpus.readers.mediawiki import page_ranges

        return page_ranges(data, encoding, size)
    if item.kind in TABLES:
        return _table_ranges(item, data, config, encoding, skip, size)
    if item.kind in LINES:
        from textmill.corpus.readers.jsonl import head_key
        from textmill.corpus.readers.reading import Reading

        text = head[skip:].decode(encoding, "replace").encode("utf-8", "replace")
        key = head_key(text, Reading(item, config, Tally()))
        return _line_ranges(data, Part("bytes", skip, encoding=encoding, key=key), size, b"\n")
    # A part of prose must have room for the pieces that it is cut into.
    size = max(size, 8 * config.max_document_characters)
    return _line_ranges(data, Part("bytes", skip, encoding=encoding), size, b"\n\n")


def _later_encoding(data: FileBytes) -> str:
    """The encoding of a file whose head is ASCII, by its first block that is not."""
    for start in range(_HEAD, len(data), _STEP):
        block = data[start : start + _STEP]
        if not block.isascii():
            return detect(block)[0]
    return "utf-8"


def _blocks(data: FileBytes, start: int, stop: int) -> Iterator[np.ndarray]:
    for at in range(start, stop, _STEP):
        yield np.frombuffer(data[at : min(at + _STEP, stop)], np.uint8)


def _line_ranges(data: FileBytes, first: Part, size: int, mark: bytes) -> Parts:
    """Ranges of whole lines that end near multiples of `size`; at `mark` where it is near."""
    parts: Parts = []
    start, records = first.start, first.first
    while start < len(data):
        end = min(start + size, len(data))
        if len(data) - end < size // 2:
            end = len(data)
        if end < len(data):
            at = data.rfind(mark, max(start, end - _BLANK_WITHIN), end) if len(mark) > 1 else -1
            if at < 0:
                mark_end = data.rfind(b"\n", start, end)
                at = mark_end if mark_end >= 0 else data.find(b"\n", end)
                end = at + 1 if at >= 0 else len(data)
            else:
                end = at + len(mark)
        parts.append((replace(first, start=start, stop=end, first=records), end - (start if parts else 0)))
        if len(mark) == 1:
            records += sum(int(np.count_nonzero(block == 10)) for block in _blocks(data, start, end))
        start = end
    return parts


def _table_ranges(item: Input, data: FileBytes, config: CorpusConfig, encoding: str, skip: int, size: int) -> Parts:
    """Ranges of whole rows, by a scan that knows which line ends are quoted; none for a malformed table."""
    from textmill.corpus.encoding import Utf8
    from textmill.corpus.readers.delimited import header_of, record_ends
    from textmill.corpus.readers.reading import Reading

    head = data[skip:_HEAD]
    reading = Reading(item, config, Tally())
    blocks = iter(Utf8(iter([head]), encoding=encoding))
    header, _ = header_of(blocks, reading)
    body = _body(head, header.delimiter)
    if not header.key or body < 0:
        return []
    shape = Part("bytes", encoding=encoding, key=header.key, columns=header.columns, delimiter=header.delimiter)
    parts: Parts = []
    quoted = False
    start = position = skip + body
    records = seen = 0
    last = -1
    for block in _blocks(data, position, len(data)):
        ends, placed, quoted = record_ends(block, header.delimiter, quoted)
        if not placed:
            return []
        while len(ends):
            beyond = int(np.searchsorted(ends, start + size - position))
            if beyond >= len(ends):
                seen += len(ends)
                break
            last = position + int(ends[beyond]) + 1
            seen += beyond + 1
            ends = ends[beyond + 1 :]
            if len(data) - last < size // 2:
                seen += len(ends)
                break
            parts.append((replace(shape, start=start, stop=last, first=records), last - (start if parts else 0)))
            start, records = last, seen
        position += len(block)
    if start < len(data):
        rest = len(data) - (start if parts else 0)
        parts.append((replace(shape, start=start, stop=len(data), first=records), rest))
    return parts


def _body(head: bytes, delimiter: str) -> int:
    """Where the first row below the header begins; -1 when that cannot be told."""
    from textmill.corpus.readers.delimited import record_ends

    start = len(head) - len(head.lstrip(b"\n\r \t\0"))
    if delimiter == "\t":
        start = 0
    ends, placed, _ = record_ends(np.frombuffer(head, np.uint8)[start:], delimiter, False)
    return start + int(ends[0]) + 1 if placed and len(ends) else -1
