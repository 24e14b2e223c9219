"""One text made clean: newlines, mojibake, control characters, Unicode NFC; and long texts cut. Touches
nothing."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import NamedTuple

# What UTF-8 read as Latin-1 or Windows-1252 looks like: a lead byte's letter, then a continuation byte's
# character. Far too wide on purpose; ftfy decides, and is slow, so it only sees lines in which this is found.
_CONTINUATION = "\x80-\xbf\ufffd€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
_MOJIBAKE = re.compile(f"[Â-ß][{_CONTINUATION}]|[à-ô][{_CONTINUATION}]{{2}}|[\x80-\x9f]")
_TERMINAL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff\ufff9-\ufffb\ufffe\uffff]")
_PAGE = re.compile("[\x0b\x0c\u2028\u2029]")
_SENTENCE = ("。", "！", "？", ". ", "! ", "? ")

# The same on UTF-8 bytes, where finding that a clean text holds none of it is five times as fast.
_CONTROL_BYTES = bytes([*range(9), *range(11, 13), *range(14, 32), 127])
_NEXT = rb"[\xc2\xc5\xc6\xcb\xe2\xef]"
_MOJIBAKE_BYTES = re.compile(
    rb"\xc3(?:[\x82-\x9f]" + _NEXT + rb"|[\xa0-\xb4]" + _NEXT + rb"[\x80-\xbf]{1,2}" + _NEXT + rb")"
)
_C1_BYTES = re.compile(rb"\xc2[\x80-\x9f]")
_RARE_BYTES = (b"\xef\xbb\xbf", b"\xef\xbf", b"\xe2\x80\xa8", b"\xe2\x80\xa9")


class Cleaned(NamedTuple):
    """A cleaned text and its UTF-8 bytes, whether its encoding was repaired, and the share that was no text."""

    text: str
    utf8: bytes
    repaired: bool
    damage: float


def _repair(text: str) -> str:
    """Undo wrong decodings line by line, with ftfy's encoding rules alone (no quote, no ligature changes)."""
    from ftfy import fix_encoding

    lines = text.split("\n")
    for number, line in enumerate(lines):
        if _MOJIBAKE.search(line):
            lines[number] = fix_encoding(line)
    return "\n".join(lines)


def clean(text: str, repair: bool = True) -> Cleaned:
    """Clean one text.

    Line ends become `\\n`, form feeds and Unicode line separators too; wrongly decoded lines are repaired;
    control characters (NUL among them), byte order marks and lone surrogates go; the rest is put in Unicode
    NFC; blank lines at both ends go. Spaces and indentation stay as they are.

    Args:
        text: any string.
        repair: whether to look for mojibake.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    try:
        utf8 = text.encode()
    except UnicodeEncodeError:  # JSON may hold halves of a surrogate pair; whole pairs become their character
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        utf8 = text.encode()
    repaired = False
    length, damaged = len(text), 0
    controls = len(utf8.translate(None, _CONTROL_BYTES)) < len(utf8)
    if not text.isascii():
        c1 = _C1_BYTES.search(utf8) is not None
        if repair and (c1 or _MOJIBAKE_BYTES.search(utf8)):
            fixed = _repair(text)
            repaired, text = fixed != text, fixed
        if c1 or repaired or any(rare in utf8 for rare in _RARE_BYTES):
            controls = True
            damaged = text.count("\ufffd")
    if controls:
        text = _PAGE.sub("\n", text)
        if "\x1b" in text:
            text = _TERMINAL.sub("", text)
        text, removed = _CONTROL.subn("", text)
        damaged += removed
    whole = text
    text = unicodedata.normalize("NFC", text).lstrip("\n").rstrip()
    if controls or text != whole or repaired:
        utf8 = text.encode()
    return Cleaned(text, utf8, repaired, damaged / length if length else 0.0)


def boundary(text: str, size: int) -> int:
    """Where to cut `text` so that the first part has about `size` characters.

    The last blank line in the second half of the first `size` characters; else the last line end, sentence
    end or space there; else exactly `size`, but never between a letter and its combining marks.
    """
    start = size // 2
    for mark in ("\n\n", "\n"):
        found = text.rfind(mark, start, size)
        if found >= 0:
            return found + len(mark)
    ends = [found + len(mark) for mark in _SENTENCE if (found := text.rfind(mark, start, size)) >= 0]
    if ends:
        return max(ends)
    for mark in (" ", "\t", "\u3000"):
        found = text.rfind(mark, start, size)
        if found >= 0:
            return found + 1
    at = size
    while start < at < len(text) and (unicodedata.combining(text[at]) or text[at] in "\u200d\ufe0f"):
        at -= 1
    return at


def cut(text: str, size: int) -> Iterator[str]:
    """The whole of `text` in pieces of at most `size` characters; a small rest joins in by halving the
    last two."""
    start = 0
    while len(text) - start > size:
        left = len(text) - start
        window = text[start : start + size + 8]
        at = boundary(window, size if left >= 2 * size else min(size, (left + 1) // 2 + size // 8 + 1))
        yield text[start : start + at]
        start += at
    yield text[start:]


def document_pieces(text: str, size: int) -> Iterator[str]:
    """A cleaned document's pieces as they become documents of a small corpus: cut, without the blank ends."""
    for piece in cut(text, size):
        yield piece.strip("\n").rstrip()


def pieces(chunks: Iterable[str], size: int) -> Iterator[tuple[int, str]]:
    """Join text chunks into one document, or, beyond twice `size` characters, into numbered pieces of
    about `size`.

    Returns:
        (0, text) for a document left whole, (1, …), (2, …), … for pieces. Memory is bounded by the size.
    """
    number = 0
    waiting: list[str] = []
    length = 0
    for chunk in chunks:
        waiting.append(chunk)
        length += len(chunk)
        if length <= 2 * size:
            continue
        text, start = "".join(waiting), 0
        while len(text) - start > 2 * size:
            at = boundary(text[start : start + size + 8], size)
            number += 1
            yield number, text[start : start + at]
            start += at
        waiting, length = [text[start:]], len(text) - start
    text = "".join(waiting)
    if number == 0:
        yield 0, text
        return
    for piece in cut(text, size):
        number += 1
        yield number, piece
