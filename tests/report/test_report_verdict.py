"""The sentences say what the numbers say: ahead, behind, not settled, too little text."""

from __future__ import annotations

from typing import Any

import pytest

from textmill.report.verdict import caveats, overlap, overrun, verdict


def row(name: str, kind: str, value: float, half: float | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "label": name, "kind": kind, "bits_per_byte": value}
    return found if half is None else {**found, "low": value - half, "high": value + half}


def data(own: float, half: float = 0.02, *, name: str = "test", size: int = 600_000, documents: int = 50) -> Any:
    rows = [
        row("textmill", "model", own, half),
        row("Kneser-Ney 5-gram", "baseline", 1.71, 0.03),
        row("unigram", "baseline", 2.77, 0.03),
        row("xz -9e", "compressor", 2.30),
    ]
    return {"evaluation": [{"name": name, "data": {"documents": documents, "bytes": size}, "rows": rows}]}


def test_a_model_ahead_of_everything_is_said_to_be_and_needs_no_caveat() -> None:
    assert verdict(data(1.42)) == (
        "This model needs 1.42 bits for each byte of text it has never seen; the best baseline (Kneser-Ney "
        "5-gram) needs 1.71 and the best compressor (xz -9e) needs 2.30: it predicts this text better than "
        "everything it was compared with."
    )
    assert caveats(data(1.42)) == []


def test_a_model_behind_the_ngram_is_said_to_be_worse() -> None:
    assert verdict(data(1.95)).endswith("it is worse than Kneser-Ney 5-gram.")
    assert any(line.startswith("Worse than Kneser-Ney 5-gram: counting") for line in caveats(data(1.95)))
    assert "worse than everything" in verdict(data(3.5))


def test_overlapping_intervals_are_never_called_a_win() -> None:
    ahead, behind = data(1.68), data(1.73)
    assert verdict(ahead).endswith("it is ahead, but the intervals overlap, so the lead is not certain.")
    assert verdict(behind).endswith("it does not get ahead of Kneser-Ney 5-gram, though the intervals overlap.")
    for either in (ahead, behind):
        assert any("overlaps Kneser-Ney 5-gram (1.71)" in line for line in caveats(either))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (row("a", "model", 1.0, 0.1), row("b", "baseline", 1.15, 0.1), True),
        (row("a", "model", 1.0, 0.1), row("b", "baseline", 1.25, 0.1), False),
        (row("a", "model", 1.0, 0.1), row("b", "compressor", 1.05), True),
        (row("a", "model", 1.0, 0.1), row("b", "compressor", 1.2), False),
    ],
)
def test_overlap(one: Any, other: Any, expected: bool) -> None:
    assert overlap(one, other) is overlap(other, one) is expected


def test_a_tiny_corpus_and_a_short_test_are_named_with_their_sizes() -> None:
    small = {**data(1.42, size=9_000, documents=3), "corpus": {"kept": {"documents": 30, "bytes": 88_000}}}
    said = " ".join(caveats(small))
    assert "The corpus is small (88.0 kB)" in said
    assert "3 documents and 9.0 kB" in said


def test_validation_alone_is_not_called_unseen_text() -> None:
    assert "never seen" not in verdict(data(1.42, name="validation"))
    assert any("chose the best checkpoint" in line for line in caveats(data(1.42, name="validation")))


def test_a_loss_elsewhere_is_told_although_the_test_split_was_won() -> None:
    both = {"evaluation": [*data(1.42)["evaluation"], *data(1.95, name="novels")["evaluation"]]}
    assert any('On "novels"' in line and "Kneser-Ney" in line for line in caveats(both))


def test_more_than_a_tenth_over_the_budget_is_a_caveat() -> None:
    def plan(actual: float) -> dict[str, Any]:
        return {"budget_seconds": 600.0, "actual": {"total_seconds": actual}}

    assert overrun(plan(690.0)) == pytest.approx(0.15)
    assert any("15% too long" in line for line in caveats({**data(1.42), "plan": plan(690.0)}))
    assert caveats({**data(1.42), "plan": plan(650.0)}) == []
    assert overrun({"budget_seconds": 600.0}) is None


def test_validation_that_rose_again_and_many_epochs_are_caveats() -> None:
    best = {"step": 100, "bits_per_byte": 1.4}
    training = {"finished": True, "best": best, "validation": [best, {"step": 300, "bits_per_byte": 1.6}]}
    said = " ".join(caveats({**data(1.42), "training": training, "plan": {"chosen": {"epochs": 9.5}}}))
    assert "from 1.40 at step 100 to 1.60" in said
    assert "9.5 times" in said


def test_without_a_measurement_the_sentence_says_how_far_the_run_is() -> None:
    corpus = {"corpus": {"kept": {"documents": 236, "bytes": 11_934_207}}}
    assert verdict({}).startswith("This run is empty so far")
    assert "236 documents, 11.9 MB" in verdict(corpus)
    training = {"finished": False, "best": {"step": 9, "bits_per_byte": 2.5}}
    assert "in training and needs 2.50 bits" in verdict({**corpus, "training": training})
    alone = {"evaluation": [{"name": "test", "data": {}, "rows": [row("textmill", "model", 1.4, 0.1)]}]}
    assert "stands alone" in verdict(alone)
