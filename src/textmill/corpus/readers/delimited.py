"""Comma- and tab-separated tables: a row is a record. Blocks whose quotes are all in their places go through Arrow;
the others through the standard library's tolerant reader, with the same result."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv

from textmill.corpus.readers.drafts import Drafts, Row
from textmill.corpus.readers.jsonl import MAX_LINE
from textmill.corpus.readers.prose import text_blocks
from textmill.corpus.readers.reading import META_CHARACTERS, Reading, dump, meta_of, text_key
from textmill.corpus.texts import Texts

_BLOCK = 4 << 20
_NEWLINE, _QUOTE, _RETURN = 10, 34, 13


class Header(NamedTuple):
    """A table's first line: column names, which of them holds the text ("" for none), what stands between them."""

    columns: tuple[str, ...]
    key: str
    delimiter: str


def delimiter_of(kind: str, line: str) -> str:
    """What separates the columns, by the header."""
    if kind == ".tsv":
        return "\t"
    return max(",;\t|", key=lambda mark: (line.count(mark), mark == ","))


def record_ends(data: np.ndarray, delimiter: str, quoted: bool) -> tuple[np.ndarray, bool, bool]:
    """Where the records of a block of a table end.

    Args:
        data: uint8 [n].
        delimiter: between columns.
        quoted: whether the block begins within quotes.

    Returns:
        positions of the newlines that end records, whether every quote opens or closes a whole field (else nothing
        is known), and whether the block ends within quotes. A quote at either end of the block is taken on trust.
    """
    lines = np.flatnonzero(data == _NEWLINE)
    quotes = np.flatnonzero(data == _QUOTE)
    if len(quotes) == 0:
        return (lines[:0] if quoted else lines), True, quoted
    opening = (np.arange(len(quotes)) + quoted) % 2 == 0
    edge = np.zeros(256, dtype=bool)
    edge[[ord(delimiter), _NEWLINE, _RETURN, _QUOTE]] = True
    before = quotes[opening] - 1
    after = quotes[~opening] + 1
    placed = bool(edge[data[before[before >= 0]]].all() and edge[data[after[after < len(data)]]].all())
    within = (np.searchsorted(quotes, lines) + quoted) % 2 == 1
    return lines[~within], placed, bool((len(quotes) + quoted) % 2)


def _record_blocks(blocks: Iterable[bytes], delimiter: str) -> Iterator[tuple[bytes, int]]:
    """Blocks of whole records with the number of records in each, -1 where quotes are misplaced.

    From the first misplaced quote on, blocks end at no particular place.
    """
    waiting = b""
    quoted = False
    blocks = iter(blocks)
    done = 0  # bytes of `waiting` that were scanned, and record ends in them
    ends_before: list[np.ndarray] = []
    for block in blocks:
        block, start = waiting + block, done
        data = np.frombuffer(block, np.uint8)
        ends, placed, quoted = record_ends(data[start:], delimiter, quoted)
        if not placed or len(block) > MAX_LINE:
            yield block, -1
            for rest in blocks:
                yield rest, -1
            return
        ends_before.append(ends + start)
        count = sum(map(len, ends_before))
        if count == 0:
            waiting, done = block, len(block)
            continue
        if len(block) < _BLOCK:
            waiting, done = block, len(block)
            continue
        last = int(next(ends for ends in reversed(ends_before) if len(ends))[-1])
        yield block[: last + 1], count
        waiting = block[last + 1 :]
        done, ends_before = len(waiting), []
    if waiting:
        count = sum(map(len, ends_before)) + (0 if waiting.endswith(b"\n") and not quoted else 1)
        yield waiting, (-1 if quoted else count)


def _lines(blocks: Iterable[bytes], reading: Reading) -> Iterator[str]:
    """Lines with their ends, as strings, for the tolerant reader."""
    waiting: list[bytes] = []
    length = 0
    for block in blocks:
        start = 0
        while (end := block.find(b"\n", start)) >= 0:
            piece = block[start : end + 1]
            if length + len(piece) > MAX_LINE:
                reading.problem("a line beyond 64 MB")
            else:
                yield _string(b"".join([*waiting, piece]) if waiting else piece)
            waiting, length, start = [], 0, end + 1
        rest = block[start:]
        length += len(rest)
        waiting = [*waiting, rest] if length <= MAX_LINE else []
    if length > MAX_LINE:
        reading.problem("a line beyond 64 MB")
    elif length:
        yield _string(b"".join(waiting))


def _string(line: bytes) -> str:
    return line.decode().replace("\0", "")


def header_of(blocks: Iterator[bytes], reading: Reading) -> tuple[Header, bytes]:
    """The header of a table, and what follows it in the blocks read so far."""
    waiting = b""
    kind = reading.item.kind
    for block in itertools.chain(blocks, [b""]):
        waiting += block
        start = len(waiting) - len(waiting.lstrip(b"\n \t\0")) if kind == ".csv" else 0
        line_end = waiting.find(b"\n", start)
        if line_end < 0 and block:
            if len(waiting) > MAX_LINE:
                break
            continue
        line = _string(waiting[start : line_end if line_end >= 0 else len(waiting)])
        delimiter = delimiter_of(kind, line)
        ends, placed, _ = record_ends(np.frombuffer(waiting, np.uint8)[start:], delimiter, False)
        if placed and len(ends) == 0 and block and len(waiting) < MAX_LINE:
            continue  # a header whose quotes hold line ends
        end = start + int(ends[0]) if placed and len(ends) else (line_end if line_end >= 0 else len(waiting))
        header, rest = _string(waiting[start:end]), waiting[end + 1 :]
        columns = [name.strip() for name in next(csv.reader([header + "\n"], delimiter=delimiter), [])]
        first_line = _first_rows(rest, delimiter)
        strings = [name for name, value in zip(columns, first_line, strict=False) if not _is_number(value)]
        key = text_key(columns, strings, reading.config.text_column)
        return Header(tuple(columns), key or "", delimiter), rest
    return Header((), "", ","), waiting


def _first_rows(rest: bytes, delimiter: str) -> list[str]:
    lines = rest[: 1 << 20].decode("utf-8", "ignore").splitlines(keepends=True)[:10_000]
    csv.field_size_limit(MAX_LINE)
    try:
        return next((row for row in csv.reader(lines, delimiter=delimiter) if row), [])
    except csv.Error:
        return []


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return not value.strip()
    return True


def _quickly(block: bytes, count: int, header: Header, number: int, reading: Reading) -> Drafts | None:
    """A block of whole, well-quoted records through Arrow; None where its rows are not all alike."""
    if b"\0" in block or header.columns.count(header.key) > 1:
        return None
    names = [str(at) for at in range(len(header.columns))]
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(block),
            read_options=arrow_csv.ReadOptions(column_names=names, block_size=len(block) + 1, use_threads=False),
            parse_options=arrow_csv.ParseOptions(delimiter=header.delimiter, newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=False,
                check_utf8=False,
            ),
        )
    except pa.ArrowInvalid:
        return None
    if table.num_rows != count:
        return None
    at = header.columns.index(header.key)
    texts = Texts.from_arrow(table.column(at))
    if len(texts) == 0 or int(texts.sizes.max()) > 2 * reading.config.max_document_characters:
        return None
    others = [name for place, name in enumerate(header.columns) if place != at]
    columns = [table.column(place).to_pylist() for place in range(len(header.columns)) if place != at]
    source = reading.item.source
    return Drafts(texts, [f"{source}:{number + row}" for row in range(1, count + 1)], _metas(others, columns, count))


def _metas(names: list[str], columns: list[list[str]], count: int) -> list[str]:
    kept: list[int] = []
    for place, column in enumerate(columns):
        sizes = list(map(len, column))
        if min(sizes) > 0 and max(sizes) <= META_CHARACTERS:
            kept.append(place)
        elif max(sizes) > 0 and min((size for size in sizes if size), default=0) <= META_CHARACTERS:
            kept = [-1]
            break
    if kept == [-1]:
        rows = zip(*columns, strict=True)
        return [meta_of(dict(zip(names, values, strict=True)), None) for values in rows]
    if not kept:
        return ["{}"] * count
    wanted = [names[place] for place in kept]
    if len(set(names)) < len(names):
        rows = zip(*columns, strict=True)
        return [meta_of(dict(zip(names, values, strict=True)), None) for values in rows]
    return [dump(dict(zip(wanted, values, strict=True))) for values in zip(*(columns[at] for at in kept), strict=True)]


def _tolerantly(blocks: Iterable[bytes], header: Header, number: int, reading: Reading) -> Iterator[Row]:
    csv.field_size_limit(MAX_LINE)
    at, width = header.columns.index(header.key), len(header.columns)
    source = reading.item.source
    rows = csv.reader(_lines(blocks, reading), delimiter=header.delimiter)
    try:
        for row in rows:
            number += 1
            if not row:
                continue
            reading.tally.count("records")
            if at >= len(row):
                reading.problem(f"{len(row)} fields instead of {width}", number)
                continue
            meta = meta_of(dict(zip(header.columns, row, strict=False)), header.key)
            yield from reading.long(f"{source}:{number}", row[at], meta)
    except csv.Error as error:
        reading.problem(f"not CSV from here on ({error})", number + 1)


def read(stream: BinaryIO, reading: Reading) -> Iterator[Drafts | Row]:
    """One document a row."""
    text = text_blocks(stream, reading)
    if isinstance(text, Row):
        yield text
        return
    part = reading.part
    blocks: Iterator[bytes] = iter(text)
    number = part.first
    if part.columns:
        header = Header(part.columns, part.key, part.delimiter)
    else:
        header, rest = header_of(blocks, reading)
        blocks = itertools.chain([rest], blocks)
    if not header.key:
        reading.missing_column(list(header.columns))
        for _ in blocks:  # to its end, for the encoding
            pass
        reading.encoded(text)
        return
    records = _record_blocks(blocks, header.delimiter)
    for block, count in records:
        if count < 0:
            rest_of = itertools.chain([block], (block for block, _ in records))
            yield from _tolerantly(rest_of, header, number, reading)
            break
        found = _quickly(block, count, header, number, reading)
        if found is None:
            yield from _tolerantly([block], header, number, reading)
        else:
            reading.tally.count("records", count)
            yield found
        number += count
    reading.encoded(text)
