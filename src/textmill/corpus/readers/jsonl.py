"""JSON Lines: a line is a record. Whole blocks of lines go through a fast parser; a line that it refuses goes
through the tolerant one, with the same result wherever both understand it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Any, BinaryIO

import orjson

from textmill.corpus.readers.drafts import Drafts, Row, texts_of, to_utf8
from textmill.corpus.readers.prose import text_blocks
from textmill.corpus.readers.reading import Reading, dump, meta_of, text_key, text_of

MAX_LINE = 64 << 20
_BLOCK = 4 << 20
_SHOWN = 60
_EXACT = 1 << 63
"""The fast parser makes a float of an integer beyond 64 bits; from here on the other one reads the line again."""


class Broken:
    """A line that is no JSON: why."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


def line_blocks(blocks: Iterable[bytes]) -> Iterator[list[bytes | None]]:
    """Lists of whole lines without their ends; None for a line beyond 64 MB, which is not kept."""
    waiting: list[bytes] = []
    length = 0
    for block in blocks:
        end = block.rfind(b"\n")
        if end < 0:
            length += len(block)
            waiting = [*waiting, block] if length <= MAX_LINE else []
            continue
        first = block.find(b"\n")
        lines: list[bytes | None] = []
        if length + first > MAX_LINE:
            lines.append(None)
            lines.extend(block[first + 1 : end].split(b"\n") if end > first else [])
        else:
            waiting.append(block[:end])
            lines.extend(b"".join(waiting).split(b"\n"))
        yield lines
        rest = block[end + 1 :]
        waiting, length = [rest], len(rest)
    if length > MAX_LINE:
        yield [None]
    elif length:
        yield [b"".join(waiting)]


def _joined(blocks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Larger blocks, so that a batch is worth its overhead."""
    waiting: list[bytes] = []
    length = 0
    for block in blocks:
        waiting.append(block)
        length += len(block)
        if length >= size:
            yield b"".join(waiting)
            waiting, length = [], 0
    if waiting:
        yield b"".join(waiting)


def parse(line: bytes) -> Any:
    """A line's value, read tolerantly: byte order marks and NULs in it are ignored; `Broken` when it is no JSON."""
    try:
        return json.loads(line.decode().lstrip("\ufeff").replace("\0", ""))
    except (ValueError, RecursionError) as error:
        return Broken(getattr(error, "msg", "nested too deep"))


def _parsed(line: bytes) -> Any:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        if "ecursion" in str(error):
            return Broken("nested too deep")
        return parse(line)
    return parse(line) if _inexact([value]) else value


def _inexact(values: Iterable[Any]) -> bool:
    for value in values:
        if type(value) is dict:
            for one in value.values():
                if type(one) is float and (one >= _EXACT or one <= -_EXACT):
                    return True
    return False


def _columns_key(record: Any, reading: Reading) -> str | None:
    if type(record) is not dict:
        return None
    strings = [name for name, value in record.items() if isinstance(value, str)]
    key = text_key(list(record), strings, reading.config.text_column)
    return key if key is not None and text_of(record.get(key)) is not None else None


def first_key(records: Iterable[Any], reading: Reading) -> str | None:
    """The key that holds the text in the first record that has one."""
    return next((key for record in records if (key := _columns_key(record, reading)) is not None), None)


class Records:
    """Turns lists of parsed records into documents; used for .jsonl and for lists in .json."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.key: str | None = reading.part.key or None
        self.number = reading.part.first
        self.found = bool(self.key)
        self.columns: dict[str, None] = {}

    def take(self, records: list[Any], numbers: list[int]) -> Iterator[Drafts | Row]:
        """Documents of some records, whose numbers are given."""
        self.reading.tally.count("records", len(records))
        if self.key is None:
            self.key = first_key(records, self.reading)
        bulk = self._bulk(records, numbers)
        if bulk is not None:
            self.found = self.found or bool(records)
            yield bulk
            return
        for record, number in zip(records, numbers, strict=True):
            yield from self._one(record, number)

    def _bulk(self, records: list[Any], numbers: list[int]) -> Drafts | None:
        """All records at once, when every one of them is an object whose text is of ordinary length."""
        if self.key is None or set(map(type, records)) != {dict}:
            return None
        try:
            strings = list(map(itemgetter(self.key), records))
        except KeyError:
            return None
        if list in (kinds := set(map(type, strings))):
            strings = [text_of(value) for value in strings]
            kinds = set(map(type, strings))
        if kinds != {str} or max(map(len, strings)) > 2 * self.reading.config.max_document_characters:
            return None
        source = self.reading.item.source
        return Drafts(texts_of(strings), [f"{source}:{number}" for number in numbers], metas_of(records, self.key))

    def _one(self, record: Any, number: int) -> Iterator[Row]:
        reading, source = self.reading, f"{self.reading.item.source}:{number}"
        if isinstance(record, str):
            self.found = True
            yield from reading.long(source, to_utf8(record))
            return
        if not isinstance(record, dict):
            reading.problem("neither a JSON object nor a string", number)
            return
        key = self.key if text_of(record.get(self.key)) is not None else _columns_key(record, reading)
        if key is None:
            if len(self.columns) < 50:
                self.columns.update(dict.fromkeys(record))
            named = text_key(list(record), [], reading.config.text_column)
            if self.found and self.key not in record:
                reading.problem(f'no text in "{self.key}"', number)
            elif named is not None:
                reading.problem(f'"{named}" is not a string', number)
            elif self.found:
                reading.problem(f'"{self.key}" is not a string', number)
            return
        self.found = True
        yield from reading.long(source, to_utf8(text_of(record[key]) or ""), meta_of(record, key))

    def end(self) -> None:
        """Say so when no record held text."""
        if not self.found and self.columns:
            self.reading.missing_column(list(self.columns))


_KEPT = frozenset({str, int, bool, float})


def metas_of(records: list[dict[str, Any]], key: str) -> list[str]:
    """`meta_of` for every record, by columns where all records have the same keys and plain values."""
    names = [name for name in records[0] if name != key]
    if not names:
        alike = all(len(record) == 1 for record in records)
        return ["{}"] * len(records) if alike else [meta_of(record, key) for record in records]
    if set(map(len, records)) != {len(names) + 1} or names[0] is None:
        return [meta_of(record, key) for record in records]
    kept: list[str] = []
    columns: list[list[Any]] = []
    for name in names:
        try:
            column = list(map(itemgetter(name), records))
        except KeyError:
            return [meta_of(record, key) for record in records]
        kinds = set(map(type, column))
        if kinds == {str}:
            sizes = list(map(len, column))
            if min(sizes) == 0 or max(sizes) > 300:
                return [meta_of(record, key) for record in records]
        elif not kinds <= _KEPT or (float in kinds and not all(map(math.isfinite, column))) or str in kinds:
            if kinds & _KEPT:
                return [meta_of(record, key) for record in records]
            continue
        kept.append(name)
        columns.append(column)
    if not kept:
        return ["{}"] * len(records)
    # The order of the keys is the record's own.
    order = list(records[0])
    if any(list(record) != order for record in records):
        return [meta_of(record, key) for record in records]
    return [dump(dict(zip(kept, values, strict=True))) for values in zip(*columns, strict=True)]


def read(stream: BinaryIO, reading: Reading) -> Iterator[Drafts | Row]:
    """One document a line."""
    text = text_blocks(stream, reading, newlines=False)
    if isinstance(text, Row):
        yield text
        return
    records = Records(reading)
    blocks: Iterable[bytes] = _joined(text, _BLOCK)
    if _old_mac(text):
        blocks = (block.replace(b"\r", b"\n") for block in blocks)
    for lines in line_blocks(blocks):
        yield from documents(lines, records)
    records.end()
    reading.encoded(text)


def _old_mac(text: Any) -> bool:
    return b"\r" in text.head and b"\n" not in text.head


def documents(lines: list[bytes | None], records: Records) -> Iterator[Drafts | Row]:
    """Documents of some lines."""
    reading, first = records.reading, records.number + 1
    records.number += len(lines)
    try:
        values = list(map(orjson.loads, lines))  # type: ignore[arg-type]
        if not _inexact(values):
            yield from records.take(values, list(range(first, first + len(lines))))
            return
    except orjson.JSONDecodeError:
        pass
    values, numbers = [], []
    for number, line in enumerate(lines, first):
        if line is None:
            reading.problem("a line beyond 64 MB", number)
        elif line.strip():
            value = _parsed(line)
            if isinstance(value, Broken):
                reading.tally.count("records")
                shown = line[: 8 * _SHOWN].decode("utf-8", "ignore").strip()[:_SHOWN]
                reading.problem(f"not JSON ({value.reason}): {shown!r}", number)
            else:
                values.append(value)
                numbers.append(number)
    if values:
        yield from records.take(values, numbers)


def head_key(head: bytes, reading: Reading) -> str:
    """The key that holds the text, by the first lines of a file; "" when none does."""
    values = (_parsed(line) for line in head.split(b"\n")[:-1] if line.strip())
    return first_key(values, reading) or ""
