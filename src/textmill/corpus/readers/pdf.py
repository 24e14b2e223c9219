"""PDF: the text of its pages, with words and sentences that lines and pages cut apart put together again."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import BinaryIO

from textmill.corpus.readers.drafts import Row, to_utf8
from textmill.corpus.readers.reading import Reading, Unreadable, dump, missing_extra
from textmill.corpus.readers.streams import seekable

MAX_PAGES = 20_000
_DIGITS = re.compile(r"\d+")
_NUMBER = re.compile(
    r"[\s\-–—.|/]*(?:page |p\. ?|第 ?)?(?:\d{1,5}|[ivxlcdm]{1,7})(?: ?(?:/|of) ?\d{1,5})?[\s\-–—.|]*(?:页|頁)?", re.I
)
_HYPHEN = re.compile(r"[^\W\d_]{2,}[-\u00ad\ufffe\x02]$")
_SOFT = re.compile(r"(?<=[^\W\d_])[\ufffe\x02]\n?(?=[^\W\d_A-Z])")
"""How the library marks a hyphen at a line's end, which it then joins with the next."""
_WIDE = re.compile(r"[\u2e80-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff00-\uffef]")
_END = tuple(".!?:;。！？：；…”»\"')）]")
_BULLET = re.compile(r"(?:[•‣◦▪●○*–-]|\(?\d{1,3}[.)]|[a-z][.)])\s")
_EDGE = 2
"""Lines at either end of a page among which running heads and feet are looked for."""


def read(stream: BinaryIO, reading: Reading) -> Iterator[Row]:
    """One document, or pieces of it."""
    try:
        import pypdfium2
    except ImportError as error:
        raise missing_extra("PDF", "documents") from error
    with seekable(stream) as file:
        data = file.read()
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        reason = str(error)
        encrypted = "password" in reason.lower()
        raise Unreadable("encrypted PDF" if encrypted else f"not a PDF that can be read ({reason})") from error
    try:
        count = len(document)
        if count > MAX_PAGES:
            reading.problem(f"a PDF of {count} pages; the first {MAX_PAGES} are read")
        pages = [_page(document, number, reading) for number in range(min(count, MAX_PAGES))]
        title = str(document.get_metadata_dict().get("Title", "")).strip()[:300]
    finally:
        document.close()
    if pages and not any(page for page in pages):
        reading.problem("a PDF without text: its pages are pictures")
    text = join_pages(pages)
    meta = {"pages": count, **({"title": title} if title else {})}
    reading.tally.count("records", len(pages))
    yield from reading.long(reading.item.source, to_utf8(text), dump(meta))


def _page(document: object, number: int, reading: Reading) -> list[str]:
    """The lines of a page; none, counted, when it is broken."""
    import pypdfium2

    try:
        page = document[number]  # type: ignore[index]
        try:
            textpage = page.get_textpage()
            try:
                text = textpage.get_text_bounded()
            finally:
                textpage.close()
        finally:
            page.close()
    except (pypdfium2.PdfiumError, ValueError, OSError) as error:
        reading.problem(f"a broken page ({error})", f"page {number + 1}")
        return []
    return [line.rstrip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]


def _without_running_lines(pages: list[list[str]]) -> list[list[str]]:
    """Pages without page numbers, and without the lines that stand at the same end of most pages."""
    stripped = [list(page) for page in pages]
    for page in stripped:
        while page and not page[0].strip():
            page.pop(0)
        while page and not page[-1].strip():
            page.pop()
    seen: Counter[tuple[str, str]] = Counter()
    full = [page for page in stripped if len(page) > _EDGE]
    for page in full:
        for end, lines in (("head", page[:_EDGE]), ("foot", page[-_EDGE:])):
            seen.update({(end, _DIGITS.sub("#", line).strip()) for line in lines})
    often = {key for key, times in seen.items() if times >= max(3, len(full) // 3) and key[1]}
    for page in stripped:
        for end, at in (("head", 0), ("foot", -1)):
            for _ in range(_EDGE):
                if page and (
                    (len(page) > 1 and _NUMBER.fullmatch(page[at].strip() or "x"))
                    or (end, _DIGITS.sub("#", page[at]).strip()) in often
                ):
                    page.pop(at)
    return stripped


def _goes_on(line: str, following: str, usual: int) -> bool:
    """Whether a line's sentence goes on in the next line: the line is about full, and neither ends nor begins one."""
    if not line or not following or line.endswith(_END) or _BULLET.match(following):
        return False
    if following[0].islower():
        return len(line) > 0.4 * usual
    return len(line) > 0.75 * usual and (following[0].isalnum() or following[0] in "(“\"'（「")


def join_pages(pages: list[list[str]]) -> str:
    """Lines to paragraphs, over the ends of pages too."""
    pages = _without_running_lines(pages)
    lengths = sorted(len(line) for page in pages for line in page if len(line) > 20)
    usual = lengths[int(0.8 * (len(lengths) - 1))] if lengths else 0
    parts: list[str] = []
    last = ""
    for page in pages:
        for line in page:
            line = line.strip(" \t")
            if last and line and _HYPHEN.search(last) and line[0].islower():
                parts[-1] = parts[-1][:-1] + line
            elif _goes_on(last, line, usual):
                wide = _WIDE.match(last[-1]) and _WIDE.match(line[0])
                parts[-1] += line if wide else f" {line}"
            else:
                parts.append(line)
            last = line
    text = _SOFT.sub("", "\n".join(parts)).replace("\ufffe", "-").replace("\x02", "-")
    return re.sub(r"\n{3,}", "\n\n", text).strip()
