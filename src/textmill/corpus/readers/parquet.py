"""Parquet: a row is a record, read by columns in batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from textmill.corpus.readers.drafts import Drafts, Row
from textmill.corpus.readers.reading import META_CHARACTERS, Reading, Unreadable, meta_of, text_key
from textmill.corpus.readers.streams import seekable
from textmill.corpus.texts import Texts

_BATCH_ROWS = 512


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_listed(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind)) and _is_text(kind.value_type)


def columns_of(schema: pa.Schema, reading: Reading) -> tuple[str | None, list[str]]:
    """The column that holds the text (None: there is none) and all columns worth reading."""
    kinds = {field.name: _value_type(field.type) for field in schema}
    strings = [name for name, kind in kinds.items() if _is_text(kind)]
    key = text_key(list(kinds), strings, reading.config.text_column)
    if key is None or not (key in strings or _is_listed(kinds[key])):
        return None, list(kinds)
    plain = [name for name, kind in kinds.items() if name in {key, *strings} or pa.types.is_primitive(kind)]
    return key, [name for name in plain if name == key or not pa.types.is_temporal(kinds[name])]


def _strings(array: Any, reading: Reading, number: int) -> pa.Array:
    """An array of valid UTF-8 strings; what is damaged in it becomes U+FFFD."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if _is_listed(array.type):
        array = pc.binary_join(array, "\n")
    array = array.cast(pa.large_binary()).cast(pa.large_string(), safe=False)
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        raw = array.cast(pa.large_binary()).to_pylist()
        reading.problem("text that is not UTF-8; its damaged places became U+FFFD", number + 1)
        array = pa.array([None if one is None else one.decode("utf-8", "replace") for one in raw], pa.large_string())
    return array


def table_drafts(table: Any, key: str, number: int, reading: Reading, places: str = ":") -> Iterator[Drafts | Row]:
    """Documents of a table, or a batch of one, whose rows follow record `number`."""
    count = table.num_rows
    reading.tally.count("records", count)
    source = reading.item.source
    strings = _strings(table.column(key), reading, number)
    keep = np.ones(count, dtype=bool)
    if strings.null_count:
        keep = np.asarray(pc.is_valid(strings))
        for row in np.flatnonzero(~keep).tolist():
            reading.problem(f'no text in "{key}"', number + row + 1)
        strings = strings.drop_null()
    names = [name for name in table.schema.names if name != key]
    metas = _metas(table, names, reading)
    rows = np.flatnonzero(keep).tolist()
    sources = [f"{source}{places}{number + row + 1}" for row in rows]
    metas = [metas[row] for row in rows] if len(rows) < count else metas
    texts = Texts.from_arrow(strings)
    if len(texts) and int(texts.sizes.max()) > 2 * reading.config.max_document_characters:
        for at, name in enumerate(sources):
            yield from reading.long(name, texts[at], metas[at])
        return
    if len(texts):
        yield Drafts(texts, sources, metas)


def _metas(table: Any, names: list[str], reading: Reading) -> list[str]:
    kept = []
    for name in names:
        column = table.column(name)
        if _is_text(_value_type(column.type)):
            column = _strings(column, reading, 0)
            shortest = pc.min(pc.utf8_length(column)).as_py()
            if shortest is None or shortest > META_CHARACTERS:
                continue
        kept.append((name, column.to_pylist()))
    if not kept:
        return ["{}"] * table.num_rows
    keys = [name for name, _ in kept]
    return [
        meta_of(dict(zip(keys, values, strict=True)), None)
        for values in zip(*(column for _, column in kept), strict=True)
    ]


def read(stream: BinaryIO, reading: Reading) -> Iterator[Drafts | Row]:
    """One document a row."""
    with seekable(stream) as file:  # Parquet is read from its end
        try:
            yield from _read(file, reading)
        except (pa.ArrowException, ValueError) as error:
            if isinstance(error, UnicodeError):
                raise
            raise Unreadable(f"not a Parquet file that can be read: {str(error).splitlines()[0][:150]}") from error


def _read(file: BinaryIO, reading: Reading) -> Iterator[Drafts | Row]:
    part = reading.part
    with pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20) as table:
        key, columns = columns_of(table.schema_arrow, reading)
        if key is None:
            reading.missing_column(columns)
            return
        number = part.first
        for group in range(part.start, part.stop or table.num_row_groups):
            for batch in table.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False):
                yield from table_drafts(batch, key, number, reading)
                number += batch.num_rows
        if part.index <= 1:
            reading.tally.encodings["utf-8"] += 1
