"""What readers give: rows of one document, and batches of many. Touches nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from textmill.corpus.texts import Texts

BATCH_BYTES = 2 << 20
"""Size at which a batch is handed on: large enough for whole-batch kernels, small enough for the cache."""

BATCH_ROWS = 20_000


class Row(NamedTuple):
    """One document as read.

    Attributes:
        source: path, path:record or path#piece.
        text: valid UTF-8, not cleaned.
        meta: a record's other short fields, JSON.
        unreadable: why it is no text at all, "" when it is.
        raw_bytes: of the file, where it is no text.
    """

    source: str
    text: bytes
    meta: str = "{}"
    unreadable: str = ""
    raw_bytes: int = 0


@dataclass
class Drafts:
    """Many documents as read, one row each.

    Attributes:
        texts: valid UTF-8, not cleaned.
        sources: path, path:record or path#piece of each.
        metas: a record's other short fields, JSON.
        origin: the argument that led to all of them.
        kind: "text", "html", "jsonl", … or a programming language.
        unreadable: why a row is no text at all, "" when it is.
        raw_bytes: of the file behind a row that is no text, else the bytes of its text.
    """

    texts: Texts
    sources: list[str]
    metas: list[str]
    origin: str = ""
    kind: str = ""
    unreadable: list[str] = field(default_factory=list)
    raw_bytes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.unreadable:
            self.unreadable = [""] * len(self.sources)
        if not self.raw_bytes:
            self.raw_bytes = self.texts.sizes.tolist()

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def bytes(self) -> int:
        """Bytes of all texts."""
        return int(self.texts.offsets[-1])

    @classmethod
    def from_rows(cls, rows: list[Row]) -> Drafts:
        """A batch of single documents."""
        return cls(
            Texts.from_bytes([row.text for row in rows]),
            [row.source for row in rows],
            [row.meta for row in rows],
            unreadable=[row.unreadable for row in rows],
            raw_bytes=[row.raw_bytes if row.unreadable else len(row.text) for row in rows],
        )

    def without_empty(self) -> Drafts:
        """Only rows that hold text, or say why they hold none."""
        sizes = self.texts.sizes
        if len(sizes) == 0 or sizes.min() > 0:
            return self
        flags = (sizes > 0) | np.array([bool(reason) for reason in self.unreadable])
        rows = np.flatnonzero(flags)
        kept = rows.tolist()
        return Drafts(
            Texts.from_arrow(self.texts.to_arrow().take(pa.array(rows))),
            [self.sources[row] for row in kept],
            [self.metas[row] for row in kept],
            self.origin,
            self.kind,
            [self.unreadable[row] for row in kept],
            [self.raw_bytes[row] for row in kept],
        )


def to_utf8(text: str) -> bytes:
    """UTF-8 of a string that may hold halves of a surrogate pair: pairs are joined, lone ones become U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def texts_of(strings: list[str]) -> Texts:
    """Many strings as one buffer, without a step of Python for each."""
    try:
        return Texts.from_arrow(pa.array(strings, pa.large_string()))
    except UnicodeEncodeError:
        return Texts.from_bytes([to_utf8(text) for text in strings])


class Gatherer:
    """Gathers what the files of a chunk give into batches of one origin and kind.

    A folder that mixes formats would otherwise give a batch a file. Batches of different kinds may therefore leave
    in another order than their files came in; the order depends on the chunk alone.
    """

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], list[Drafts | Row]] = {}
        self._bytes: dict[tuple[str, str], int] = {}

    def add(self, origin: str, kind: str, found: Iterable[Drafts | Row]) -> Iterator[Drafts]:
        """Take one file's documents; give the batches that are full."""
        key = (origin, kind)
        for item in found:
            waiting = self._waiting.setdefault(key, [])
            waiting.append(item)
            size = item.bytes + 100 * len(item) if isinstance(item, Drafts) else len(item.text) + 100
            self._bytes[key] = self._bytes.get(key, 0) + size
            if self._bytes[key] >= BATCH_BYTES or len(waiting) >= BATCH_ROWS:
                yield from self._batch(key)

    def rest(self) -> Iterator[Drafts]:
        """The batches that did not get full."""
        for key in list(self._waiting):
            yield from self._batch(key)

    def _batch(self, key: tuple[str, str]) -> Iterator[Drafts]:
        waiting = self._waiting.pop(key, [])
        self._bytes.pop(key, None)
        parts: list[Drafts] = []
        rows: list[Row] = []
        for item in waiting:
            if isinstance(item, Row):
                rows.append(item)
                continue
            if rows:
                parts.append(Drafts.from_rows(rows))
                rows = []
            parts.append(item)
        if rows:
            parts.append(Drafts.from_rows(rows))
        joined = parts[0] if len(parts) == 1 else _joined(parts)
        joined.origin, joined.kind = key
        joined = joined.without_empty()
        if len(joined):
            yield joined


def _joined(parts: list[Drafts]) -> Drafts:
    def column(name: str) -> list[str]:
        return [value for part in parts for value in getattr(part, name)]

    return Drafts(
        Texts.concatenate([part.texts for part in parts]),
        column("sources"),
        column("metas"),
        unreadable=column("unreadable"),
        raw_bytes=[value for part in parts for value in part.raw_bytes],
    )
