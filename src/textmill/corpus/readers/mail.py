"""Mail: .eml files and mailboxes (.mbox). A message is a document: its text part, else its HTML part as text."""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Iterator
from email.message import EmailMessage, Message
from typing import BinaryIO

from textmill.corpus.cleaning.html import html_text
from textmill.corpus.encoding import Utf8
from textmill.corpus.readers.drafts import Row
from textmill.corpus.readers.reading import Reading, dump
from textmill.corpus.readers.streams import blocks

MAX_MESSAGE = 64 << 20
_FROM = re.compile(rb"^From (?=\S+.*\d{4})", re.M)
_ESCAPED = re.compile(r"^>(>*From )", re.M)
_MAX_PARTS = 1_000


def read(stream: BinaryIO, reading: Reading) -> Iterator[Row]:
    """A document for every message."""
    source = reading.item.source
    if reading.item.kind == ".eml":
        data = stream.read(MAX_MESSAGE + 1)
        if len(data) > MAX_MESSAGE:
            reading.problem("a message beyond 64 MB; its beginning is read")
        yield from _message(data[:MAX_MESSAGE], source, reading, None)
        return
    for number, data in enumerate(_messages(stream, reading), 1):
        yield from _message(data, f"{source}:{number}", reading, number)


def _messages(stream: BinaryIO, reading: Reading) -> Iterator[bytes]:
    """The messages of a mailbox: each begins with a `From ` line, at the beginning or below an empty line."""
    waiting = bytearray()
    scanned = 0
    dropped = False
    for block in blocks(stream):
        waiting += block.replace(b"\r\n", b"\n")
        while (at := waiting.find(b"\nFrom ", scanned)) >= 0:
            line_end = waiting.find(b"\n", at + 6)
            if line_end < 0:
                break
            if (at == 0 or waiting[at - 1 : at] == b"\n") and _FROM.match(bytes(waiting[at + 1 : line_end])):
                if not dropped:
                    yield bytes(waiting[:at])
                dropped = False
                del waiting[: at + 1]
                scanned = 0
            else:
                scanned = at + 1
        else:
            scanned = max(0, len(waiting) - 6)
        if len(waiting) > MAX_MESSAGE:
            if not dropped:
                reading.problem("a message beyond 64 MB; its beginning is read")
                yield bytes(waiting[:MAX_MESSAGE])
            dropped = True
            del waiting[:-8]
            scanned = 0
    if waiting.strip() and not dropped:
        yield bytes(waiting)


def _message(data: bytes, source: str, reading: Reading, number: int | None) -> Iterator[Row]:
    reading.tally.count("records")
    if data.startswith(b"From "):
        data = data.partition(b"\n")[2]
    try:
        message = email.message_from_bytes(data, policy=email.policy.default)
        text = _text(message, reading)
        about = {name.lower(): _header(message, name) for name in ("Subject", "From", "Date")}
    except (ValueError, LookupError, TypeError, AttributeError, IndexError, RecursionError, AssertionError) as error:
        reading.problem(f"a broken message ({type(error).__name__})", number)
        return
    if number is not None:
        text = _ESCAPED.sub(r"\1", text)
    yield from reading.long(source, text, dump({key: value for key, value in about.items() if value} or {}))


def _header(message: Message, name: str) -> str:
    try:
        value = str(message.get(name, ""))
    except (ValueError, IndexError, AttributeError, TypeError):
        return ""
    return " ".join(value.split())[:300].encode("utf-8", "replace").decode()


def _text(message: EmailMessage | Message, reading: Reading) -> str:
    plain: list[str] = []
    pages: list[str] = []
    for count, part in enumerate(message.walk()):
        if count > _MAX_PARTS:
            break
        kind = part.get_content_type()
        if part.is_multipart():
            continue
        if part.get_filename() or part.get_content_disposition() == "attachment" or not kind.startswith("text/"):
            reading.tally.skipped["attachments"] += 1
            continue
        raw = part.get_payload(decode=True)
        if not isinstance(raw, bytes):
            continue
        decoded = Utf8([raw], hint=part.get_content_charset() or "")
        content = b"".join(decoded).decode()
        reading.tally.encodings[decoded.encoding] += 1
        if kind == "text/html":
            pages.append(content)
        elif kind == "text/plain":
            plain.append(content)
    text = "\n\n".join(one for one in plain if one.strip())
    return text or "\n\n".join(html_text(page.replace("\0", ""), "none") for page in pages)
