"""Tables kept on disk are those that would be built; another code, a broken file or a locked folder changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from textmill.corpus import tables


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    room = tmp_path / "room"
    room.mkdir()
    (room / "source.py").write_text("first")
    monkeypatch.setattr(tables, "FOLDER", room)
    monkeypatch.setenv("TEXTMILL_CACHE", str(tmp_path / "cache"))
    return room


def build(counter: list[int]) -> np.ndarray:
    """The table as a new process would get it."""

    @tables.stored("source.py")
    def squares() -> np.ndarray:
        counter.append(1)
        return np.arange(10, dtype=np.int32) ** 2

    return squares()


def test_a_table_is_built_once_and_read_from_then_on(folder: Path) -> None:
    counter: list[int] = []
    first, second = build(counter), build(counter)
    assert len(counter) == 1
    assert first.dtype == second.dtype == np.int32
    assert np.array_equal(first, second)
    assert len(list((folder / "__pycache__").glob("*.npy"))) == 1


def test_another_source_makes_another_table_and_removes_the_old(folder: Path) -> None:
    counter: list[int] = []
    build(counter)
    old = next((folder / "__pycache__").glob("*.npy"))
    (folder / "source.py").write_text("second")
    build(counter)
    assert len(counter) == 2
    assert not old.exists()
    assert len(list((folder / "__pycache__").glob("*.npy"))) == 1


@pytest.mark.parametrize("content", [b"", b"no table", b"\x93NUMPY\x01\x00"])
def test_a_broken_file_is_made_anew(folder: Path, content: bytes) -> None:
    counter: list[int] = []
    whole = build(counter)
    path = next((folder / "__pycache__").glob("*.npy"))
    path.write_bytes(content)
    assert np.array_equal(build(counter), whole)
    assert len(counter) == 2
    build(counter)
    assert len(counter) == 2


def test_a_file_cut_short_is_made_anew(folder: Path) -> None:
    counter: list[int] = []
    whole = build(counter)
    path = next((folder / "__pycache__").glob("*.npy"))
    path.write_bytes(path.read_bytes()[:-4])
    assert np.array_equal(build(counter), whole)
    assert len(counter) == 2


def test_where_the_code_may_not_be_written_the_cache_folder_serves(folder: Path, tmp_path: Path) -> None:
    (folder / "__pycache__").write_text("a file where a folder should be")
    counter: list[int] = []
    build(counter)
    build(counter)
    assert len(counter) == 1
    assert len(list((tmp_path / "cache" / "tables").glob("*.npy"))) == 1


def test_where_nothing_can_be_written_it_is_built_each_time(folder: Path, tmp_path: Path) -> None:
    (folder / "__pycache__").write_text("a file where a folder should be")
    (tmp_path / "cache").write_text("another")
    counter: list[int] = []
    assert np.array_equal(build(counter), build(counter))
    assert len(counter) == 2
