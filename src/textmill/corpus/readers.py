"""Files to drafts of documents, one reader a format, in bounded memory. Reads files, writes nothing but a
temporary copy of a compressed Parquet file."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from textmill.corpus.clean import pieces
from textmill.corpus.config import CorpusConfig
from textmill.corpus.encoding import Decoded, binary_kind, declared
from textmill.corpus.inputs import HTML, Input
from textmill.corpus.tally import Tally

CHUNK = 1 << 20
MAX_LINE = 64 << 20
MAX_PAGE = 64 << 20
TEXT_COLUMNS = (
    "text", "content", "body", "raw_content", "document", "article", "story", "passage", "paragraph",
    "extract", "review", "message", "正文", "内容", "文本",
)  # fmt: skip

# A damaged compressed file shows itself in one of these.
BROKEN = (OSError, EOFError, zlib.error, zstandard.ZstdError)


class Draft(NamedTuple):
    """One document as read.

    Attributes:
        source: path, path:record or path#piece.
        text: as decoded, not cleaned.
        meta: a record's other short fields, JSON.
        rejected: why it is no text at all, "" when it is.
    """

    source: str
    text: str
    meta: str = "{}"
    rejected: str = ""
    bytes: int = 0


class _Zstd:
    """Decompressed bytes of a zstd file, frame after frame; unlike zstandard's reader it notices a missing end."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._rest = b""
        self._ready = bytearray()
        self._began = self._ended = False

    def read(self, size: int) -> bytes:
        while len(self._ready) < size and not self._ended:
            self._more()
        data = bytes(self._ready[:size])
        del self._ready[:size]
        return data

    def _more(self) -> None:
        data = self._rest or self._raw.read(1 << 14)  # a little at a time: it may unpack to a thousand times as much
        self._rest = b""
        if not data:
            self._ended = True
            if self._began:
                raise EOFError("the compressed file ends early")
            return
        self._began = True
        self._ready += self._frame.decompress(data)
        if self._frame.eof:
            self._rest = self._frame.unused_data
            self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._began = False


@contextmanager
def opened(item: Input) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """The file on disk, and the stream of its decompressed bytes."""
    with item.path.open("rb") as raw:
        if item.compression == ".gz":
            with gzip.open(raw) as stream:
                yield raw, stream  # type: ignore[misc]
        elif item.compression == ".zst":
            yield raw, _Zstd(raw)  # type: ignore[misc]
        else:
            yield raw, raw


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    while chunk := stream.read(CHUNK):
        yield chunk


def _lines(chunks: Iterable[str]) -> Iterator[str | None]:
    """Lines with their `\\n`; None for a line longer than 64 M characters, which is not kept."""
    waiting: list[str] = []
    length = 0
    for chunk in chunks:
        start = 0
        end = chunk.find("\n")
        if end >= 0:
            if length > MAX_LINE:
                yield None
            else:
                waiting.append(chunk[: end + 1])
                yield "".join(waiting)
            waiting, length, start = [], 0, end + 1
            while (end := chunk.find("\n", start)) >= 0:
                yield chunk[start : end + 1]
                start = end + 1
        rest = chunk[start:]
        length += len(rest)
        if length <= MAX_LINE:
            waiting.append(rest)
        else:
            waiting = []
    if length > MAX_LINE:
        yield None
    elif length:
        yield "".join(waiting)


def _meta(record: dict[str, Any], text_key: str) -> str:
    short = {
        key: value
        for key, value in record.items()
        if key != text_key
        and key is not None
        and value is not None
        and (isinstance(value, bool | int | float) or (isinstance(value, str) and 0 < len(value) <= 300))
        and value == value
        and value not in (float("inf"), float("-inf"))
    }
    if not short:
        return "{}"
    return json.dumps(short, ensure_ascii=False).encode("utf-8", "replace").decode()


def text_key(columns: list[str], strings: list[str], wanted: str | None) -> str | None:
    """The column that holds the text: the wanted one, else a usual name, else the only column of strings."""
    if wanted is not None:
        return wanted if wanted in columns else None
    by_name = {name.strip().lower(): name for name in reversed(columns)}
    for usual in TEXT_COLUMNS:
        if usual in by_name:
            return by_name[usual]
    return strings[0] if len(strings) == 1 else None


def _missing(item: Input, columns: list[str], tally: Tally) -> None:
    tally.missing_columns.setdefault(item.source, columns)
    tally.problem(item.source, f"no text column among: {', '.join(columns[:12]) or 'none'}")


def _decoded(item: Input, stream: BinaryIO, tally: Tally, hint: str = "") -> Decoded | str:
    """The decoded stream, or what kind of binary data it is."""
    chunks = _chunks(stream)
    head = next(chunks, b"")
    if kind := binary_kind(head):
        return kind
    decoded = Decoded(itertools.chain([head], chunks), hint=hint)
    return decoded


def _count_encoding(item: Input, decoded: Decoded, tally: Tally) -> None:
    tally.encodings[decoded.encoding] += 1
    if decoded.damaged:
        tally.problem(item.source, f"{decoded.damaged} places are not {decoded.encoding} and became U+FFFD")


def _plain(item: Input, stream: BinaryIO, config: CorpusConfig, tally: Tally) -> Iterator[Draft]:
    decoded = _decoded(item, stream, tally)
    if isinstance(decoded, str):
        yield Draft(item.source, "", rejected=decoded, bytes=item.size)
        return
    for number, text in pieces(decoded, config.max_document_characters):
        yield Draft(f"{item.source}#{number}" if number else item.source, text)
    _count_encoding(item, decoded, tally)


def html_text(page: str, main_content: bool) -> str:
    """Readable text of an HTML page; all visible text when no main content is found."""
    from resiliparse.extract.html2text import extract_plain_text

    if main_content:
        text = extract_plain_text(page, preserve_formatting=True, main_content=True, alt_texts=False)
        if text.strip():
            return text
    return extract_plain_text(page, preserve_formatting=True, alt_texts=False)


def _html(item: Input, stream: BinaryIO, config: CorpusConfig, tally: Tally) -> Iterator[Draft]:
    data = stream.read(MAX_PAGE + 1)
    if kind := binary_kind(data[:CHUNK]):
        yield Draft(item.source, "", rejected=kind, bytes=item.size)
        return
    if len(data) > MAX_PAGE:
        tally.problem(item.source, "an HTML page beyond 64 MB; its beginning is read")
    decoded = Decoded([data[:MAX_PAGE]], hint=declared(data))
    text = html_text("".join(decoded).replace("\0", ""), config.main_content)
    yield from _long(item.source, text, "{}", config)
    _count_encoding(item, decoded, tally)


def _long(source: str, text: str, meta: str, config: CorpusConfig) -> Iterator[Draft]:
    """One record's text, in pieces when it is long."""
    if len(text) <= 2 * config.max_document_characters:
        yield Draft(source, text, meta)
        return
    for number, piece in pieces([text], config.max_document_characters):
        yield Draft(f"{source}#{number}", piece, meta)


def _jsonl(item: Input, stream: BinaryIO, config: CorpusConfig, tally: Tally) -> Iterator[Draft]:
    decoded = _decoded(item, stream, tally)
    if isinstance(decoded, str):
        yield Draft(item.source, "", rejected=decoded, bytes=item.size)
        return
    key: str | None = None
    found = False
    columns: dict[str, None] = {}
    for number, line in enumerate(_lines(decoded), 1):
        source = f"{item.source}:{number}"
        if line is None:
            tally.problem(source, "a line beyond 64 MB")
            continue
        if not line.strip():
            continue
        tally.records += 1
        try:
            record = json.loads(line.lstrip("\ufeff").replace("\0", ""))
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", "nested too deep")
            tally.problem(source, f"not JSON ({reason}): {line.strip()[:60]!r}")
            continue
        if isinstance(record, str):
            found = True
            yield from _long(source, record, "{}", config)
            continue
        if not isinstance(record, dict):
            tally.problem(source, "neither a JSON object nor a string")
            continue
        if key is None or not isinstance(record.get(key), str):
            strings = [name for name, value in record.items() if isinstance(value, str)]
            key = text_key(list(record), strings, config.text_column) or key
        text = record.get(key) if key is not None else None
        if not isinstance(text, str):
            if len(columns) < 50:
                columns.update(dict.fromkeys(record))
            if found:
                tally.problem(source, f'no text in "{key}"')
            elif key is not None and key in record:
                tally.problem(source, f'"{key}" is not a string')
            continue
        found = True
        yield from _long(source, text, _meta(record, key or ""), config)
    if not found and columns:
        _missing(item, list(columns), tally)
    _count_encoding(item, decoded, tally)


def _delimiter(item: Input, header: str) -> str:
    if item.kind == ".tsv":
        return "\t"
    return max(",;\t|", key=lambda mark: (header.count(mark), mark == ","))


def _csv(item: Input, stream: BinaryIO, config: CorpusConfig, tally: Tally) -> Iterator[Draft]:
    decoded = _decoded(item, stream, tally)
    if isinstance(decoded, str):
        yield Draft(item.source, "", rejected=decoded, bytes=item.size)
        return

    def whole_lines() -> Iterator[str]:
        for line in _lines(decoded):
            if line is None:
                tally.problem(item.source, "a line beyond 64 MB")
            else:
                yield line.replace("\0", "") if "\0" in line else line

    lines = whole_lines()
    header_line = next((line for line in lines if line.strip()), "")
    csv.field_size_limit(MAX_LINE)
    rows = csv.reader(itertools.chain([header_line], lines), delimiter=_delimiter(item, header_line))
    columns = [name.strip() for name in next(rows, [])]
    first = next(rows, None)
    # A column holds strings when the first row's value there is no number.
    strings = [name for name, value in zip(columns, first or [], strict=False) if not _is_number(value)]
    key = text_key(columns, strings, config.text_column)
    if key is None:
        _missing(item, columns, tally)
        _count_encoding(item, decoded, tally)
        return
    at = columns.index(key)
    number = 0
    try:
        for number, row in enumerate(itertools.chain([first] if first is not None else [], rows), 1):
            if not row:
                continue
            tally.records += 1
            if at >= len(row):
                tally.problem(f"{item.source}:{number}", f"{len(row)} fields instead of {len(columns)}")
                continue
            meta = _meta(dict(zip(columns, row, strict=False)), key)
            yield from _long(f"{item.source}:{number}", row[at], meta, config)
    except csv.Error as error:
        tally.problem(f"{item.source}:{number + 1}", f"not CSV from here on ({error})")
    _count_encoding(item, decoded, tally)


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return not value.strip()
    return True


def _parquet(
    item: Input, path: Path, config: CorpusConfig, tally: Tally, passed: Callable[[float], None]
) -> Iterator[Draft]:
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
        schema = file.schema_arrow

        def value_type(kind: pa.DataType) -> pa.DataType:
            return kind.value_type if pa.types.is_dictionary(kind) else kind

        kinds = {field.name: value_type(field.type) for field in schema}
        strings = [
            name
            for name, kind in kinds.items()
            if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
        ]
        key = text_key(list(kinds), strings, config.text_column)
        if key is None or key not in strings:
            _missing(item, list(kinds), tally)
            return
        plain = [name for name, kind in kinds.items() if name in strings or pa.types.is_primitive(kind)]
        columns = [name for name in plain if name == key or not pa.types.is_temporal(kinds[name])]
        number = 0
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(batch_size=256, row_groups=[group], columns=columns):
                for record in batch.to_pylist():
                    number += 1
                    tally.records += 1
                    text = record.get(key)
                    if text is None:
                        tally.problem(f"{item.source}:{number}", f'no text in "{key}"')
                        continue
                    yield from _long(f"{item.source}:{number}", text, _meta(record, key), config)
            passed((group + 1) / file.num_row_groups)
        tally.encodings["utf-8"] += 1


def read_file(item: Input, config: CorpusConfig, tally: Tally, position: Callable[[float], None]) -> Iterator[Draft]:
    """Read one file into drafts. What cannot be read is counted in `tally`, never raised.

    Args:
        item: the file.
        config: the settings.
        tally: counts files, bytes, encodings, records and problems.
        position: told how many bytes of the file have been consumed.
    """
    try:
        if item.kind == ".parquet":
            yield from _parquet_file(item, config, tally, position)
        else:
            read = _html if item.kind in HTML else {".csv": _csv, ".tsv": _csv}.get(item.kind, _plain)
            if item.kind in (".jsonl", ".ndjson"):
                read = _jsonl
            with opened(item) as (raw, stream):
                for draft in read(item, stream, config, tally):
                    yield draft
                    position(raw.tell())
    except BROKEN as error:
        tally.problem(item.source, f"cannot be read: {getattr(error, 'strerror', None) or error}")
        return
    except pa.ArrowException as error:
        tally.problem(item.source, f"not a Parquet file that can be read: {str(error).splitlines()[0][:150]}")
        return
    tally.files += 1
    tally.bytes += item.size
    tally.formats[item.kind + item.compression or "no suffix"] += 1


def _parquet_file(
    item: Input, config: CorpusConfig, tally: Tally, position: Callable[[float], None]
) -> Iterator[Draft]:
    if not item.compression:
        yield from _parquet(item, item.path, config, tally, lambda share: position(share * item.size))
        return
    with tempfile.TemporaryDirectory() as folder:  # Parquet is read from its end: it needs a file
        path = Path(folder) / "plain.parquet"
        with opened(item) as (_, stream), path.open("wb") as out:
            shutil.copyfileobj(stream, out, CHUNK)
        yield from _parquet(item, path, config, tally, lambda share: position(share * item.size))
