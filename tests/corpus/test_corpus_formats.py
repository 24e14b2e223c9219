"""Each format gives its text and no more; broken files, pages and records are counted and the rest is kept."""

from __future__ import annotations

import bz2
import gzip
import itertools
import json
import re
import struct
import zipfile
from email.message import EmailMessage
from pathlib import Path

import pytest
from drafting import Read, read_all

NAMES = "abcdefghi"
DOUBLED = (f'<!ENTITY {name} "{2 * f"&{before};"}">' for before, name in itertools.pairwise(NAMES))
BILLION = f'<!DOCTYPE d [<!ENTITY a "ha">{"".join(DOUBLED)}]>'


@pytest.fixture
def read(tmp_path: Path):
    def reader(name: str, data: bytes | str, **settings: object) -> Read:
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return read_all(path, place=tmp_path, **settings)

    return reader


# PDF ------------------------------------------------------------------------------------------------------------


def pdf(pages: list[list[str]], broken: tuple[int, ...] = ()) -> bytes:
    """A PDF with these lines on its pages, written by hand."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{4 + 2 * at} 0 R" for at in range(len(pages)))
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode())
    objects.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for at, lines in enumerate(pages):
        page = f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents {5 + 2 * at} 0 R "
        page += "/Resources << /Font << /F1 3 0 R >> >> >>"
        objects.append(b"<< /Type /Nothing >>" if at in broken else page.encode())
        shown = "\n".join(f"1 0 0 1 40 {760 - 14 * row} Tm ({line}) Tj" for row, line in enumerate(lines))
        content = f"BT /F1 11 Tf\n{shown}\nET".encode()
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, start)
    return bytes(out)


PAGES = [
    ["The Ship's Log", "The captain wrote about the weather every single morning, and the uncer-",
     "tainty of the sea never left the pages of his book, which went on without", "any end.",
     "- New sails are needed.", "1"],
    ["The Ship's Log", "In the second month the crew had seen neither land nor another ship, and the", "2"],
    ["The Ship's Log", "mood on board was low. Then came a bird.", "3"],
]  # fmt: skip


def test_pdf_lines_and_pages_become_paragraphs(read) -> None:
    found = read("a.pdf", pdf(PAGES))
    assert found.problems == []
    (text,) = found.texts
    assert "every single morning, and the uncertainty of the sea" in text
    assert "without any end.\n- New sails are needed." in text
    assert "another ship, and the mood on board was low." in text
    assert text.count("The Ship's Log") <= 1
    assert not re.search(r"^\d$", text, re.M)
    assert json.loads(found.metas[0])["pages"] == 3
    assert found.kinds == ["pdf"]


def test_a_broken_page_is_counted_and_the_others_kept(read) -> None:
    found = read("a.pdf", pdf(PAGES, broken=(1,)))
    assert "low. Then came a bird." in found.texts[0]
    assert found.tally.problem_count == 1
    assert "broken page" in found.problems[0]
    assert found.tally.problems[0]["source"].endswith("page 2")


def test_what_is_no_pdf_is_a_problem(read) -> None:
    found = read("a.pdf", b"%PDF-1.4 nothing more")
    assert found.texts == []
    assert "not a PDF" in found.problems[0]
    assert found.card["problem_kinds"]


# Word, EPUB -----------------------------------------------------------------------------------------------------

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def package(path: Path, parts: dict[str, str | bytes]) -> bytes:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return path.read_bytes()


def paragraph(text: str) -> str:
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


def test_word_documents_give_paragraphs_tables_and_notes(tmp_path: Path, read) -> None:
    table = (
        "<w:tbl><w:tr>" + "".join(f"<w:tc>{paragraph(cell)}</w:tc>" for cell in ("Name", "价格")) + "</w:tr></w:tbl>"
    )
    body = (
        paragraph("First &amp; second.") + table + "<w:p><w:r><w:t>Split </w:t></w:r><w:r><w:t>run.</w:t></w:r></w:p>"
    )
    gone = "<w:p><w:del><w:r><w:delText>Old</w:delText><w:t>older</w:t></w:r></w:del><w:r><w:t>New.</w:t></w:r></w:p>"
    notes = f"<w:footnotes {W}><w:footnote>{paragraph('A note.')}</w:footnote></w:footnotes>"
    data = package(
        tmp_path / "p.zip",
        {
            "word/document.xml": f"<w:document {W}><w:body>{body}{gone}</w:body></w:document>",
            "word/footnotes.xml": notes,
        },
    )
    assert read("a.docx", data).texts == ["First & second.\nName\t价格\nSplit run.\nNew.\n\nA note."]


def test_word_documents_that_are_none_or_bombs_are_refused(tmp_path: Path, read) -> None:
    assert "no word/document.xml" in read("a.docx", package(tmp_path / "p.zip", {"x": "y"})).problems[0]
    assert "encrypted" in read("b.docx", b"\xd0\xcf\x11\xe0" + bytes(600)).problems[0]
    bomb = package(tmp_path / "q.zip", {"word/document.xml": bytes(80 << 20)})
    assert "refused" in read("c.docx", bomb).problems[0]
    external = '<!DOCTYPE d [<!ENTITY f SYSTEM "file:///etc/passwd">]>'
    data = package(
        tmp_path / "r.zip", {"word/document.xml": f"{external}<w:document {W}>{paragraph('A&f;B')}</w:document>"}
    )
    assert read("d.docx", data).texts == ["AB"]


def test_epub_chapters_come_in_the_order_of_the_spine(tmp_path: Path, read) -> None:
    container = '<container><rootfiles><rootfile full-path="OEBPS/c.opf"/></rootfiles></container>'
    items = "".join(
        f'<item id="{name}" href="{name}.xhtml" media-type="application/xhtml+xml" {extra}/>'
        for name, extra in (("one", ""), ("two", ""), ("toc", 'properties="nav"'), ("gone", ""))
    )
    spine = "".join(f'<itemref idref="{name}"/>' for name in ("toc", "two", "gone", "one"))
    about = '<metadata xmlns:dc="d"><dc:title>A Book</dc:title><dc:language>en</dc:language></metadata>'
    parts: dict[str, str | bytes] = {
        "META-INF/container.xml": container,
        "OEBPS/c.opf": f"<package>{about}<manifest>{items}</manifest><spine>{spine}</spine></package>",
        **{
            f"OEBPS/{name}.xhtml": f"<html><head><title>t</title></head><body><p>Chapter {name}.</p></body></html>"
            for name in ("one", "two", "toc")
        },
    }
    found = read("a.epub", package(tmp_path / "p.zip", parts))
    assert found.texts == ["Chapter two.\n\nChapter one."]
    assert json.loads(found.metas[0]) == {"title": "A Book", "language": "en"}
    assert "broken chapter" in found.problems[0]


# XML, MediaWiki -------------------------------------------------------------------------------------------------


def test_xml_gives_its_text_a_paragraph_an_element(read) -> None:
    data = '<?xml version="1.0" encoding="GB2312"?><d><t>标题</t><p>A <b>bold</b>\n  word &amp; more.</p></d>'.encode(
        "gb2312"
    )
    found = read("a.xml", data)
    assert found.texts in (["标题\nA bold word & more."], [])
    assert (
        read("b.xml", '<d><t x="no">T</t><p>A <b>bold</b>\n word&nbsp;&#65;.</p></d>').texts[-1]
        == "T\nA bold word\xa0A."
    )


def test_xml_bombs_and_abysses_are_refused(tmp_path: Path, read) -> None:
    found = read("a.xml", f"{BILLION}<d><p>Before.</p>&i;<p>After.</p></d>")
    assert all(len(text) < 100 for text in found.texts)
    deep = read("b.xml", "<a>" * 100_000 + "x" + "</a>" * 100_000)
    assert deep.texts == []
    assert "nested" in deep.problems[0]
    passwd = read("c.xml", '<!DOCTYPE d [<!ENTITY f SYSTEM "file:///etc/passwd">]><d>A&f;B</d>')
    assert passwd.texts == ["AB"]
    cut = read("d.xml", "<d><p>What came before.</p><p>and")
    assert cut.texts == ["What came before.\nand"]
    assert "not well-formed" in cut.problems[0]


def wiki_page(title: str, text: str, ns: int = 0, extra: str = "") -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    return (
        f"  <page>\n    <title>{title}</title>\n    <ns>{ns}</ns>\n    <id>7</id>{extra}\n"
        f"    <revision><id>9</id><model>wikitext</model><text xml:space='preserve'>{escaped}</text></revision>\n"
        "  </page>\n"
    )


ARTICLE = """{{Infobox town|name={{lang|fr|Ville}}|map=[[File:x.png|thumb|a [[map]]]]}}
'''Town''' ({{IPA|x}}) is a [[city|large city]] in [[France]].<ref name="a">Some {{cite web|url=http://x}}</ref><ref name="b" /> It has {{convert|12|km}} of walls.
[[File:a.jpg|thumb|right|A [[picture]] of it]]
{| class="wikitable"
! Head
|-
| 1 || 2
|}
== History ==
* It was ''founded'' in [http://x.org the year 5] &amp; grew.<br />It fell.
== References ==
{{reflist}}
* [http://y.org Something]
[[Category:Towns]]
[[de:Stadt]]"""  # noqa: E501


def test_wikitext_becomes_prose(read) -> None:
    pages = wiki_page("Town", ARTICLE) + wiki_page("Talk", "Talk.", 1) + wiki_page("Old", "#REDIRECT [[Town]]")
    pages += wiki_page("Older", "x", extra="<redirect title='Town' />")
    found = read("dump.xml", f"<mediawiki xmlns='http://www.mediawiki.org/xml/export-0.10/'>\n{pages}</mediawiki>")
    assert found.texts == [
        "Town\n\nTown is a large city in France. It has 12 km of walls.\n\n"
        "History\nIt was founded in the year 5 & grew.\nIt fell."
    ]
    assert json.loads(found.metas[0]) == {"title": "Town", "id": "7"}
    assert found.card["skipped"] == {"wiki redirects": 2, "wiki pages that are no articles": 1}
    assert found.sources[0].endswith("dump.xml:1")


@pytest.mark.parametrize("name", ["enwiki-pages-articles1.xml-p1p41242", "frwiki-pages1.xml-p10p30302-cut.bz2"])
def test_the_parts_of_a_dump_are_known_by_their_names(read, name: str) -> None:
    page = wiki_page("T", "A town in France.")
    dump = f"<mediawiki xmlns='http://www.mediawiki.org/xml/export-0.10/'>{page}</mediawiki>"
    found = read(name, bz2.compress(dump.encode()) if name.endswith(".bz2") else dump)
    assert found.texts == ["T\n\nA town in France."]


def test_a_large_dump_is_divided_between_its_pages(tmp_path: Path, read) -> None:
    pages = "".join(wiki_page(f"P{number}", f"Page {number} holds its own words. " * 40) for number in range(300))
    path = tmp_path / "dump.xml"
    path.write_text(f"<mediawiki xmlns='http://www.mediawiki.org/xml/export-0.10/'>\n{pages}</mediawiki>\n")
    whole = read_all(path, place=tmp_path / "a")
    parts = read_all(path, place=tmp_path / "b", chunk_bytes=50_000)
    assert len(whole.chunks) == 1
    assert len(parts.chunks) > 5
    assert (parts.texts, parts.sources, parts.metas) == (whole.texts, whole.sources, whole.metas)
    assert parts.card == {**whole.card, "problem_count": 0}
    assert sum(chunk.size for chunk in parts.chunks) == path.stat().st_size


def test_a_cut_dump_keeps_its_pages(read) -> None:
    data = f"<mediawiki>\n{wiki_page('A', 'Words of A.')}{wiki_page('B', 'Words of B.')[:60]}"
    found = read("dump.xml", data)
    assert found.texts == ["A\n\nWords of A."]
    assert "not well-formed" in found.problems[0]


# WARC, mail -----------------------------------------------------------------------------------------------------


def response(
    url: str, body: bytes, status: str = "200 OK", kind: str = "text/html; charset=utf-8", extra: str = ""
) -> bytes:
    http = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{extra}Content-Length: {len(body)}\r\n\r\n".encode() + body
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2026-01-02T03:04:05Z\r\n"
        f"WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-000000000001>\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n"
    )
    return head.encode() + http + b"\r\n\r\n"


def page(text: str) -> bytes:
    return f"<html><body><main><h1>Title</h1><p>{text}</p></main></body></html>".encode()


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_warc_gives_successful_pages(read, packed: str) -> None:
    import zstandard

    records = [
        response("http://a/1", page("First page, of some length to be read.")),
        response("http://a/2", page("Not here."), "404 Not Found"),
        response("http://a/3", b"\x89PNG....", kind="image/png"),
        response("http://a/4", gzip.compress(page("Packed page, of some length.")), extra="Content-Encoding: gzip\r\n"),
        response("http://a/5", "纯文本的网页内容。".encode("gbk"), kind="text/plain; charset=gbk"),
    ]
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}[packed]
    found = read(f"a.warc{packed}", b"".join(pack(record) for record in records))
    assert found.problems == []
    assert len(found.texts) == 3
    assert "First page" in found.texts[0]
    assert "Packed page" in found.texts[1]
    assert found.texts[2] == "纯文本的网页内容。"
    assert json.loads(found.metas[0]) == {"url": "http://a/1", "date": "2026-01-02T03:04:05Z"}
    assert found.card["skipped"] == {"web responses other than 200": 1, "web responses that are no pages": 1}


def letter(text: str, html: str = "", attached: bool = False) -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = "Grüße – 你好"
    message["From"] = "Zoë <z@example.org>"
    message.set_content(text, cte="quoted-printable") if text else message.set_content(html, subtype="html")
    if text and html:
        message.add_alternative(html, subtype="html")
    if attached:
        message.add_attachment(b"\x00\x01", maintype="image", subtype="png", filename="p.png")
    return message


def test_mail_gives_its_text_part_else_its_page(read) -> None:
    found = read("a.eml", bytes(letter("Liebe Zoë,\n\nviele Grüße – 再见.", "<p>Not this</p>", attached=True)))
    assert found.texts == ["Liebe Zoë,\n\nviele Grüße – 再见.\n"]
    assert json.loads(found.metas[0]) == {"subject": "Grüße – 你好", "from": "Zoë <z@example.org>"}
    assert found.card["skipped"] == {"attachments": 1}
    assert "Only <b>HTML</b>".replace("<b>", "").replace("</b>", "") in read(
        "b.eml", bytes(letter("", "<p>Only <b>HTML</b> here</p>"))
    ).texts[-1]  # fmt: skip


def test_mailboxes_are_divided_at_their_from_lines(read) -> None:
    box = b""
    for number in range(50):
        body = f"Message {number}.\n\n>From here on it is quoted.\nFrom one thing to another.\n"
        box += b"From z@example.org Mon Jan  5 10:11:12 2026\n" + bytes(letter(body)) + b"\n"
    found = read("a.mbox", box)
    assert [text.split(".")[0] for text in found.texts] == [f"Message {number}" for number in range(50)]
    assert all("\nFrom here on it is quoted.\nFrom one thing" in text for text in found.texts)
    assert found.sources[49].endswith(":50")
    assert found.problems == []


# Subtitles, translations, JSON ----------------------------------------------------------------------------------


def test_subtitles_lose_times_tags_and_rolling_lines(read) -> None:
    srt = (
        "1\r\n00:00:01,000 --> 00:00:02,000\r\n<i>Hello</i> there.\r\n\r\n"
        "2\r\n00:00:02,100 --> 00:00:04,000\r\n{\\an8}How are you?\r\nFine.\r\n\r\n"
        "3\r\n00:00:20,000 --> 00:00:22,000\r\nLater.\r\n"
    )
    assert read("a.srt", srt).texts == ["Hello there.\nHow are you?\nFine.\n\nLater."]
    vtt = (
        "WEBVTT\n\nNOTE nothing\n\n00:01.000 --> 00:02.000 align:start\nwe <00:01.5><c>begin</c>\n\n"
        "00:02.000 --> 00:03.000\nwe begin\nhere now\n\n00:03.000 --> 00:04.000\nhere now\n<v Ann>and &amp; end\n"
    )
    assert read("b.vtt", vtt).texts[-1] == "we begin\nhere now\nand & end"
    ass = (
        "[Script Info]\nTitle: x\n[Events]\nFormat: Layer, Start, End, Style, Text\n"
        "Dialogue: 0,0:00:03.00,0:00:04.00,D,second, with a comma\n"
        "Dialogue: 0,0:00:01.00,0:00:02.00,D,{\\b1}first{\\b0}\\Nline\nComment: 0,0:00:01.00,0:00:02.00,D,no\n"
    )
    assert read("c.ass", ass).texts[-1] == "first\nline\nsecond, with a comma"
    assert "no subtitles" in read("d.srt", "only words").problems[-1]


PO = """msgid ""
msgstr ""
"Language: de\\n"
"Content-Type: text/plain; charset=UTF-8\\n"

msgid "Open the file"
msgstr "Datei öffnen"

#, fuzzy
msgid "Close"
msgstr "Vielleicht"

msgid "Save"
msgstr ""

msgid "%d file"
msgid_plural "%d files"
msgstr[0] "%d Datei"
msgstr[1] "%d Dateien"
"""


def test_translations_are_records_with_what_they_translate(tmp_path: Path, read) -> None:
    found = read("de.po", PO)
    assert found.texts == ["Datei öffnen", "%d Dateien"]
    assert [json.loads(meta)["msgid"] for meta in found.metas] == ["Open the file", "%d file"]
    assert found.card["skipped"] == {"messages without a sure translation": 2}
    import polib

    compiled = tmp_path / "de.mo"
    polib.pofile(PO).save_as_mofile(str(compiled))
    assert read("e.mo", compiled.read_bytes()).texts[-2:] == ["%d Dateien", "Datei öffnen"]
    assert (
        "not a gettext file" in read("f.mo", struct.pack("<7I", 0x950412DE, 0, 9, 1 << 30, 1 << 30, 0, 0)).problems[-1]
    )


def test_json_files_are_records(read) -> None:
    assert read("a.json", json.dumps([{"text": "one", "n": 1}, {"text": "two"}])).texts == ["one", "two"]
    held = read("b.json", json.dumps({"version": "1", "data": [{"body": "three"}]}))
    assert held.texts == ["three"]
    assert read("c.json", '{"text": "four"}\n{"text": "five"}\n').texts == ["four", "five"]
    assert read("d.json", json.dumps({"menu": {"open": "Open it", "n": 3, "x": ["Close it"]}})).texts == [
        "Open it\n\nClose it"
    ]
    listed = [{"author": "x", "paragraphs": ["line one", "line two"]}, {"author": "y", "paragraphs": []}]
    assert read("h.json", json.dumps(listed)).texts == ["line one\nline two"]
    assert read("i.jsonl", "\n".join(map(json.dumps, listed))).texts == ["line one\nline two"]
    assert read("j.json", json.dumps({"content": ["six", "seven"]})).texts == ["six\nseven"]
    assert '"paragraphs" is not a string' in read("k.json", json.dumps([*listed, {"paragraphs": [1]}])).problems[0]
    assert "nested" in read("e.json", "[" * 100_000 + "]" * 100_000).problems[0]
    assert "not JSON" in read("f.json", "{broken").problems[0]
    notebook = {
        "cells": [{"cell_type": "markdown", "source": ["# T\n", "x"]}, {"cell_type": "code", "source": "y = 1"}]
    }
    assert read("g.ipynb", json.dumps(notebook)).texts == ["# T\nx\n\n```\ny = 1\n```"]


def test_source_code_says_its_language(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    for name in ("a.py", "b.rs", "Makefile", "package.json"):
        (folder / name).write_text('{"name": "x"}' if name.endswith("json") else f"content of {name}\n")
    found = read_all(folder, place=tmp_path)
    kinds = dict(zip((source.rpartition("/")[2] for source in found.sources), found.kinds, strict=True))
    assert kinds == {"a.py": "python", "b.rs": "rust", "Makefile": "text", "package.json": "json"}
    assert set(found.card["by_format"]) == {"python", "rust", "text", "json"}
    assert found.card["by_source"][str(folder)]["files"] == 4


def test_a_missing_package_is_counted_with_what_to_type(read, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    found = read("a.pdf", pdf(PAGES))
    assert 'pip install "textmill[documents]"' in found.problems[0]
    assert found.texts == []


def test_a_dataset_is_read_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    from textmill.base.errors import TextmillError

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "set"
    folder.mkdir()
    for part in range(2):
        rows = [{"text": f"row {part}.{number}", "year": number} for number in range(3)]
        (folder / f"train-{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_all(f"hf:{folder}:train", place=tmp_path)
    assert found.texts == [f"row {part}.{number}" for part in range(2) for number in range(3)]
    assert len(found.chunks) == 2
    assert found.sources[4] == f"hf:{folder}:train/2:2"
    assert json.loads(found.metas[2]) == {"year": 2}
    with pytest.raises(TextmillError, match="no split"):
        read_all(f"hf:{folder}:trian", place=tmp_path / "b")
    with pytest.raises(TextmillError, match="cannot be opened"):
        read_all(f"hf:{tmp_path}/nothing-here", place=tmp_path / "c")
