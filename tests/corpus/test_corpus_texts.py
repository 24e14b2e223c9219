"""Many texts in one buffer come back as they went in, whatever is taken, replaced or joined."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from textmill.corpus.texts import Texts

STRINGS = st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=12), max_size=12)


@given(STRINGS)
def test_arrow_and_back(strings: list[str]) -> None:
    texts = Texts.from_strings(strings)
    assert texts.strings() == strings
    assert Texts.from_arrow(texts.to_arrow()).strings() == strings
    assert Texts.from_arrow(pa.array(strings, pa.string())).strings() == strings
    assert Texts.from_arrow(pa.chunked_array([strings, strings], pa.large_string())).strings() == strings * 2
    assert Texts.from_arrow(texts.to_arrow()[1:]).strings() == strings[1:]


@given(STRINGS.filter(bool), st.data())
def test_take_and_replace_do_what_lists_do(strings: list[str], data: st.DataObject) -> None:
    texts = Texts.from_strings(strings)
    rows = data.draw(st.lists(st.integers(0, len(strings) - 1), max_size=8))
    assert texts.take(np.array(rows, np.int64)).strings() == [strings[row] for row in rows]
    new = {row: f"new {row}" for row in rows}
    wanted = [new.get(row, text) for row, text in enumerate(strings)]
    assert texts.replace({row: text.encode() for row, text in new.items()}).strings() == wanted


@given(st.lists(STRINGS, max_size=4))
def test_concatenate_joins_in_order(parts: list[list[str]]) -> None:
    joined = Texts.concatenate([Texts.from_strings(part) for part in parts])
    assert joined.strings() == [text for part in parts for text in part]
