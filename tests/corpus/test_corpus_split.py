"""The split depends on a document's content alone, and no wanted split of a small corpus is empty."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from textmill.base.progress import Progress
from textmill.base.run import Run
from textmill.corpus.build import build_corpus
from textmill.corpus.config import CorpusConfig
from textmill.corpus.split import document_id, fill_empty, split_of, wanted_splits

CONFIG = CorpusConfig()


def test_shares_are_kept() -> None:
    config = CorpusConfig(validation_share=0.1, test_share=0.2)
    splits = [split_of(document_id(str(number).encode()), config) for number in range(20_000)]
    assert abs(splits.count("validation") / len(splits) - 0.1) < 0.01
    assert abs(splits.count("test") / len(splits) - 0.2) < 0.012


@given(st.lists(st.integers(), unique=True, min_size=3, max_size=60))
def test_no_wanted_split_stays_empty_and_only_as_many_move_as_are_missing(numbers: list[int]) -> None:
    before = {identity: split_of(identity, CONFIG) for number in numbers for identity in [document_id(b"%d" % number)]}
    moved = fill_empty(before, CONFIG)
    after = before | moved
    wanted = wanted_splits(CONFIG)
    assert set(after.values()) == set(wanted)
    assert len(moved) == sum(name not in before.values() for name in wanted) or "train" in moved.values()
    assert fill_empty(after, CONFIG) == {}


def _splits(texts: list[str]) -> dict[str, str]:
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "in"
        folder.mkdir()
        for number, text in enumerate(texts):
            (folder / f"{number}.txt").write_text(text)
        config = CorpusConfig(min_characters=1, small_corpus=0, max_symbol_ratio=1.0)
        build_corpus([str(folder)], Run.create(Path(place) / "run"), config, Progress("quiet"))
        table = pq.read_table(Path(place) / "run" / "corpus" / "documents-00000.parquet")
        return dict(zip(table["text"].to_pylist(), table["split"].to_pylist(), strict=True))


@settings(max_examples=10, deadline=None)
@given(st.lists(st.text("abcdefgh", min_size=4, max_size=9), min_size=120, max_size=160, unique=True), st.data())
def test_added_files_move_no_document(texts: list[str], data: st.DataObject) -> None:
    count = data.draw(st.integers(110, len(texts)))
    few, many = _splits(texts[:count]), _splits(texts)
    expected = {text: split_of(document_id(text.encode()), CONFIG) for text in texts}
    for splits in (few, many):
        moved = {text for text in splits if splits[text] != expected[text]}
        missing = set(wanted_splits(CONFIG)) - {expected[text] for text in splits}
        assert len(moved) == len(missing)  # nothing moves but to fill a split that would be empty
    if not any(set(wanted_splits(CONFIG)) - {expected[text] for text in splits} for splits in (few, many)):
        assert few.items() <= many.items()
