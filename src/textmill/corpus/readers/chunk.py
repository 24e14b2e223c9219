"""One chunk read: every file of it, or its part of a file, through the reader of its format. Reads files, writes
only temporary copies."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import BinaryIO, cast

import pyarrow as pa

from textmill.base.errors import Interrupted, TextmillError
from textmill.corpus.chunks import Chunk
from textmill.corpus.config import CorpusConfig
from textmill.corpus.formats import HTML, LINES, PROSE, TABLES, kind_name
from textmill.corpus.readers.drafts import Drafts, Gatherer, Row
from textmill.corpus.readers.reading import Reading, Unreadable
from textmill.corpus.readers.streams import BROKEN, Bomb, opened
from textmill.corpus.tally import Tally

READERS = {
    **dict.fromkeys(PROSE, "prose"),
    **dict.fromkeys(HTML, "html"),
    **dict.fromkeys(LINES, "jsonl"),
    **dict.fromkeys(TABLES, "delimited"),
    ".parquet": "parquet",
    ".json": "json_file",
    ".ipynb": "json_file",
    ".pdf": "pdf",
    ".docx": "docx",
    ".epub": "epub",
    ".xml": "xml",
    ".warc": "warc",
    ".eml": "mail",
    ".mbox": "mail",
    **dict.fromkeys((".srt", ".vtt", ".ass", ".ssa"), "subtitles"),
    ".po": "gettext",
    ".mo": "gettext",
    ".zip": "archive",
    ".tar": "archive",
    "hf": "hub",
}
"""Suffix -> module of this package whose `read(stream, reading)` reads it; anything else is read as prose."""


def documents_of(stream: BinaryIO, reading: Reading) -> Iterator[Drafts | Row]:
    """Documents of one open file; what cannot be read is counted, never raised."""
    module = importlib.import_module(f"textmill.corpus.readers.{READERS.get(reading.item.kind, 'prose')}")
    try:
        yield from module.read(stream, reading)
    except (Unreadable, Interrupted):
        raise
    except BROKEN as error:
        raise Unreadable(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except Bomb as error:
        raise Unreadable(f"refused: {error}") from error
    except TextmillError as error:
        raise Unreadable(f"{error.what} {error.fix}") from error
    except pa.ArrowException as error:
        raise Unreadable(f"cannot be read: {str(error).splitlines()[0][:150]}") from error
    except Exception as error:
        # A library stumbled over a broken file. Other files are still good.
        raise Unreadable(f"cannot be read ({type(error).__name__}): {str(error)[:150]}") from error


def counted(reading: Reading, found: Iterable[Drafts | Row]) -> Iterator[Drafts | Row]:
    """Documents of one file, counted with the file itself; the reason why it breaks off is counted too."""
    item, tally = reading.item, reading.tally
    outer, tally.reading = tally.reading, (item.origin, kind_name(item.kind))
    try:
        for one in found:
            tally.count("documents", sum(map(bool, map(len, _texts(one)))))
            yield one
            tally.reading = (item.origin, kind_name(item.kind))
    except Unreadable as error:
        reading.problem(str(error))
        return
    finally:
        tally.reading = outer
    tally.reading = (item.origin, kind_name(item.kind))
    if reading.depth == 0:
        tally.bytes += reading.raw_bytes
        tally.count("bytes", reading.raw_bytes)
    if reading.part.index <= 1:
        tally.files += 1
        tally.count("files")
        tally.formats[item.kind + item.compression or "no suffix"] += 1
    tally.reading = outer


def _texts(one: Drafts | Row) -> Iterable[bytes | range]:
    if isinstance(one, Row):
        return (one.text,)
    return map(range, one.texts.sizes.tolist())


def _of_file(reading: Reading) -> Iterator[Drafts | Row]:
    item = reading.item
    try:
        if item.kind == "hf":
            with nullcontext() as nothing:
                yield from documents_of(cast(BinaryIO, nothing), reading)
            return
        with opened(item) as stream:
            yield from documents_of(stream, reading)
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror or error}") from error


def read_chunk(chunk: Chunk, config: CorpusConfig, tally: Tally) -> Iterator[Drafts]:
    """The documents of a chunk, in batches of about 2 MB that share their origin and kind.

    Args:
        chunk: of `plan_chunks`.
        config: the settings.
        tally: counts files, bytes, encodings, records and problems; what cannot be read is counted here, never raised.
    """
    gatherer = Gatherer()
    for item in chunk.inputs:
        reading = Reading(item, config, tally, chunk.part, chunk.size if chunk.part.index else item.size)
        if item.kind in (".zip", ".tar"):
            from textmill.corpus.readers.archive import members

            for inner, found in members(reading):
                yield from gatherer.add(item.origin, kind_name(inner.kind), found)
        else:
            yield from gatherer.add(item.origin, kind_name(item.kind), counted(reading, _of_file(reading)))
    yield from gatherer.rest()
