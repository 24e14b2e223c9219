"""MediaWiki dumps: a page is a document, its markup turned into text. Bounded memory; pages that are no articles are
counted and left out."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from typing import Any

from textmill.corpus.chunks import FileBytes, Part
from textmill.corpus.readers.drafts import Row, to_utf8
from textmill.corpus.readers.markup import Events
from textmill.corpus.readers.reading import Reading, Unreadable, dump

MAX_PAGE = 16 << 20
_DUMP = re.compile(rb"<mediawiki[\s>]")
_REDIRECT = re.compile(r"\s*#\s*(redirect|重定向|weiterleitung|redirection|redirección|перенаправление|転送)\b", re.I)

_DROPPED = re.compile(
    r"<!--.{0,50000}?-->|<(ref|gallery|math|timeline|score|graph|imagemap|templatedata|mapframe|chem|hiero|categorytree"
    r"|syntaxhighlight|source)\b(?:[^>/]|/(?!>))*(?:/>|>.{0,20000}?</\1\s*>)",
    re.S | re.I,
)
_TEMPLATE = re.compile(r"\{\{((?:[^{}]|(?<!\{)\{(?!\{)|\}(?!\}))*)\}\}")
_TABLE = re.compile(r"^[ :]*\{\|(?:(?!^[ :]*\{\|).)*?^\s*\|\}", re.S | re.M)
_LINK = re.compile(r"\[\[([^\[\]|]*)(?:\|([^\[\]]*))?\]\]")
_WEB = re.compile(r"\[(?:https?:|ftp:|mailto:)?//[^\s\]]+\s*([^\]]*)\]")
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,500}>")
_BREAK = re.compile(r"<(?:br|p|div|li|tr|/p|/div)\b[^<>]{0,200}>", re.I)
_QUOTES = re.compile(r"'{2,5}")
_HEADING = re.compile(r"^(={1,6})[ \t]*([^\n]{1,500}?)[ \t]*\1[ \t]*$", re.M)
_MAGIC = re.compile(r"__[A-Z]{3,30}__|-\{(?:[^{}|]*\|)?([^{};]*?)(?:;[^{}]*)?\}-")
_LIST = re.compile(r"^[*#:;]+\s*", re.M)
_LEFT = re.compile(r"^(?:\s*[|!][^\n]*|\{\|[^\n]*|\s*\|\}|\}\}+|\s*\{\{+[^\n]*)$\n?", re.M)
_EMPTY = re.compile(r"\n{3,}")
_HOLLOW = re.compile(r" ?[(（][\s,;，；、]*[)）]")
_NAMESPACE = re.compile(r"^:?\s*([^:\[\]|]{1,30}):")
_MEDIA = frozenset({
    "file", "image", "media", "category", "datei", "bild", "kategorie", "fichier", "catégorie", "archivo",
    "imagen", "categoría", "immagine", "categoria", "ficheiro", "файл", "категория", "изображение", "ファイル",
    "画像", "カテゴリ", "文件", "图像", "圖像", "档案", "檔案", "分类", "分類", "bestand", "categorie", "plik",
    "grafika", "kategoria", "wikipedia",
})  # fmt: skip
_ENDS = frozenset({
    "references", "external links", "see also", "notes", "further reading", "bibliography", "参考文献", "外部链接",
    "外部連結", "参见", "參見", "注释", "einzelnachweise", "weblinks", "siehe auch", "références", "liens externes",
    "voir aussi", "referencias", "enlaces externos", "véase también",
})  # fmt: skip
"""Sections that hold lists of links: they and what follows within them are left out."""

_ROUNDS = 12


def is_dump(head: bytes) -> bool:
    """Whether a file that begins with `head` is a MediaWiki dump."""
    return _DUMP.search(head[:4096]) is not None


def page_ranges(data: FileBytes, encoding: str, size: int) -> list[tuple[Part, int]]:
    """Byte ranges of whole pages; none when this is no dump."""
    if encoding != "utf-8" or not is_dump(data[:4096]):
        return []
    parts: list[tuple[Part, int]] = []
    start = data.find(b"<page>", 0)
    if start < 0:
        return []
    last = data.rfind(b"</page>", start, len(data)) + len(b"</page>")
    first = 0
    while start < last:
        end = last
        if last - start > size * 3 // 2:
            found = data.find(b"<page>", start + size)
            end = found if 0 <= found < last else last
        stop = len(data) if end == last else end
        parts.append((Part("pages", start, end, first, encoding=encoding), stop - (start if parts else 0)))
        first += data[start:end].count(b"<page>") if end - start < 1 << 28 else 0
        start = end
    return parts


def _template(match: re.Match[str]) -> str:
    """What a template shows, for the few that stand in the middle of sentences; nothing for all others."""
    fields = match.group(1).split("|")
    name = fields[0].strip().lower()
    values = [field for field in fields[1:] if "=" not in field]
    if name in ("lang", "transl", "abbr", "nihongo", "nowrap", "small", "ill"):
        return values[1 if name in ("lang", "transl") and len(values) > 1 else 0] if values else ""
    if name in ("convert", "cvt") and len(values) > 1:
        return f"{values[0]} {values[1]}"
    return "–" if name in ("ndash", "snd", "spnd", "–") else ""


def _linked(match: re.Match[str]) -> str:
    target, shown = match.group(1), match.group(2)
    space = _NAMESPACE.match(target)
    if space is not None and not target.startswith(":") and space.group(1).strip().lower() in _MEDIA:
        return ""
    if space is not None and shown is None and re.fullmatch(r"[a-z]{2,3}(-[a-z]+)?", space.group(1)):
        return ""  # the same page in another language
    if shown is None:
        return target.lstrip(":").partition("#")[0] or target
    return shown.rpartition("|")[2] if "|" in shown else shown


def wikitext(text: str) -> str:
    """Readable text of a page's markup: prose, headings and list entries, without templates, tables and references."""
    text = _DROPPED.sub("", text)
    for _ in range(_ROUNDS):
        text, count = _TEMPLATE.subn(_template, text)
        if not count:
            break
    for _ in range(3):
        text, count = _TABLE.subn("", text)
        if not count:
            break
    for _ in range(4):
        text, count = _LINK.subn(_linked, text)
        if not count:
            break
    text = _WEB.sub(r"\1", text)
    text = _MAGIC.sub(lambda match: match.group(1) or "", text)
    text = _TAG.sub("", _BREAK.sub("\n", text))
    text = _QUOTES.sub("", text)
    text = _LEFT.sub("", text)
    text = _HOLLOW.sub("", html.unescape(text))
    text = _LIST.sub("", _without_link_lists(text))
    return _EMPTY.sub("\n\n", text).strip()


def _without_link_lists(text: str) -> str:
    """Headings without their marks; sections of links, and headings below which nothing stands, left out."""
    parts: list[str] = []
    pieces = _HEADING.split(text)
    parts.append(pieces[0])
    skipping = 0
    for at in range(1, len(pieces), 3):
        level, title, body = len(pieces[at]), pieces[at + 1], pieces[at + 2]
        if skipping and level > skipping:
            continue
        skipping = level if title.strip().lower() in _ENDS else 0
        if skipping:
            continue
        following = len(pieces[at + 3]) if at + 3 < len(pieces) else 0
        if body.strip() or following > level:
            parts.append(f"{title}\n{body.lstrip()}" if title else body)
    return "".join(parts)


class _Pages:
    """Collects pages as the parser meets them."""

    def __init__(self) -> None:
        self.done: list[dict[str, Any]] = []
        self.page: dict[str, Any] | None = None
        self.field: list[str] | None = None
        self.length = 0
        self.within: list[str] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.within.append(name)
        if name == "page":
            self.page = {}
        elif self.page is not None:
            if name == "redirect":
                self.page["redirect"] = True
            wanted = name in ("title", "ns", "text", "format", "model")
            if wanted or (name == "id" and self.within[-2] == "page"):
                self.field, self.length = [], 0

    def end(self, name: str) -> None:
        if self.within:
            self.within.pop()
        if self.page is None:
            return
        if name == "page":
            self.done.append(self.page)
            self.page = None
        elif self.field is not None and name in ("title", "ns", "text", "id", "format", "model"):
            self.page[name] = "".join(self.field)
            self.field = None

    def text(self, data: str) -> None:
        if self.field is not None:
            self.length += len(data)
            if self.length <= MAX_PAGE:
                self.field.append(data)


def pages(blocks: Iterable[bytes], reading: Reading) -> Iterator[Row]:
    """A document for every article of a dump; its last revision where there are several."""
    found = _Pages()
    events = Events(found.start, found.end, found.text)
    number = reading.part.first
    broken: Unreadable | None = None
    try:
        for block in blocks:
            for start in range(0, len(block), 1 << 18):
                events.feed(block[start : start + (1 << 18)])
                for page in found.done:
                    number += 1
                    yield from _document(page, number, reading)
                found.done.clear()
        events.feed(b"", True)
    except Unreadable as error:
        broken = error
    for page in found.done:
        number += 1
        yield from _document(page, number, reading)
    if reading.part.index <= 1:
        reading.tally.encodings["utf-8"] += 1
    if broken is not None:
        reading.problem(f"{broken}; the pages before are kept", number + 1)


def _document(page: dict[str, Any], number: int, reading: Reading) -> Iterator[Row]:
    tally = reading.tally
    tally.count("records")
    text = page.get("text", "")
    if page.get("ns", "0").strip() not in ("0", ""):
        tally.skipped["wiki pages that are no articles"] += 1
    elif page.get("redirect") or _REDIRECT.match(text):
        tally.skipped["wiki redirects"] += 1
    elif page.get("model", "wikitext") != "wikitext":
        tally.skipped["wiki pages that are no articles"] += 1
    else:
        title = page.get("title", "")
        meta = {"title": title[:300], "id": page.get("id", "")}
        shown = wikitext(text)
        whole = f"{title}\n\n{shown}" if shown else ""
        yield from reading.long(f"{reading.item.source}:{number}", to_utf8(whole), dump(meta))
