"""Plain text, Markdown and source code: a file is a document, a large one is cut into pieces."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from textmill.corpus.cleaning.text import pieces
from textmill.corpus.encoding import Utf8, binary_kind
from textmill.corpus.readers.drafts import Row, to_utf8
from textmill.corpus.readers.reading import Reading
from textmill.corpus.readers.streams import BLOCK, blocks

HEAD = 1 << 16
"""First bytes in which binary data must show itself."""


def limited(stream: BinaryIO, reading: Reading) -> Iterator[bytes]:
    """The part of a stream that is to be read, in blocks."""
    part = reading.part
    if part.start:
        stream.seek(part.start)
    return blocks(stream, BLOCK, part.stop - part.start if part.stop else None)


def text_blocks(stream: BinaryIO, reading: Reading, hint: str = "", newlines: bool = True) -> Utf8 | Row:
    """The text of a file as UTF-8 blocks, or the row that says what else it is."""
    found = limited(stream, reading)
    head = next(found, b"")
    if reading.part.index <= 1 and (kind := binary_kind(head[:HEAD])):
        return Row(reading.item.source, b"", unreadable=kind, raw_bytes=reading.item.size)
    return Utf8(itertools.chain([head], found), hint=hint, encoding=reading.part.encoding, newlines=newlines)


def read(stream: BinaryIO, reading: Reading) -> Iterator[Row]:
    """One document, or pieces of it."""
    text = text_blocks(stream, reading)
    if isinstance(text, Row):
        yield text
        return
    size = reading.config.max_document_characters
    source = reading.item.source
    waiting: list[bytes] = []
    length = 0
    following = iter(text)
    for block in following:
        waiting.append(block)
        length += len(block)
        if length > 2 * size:
            break
    else:
        index = reading.part.index
        yield Row(f"{source}#{index}" if index else source, b"".join(waiting))
        reading.encoded(text)
        return
    # Between two parts of a file lies a character that `Utf8` holds back, so each block decodes on its own.
    strings: Iterable[str] = (block.decode() for block in itertools.chain(waiting, following))
    index = reading.part.index
    whole, name = (f"{source}#{index}", f"{source}#{index}.") if index else (source, f"{source}#")
    for number, piece in pieces(strings, size):
        yield Row(f"{name}{number}" if number else whole, to_utf8(piece))
    reading.encoded(text)
