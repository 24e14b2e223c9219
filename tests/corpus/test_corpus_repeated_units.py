"""Repeated lines and paragraphs: the same as a dictionary in plain Python, in bounded memory."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textmill.base.errors import Failure
from textmill.corpus.deduplication.units import MINIMUM, UnitIndex, first_occurrences, remove_units, unit_hashes
from textmill.corpus.texts import Texts

BLANK = re.compile(r"\n(?:[ \t]*\n)+")
pieces = st.lists(
    st.sampled_from(["a long line", "  a long line ", "短短的一行字", "}", "", " ", "other words"]), max_size=12
)


def plain(texts: list[str], unit: str, copies: int, minimum: int) -> list[str]:
    """Keep the first copies; compare without outer white space of lines, and by content alone."""
    seen: dict[str, int] = {}
    made = []
    for text in texts:
        kept = []
        for part in text.split("\n") if unit == "line" else BLANK.split(text):
            key = "\n".join(line.strip(" \t") for line in part.split("\n")).strip("\n")
            if len(key.replace("\n", "").encode()) >= minimum:
                seen[key] = seen.get(key, 0) + 1
                if seen[key] > copies:
                    continue
            kept.append(part)
        made.append("".join("".join(kept).split()))
    return made


@pytest.mark.parametrize("unit", ["line", "paragraph"])
@settings(deadline=None, max_examples=80)
@given(st.lists(pieces, max_size=6), st.integers(1, 2))
def test_the_same_as_plain_python(unit: str, documents: list[list[str]], copies: int) -> None:
    texts = ["\n".join(lines) for lines in documents]
    index = UnitIndex(unit, copies, minimum=8, memory_bytes=64)  # type: ignore[arg-type]
    batches = [Texts.from_strings(texts[:2]), Texts.from_strings(texts[2:])]
    for batch in batches:
        index.add(batch)
    index.finish()
    found = [text for batch in batches for text in index.remove(batch).strings()]
    assert ["".join(text.split()) for text in found] == plain(texts, unit, copies, 8)


def test_lines() -> None:
    long = "This line is long enough to be compared with others."
    texts = Texts.from_strings([f"Title\n{long}\n}}\nend", f"Title\n  {long}\n}}\nlast\n{long}\n\n", long])
    index = UnitIndex("line")
    index.add(texts)
    index.finish()
    assert index.remove(texts).strings() == [texts.string(0), "Title\n}\nlast\n\n", ""]
    assert (index.units, index.repeats) == (11, 3)


def test_paragraphs() -> None:
    one = "A paragraph that is long\nenough to be compared."
    texts = Texts.from_strings(
        [f"\n\n{one}\n\nNext.\n", f"{one}\n \n\nNext.\n\n{one}\nbut longer.", f"First.\n\n{one}\n"]
    )
    hashes, offsets = unit_hashes(texts, "paragraph")
    assert np.diff(offsets).tolist() == [2, 3, 2]
    keep = first_occurrences([hashes])[0]
    assert remove_units(texts, "paragraph", keep).strings() == [
        texts.string(0),
        f"Next.\n\n{one}\nbut longer.",
        "First.",
    ]


def test_short_units_stay() -> None:
    short, long = "x" * (MINIMUM - 1), "x" * MINIMUM
    hashes, _ = unit_hashes(Texts.from_strings([f"{short}\n{long}"]), "line")
    assert (hashes == 0).tolist() == [True, False]


def test_a_line_repeated_a_million_times() -> None:
    line = b"All work and no play makes Jack a dull boy, they say.\n"
    texts = Texts.from_bytes([line * 1_000_000, b"", line])
    index = UnitIndex("line", copies=2, memory_bytes=1 << 20)
    index.add(texts)
    index.finish()
    found = index.remove(texts)
    assert found[0] == (line * 2).strip()
    assert found[1] == found[2] == b""


def test_memory_and_parts_change_nothing() -> None:
    hashes = np.random.default_rng(0).integers(0, 5000, 100_000).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    whole = first_occurrences([hashes], copies=3)[0]
    seen: dict[int, int] = {}
    for value, kept in zip(hashes.tolist(), whole.tolist(), strict=True):
        seen[value] = seen.get(value, 0) + 1
        assert kept == (value == 0 or seen[value] <= 3)
    for memory in (1 << 12, 1 << 16):
        parts = np.split(hashes, [10, 10, 70_000])
        assert np.array_equal(np.concatenate(first_occurrences(parts, 3, memory)), whole)


def test_other_texts_than_those_counted() -> None:
    index = UnitIndex("line")
    index.add(Texts.from_strings(["one\ntwo"]))
    index.finish()
    with pytest.raises(Failure, match="changed"):
        index.remove(Texts.from_strings(["one"]))
