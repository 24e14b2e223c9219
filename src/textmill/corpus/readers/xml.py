"""XML of any kind as its text, a paragraph an element; MediaWiki dumps, which are told by their first element, page
by page."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import BinaryIO

from textmill.corpus.encoding import binary_kind
from textmill.corpus.readers import mediawiki
from textmill.corpus.readers.drafts import Row, to_utf8
from textmill.corpus.readers.markup import Events
from textmill.corpus.readers.prose import limited
from textmill.corpus.readers.reading import Reading, Unreadable

MAX_TEXT = 64 << 20
"""Characters of an XML file's text that are kept; beyond, it is no document but a database."""

_SPACE = re.compile(r"[ \t\r\n]+")
_BREAKS = re.compile(r"\n{2,}")
_WITHIN = frozenset({
    "a", "abbr", "acronym", "b", "big", "bold", "c", "cite", "code", "command", "em", "emphasis", "emph",
    "filename", "font", "function", "hi", "i", "idx", "index", "indexterm", "italic", "kbd", "link", "literal",
    "m", "method", "option", "q", "quote", "r", "ref", "replaceable", "rs", "s", "samp", "seg", "small",
    "span", "strong", "sub", "sup", "systemitem", "tag", "term", "tt", "type", "u", "ulink", "underline",
    "userinput", "var", "varname", "w", "wordasword", "xref",
})  # fmt: skip
"""Elements that stand within a line in the usual vocabularies; every other one begins a paragraph."""


def read(stream: BinaryIO, reading: Reading) -> Iterator[Row]:
    """One document, or the pages of a dump."""
    blocks = limited(stream, reading)
    head = next(blocks, b"")
    if reading.part.unit == "pages":
        yield from mediawiki.pages(itertools.chain([b"<mediawiki>", head], blocks, [b"</mediawiki>"]), reading)
        return
    if kind := binary_kind(head[: 1 << 16]):
        yield Row(reading.item.source, b"", unreadable=kind, raw_bytes=reading.item.size)
        return
    if mediawiki.is_dump(head):
        yield from mediawiki.pages(itertools.chain([head], blocks), reading)
        return
    parts: list[str] = []
    length = 0

    def text(data: str) -> None:
        nonlocal length
        length += len(data)
        if length > MAX_TEXT:
            raise Unreadable(f"more than {MAX_TEXT >> 20} million characters in one XML file")
        parts.append(_SPACE.sub(" ", data))

    def mark(name: str) -> None:
        if name.lower() not in _WITHIN:
            parts.append("\n")

    events = Events(lambda name, _: mark(name), mark, text)
    broken: Unreadable | None = None
    try:
        for data in itertools.chain([head], blocks):
            events.feed(data)
        events.feed(b"", True)
    except Unreadable as error:
        if "refused" in str(error) or not any(part.strip() for part in parts):
            raise
        broken = error
    lines = (line.strip(" ") for line in "".join(parts).split("\n"))
    whole = _BREAKS.sub("\n", "\n".join(line for line in lines if line))
    yield from reading.long(reading.item.source, to_utf8(whole))
    reading.tally.encodings["utf-8"] += 1
    if broken is not None:
        reading.problem(f"{broken}; what came before is kept")
