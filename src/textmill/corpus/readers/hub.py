"""Data sets by name (`hf:NAME` or `hf:NAME:SPLIT`) through the `datasets` package, streamed shard by shard."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from typing import Any, BinaryIO

from textmill.base.errors import Failure, UsageError, nearest
from textmill.corpus.chunks import Part
from textmill.corpus.inputs import Input
from textmill.corpus.readers.drafts import Drafts, Row
from textmill.corpus.readers.parquet import columns_of, table_drafts
from textmill.corpus.readers.reading import Reading, missing_extra

PREFIX = "hf:"
_BATCH_ROWS = 1_000


def split_name(typed: str) -> tuple[str, str]:
    """`hf:NAME:SPLIT` as (NAME, SPLIT); SPLIT is "" when none is given."""
    name, colon, split = typed.removeprefix(PREFIX).rpartition(":")
    if colon and "/" not in split and len(name) > 1:
        return name, split
    return typed.removeprefix(PREFIX), ""


@functools.lru_cache(maxsize=4)
def _opened(typed: str) -> tuple[Any, str]:
    """The streamed data set of what was typed, and its split."""
    try:
        import datasets
    except ImportError as error:
        raise missing_extra("A Hugging Face dataset", "datasets") from error
    name, split = split_name(typed)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries; what came of them is told below
    try:
        found = datasets.load_dataset(name, streaming=True)
    except Exception as error:  # the package raises whatever its parts raise: network, parsing, missing files
        raise Failure(
            f"The dataset {name} cannot be opened.",
            str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__,
            "Check the name on the hub, or give a folder of its files.",
        ) from error
    split = split or ("train" if "train" in found else next(iter(found)))
    if split not in found:
        raise UsageError(f"{name} has no split {split}.{nearest(split, found)}", f"Its splits: {', '.join(found)}.")
    return found[split], split


def identity(typed: str) -> str:
    """What the data set is, as far as it tells without being read: for noticing that it changed."""
    stream, split = _opened(typed)
    info = stream.info
    known = [typed, split, str(info.version), str(info.features), str(sorted((info.download_checksums or {}).items()))]
    return "\n".join(known)


def shards(item: Input) -> list[tuple[Part, int]]:
    """A part for each file that the data set is made of."""
    stream, _ = _opened(item.source)
    return [(Part("shards", at, at + 1), 0) for at in range(stream.num_shards)]


def read(stream: BinaryIO, reading: Reading) -> Iterator[Drafts | Row]:
    """One document a row of a shard; its source is `hf:NAME:SPLIT/SHARD:ROW`."""
    del stream
    found, _ = _opened(reading.item.source)
    part = reading.part
    shard = found.shard(found.num_shards, part.start) if part.unit else found
    number = 0
    key: str | None = None
    for table in shard.with_format("arrow").iter(_BATCH_ROWS):
        if key is None:
            key, columns = columns_of(table.schema, reading)
            if key is None:
                reading.missing_column(columns)
                return
        wanted = table.select([name for name in columns if name in table.schema.names])
        yield from table_drafts(wanted, key, number, reading, f"/{part.start + 1}:")
        number += table.num_rows
