"""What every reader is given, and what several of them share. Touches nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from textmill.base.errors import UsageError
from textmill.corpus.chunks import WHOLE, Part
from textmill.corpus.cleaning.text import pieces
from textmill.corpus.config import CorpusConfig
from textmill.corpus.encoding import Utf8
from textmill.corpus.inputs import Input
from textmill.corpus.readers.drafts import Row, to_utf8
from textmill.corpus.tally import Tally

TEXT_COLUMNS = (
    "text", "content", "body", "raw_content", "document", "article", "story", "passage", "paragraph",
    "extract", "review", "message", "paragraphs", "lines", "正文", "内容", "文本",
)  # fmt: skip

META_CHARACTERS = 300
_NAME = 40
"""Characters of a column's name in messages."""


class Unreadable(Exception):
    """The file, or the rest of it, cannot be read; the message says why."""


@dataclass
class Reading:
    """The file being read, the settings, and where counts go."""

    item: Input
    config: CorpusConfig
    tally: Tally
    part: Part = WHOLE
    raw_bytes: int = 0
    """Bytes that this part takes of the file."""
    depth: int = 0
    """How many archives the file lies in."""

    def problem(self, text: str, record: int | str | None = None) -> None:
        """Count a problem of the file, or of one of its records."""
        self.tally.problem(self.item.source if record is None else f"{self.item.source}:{record}", text)

    def encoded(self, text: Utf8) -> None:
        """Count the encoding of a text that was read to its end."""
        if self.part.index <= 1:
            self.tally.encodings[text.encoding] += 1
        if text.damaged:
            self.problem(f"{text.damaged} places are not {text.encoding} and became U+FFFD")

    def long(self, source: str, text: str | bytes, meta: str = "{}") -> Iterator[Row]:
        """One document, in numbered pieces when it is long."""
        size = self.config.max_document_characters
        if len(text) > 2 * size:
            string = text if isinstance(text, str) else text.decode()
            if len(string) > 2 * size:
                for number, piece in pieces([string], size):
                    yield Row(f"{source}#{number}", to_utf8(piece), meta)
                return
        yield Row(source, to_utf8(text) if isinstance(text, str) else text, meta)

    def missing_column(self, columns: list[str]) -> None:
        """Count that no column of the file holds text; a table without columns is empty, and that is no problem."""
        columns = [name if len(name) <= _NAME else name[: _NAME - 1] + "…" for name in columns if name]
        if not columns:
            self.tally.skipped["empty tables"] += 1
            return
        self.tally.missing_columns.setdefault(self.item.source, columns)
        more = ", …" if len(columns) > 12 else ""
        self.problem(f"no text column (name one with --text-column): {', '.join(columns[:12])}{more}")


def missing_extra(what: str, extra: str) -> UsageError:
    """The error for a format whose package is not installed; readers count it instead of raising it."""
    return UsageError(
        f"{what} cannot be read.", "The package for it is not installed.", f'Type: pip install "textmill[{extra}]"'
    )


def text_key(columns: list[str], strings: list[str], wanted: str | None) -> str | None:
    """The column that holds the text: the wanted one, else a usual name, else the only column of strings."""
    if wanted is not None:
        return wanted if wanted in columns else None
    by_name = {name.strip().lower(): name for name in reversed(columns)}
    for usual in TEXT_COLUMNS:
        if usual in by_name:
            return by_name[usual]
    return strings[0] if len(strings) == 1 else None


def text_of(value: Any) -> str | None:
    """The text that a record's field holds: a string, or a list of strings, one a line; None when it holds none."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(type(one) is str for one in value):
        return "\n".join(value)
    return None


def _is_short(value: Any) -> bool:
    kind = type(value)
    if kind is str:
        return 0 < len(value) <= META_CHARACTERS
    if kind is float:
        return math.isfinite(value)
    return kind is int or kind is bool


def meta_of(record: dict[str, Any], key: str | None) -> str:
    """A record's other short fields (numbers, and strings up to 300 characters) as compact JSON."""
    short = {name: value for name, value in record.items() if name != key and name is not None and _is_short(value)}
    return dump(short) if short else "{}"


def dump(short: dict[str, Any]) -> str:
    """Compact JSON; halves of surrogate pairs become U+FFFD, integers may have any length."""
    try:
        return orjson.dumps(short).decode()
    except (TypeError, ValueError):
        import json

        return to_utf8(json.dumps(short, ensure_ascii=False, separators=(",", ":"))).decode()
