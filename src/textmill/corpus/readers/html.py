"""HTML pages: a file is a page, a page is a document."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import BinaryIO

from textmill.corpus.cleaning.html import TooDeep, html_text
from textmill.corpus.encoding import Utf8, binary_kind, declared
from textmill.corpus.readers.drafts import Row
from textmill.corpus.readers.prose import HEAD
from textmill.corpus.readers.reading import Reading
from textmill.corpus.readers.streams import blocks

MAX_PAGE = 16 << 20
"""Bytes of a page that are read. A parsed page takes some twenty times its size."""


def page_text(data: bytes, reading: Reading, hint: str = "") -> tuple[str, Utf8]:
    """The readable text of a page and how it was decoded."""
    if len(data) > MAX_PAGE:
        reading.problem(f"an HTML page beyond {MAX_PAGE >> 20} MB; its beginning is read")
    decoded = Utf8([data[:MAX_PAGE]], hint=hint or declared(data))
    page = b"".join(decoded).decode().replace("\0", "")
    try:
        return html_text(page, reading.config.extractor), decoded
    except TooDeep as error:
        reading.problem(f"refused: {error}")
        return "", decoded


def read(stream: BinaryIO, reading: Reading) -> Iterator[Row]:
    """One document, or pieces of it."""
    data = b"".join(itertools.islice(blocks(stream), (MAX_PAGE >> 20) + 1))
    if kind := binary_kind(data[:HEAD]):
        yield Row(reading.item.source, b"", unreadable=kind, raw_bytes=reading.item.size)
        return
    text, decoded = page_text(data, reading)
    yield from reading.long(reading.item.source, text)
    reading.encoded(decoded)
