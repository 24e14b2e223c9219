"""What the corpus tests share: a quiet build into a fresh run, and its rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from textmill.base.progress import Progress
from textmill.base.run import Run
from textmill.corpus.build import build_corpus
from textmill.corpus.config import CorpusConfig

Build = Callable[..., dict[str, Any]]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """`build(paths, out="run", **settings)` gives the card; near-duplicates stay unless asked, because the tests'
    texts are alike."""

    def make(*paths: Path | str, out: str = "run", **settings: Any) -> dict[str, Any]:
        run = Run.create(tmp_path / out)
        return build_corpus(
            [str(path) for path in paths],
            run,
            CorpusConfig(**{"near_duplicates": False, **settings}),
            Progress("quiet"),
        )

    return make


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """`rows("documents")` gives what a run holds, in order."""

    def read(name: str = "documents", out: str = "run") -> list[dict[str, Any]]:
        files = sorted((tmp_path / out / "corpus").glob(f"{name}-*.parquet"))
        return pa.concat_tables([pq.read_table(path) for path in files]).to_pylist()

    return read
