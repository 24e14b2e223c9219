"""The documents of a corpus, a row group at a time, and an even sample of them. Reads corpus/documents-*.parquet."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from textmill.base.errors import Failure
from textmill.corpus.texts import Texts

SPLITS = ("train", "validation", "test")

COPIES = "copies"
"""Column that says how often a training document is written: mixing repeats some sources and leaves some out."""

_SAMPLE_PIECE = 16_384
"""Characters in one piece of the tokenizer's training sample."""


class Group(NamedTuple):
    """The documents of one row group."""

    place: tuple[int, int]
    """Number of the file and of the row group in it."""
    texts: Texts
    splits: np.ndarray
    """int64 [n], places in SPLITS."""
    copies: np.ndarray
    """int64 [n], how often each document is written."""

    def rows(self, split: str) -> np.ndarray:
        """Rows of one split in stored order, each as often as it is to be written."""
        rows = np.flatnonzero(self.splits == SPLITS.index(split))
        return np.repeat(rows, self.copies[rows])


def read_groups(corpus: Path, first: tuple[int, int] = (0, 0)) -> Iterator[Group]:
    """Row groups in stored order from `first` on; the next is read while one is being used."""
    places = ((file, group) for file, path in enumerate(_files(corpus)) for group in range(_groups(path, corpus)))
    waiting = [place for place in places if place >= first]
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(_read, corpus, waiting[0]) if waiting else None
        for following in [*waiting[1:], None]:
            if coming is None:
                return
            group = coming.result()
            coming = pool.submit(_read, corpus, following) if following else None
            yield group


def measure_splits(corpus: Path) -> dict[str, int]:
    """UTF-8 bytes of text in each split, repetitions counted."""
    sizes = dict.fromkeys(SPLITS, 0)
    for group in read_groups(corpus):
        for split in SPLITS:
            sizes[split] += int(group.texts.sizes[group.rows(split)].sum())
    return sizes


def sample_texts(corpus: Path, size: int, limit: int, split: str = "train") -> Iterator[str]:
    """At most about `limit` bytes of a split's `size`, in pieces spread evenly over all of it.

    A running debt decides: every piece adds its share, and a piece is taken when the debt covers it. No chance
    is in it, so the same corpus gives the same sample.
    """
    share = min(1.0, limit / max(size, 1))
    debt = 0.0
    for group in read_groups(corpus):
        for row in group.rows(split).tolist():
            text = group.texts.string(row)
            if share == 1.0:
                yield text
                continue
            for start in range(0, len(text), _SAMPLE_PIECE):
                piece = text[start : start + _SAMPLE_PIECE]
                debt += share * len(piece)
                if debt >= len(piece):
                    debt -= len(piece)
                    yield piece


def _files(corpus: Path) -> list[Path]:
    return sorted(corpus.glob("documents-*.parquet"))


def _groups(path: Path, corpus: Path) -> int:
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            return int(file.num_row_groups)
    except (OSError, ValueError) as error:
        raise _unreadable(path, corpus, error) from error


def _read(corpus: Path, place: tuple[int, int]) -> Group:
    import pyarrow.compute as compute
    import pyarrow.parquet as parquet

    path = _files(corpus)[place[0]]
    try:
        with parquet.ParquetFile(path) as file:
            repeated = COPIES in file.schema_arrow.names
            columns = ["text", "split", *([COPIES] if repeated else [])]
            table = file.read_row_group(place[1], columns=columns)
        texts = Texts.from_arrow(table["text"])
        codes: Any = compute.index_in(table["split"], value_set=_split_names())
        splits = compute.fill_null(codes, -1).to_numpy().astype(np.int64)
        copies = np.ones(len(texts), dtype=np.int64)
        if repeated:
            written = compute.fill_null(table[COPIES], 1).to_numpy().astype(np.int64)
            copies[splits == 0] = written[splits == 0]
    except (OSError, ValueError, KeyError) as error:  # pyarrow's errors are of these kinds
        raise _unreadable(path, corpus, error) from error
    if (splits < 0).any() or (copies < 0).any():
        problem = "It names a split that does not exist." if (splits < 0).any() else "It asks for copies below 0."
        raise _unreadable(path, corpus, problem)
    return Group(place, texts, splits, copies)


def _split_names() -> Any:
    import pyarrow

    return pyarrow.array(SPLITS)


def _unreadable(path: Path, corpus: Path, error: Exception | str) -> Failure:
    return Failure(f"{path} cannot be read.", str(error), f"Delete {corpus} and type the same command again.")
