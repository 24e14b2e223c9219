"""Chunks: a large file divided gives what the whole file gives, and counts it the same; memory stays bounded."""

from __future__ import annotations

import csv
import io
import json
import pickle
import random
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drafting import Read, read_all
from hypothesis import given, settings
from hypothesis import strategies as st

from textmill.corpus.encoding import Utf8
from textmill.corpus.readers.drafts import Drafts, Row
from textmill.corpus.tally import Tally

WORDS = ["river", "bridge", "früh", "“quoted”", "天气", "a,b", 'say ""so""', "line\nend", "semi;colon", "", "end."]


def texts(count: int, seed: int = 1) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(0, 60))) + f" {number}" for number in range(count)]


def same(parts: Read, whole: Read) -> None:
    assert len(whole.chunks) == 1
    assert len(parts.chunks) > 3
    assert parts.texts == whole.texts
    assert parts.sources == whole.sources
    assert parts.metas == whole.metas
    assert parts.card == whole.card


def both(path: Path, tmp_path: Path, size: int = 20_000, **settings: object) -> tuple[Read, Read]:
    return (
        read_all(path, place=tmp_path, chunk_bytes=size, **settings),
        read_all(path, place=tmp_path, **settings),
    )


def jsonl(rows: list[str]) -> bytes:
    lines = [json.dumps({"n": number, "text": text}, ensure_ascii=number % 2 == 0) for number, text in enumerate(rows)]
    lines[3] = "{broken"
    lines[200] = json.dumps({"text": 5})
    return ("\n".join(lines) + "\n").encode()


def test_json_lines_are_divided_between_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl(texts(900)))
    same(*both(path, tmp_path))


def test_an_encoding_is_told_once_for_all_parts(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [
        json.dumps({"text": f"这是第{number}行的中文内容，很好看。"}, ensure_ascii=False) for number in range(3000)
    ]
    path.write_bytes("\n".join(lines).encode("gb18030"))
    parts, whole = both(path, tmp_path)
    same(parts, whole)
    assert parts.card["encodings"] == {"gb18030": 1}
    ascii_first = b'{"text": "plain"}\n' * 80_000 + '{"text": "déjà vu, çà et là"}\n'.encode("cp1252") * 50
    path.write_bytes(ascii_first)
    assert read_all(path, place=tmp_path, chunk_bytes=200_000).texts[-1] == "déjà vu, çà et là"


@pytest.mark.parametrize("mark", [",", "\t", ";"])
def test_tables_are_divided_between_rows_not_within_quotes(tmp_path: Path, mark: str) -> None:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=mark)
    writer.writerows([["id", "text", "note"], *[[at, text, "x" * (at % 3)] for at, text in enumerate(texts(900))]])
    path = tmp_path / ("a.tsv" if mark == "\t" else "a.csv")
    path.write_bytes(out.getvalue().encode())
    parts, whole = both(path, tmp_path)
    same(parts, whole)
    assert [text.replace("\r\n", "\n") for text in texts(900)] == whole.texts


def test_a_table_with_misplaced_quotes_is_not_divided(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,text\n" + "".join(f'{at},5" of rain fell on day {at}\n' for at in range(4000)))
    parts, whole = both(path, tmp_path)
    assert len(parts.chunks) == 1
    assert parts.texts == whole.texts == [f'5" of rain fell on day {at}' for at in range(4000)]


def test_parquet_is_divided_between_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    rows = [None if at == 77 else text for at, text in enumerate(texts(900))]
    pq.write_table(pa.table({"text": rows, "n": range(900)}), path, row_group_size=50, compression="none")
    parts, whole = both(path, tmp_path, 3_000)
    same(parts, whole)
    assert whole.card["problem_count"] == 1


def test_prose_is_divided_at_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    paragraphs = [f"Paragraph {at} " + "of words " * 20 for at in range(3000)]
    path.write_text("\r\n\r\n".join(paragraphs).replace("\r\n", "\n"))
    parts, whole = both(path, tmp_path, 30_000, max_document_characters=2_000)
    assert len(parts.chunks) > 3
    assert "".join(parts.texts) == "".join(whole.texts) == path.read_text()
    assert all(text.startswith("Paragraph") for text in parts.texts)
    assert parts.sources[0] == f"{path}#1.1"
    assert len(set(parts.sources)) == len(parts.sources)
    assert parts.card["bytes"] == path.stat().st_size


def test_a_zip_is_divided_between_its_members(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for at, text in enumerate(texts(400)):
            archive.writestr(f"d/{at:03}.txt", text)
        archive.writestr("d/p.png", b"\x89PNG")
    parts, whole = both(path, tmp_path)
    same(parts, whole)
    assert whole.sources[5] == f"{path}!/d/005.txt"


def test_small_files_share_a_chunk(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for at in range(4500):
        (folder / f"{at:05}.txt").write_text(f"file {at}")
    found = read_all(folder, place=tmp_path)
    assert [len(chunk.inputs) for chunk in found.chunks] == [2000, 2000, 500]
    assert found.texts == [f"file {at}" for at in range(4500)]
    assert pickle.loads(pickle.dumps(found.chunks)) == found.chunks


def test_tallies_add_up_in_order() -> None:
    total, parts = Tally(), []
    for number in range(4):
        part = Tally()
        part.reading = ("in", "html")
        for at in range(8):
            part.problem(f"f{number}.{at}", f"{at} places are not utf-8")
        part.files = 3
        part.encodings["utf-8"] += 2
        parts.append(part)
    for part in parts:
        total.merge(pickle.loads(pickle.dumps(Tally.from_json(json.loads(json.dumps(part.to_json()))))))
    card = total.card()
    assert card["files"] == 12
    assert card["encodings"] == {"utf-8": 8}
    assert [one["source"] for one in card["problems"]] == [f"f{number}.{at}" for number in range(3) for at in range(8)][
        :20
    ]
    assert card["problem_kinds"] == {"places are not utf-": 32} or sum(card["problem_kinds"].values()) == 32
    assert card["by_format"]["html"]["problems"] == 32


@given(
    st.text(max_size=300), st.lists(st.integers(1, 20), max_size=40), st.sampled_from(["utf-8", "utf-16", "gb18030"])
)
def test_utf8_blocks_do_not_depend_on_where_bytes_are_cut(text: str, sizes: list[int], encoding: str) -> None:
    data = text.encode(encoding, "replace")
    expected = data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    blocks, at = [], 0
    for size in sizes:
        blocks.append(data[at : at + size])
        at += size
    name = {"utf-16": "utf-16-le"}.get(encoding, encoding)
    body = data[2:] if encoding == "utf-16" else data
    cut = [one for one in ([body[:1], body[1:3], body[3:]] if encoding == "utf-16" else [*blocks, data[at:]]) if one]
    assert b"".join(Utf8(cut, encoding=name)).decode() == expected


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=12), max_size=12))
def test_broken_utf8_is_always_made_valid(blocks: list[bytes]) -> None:
    found = Utf8([block for block in blocks if block], encoding="utf-8", newlines=False)
    assert b"".join(found).decode() == b"".join(blocks).decode("utf-8", "replace")


def test_batches_leave_out_empty_texts() -> None:
    found = Drafts.from_rows(
        [Row("a", b"x"), Row("b", b""), Row("c", b"", unreadable="PNG", raw_bytes=9), Row("d", b"yz")]
    )
    left = found.without_empty()
    assert left.sources == ["a", "c", "d"]
    assert left.texts.strings() == ["x", "", "yz"]
    assert left.raw_bytes == [1, 9, 2]


BOUND = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from drafting import read_all
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = read_all(sys.argv[1], place=Path(sys.argv[1]).parent)
print(len(found.texts), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", [".jsonl", ".csv"])
def test_a_line_of_500_megabytes_stays_in_bounded_memory(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a{kind}"
    with path.open("wb") as out:
        out.write(b"text,x\n" if kind == ".csv" else b'{"text": "before", "x": 1}\n')
        out.write(b"" if kind == ".csv" else b'{"text": "')
        for _ in range(500):
            out.write(b"a" * (1 << 20))
        out.write(b",1\nafter,2\n" if kind == ".csv" else b'"}\n{"text": "after"}\n')
    here = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", BOUND, str(path), here], capture_output=True, text=True, check=True)
    count, grown = map(int, done.stdout.split())
    assert count == (1 if kind == ".csv" else 2)
    assert grown < 450_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0
