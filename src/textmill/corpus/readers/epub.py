"""EPUB: the chapters of a book in the order of its spine, without its table of contents."""

from __future__ import annotations

import posixpath
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO
from urllib.parse import unquote

from textmill.corpus.cleaning.html import TooDeep, html_text
from textmill.corpus.readers.docx import Package
from textmill.corpus.readers.drafts import Row, to_utf8
from textmill.corpus.readers.html import MAX_PAGE
from textmill.corpus.readers.markup import Events
from textmill.corpus.readers.reading import Reading, Unreadable, dump
from textmill.corpus.readers.streams import seekable


class _Book:
    """What the package document says: chapters in order, title, language."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[str, str, str]] = {}
        self.spine: list[str] = []
        self.about: dict[str, str] = {}
        self._field = ""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "item":
            found = (attributes.get("href", ""), attributes.get("media-type", ""), attributes.get("properties", ""))
            self.files[attributes.get("id", "")] = found
        elif name == "itemref" and attributes.get("linear") != "no":
            self.spine.append(attributes.get("idref", ""))
        elif name in ("title", "language", "creator"):
            self._field = "" if name in self.about else name

    def end(self, name: str) -> None:
        if name == self._field:
            self._field = ""

    def text(self, data: str) -> None:
        if self._field:
            self.about[self._field] = (self.about.get(self._field, "") + data)[:300]


def _package_path(package: Package) -> str:
    found: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if name == "rootfile" and "full-path" in attributes:
            found.append(attributes["full-path"])

    with package.open("META-INF/container.xml") as stream:
        Events(start, lambda _: None, lambda _: None).run(stream)
    if not found:
        raise Unreadable("not an EPUB (it names no package document)")
    return found[0]


def read(stream: BinaryIO, reading: Reading) -> Iterator[Row]:
    """One document, or pieces of it; a broken chapter is counted and left out."""
    with seekable(stream) as file:
        package = Package(file)
        if "META-INF/encryption.xml" in package.names and "META-INF/rights.xml" in package.names:
            raise Unreadable("encrypted")
        path = _package_path(package)
        book = _Book()
        with package.open(path) as opf:
            Events(book.start, book.end, book.text).run(opf)
        chapters = list(_chapters(package, posixpath.dirname(path), book, reading))
    reading.tally.count("records", len(chapters))
    about = {name: value.strip() for name, value in book.about.items() if value.strip()}
    yield from reading.long(reading.item.source, to_utf8("\n\n".join(chapters)), dump(about) if about else "{}")


def _chapters(package: Package, folder: str, book: _Book, reading: Reading) -> Iterator[str]:
    for identity in book.spine:
        href, kind, properties = book.files.get(identity, ("", "", ""))
        if "html" not in kind or "nav" in properties.split():
            continue
        name = posixpath.normpath(posixpath.join(folder, unquote(href)))
        try:
            with package.open(name) as stream:
                page = stream.read(MAX_PAGE).decode("utf-8", "replace")
        except (KeyError, Unreadable, zipfile.BadZipFile, zlib.error, OSError) as error:
            reading.problem(f"a broken chapter ({error})", name)
            continue
        try:
            text = html_text(page, "none").strip()  # a chapter has no menus: all of it is text
        except TooDeep as error:
            reading.problem(f"a broken chapter ({error})", name)
            continue
        if text:
            yield text
