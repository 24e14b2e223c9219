"""What was measured once can be decided again: thresholds, mixtures, curricula, explanations, queries."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textmill.base.errors import Failure, UsageError
from textmill.base.progress import Progress
from textmill.base.run import Run
from textmill.corpus.build import rethreshold_corpus
from textmill.corpus.config import CorpusConfig
from textmill.corpus.explain import explain_document
from textmill.corpus.judging.dialects import rules_of
from textmill.corpus.query import ask

ENGLISH = (
    "The council met in the morning to talk about the bridge. Number {0} of the papers said that the river had risen "
    "by {0} inches, and that the people of the village were afraid of the water. They asked for help with {1} boats."
)
CHINESE = "第{0}号文件说，河水昨夜上涨了{1}寸，村里的人都很担心。他们请求派船来帮助运送粮食和衣物，并且修理那座旧桥。"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(150):
        body = " ".join(ENGLISH.format(number * 17 + at, number * number + at) for at in range(1 + number % 9))
        (folder / f"en-{number:03d}.txt").write_text(body)
    for number in range(60):
        body = "".join(CHINESE.format(number * 13 + at, number * number + at) for at in range(2 + number % 5))
        (folder / f"zh-{number:03d}.txt").write_text(body)
    return folder


SETTINGS: dict[str, Any] = {"small_corpus": 0, "near_duplicates": False}


def test_other_thresholds_decide_without_the_inputs(texts: Path, build, rows, tmp_path: Path) -> None:
    first = build(texts, **SETTINGS)
    assert first["kept"]["documents"] == 210
    for path in texts.iterdir():
        path.unlink()
    run = Run.open(tmp_path / "run")
    card = rethreshold_corpus(run, CorpusConfig(**SETTINGS, min_characters=600), Progress("quiet"))
    kept = rows()
    assert 0 < card["kept"]["documents"] == len(kept) < 210
    assert all(row["characters_weighted"] >= 600 for row in kept)
    dropped = [row for row in rows("rejected") if row["rule"] == "too_short"]
    assert len(dropped) + len(kept) == 210
    assert card["rules"]["too_short"]["threshold"] == 600
    # And back: nothing was lost on the way.
    again = rethreshold_corpus(run, CorpusConfig(**SETTINGS), Progress("quiet"))
    assert {**again, "dropped": {}} == {**first, "dropped": {}}


def test_the_card_tells_the_effect_of_a_threshold_truly(texts: Path, build, tmp_path: Path) -> None:
    card = build(texts, **SETTINGS, min_characters=300)
    effect = {step["threshold"]: step["documents"] for step in card["rules"]["too_short"]["would_drop"]}
    run = Run.open(tmp_path / "run")
    for threshold in (150, 300, 600):
        settings = CorpusConfig(**SETTINGS, min_characters=threshold)
        found = rethreshold_corpus(run, settings, Progress("quiet"))
        assert found["dropped"].get("too_short", {"documents": 0})["documents"] == effect[threshold]


def test_rethresholding_cannot_change_what_was_measured(texts: Path, build, tmp_path: Path) -> None:
    build(texts, **SETTINGS)
    run = Run.open(tmp_path / "run")
    with pytest.raises(UsageError, match="--rethreshold cannot change --pii"):
        rethreshold_corpus(run, CorpusConfig(**SETTINGS, pii="replace"), Progress("quiet"))
    with pytest.raises(UsageError, match="signatures"):
        rethreshold_corpus(run, CorpusConfig(small_corpus=0), Progress("quiet"))


def test_a_rule_that_drops_everything_is_named_and_the_old_corpus_stays(
    texts: Path, build, rows, tmp_path: Path
) -> None:
    build(texts, **SETTINGS)
    run = Run.open(tmp_path / "run")
    with pytest.raises(Failure) as caught:
        rethreshold_corpus(run, CorpusConfig(**SETTINGS, min_characters=10**6), Progress("quiet"))
    assert "too_short 210" in caught.value.why
    assert "--min-characters" in caught.value.fix
    assert len(rows()) == 210


def test_a_mixture_reaches_its_shares(texts: Path, build, rows) -> None:
    card = build(texts, **SETTINGS, mix={"zh": 0.5})
    train = [row for row in rows() if row["split"] == "train"]
    size = {
        code: sum(len(row["text"].encode()) * row["copies"] for row in train if row["language"] == code)
        for code in ("en", "zh")
    }
    assert size["zh"] / (size["zh"] + size["en"]) == pytest.approx(0.5, abs=0.06)
    assert card["mixture"]["zh"]["reached"] == pytest.approx(size["zh"] / (size["zh"] + size["en"]), abs=1e-3)
    assert all(row["copies"] == 1 for row in rows() if row["split"] != "train")


def test_copies_are_limited_and_the_card_says_so(texts: Path, build, rows) -> None:
    card = build(texts, **SETTINGS, mix={"zh": 0.95}, max_copies=2)
    assert card["mixture"]["zh"]["limited"]
    assert max(row["copies"] for row in rows()) == 2
    assert card["mixture"]["zh"]["reached"] < 0.95


def test_an_unknown_name_in_a_mixture_names_the_nearest(texts: Path, build) -> None:
    with pytest.raises(UsageError, match='no language "zn"'):
        build(texts, **SETTINGS, mix={"zn": 0.5})


def test_a_curriculum_orders_the_documents(texts: Path, build, rows) -> None:
    build(texts, **SETTINGS, order="short-first")
    lengths = [row["characters"] for row in rows()]
    assert lengths == sorted(lengths)
    assert len(lengths) == 210


def test_languages_can_be_chosen(texts: Path, build, rows) -> None:
    card = build(texts, **SETTINGS, languages=("zh",))
    assert {row["language"] for row in rows()} == {"zh"}
    assert card["dropped"]["language"]["documents"] == 150
    assert {row["value"] for row in rows("rejected")} == {"en"}


def test_repeats_are_recorded_with_what_they_repeat(build, rows, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    body = [ENGLISH.format(at, at * at) for at in range(12)]
    (folder / "a.txt").write_text(" ".join(body))
    (folder / "b.txt").write_text(" ".join(body).replace("afraid", "scared", 1) + " And so on it went for a while.")
    (folder / "c.txt").write_text(" ".join(body))
    draw = random.Random(0)
    for number in range(120):
        (folder / f"other-{number}.txt").write_text("".join(chr(draw.randrange(0x4E00, 0x9000)) for _ in range(200)))
    build(folder, small_corpus=0, near_duplicates=True, near_threshold=0.7)
    dropped = {Path(row["source"]).name: row for row in rows("rejected") if "other" not in row["source"]}
    assert dropped["c.txt"]["rule"] == "duplicate"
    assert dropped["a.txt"]["rule"] == "near_duplicate"  # b is longer
    kept = {row["id"]: row["source"] for row in rows()}
    assert Path(kept[dropped["a.txt"]["duplicate_of"]]).name == "b.txt"
    assert 0.7 <= float(dropped["a.txt"]["value"]) < 1


def test_explain_shows_every_rule(texts: Path, build, rows, tmp_path: Path) -> None:
    repetition = [rule.name for rule in rules_of(["datatrove-gopher"], {}) if rule.name.startswith(("dup", "top"))]
    loose = {"rules": ("datatrove-gopher",), "thresholds": dict.fromkeys(repetition, 0.9)}
    build(texts, **SETTINGS, min_characters=600, **loose)
    run = Run.open(tmp_path / "run")
    gone = next(row for row in rows("rejected") if row["rule"] == "too_short")
    found = explain_document(run, gone["source"])
    assert (found["kept"], found["rule"]) == (False, "too_short")
    by_name = {rule["rule"]: rule for rule in found["rules"]}
    assert by_name["too_short"]["value"] == gone["characters_weighted"]
    assert not by_name["too_short"]["keeps"]
    assert by_name["symbols"]["keeps"]
    assert by_name["top_2_gram"]["threshold"] == 0.9
    stays = rows()[0]
    assert explain_document(run, stays["id"][:12])["kept"]
    beside = tmp_path / "beside.txt"
    beside.write_text("short")
    assert explain_document(run, str(beside))["rule"] == "too_short"
    with pytest.raises(UsageError, match="There is no document nowhere"):
        explain_document(run, "nowhere.txt")


def test_queries_see_documents_and_judgements_and_nothing_else(texts: Path, build, tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    build(texts, **SETTINGS)
    run = Run.open(tmp_path / "run")
    names, answer = ask(run, "select language, count(*) as n from documents group by 1 order by 1")
    assert names == ["language", "n"]
    assert answer == [("en", 150), ("zh", 60)]
    for sql in ("select nonsense from documents", "select * from '/etc/passwd'", "copy documents to '/tmp/x.csv'"):
        with pytest.raises(UsageError, match="could not be answered"):
            ask(run, sql)


def test_a_second_build_with_other_thresholds_does_not_measure_again(
    texts: Path, build: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    build(texts, **SETTINGS)
    before = {path.name: path.stat().st_ino for path in (tmp_path / "run/corpus/measured").glob("*.parquet")}
    card = build(texts, **SETTINGS, min_characters=300)
    after = {path.name: path.stat().st_ino for path in (tmp_path / "run/corpus/measured").glob("*.parquet")}
    assert before == after
    assert card == json.loads((tmp_path / "run/corpus/card.json").read_text())
