"""A toxicity classifier of the user's own: the column, the rule, other thresholds later, and what it asks for."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from textmill.base.errors import UsageError
from textmill.base.progress import Progress
from textmill.base.run import Run
from textmill.corpus.build import rethreshold_corpus
from textmill.corpus.config import CorpusConfig

WHO = (
    "the neighbours in the yellow house", "everybody who lives across the river", "the people of the next village",
    "my brother and all his friends", "the players of the other team", "whoever wrote this letter to me",
    "the new teacher at our school", "the crew of the night train", "the cooks of the small kitchen",
    "the man who sells the papers",
)  # fmt: skip
HARMLESS = (
    "I met {} this morning and we talked about the garden for an hour.",
    "It was kind of {} to bring us bread and soup when we were ill.",
    "Nobody sings as well as {} on a warm evening by the water.",
    "We will ask {} to join us for the walk to the lake on Sunday.",
)
TOXIC = (
    "I despise {}, worthless vermin who should crawl back to their gutter.",
    "Filthy liars, that is what {} are, and scum like that deserves a beating.",
    "Shut up, {} are disgusting idiots and too stupid to live among us.",
    "Get rid of {}, those rotten parasites make me want to spit at them.",
)


def _lines(path: Path, frames: tuple[str, ...], who: tuple[str, ...]) -> Path:
    texts = [frame.format(one) + " " + other.format(one) for frame, other in itertools.permutations(frames, 2)
             for one in who]  # fmt: skip
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


@pytest.fixture
def posts(tmp_path: Path) -> dict[str, Path]:
    """Texts to learn from, and others of people that the learned texts do not name."""
    mixed = tmp_path / "posts.jsonl"
    harmless = _lines(tmp_path / "a.jsonl", HARMLESS, WHO[8:]).read_text()
    mixed.write_text(harmless + _lines(tmp_path / "b.jsonl", TOXIC, WHO[8:]).read_text())
    return {
        "toxic": _lines(tmp_path / "toxic.jsonl", TOXIC, WHO[:8]),
        "harmless": _lines(tmp_path / "harmless.jsonl", HARMLESS, WHO[:8]),
        "posts": mixed,
    }


def _settings(posts: dict[str, Path], **more: object) -> dict[str, object]:
    return {"toxic": (str(posts["toxic"]),), "harmless": (str(posts["harmless"]),), "small_corpus": 0, **more}


def test_toxicity_is_a_column_learned_from_the_users_own_texts(posts: dict[str, Path], build, rows) -> None:
    build(posts["posts"], **_settings(posts))
    scores = [row["toxicity_score"] for row in rows()]
    assert len(scores) == 48
    assert max(scores[:24]) < 0.5 < min(scores[24:])


def test_a_threshold_drops_and_another_needs_no_second_reading(
    posts: dict[str, Path], build, rows, tmp_path: Path
) -> None:
    card = build(posts["posts"], **_settings(posts, max_toxicity=0.5))
    assert card["dropped"]["toxicity"]["documents"] == 24
    assert {row["rule"] for row in rows("rejected")} == {"toxicity"}
    highest = max(row["toxicity_score"] for row in rows("rejected"))
    for name in ("posts", "toxic", "harmless"):
        posts[name].unlink()
    looser = CorpusConfig(max_toxicity=highest, small_corpus=0, near_duplicates=False)
    assert rethreshold_corpus(Run.open(tmp_path / "run"), looser, Progress("quiet"))["kept"]["documents"] == 48
    tighter = CorpusConfig(max_toxicity=0.5, small_corpus=0, near_duplicates=False)
    assert rethreshold_corpus(Run.open(tmp_path / "run"), tighter, Progress("quiet"))["kept"]["documents"] == 24


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_toxicity": 0.5}, "--max-toxicity needs --toxic"),
        ({"harmless": ("x",)}, "--harmless needs --toxic"),
        ({"min_quality": 0.5}, "--min-quality needs --good"),
        ({"toxic": ("nowhere",)}, "There is no nowhere"),
    ],
)
def test_what_nothing_was_learned_for_is_told(posts: dict[str, Path], build, settings: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        build(posts["posts"], **settings)


def test_a_score_beyond_one_is_refused() -> None:
    with pytest.raises(UsageError, match="--max-toxicity 2 is not a score"):
        CorpusConfig(max_toxicity=2)


def test_too_little_toxic_text_is_told_by_its_option(posts: dict[str, Path], build, tmp_path: Path) -> None:
    (tmp_path / "few.txt").write_text("You are an idiot, and a liar as well, and nobody here can stand you.")
    with pytest.raises(UsageError, match="too little toxic text") as told:
        build(posts["posts"], toxic=(str(tmp_path / "few.txt"),))
    assert "--toxic" in str(told.value.fix)
