"""Shards: what is written is read back, across files, with document bounds; damage is told."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textmill.base.errors import Failure, UsageError
from textmill.tokens.shards import Shards, shard_dtype


@given(
    documents=st.lists(st.lists(st.integers(1, 65_535), max_size=25), max_size=12),
    shard_tokens=st.integers(1, 40),
)
@settings(max_examples=60, deadline=None)
def test_documents_come_back_across_shards(
    make_shards: Callable[..., Shards], documents: list[list[int]], shard_tokens: int
) -> None:
    shards = make_shards(documents, shard_tokens=shard_tokens)
    stream = [token for ids in documents for token in [*ids, 0]]
    assert shards.tokens == len(stream)
    assert shards.documents == len(documents) == len(shards.ends)
    assert shards.bytes == 3 * sum(map(len, documents))
    assert shards.read(0, shards.tokens).tolist() == stream
    for start in range(0, len(stream), 7):
        assert shards.read(start, min(start + 13, len(stream))).tolist() == stream[start : start + 13]
    for i, ids in enumerate(documents):
        assert shards.document(i).tolist() == [*ids, 0]
    assert shards.ends.dtype == np.int64


def test_a_document_is_never_cut_between_files(make_shards: Callable[..., Shards]) -> None:
    shards = make_shards([[1] * 6, [2] * 6, [3] * 30, [4]], shard_tokens=10)
    sizes = [path.stat().st_size // 2 for path in sorted(shards.folder.glob("train-*.bin"))]
    assert sizes == [7, 7, 31, 2]
    assert np.load(shards.folder / "train-00002.ends.npy").tolist() == [31]
    assert shards.ends.tolist() == [7, 14, 45, 47]


def test_ids_above_16_bits_are_kept(make_shards: Callable[..., Shards]) -> None:
    assert (shard_dtype(65_536), shard_dtype(65_537)) == ("uint16", "uint32")
    shards = make_shards([[70_000, 1]], dtype="uint32")
    assert shards.read(0, 3).tolist() == [70_000, 1, 0]
    assert shards.read(0, 3).dtype == np.int64


def test_an_id_too_large_for_the_type_is_refused(make_shards: Callable[..., Shards]) -> None:
    with pytest.raises(OverflowError):
        make_shards([[70_000]])


def test_positions_outside_the_split_are_refused(make_shards: Callable[..., Shards]) -> None:
    shards = make_shards([[1, 2]])
    for start, stop in ((0, 4), (-1, 2), (2, 1)):
        with pytest.raises(IndexError):
            shards.read(start, stop)
    with pytest.raises(IndexError):
        shards.document(1)


def test_a_cut_shard_is_told(make_shards: Callable[..., Shards]) -> None:
    folder = make_shards([[1, 2, 3]]).folder
    (folder / "train-00000.bin").write_bytes(b"\0\0")
    with pytest.raises(Failure, match="damaged"):
        Shards(folder, "train")
    (folder / "train-00000.bin").unlink()
    with pytest.raises(Failure, match="damaged"):
        Shards(folder, "train")


def test_a_cut_shard_index_is_told(make_shards: Callable[..., Shards]) -> None:
    shards = make_shards([[1, 2, 3]])
    (shards.folder / "train-00000.ends.npy").write_bytes(b"x")
    with pytest.raises(Failure, match="damaged"):
        _ = shards.ends


def test_a_missing_folder_or_split_names_the_way_on(make_shards: Callable[..., Shards]) -> None:
    folder = make_shards([[1]]).folder
    with pytest.raises(UsageError, match="textmill tokenize"):
        Shards(folder / "tokens", "train")
    with pytest.raises(UsageError, match='Did you mean "train"'):
        Shards(folder, "trian")
