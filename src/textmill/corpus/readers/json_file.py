"""JSON files: a list of records is read as records, one object as one record; notebooks as their cells."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

import orjson

from textmill.corpus.readers import jsonl
from textmill.corpus.readers.drafts import Drafts, Row, to_utf8
from textmill.corpus.readers.prose import text_blocks
from textmill.corpus.readers.reading import Reading, Unreadable, text_key, text_of

MAX_FILE = 256 << 20
"""A JSON file must be parsed whole; parsed it takes several times its size."""

_BATCH = 1_000
_LISTS = ("data", "records", "rows", "items", "documents", "articles", "examples", "results", "train")


def _load(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        if "ecursion" in str(error):
            raise Unreadable("not JSON (nested too deep)") from error
        value = jsonl.parse(data)
        if isinstance(value, jsonl.Broken):
            raise Unreadable(f"not JSON ({value.reason})") from error
        return value


def read(stream: BinaryIO, reading: Reading) -> Iterator[Drafts | Row]:
    """Records of a list, or the one record; a file of several values, one a line, is read as JSON Lines."""
    text = text_blocks(stream, reading)
    if isinstance(text, Row):
        yield text
        return
    parts: list[bytes] = []
    length = 0
    for block in text:
        parts.append(block)
        length += len(block)
        if length > MAX_FILE:
            raise Unreadable(f"JSON beyond {MAX_FILE >> 20} MB; write it as JSON Lines, one record a line")
    data = b"".join(parts)
    if not data.strip(b" \t\r\n\0"):
        return
    try:
        value = _load(data)
    except Unreadable:
        lines = data.split(b"\n")
        first = next(line for line in lines if line.strip())
        if isinstance(jsonl.parse(first), jsonl.Broken) or len(lines) < 2:
            raise
        records = jsonl.Records(reading)
        for found in jsonl.line_blocks([data]):
            yield from jsonl.documents(found, records)
        records.end()
        reading.encoded(text)
        return
    if reading.item.kind == ".ipynb":
        yield from _notebook(value, reading)
    else:
        yield from _records(value, reading)
    reading.encoded(text)


def _records(value: Any, reading: Reading) -> Iterator[Drafts | Row]:
    listed = value if isinstance(value, list) else _list_in(value, reading)
    if listed is None:
        yield from _single(value, reading)
        return
    records = jsonl.Records(reading)
    for start in range(0, len(listed), _BATCH):
        some = listed[start : start + _BATCH]
        yield from records.take(some, list(range(start + 1, start + len(some) + 1)))
    records.end()


def _list_in(value: Any, reading: Reading) -> list[Any] | None:
    """The list of records that an object without a text of its own holds under a usual name."""
    if not isinstance(value, dict) or text_key(list(value), [], reading.config.text_column) is not None:
        return None
    for name in _LISTS:
        found = value.get(name)
        if isinstance(found, list) and found and all(isinstance(one, dict) for one in found[:10]):
            return found
    return None


def _single(value: Any, reading: Reading) -> Iterator[Drafts | Row]:
    """One object: its text, else all strings in it, a paragraph each (a file of translations, say)."""
    if isinstance(value, dict) and reading.config.text_column is None:
        key = text_key(list(value), [], None)
        if key is None or not text_of(value.get(key)):
            text = "\n\n".join(_strings(value))
            reading.tally.count("records")
            yield from reading.long(reading.item.source, to_utf8(text))
            return
    records = jsonl.Records(reading)
    for item in records.take([value], [1]):
        if isinstance(item, Row):
            item = item._replace(source=item.source.replace(":1", "", 1) if item.source.endswith(":1") else item.source)
        yield item
    records.end()


def _strings(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:  # a stack of its own: nesting may be deeper than Python's
        one = waiting.pop()
        if isinstance(one, str):
            if one.strip():
                yield one
        elif isinstance(one, dict):
            waiting.extend(reversed(list(one.values())))
        elif isinstance(one, list):
            waiting.extend(reversed(one))


def _notebook(value: Any, reading: Reading) -> Iterator[Row]:
    """A notebook's Markdown and code cells in their order, without what they printed."""
    cells = value.get("cells") if isinstance(value, dict) else None
    if not isinstance(cells, list):
        raise Unreadable("not a notebook (no cells)")
    texts = []
    for cell in cells:
        if not isinstance(cell, dict):
            continue
        source = cell.get("source")
        text = "".join(part for part in source if isinstance(part, str)) if isinstance(source, list) else source
        if isinstance(text, str) and text.strip():
            texts.append(f"```\n{text}\n```" if cell.get("cell_type") == "code" else text)
    language = value.get("metadata", {}).get("kernelspec", {}).get("language") if isinstance(value, dict) else None
    meta = json.dumps({"language": language}) if isinstance(language, str) else "{}"
    yield from reading.long(reading.item.source, to_utf8("\n\n".join(texts)), meta)
