"""Translations (.po, .mo): a translated message is a document, what it translates is in its `meta`."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

from textmill.corpus.encoding import Utf8
from textmill.corpus.readers.drafts import Row, to_utf8
from textmill.corpus.readers.reading import META_CHARACTERS, Reading, Unreadable, dump, missing_extra

MAX_FILE = 64 << 20
_CHARSET = re.compile(rb"charset=([A-Za-z0-9_.:-]{2,30})")


def read(stream: BinaryIO, reading: Reading) -> Iterator[Row]:
    """A document for every message that is translated and not marked as doubtful."""
    try:
        import polib
    except ImportError as error:
        raise missing_extra("gettext", "documents") from error
    data = stream.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise Unreadable("translations beyond 64 MB")
    declared = _CHARSET.search(data)
    hint = declared.group(1).decode() if declared and declared.group(1) != b"CHARSET" else ""
    try:
        if reading.item.kind == ".mo":
            entries: Any = _compiled(polib, data)
            encoding = hint or "utf-8"
        else:
            decoded = Utf8([data], hint=hint)
            entries = polib.pofile(b"".join(decoded).decode().replace("\0", ""))
            encoding = decoded.encoding
    except (OSError, ValueError, IndexError, KeyError, AttributeError, struct.error) as error:
        raise Unreadable(f"not a gettext file that can be read ({str(error)[:100] or type(error).__name__})") from error
    reading.tally.encodings[encoding.lower()] += 1
    language = str(entries.metadata.get("Language", ""))
    for number, entry in enumerate(entries, 1):
        reading.tally.count("records")
        said = entry.msgstr or (entry.msgstr_plural.get(max(entry.msgstr_plural), "") if entry.msgstr_plural else "")
        if not said.strip() or entry.obsolete or "fuzzy" in entry.flags:
            reading.tally.skipped["messages without a sure translation"] += 1
            continue
        meta = {"msgid": entry.msgid[:META_CHARACTERS], **({"language": language} if language else {})}
        yield from reading.long(f"{reading.item.source}:{number}", to_utf8(said), dump(meta))


def _compiled(polib: Any, data: bytes) -> Any:
    """A .mo file; the library reads those from a path alone."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "messages.mo"
        path.write_bytes(data)
        return polib.mofile(str(path))
