"""Word documents (.docx): paragraphs, lists, tables and footnotes, in their order."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from typing import BinaryIO, cast

from textmill.corpus.readers.drafts import Row, to_utf8
from textmill.corpus.readers.markup import Events
from textmill.corpus.readers.reading import Reading, Unreadable
from textmill.corpus.readers.streams import seekable

MAX_PART = 256 << 20
"""Bytes of one part of the package that are unpacked."""

_ENCRYPTED = 1


class Package:
    """The parts of a zip package, none of which may be encrypted or a bomb."""

    def __init__(self, file: BinaryIO) -> None:
        try:
            self.archive = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            head = (file.seek(0), file.read(4))[1]
            old = head == b"\xd0\xcf\x11\xe0"
            raise Unreadable("encrypted, or in an old Office format" if old else f"cannot be read: {error}") from error
        self.names = set(self.archive.namelist())

    def open(self, name: str) -> BinaryIO:
        """One part."""
        info = self.archive.getinfo(name)
        if info.flag_bits & _ENCRYPTED:
            raise Unreadable("encrypted")
        if info.file_size > MAX_PART or info.file_size > max(64 << 20, 200 * info.compress_size):
            raise Unreadable(f"refused: {name} unpacks to {info.file_size >> 20} MB")
        return cast(BinaryIO, self.archive.open(info))


class _Words:
    """Collects text from the elements of WordprocessingML."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._taking = False
        self._cell = 0
        self._deleted = 0
        self._row: list[list[str]] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        del attributes
        if name in ("del", "moveFrom", "instrText", "Fallback"):
            self._deleted += 1
        elif name == "t":
            self._taking = True
        elif name == "tc":
            self._cell += 1
            self._row.append(self.parts)
            self.parts = []
        elif name in ("tab", "ptab") and not self._deleted:
            self.parts.append("\t")
        elif name in ("br", "cr"):
            self.parts.append("\n")
        elif name == "noBreakHyphen":
            self.parts.append("-")

    def end(self, name: str) -> None:
        if name in ("del", "moveFrom", "instrText", "Fallback"):
            self._deleted -= 1
        elif name == "t":
            self._taking = False
        elif name == "p":
            self.parts.append(" " if self._cell else "\n")
        elif name == "tc" and self._row:
            self._cell -= 1
            cell = " ".join("".join(self.parts).split())
            self.parts = self._row.pop()
            self.parts.append(cell + "\t")
        elif name == "tr":
            if self.parts and self.parts[-1].endswith("\t"):
                self.parts[-1] = self.parts[-1][:-1]
            self.parts.append("\n")

    def text(self, data: str) -> None:
        if self._taking and not self._deleted:
            self.parts.append(data)


def _part(package: Package, name: str) -> str:
    words = _Words()
    with package.open(name) as stream:
        Events(words.start, words.end, words.text).run(stream)
    lines = [line.strip(" ") for line in "".join(words.parts).split("\n")]
    return "\n".join(lines).strip("\n")


def read(stream: BinaryIO, reading: Reading) -> Iterator[Row]:
    """One document, or pieces of it; notes follow at its end."""
    with seekable(stream) as file:
        package = Package(file)
        if "word/document.xml" not in package.names:
            raise Unreadable("not a Word document (it has no word/document.xml)")
        parts = [_part(package, "word/document.xml")]
        for name in ("word/footnotes.xml", "word/endnotes.xml"):
            if name in package.names:
                try:
                    parts.append(_part(package, name))
                except Unreadable as error:
                    reading.problem(f"notes left out: {error}")
    yield from reading.long(reading.item.source, to_utf8("\n\n".join(part for part in parts if part)))
