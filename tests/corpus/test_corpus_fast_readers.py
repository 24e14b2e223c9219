"""The fast paths of records give exactly what the tolerant ones give, on any input."""

from __future__ import annotations

import csv
import io
import itertools
import json
from pathlib import Path
from typing import Any

from drafting import Read, read_all
from hypothesis import given, settings
from hypothesis import strategies as st

from textmill.corpus.readers import delimited, jsonl

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["text", "n", "content", "名", "", "\ud800", "x"])
RECORDS = st.dictionaries(NAMES, VALUES, max_size=4) | st.fixed_dictionaries({"text": st.text(), "n": st.integers()})
LINES = st.one_of(
    RECORDS.map(lambda record: json.dumps(record).encode()),
    RECORDS.map(lambda record: json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [
            b"", b" ", b"\xef\xbb\xbf{\"text\": \"bom\"}", b'{"text": "a\x00b", "n": 1}',
            b'{"text": "x", "text": "twice"}',
            b'{"text": "\\ud83d\\ude00 \\ud83d"}', b'{"text": "a"}{"text": "b"}', b'{"text": "a"},',
            b"[1, 2]", b'"string"',
            b'{"text": "\xff\xfe"}', b'{"text": "v", "n": NaN}', b'{"text": "v", "n": 1e400}',
            b'{"text": "v", "n": -0}',
            b'{"text": "cr"}\r', b'{"a":\r1}', b'{"text": "tab\t"}',
            b"\x00\x00", b"5", b"null", b'{"text": "' + b"[" * 9 + b'"}',
            b'{"text": "v", "n": 123456789012345678901234567890}', b'{"text": "v", "n": 18446744073709551615}',
        ]
    ),
    st.binary(max_size=20).map(lambda data: data.replace(b"\n", b"")),
)  # fmt: skip


def result(found: Read) -> tuple[Any, ...]:
    card = found.card
    return found.texts, found.sources, found.metas, found.unreadable, card


def read_lines(folder: Path, data: bytes, name: str, tolerant: bool, monkey: Any) -> tuple[Any, ...]:
    path = folder / name
    path.write_bytes(data)
    with monkey.context() as patched:
        if tolerant:
            patched.setattr(jsonl.orjson, "loads", refuse)
            patched.setattr(delimited, "_quickly", lambda *_: None)
            patched.setattr(jsonl.Records, "_bulk", lambda *_: None)
        return result(read_all(path, place=folder))


def refuse(data: bytes) -> Any:
    raise jsonl.orjson.JSONDecodeError("refused", "", 0)


@settings(max_examples=250, deadline=None)
@given(lines=st.lists(LINES, max_size=12), first=st.booleans())
def test_json_lines_are_read_alike_by_both_paths(tmp_path_factory, lines: list[bytes], first: bool) -> None:
    import pytest

    folder = tmp_path_factory.mktemp("lines")
    data = (b'{"text": "first", "n": 1}\n' if first else b"") + b"\n".join(lines)
    monkey = pytest.MonkeyPatch
    fast = read_lines(folder, data, "a.jsonl", False, monkey)
    assert fast == read_lines(folder, data, "a.jsonl", True, monkey)


FIELDS = st.text(alphabet="ab ,;\"'\n\r\t\x00é文", max_size=8)
ROWS = st.lists(st.lists(FIELDS, min_size=1, max_size=4), max_size=10)


@settings(max_examples=250, deadline=None)
@given(rows=ROWS, well=st.booleans(), end=st.sampled_from(["\n", "\r\n"]))
def test_tables_are_read_alike_by_both_paths(tmp_path_factory, rows: list[list[str]], well: bool, end: str) -> None:
    import pytest

    folder = tmp_path_factory.mktemp("tables")
    out = io.StringIO()
    if well:
        csv.writer(out, lineterminator=end).writerows([["id", "text", "x"], *rows])
    else:
        out.write(end.join(",".join(row) for row in [["id", "text", "x"], *rows]))
    data = out.getvalue().encode()
    monkey = pytest.MonkeyPatch
    assert read_lines(folder, data, "a.csv", False, monkey) == read_lines(folder, data, "a.csv", True, monkey)


def test_the_fast_path_is_taken(tmp_path: Path, monkeypatch) -> None:
    rows = [{"text": f"Text {at} of some length", "n": at, "s": "x" * (at % 2 + 1), "deep": [1]} for at in range(3000)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = io.StringIO()
    csv.writer(out).writerows([["text", "n"], *[(row["text"] + '\n"q"', row["n"]) for row in rows]])
    (tmp_path / "a.csv").write_text(out.getvalue())

    def fail(*_: object) -> None:
        raise AssertionError("the slow path was taken")

    monkeypatch.setattr(jsonl.Records, "_one", fail)
    monkeypatch.setattr(delimited, "_tolerantly", fail)
    found = read_all(tmp_path / "a.jsonl", tmp_path / "a.csv", place=tmp_path)
    assert found.texts == [row["text"] for row in rows] + [row["text"] + '\n"q"' for row in rows]
    assert json.loads(found.metas[1]) == {"n": 1, "s": "xx"}
    assert found.metas[3001] == '{"n":"1"}'


def test_a_record_cut_by_a_block_is_one_record() -> None:
    lines = [b"a" * size for size in (0, 1, 5, 9, 0, 30, 2)]
    data = b"\n".join(lines) + b"\n"
    for size in (1, 2, 3, 7, 100):
        blocks = [data[at : at + size] for at in range(0, len(data), size)]
        assert list(itertools.chain(*jsonl.line_blocks(blocks))) == lines
