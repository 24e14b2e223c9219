"""WARC: web crawls. A successful response that holds HTML or text is a document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from textmill.corpus.encoding import Utf8, binary_kind
from textmill.corpus.readers.drafts import Row
from textmill.corpus.readers.html import MAX_PAGE, page_text
from textmill.corpus.readers.reading import Reading, Unreadable, dump, missing_extra

_PAGES = ("text/html", "application/xhtml")


class _Plain:
    """The stream interface that the parser asks for, over a stream that only goes forward."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._place = 0

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        data = self._stream.read(size)
        self._place += len(data)
        return data

    def tell(self) -> int:
        """How many bytes were read."""
        return self._place

    def seek(self, place: int, whence: int = 0) -> int:
        """Refused: the parser only asks to find out whether it may."""
        raise OSError("a stream that only goes forward")

    def close(self) -> None:
        """Leave it open; who opened it closes it."""


def read(stream: BinaryIO, reading: Reading) -> Iterator[Row]:
    """A document for every response with status 200 and type HTML or text, and every conversion record (WET)."""
    try:
        from fastwarc.warc import ArchiveIterator, WarcRecordType
    except ImportError as error:
        raise missing_extra("WARC", "documents") from error
    wanted = WarcRecordType.response | WarcRecordType.conversion
    tally = reading.tally
    number = 0
    try:
        for record in ArchiveIterator(_Plain(stream), record_types=wanted, auto_decode="all"):
            number += 1
            tally.count("records")
            yield from _document(record, number, record.record_type == WarcRecordType.conversion, reading)
    except (ValueError, OSError, EOFError, RuntimeError) as error:
        raise Unreadable(f"cannot be read beyond record {number}: {error}") from error
    if number == 0:
        reading.problem("no response in it")


def _document(record: Any, number: int, converted: bool, reading: Reading) -> Iterator[Row]:
    tally = reading.tally
    if converted:
        kind, hint = "text/plain", "utf-8"
    else:
        http = record.http_headers
        if http is None or http.status_code != 200:
            tally.skipped["web responses other than 200"] += 1
            return
        kind, hint = (record.http_content_type or "").lower(), record.http_charset or ""
    if not kind.startswith((*_PAGES, "text/plain")):
        tally.skipped["web responses that are no pages"] += 1
        return
    data = record.reader.read(MAX_PAGE)
    if data[:2] == b"\x1f\x8b" or binary_kind(data[: 1 << 16]):
        tally.skipped["web responses that are no pages"] += 1
        return
    if kind.startswith(_PAGES):
        text, decoded = page_text(data, reading, hint)
    else:
        decoded = Utf8([data], hint=hint)
        text = b"".join(decoded).decode()
    tally.encodings[decoded.encoding] += 1
    meta = {"url": (record.headers.get("WARC-Target-URI") or "")[:300], "date": record.headers.get("WARC-Date") or ""}
    yield from reading.long(f"{reading.item.source}:{number}", text, dump({key: v for key, v in meta.items() if v}))
