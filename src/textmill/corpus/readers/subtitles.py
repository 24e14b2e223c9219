"""Subtitles (.srt, .vtt, .ass, .ssa): what is said, without times and styles; lines that roll up are said once."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import BinaryIO

from textmill.corpus.readers.drafts import Row, to_utf8
from textmill.corpus.readers.prose import text_blocks
from textmill.corpus.readers.reading import Reading, Unreadable

MAX_FILE = 64 << 20
PAUSE = 4.0
"""Seconds of silence that begin a new paragraph."""

_TIMES = re.compile(r"\s*((?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3})\s*-->\s*((?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3})")
_TAG = re.compile(r"</?[a-zA-Z][^<>\n]{0,200}>|<\d[\d:.]*>|\{\\[^{}]*\}")
_DRAWING = re.compile(r"\{[^{}]*\\p[1-9][^{}]*\}.*?(?:\{[^{}]*\\p0[^{}]*\}|$)", re.S)
_LINE = re.compile(r"\\[Nn]")
_SPEAKER = re.compile(r"<v(?:\.[^ >]+)? +[^>]{1,80}>")

Cue = tuple[float, float, list[str]]


def _seconds(time: str) -> float:
    total = 0.0
    for part in time.replace(",", ".").split(":"):
        total = 60 * total + float(part)
    return total


def _plain(text: str) -> list[str]:
    text = _TAG.sub("", _SPEAKER.sub("", text))
    return [line for one in html.unescape(text).split("\n") if (line := " ".join(one.split()))]


def _timed(text: str) -> Iterator[Cue]:
    """Cues of .srt and .vtt: a line of times, then text up to a blank line."""
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        found = _TIMES.match(lines[at])
        at += 1
        if found is None:
            continue
        said: list[str] = []
        while at < len(lines) and lines[at].strip() and not _TIMES.match(lines[at]):
            said.append(lines[at])
            at += 1
        if at < len(lines) and said and said[-1].strip().isdigit() and _TIMES.match(lines[at]):
            said.pop()  # the next cue's number, without a blank line before it
        yield _seconds(found.group(1)), _seconds(found.group(2)), _plain("\n".join(said))


def _styled(text: str) -> Iterator[Cue]:
    """Cues of .ass and .ssa: `Dialogue:` lines, whose fields a `Format:` line names."""
    names = ["layer", "start", "end", "style", "name", "marginl", "marginr", "marginv", "effect", "text"]
    events = False
    cues: list[Cue] = []
    for line in text.split("\n"):
        key, _, value = line.partition(":")
        key = key.strip().lower()
        if line.startswith("["):
            events = key == "[events]" or line.strip().lower() == "[events]"
        elif events and key == "format":
            names = [name.strip().lower() for name in value.split(",")]
        elif events and key == "dialogue":
            fields = dict(zip(names, value.split(",", len(names) - 1), strict=False))
            said = _LINE.sub("\n", _DRAWING.sub("", fields.get("text", ""))).replace("\\h", " ")
            try:
                cues.append((_seconds(fields["start"].strip()), _seconds(fields["end"].strip()), _plain(said)))
            except (KeyError, ValueError):
                continue
    yield from sorted(cues, key=lambda cue: cue[0])


def spoken(cues: Iterator[Cue]) -> tuple[str, int]:
    """What is said, lines of a paragraph joined by line ends, and the number of cues."""
    parts: list[str] = []
    recent: list[str] = []
    last = 0.0
    count = 0
    for start, end, lines in cues:
        count += 1
        fresh = _fresh(recent, lines)
        if fresh:
            if parts and start - last > PAUSE:
                parts.append("")
            parts.extend(fresh)
        if lines:
            recent = lines
        last = max(last, end)
    return "\n".join(parts), count


def _fresh(recent: list[str], lines: list[str]) -> list[str]:
    """The lines that were not shown already by the cue before: captions roll up, or grow word by word."""
    for overlap in range(min(len(recent), len(lines)), 0, -1):
        if recent[-overlap:] == lines[:overlap]:
            return lines[overlap:]
    return lines


def read(stream: BinaryIO, reading: Reading) -> Iterator[Row]:
    """One document."""
    text = text_blocks(stream, reading)
    if isinstance(text, Row):
        yield text
        return
    parts: list[bytes] = []
    length = 0
    for block in text:
        parts.append(block)
        length += len(block)
        if length > MAX_FILE:
            raise Unreadable("subtitles beyond 64 MB")
    whole = b"".join(parts).decode().replace("\0", "")
    said, count = spoken(_styled(whole) if reading.item.kind in (".ass", ".ssa") else _timed(whole))
    if count == 0 and whole.strip():
        reading.problem("no subtitles in it")
    reading.tally.count("records", count)
    yield from reading.long(reading.item.source, to_utf8(said))
    reading.encoded(text)
