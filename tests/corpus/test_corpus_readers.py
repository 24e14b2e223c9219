"""Every format, plain and compressed, gives its documents; what is broken is counted and the rest kept."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from textmill.base.errors import Failure

TEXTS = [
    f"Document {name}: the quick brown fox jumps over the lazy dog, then sleeps, 然后睡觉。"
    for name in ("one", "two", "three", "four")
]
KEEP = {"validation_share": 0.0, "test_share": 0.0}


def jsonl() -> bytes:
    return "".join(json.dumps({"title": "t", "text": text}) + "\n" for text in TEXTS).encode()


def table(delimiter: str) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerows([["id", "content"], *[[number, text] for number, text in enumerate(TEXTS)]])
    return out.getvalue().encode()


def parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"n": [1, 2, 3, 4], "text": TEXTS}), out)
    return out.getvalue()


def page() -> bytes:
    body = "".join(f"<p>{text}</p>" for text in TEXTS)
    return f"<html><head><meta charset=utf-8><style>p{{}}</style></head><body><main>{body}</main></body>".encode()


FORMATS = {
    ".txt": "\n\n".join(TEXTS).encode(),
    ".md": ("# Title\n\n" + "\n\n".join(TEXTS)).encode(),
    ".html": page(),
    ".jsonl": jsonl(),
    ".csv": table(","),
    ".tsv": table("\t"),
    ".parquet": parquet(),
}
PACK: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("packed", PACK)
def test_every_format_gives_every_text(tmp_path: Path, build, rows, kind: str, packed: str) -> None:
    path = tmp_path / f"data{kind}{packed}"
    path.write_bytes(PACK[packed](FORMATS[kind]))
    card = build(path, small_corpus=0, **KEEP)
    found = rows()
    whole = "\n".join(row["text"] for row in found)
    assert all(text in whole for text in TEXTS)
    records = kind in (".jsonl", ".csv", ".tsv", ".parquet")
    assert len(found) == (4 if records else 1)
    assert card["read"]["formats"] == {kind + packed: 1}
    assert card["read"]["bytes"] == path.stat().st_size
    if records:
        assert [row["source"].rpartition(":")[2] for row in found] == list("1234")
        assert [row["text"] for row in found] == TEXTS


def test_markdown_is_kept_as_it_is_and_html_loses_its_menu(tmp_path: Path, build, rows) -> None:
    (tmp_path / "in").mkdir()
    source = "# Title\n\n* item **bold**  \nnext [link](http://x.y)\n\n| a | b |\n|---|---|\n" + "words " * 20
    (tmp_path / "in" / "a.md").write_text(source)
    (tmp_path / "in" / "b.html").write_text(
        "<html><body><nav><a href=1>Home</a><a href=2>Imprint</a></nav><script>var x=1</script><article>"
        "<h1>Heading</h1><p>" + TEXTS[0] + "</p><p>" + TEXTS[1] + "</p></article></body></html>"
    )
    build(tmp_path / "in", small_corpus=0, **KEEP)
    markdown, html = (row["text"] for row in rows())
    assert markdown == source.rstrip()
    assert TEXTS[0] in html
    assert "Heading" in html
    assert "var x" not in html
    assert "Imprint" not in html


def test_html_charset_is_believed(tmp_path: Path, build, rows) -> None:
    page = f"<html><head><meta charset='gb2312'></head><body><p>{'很好，中文网页的内容。' * 8}</p></body></html>"
    (tmp_path / "a.html").write_bytes(page.encode("gbk"))
    card = build(tmp_path / "a.html", small_corpus=0, **KEEP)
    assert "中文网页" in rows()[0]["text"]
    assert card["read"]["encodings"] == {"gb18030": 1}


def test_invalid_jsonl_lines_are_counted_and_shown_and_the_rest_kept(tmp_path: Path, build, rows) -> None:
    lines = [json.dumps({"text": text}) for text in TEXTS]
    bad = ["{broken", "[1, 2]", '{"text": 5}', '{"text": ']
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([bad[0], lines[0], bad[1], lines[1], "", bad[2], *lines[2:], bad[3]]))
    card = build(path, small_corpus=0, **KEEP)
    assert [row["text"] for row in rows()] == TEXTS
    assert card["read"]["problem_count"] == 4
    assert card["read"]["problems"][0]["source"] == f"{path}:1"
    assert "{broken" in card["read"]["problems"][0]["problem"]


def test_records_keep_their_short_fields(tmp_path: Path, build, rows) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": TEXTS[0], "year": 1998, "name": "名", "deep": {"x": 1}}) + "\n")
    build(path, small_corpus=0, **KEEP)
    assert json.loads(rows()[0]["meta"]) == {"year": 1998, "name": "名"}


def test_a_list_of_strings_is_a_line_each(tmp_path: Path, build, rows) -> None:
    path = tmp_path / "a.parquet"
    lists = [[TEXTS[0], TEXTS[1]], [TEXTS[2]], None]
    pq.write_table(pa.table({"title": ["a", "b", "c"], "paragraphs": pa.array(lists, pa.list_(pa.string()))}), path)
    card = build(path, small_corpus=0, **KEEP)
    assert [row["text"] for row in rows()] == [f"{TEXTS[0]}\n{TEXTS[1]}", TEXTS[2]]
    assert json.loads(rows()[0]["meta"]) == {"title": "a"}
    assert card["read"]["problem_count"] == 1


def test_an_empty_table_asks_for_no_column(tmp_path: Path, build) -> None:
    for name in ("a.csv", "b.tsv"):
        (tmp_path / name).touch()
    with pytest.raises(Failure, match=r"(?s)No readable text was found.*empty tables"):
        build(tmp_path / "a.csv", tmp_path / "b.tsv")


def test_columns_without_text_are_named_in_short(tmp_path: Path, build) -> None:
    (tmp_path / "a.csv").write_text(f"n,{'x' * 500},m\n1,2,3\n")
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": TEXTS[0]}) + "\n")
    card = build(tmp_path / "a.csv", tmp_path / "b.jsonl", small_corpus=0, **KEEP)
    problem = card["read"]["problems"][0]["problem"]
    assert "--text-column" in problem
    assert len(problem) < 120
    assert card["read"]["problem_kinds"] == {"no text column": 1}


def test_csv_fields_hold_line_ends_quotes_and_semicolons(tmp_path: Path, build, rows) -> None:
    text = TEXTS[0] + '\r\n"quoted"; more, of it\n\nend'
    quoted = text.replace('"', '""')
    (tmp_path / "a.csv").write_bytes(f'id;text\r\n1;"{quoted}"\r\nshort\r\n2;"{TEXTS[1]}"\r\n'.encode())
    card = build(tmp_path / "a.csv", small_corpus=0, **KEEP)
    assert [row["text"] for row in rows()] == [text.replace("\r\n", "\n"), TEXTS[1]]
    assert card["read"]["problem_count"] == 1


@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_a_truncated_archive_keeps_what_came_out(tmp_path: Path, build, packed: str) -> None:
    import random

    draw = random.Random(3)
    text = "\n".join(" ".join(str(draw.random()) for _ in range(20)) for _ in range(20_000))
    path = tmp_path / f"a.txt{packed}"
    data = PACK[packed](text.encode())
    path.write_bytes(data[: len(data) // 2])
    (tmp_path / "b.txt").write_text("\n\n".join(TEXTS))
    card = build(path, tmp_path / "b.txt", max_document_characters=50_000)
    assert card["read"]["problem_count"] == 1
    assert card["kept"]["bytes"] > len(text) // 4
    assert "cannot be read" in card["read"]["problems"][0]["problem"]


def test_a_parquet_file_that_is_none_is_a_problem_not_the_end(tmp_path: Path, build) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not really")
    (tmp_path / "b.txt").write_text("\n\n".join(TEXTS))
    card = build(tmp_path / "a.parquet", tmp_path / "b.txt")
    assert "Parquet" in card["read"]["problems"][0]["problem"]


def test_a_text_with_nul_bytes_is_kept_without_them(tmp_path: Path, build, rows) -> None:
    (tmp_path / "a.txt").write_bytes(TEXTS[0].encode().replace(b" fox", b"\0 fox\0"))
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": TEXTS[1].replace(" fox", "\0 fox")}) + "\n")
    build(tmp_path / "a.txt", tmp_path / "b.jsonl", small_corpus=0, **KEEP)
    assert [row["text"] for row in rows()] == TEXTS[:2]
