"""Sentences from numbers: what the figures say and what they do not. Pure functions; touches nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textmill.base.settings import show_bytes, show_duration
from textmill.report.card import mapping
from textmill.report.corpus_verdict import corpus_caveats, corpus_sentence
from textmill.report.figures import is_number

SMALL_TEST_BYTES = 100_000
SMALL_TEST_DOCUMENTS = 30
SMALL_CORPUS_BYTES = 1_000_000
MANY_EPOCHS = 4
"""Repeating text up to about four times is worth almost as much as new text (Muennighoff et al. 2023)."""
OVERRUN_ALLOWED = 0.10
RISE_SHOWN = 0.02


def own_row(measurement: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The row of the run's own model: the one named "textmill", else the first of kind "model"."""
    models = [row for row in measurement.get("rows", []) if row.get("kind") == "model"]
    return next((row for row in models if row.get("name") == "textmill"), models[0] if models else None)


def rivals(measurement: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Every other row, best first."""
    own = own_row(measurement)
    others = [row for row in measurement.get("rows", []) if row is not own]
    return sorted(others, key=lambda row: row["bits_per_byte"])


def overlap(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the 95% intervals of two rows share a value; a row without one counts as its point."""
    low, high = one.get("low"), one.get("high")
    other_low, other_high = other.get("low"), other.get("high")
    low = one["bits_per_byte"] if low is None else low
    high = one["bits_per_byte"] if high is None else high
    other_low = other["bits_per_byte"] if other_low is None else other_low
    other_high = other["bits_per_byte"] if other_high is None else other_high
    return bool(low <= other_high and other_low <= high)


def overrun(plan: Mapping[str, Any] | None) -> float | None:
    """By which share of the budget the build ran over it (negative: it was early); None when not known."""
    budget = (plan or {}).get("budget_seconds")
    actual = ((plan or {}).get("actual") or {}).get("total_seconds")
    return None if not budget or actual is None else actual / budget - 1


def _label(row: Mapping[str, Any]) -> str:
    return str(row.get("label") or row.get("name"))


def _number(value: float) -> str:
    return f"{value:.2f}"


def main_measurement(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The measurement which the verdict speaks of: test, else validation, else the first with a model."""
    return next((m for m in data.get("evaluation") or [] if own_row(m) is not None), None)


def verdict(data: Mapping[str, Any]) -> str:
    """One sentence in plain words on what came out of the run, from `report.data.collect`'s dictionary."""
    measurement = main_measurement(data)
    if measurement is None:
        return _unmeasured(data)
    own = own_row(measurement)
    assert own is not None
    name = str(measurement.get("name"))
    kind = {
        "test": "text it has never seen",
        "validation": "the validation text",
    }.get(name, f'the text of "{name}"')
    return (
        f"This model needs {_number(own['bits_per_byte'])} bits for each byte of {kind}; "
        f"{_comparison(own, rivals(measurement))}"
    )


def _comparison(own: Mapping[str, Any], others: list[Mapping[str, Any]]) -> str:
    if not others:
        return "nothing was measured beside it, so the figure stands alone."
    parts = []
    for kind, name in (("model", "other model"), ("baseline", "baseline"), ("compressor", "compressor")):
        row = next((row for row in others if row.get("kind") == kind), None)
        if row is not None:
            parts.append(f"the best {name} ({_label(row)}) needs {_number(row['bits_per_byte'])}")
    said = ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + (parts[-1] if parts else "")
    ahead = [row for row in others if row["bits_per_byte"] <= own["bits_per_byte"]]
    near = [row for row in others if overlap(own, row)]
    if not ahead and not near:
        return f"{said}: it predicts this text better than everything it was compared with."
    if not ahead:
        return f"{said}: it is ahead, but the intervals overlap, so the lead is not certain."
    names = _join([_label(row) for row in ahead])
    if len(ahead) == len(others) and len(others) > 1:
        names = "everything it was compared with"
    if any(row not in near for row in ahead):
        return f"{said}: it is worse than {names}."
    return f"{said}: it does not get ahead of {names}, though the intervals overlap."


def _join(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _unmeasured(data: Mapping[str, Any]) -> str:
    training = data.get("training")
    if training:
        best = training.get("best")
        doing = "The model is trained" if training.get("finished") else "The model is in training"
        if best:
            return (
                f"{doing} and needs {_number(best['bits_per_byte'])} bits for each byte of the validation "
                "text; it is not measured on unseen text yet, nor against any baseline."
            )
        return f"{doing}; it is not measured yet."
    if data.get("corpus"):
        return corpus_sentence(data)
    first = (data.get("commands") or {}).get("corpus")
    return "This run is empty so far: it has no corpus, no tokens and no model yet" + (
        f"; to begin, type: {first}" if first else "."
    )


def caveats(data: Mapping[str, Any]) -> list[str]:
    """What a careful reader should know before trusting the verdict, from `collect`'s dictionary."""
    found: list[str] = []
    measurement = main_measurement(data)
    if measurement is not None:
        found += _measurement_caveats(measurement)
        found += _elsewhere(data, measurement)
    training = data.get("training") or {}
    if training and not training.get("finished"):
        found.append("Training is not finished: the curve and the samples are those so far.")
    best, points = training.get("best"), training.get("validation") or []
    if best and points and points[-1]["bits_per_byte"] > best["bits_per_byte"] * (1 + RISE_SHOWN):
        found.append(
            f"Validation rose again after its best, from {_number(best['bits_per_byte'])} at step "
            f"{best.get('step')} to {_number(points[-1]['bits_per_byte'])}: "
            "the model began to learn its training text by heart."
        )
    size: Any = mapping(mapping(data.get("corpus")).get("kept")).get("bytes")
    if is_number(size) and size < SMALL_CORPUS_BYTES:
        found.append(
            f"The corpus is small ({show_bytes(size)}): so little text teaches spelling and phrases, "
            "not knowledge. More text helps more than more time."
        )
    found += corpus_caveats(data)
    plan = data.get("plan") or {}
    epochs = (plan.get("chosen") or {}).get("epochs")
    if isinstance(epochs, int | float) and epochs > MANY_EPOCHS:
        found.append(
            f"The plan reads the training text {epochs:.1f} times; beyond about {MANY_EPOCHS} times, reading "
            "it again teaches little."
        )
    over = overrun(plan)
    if over is not None and over > OVERRUN_ALLOWED:
        actual, budget = plan["actual"]["total_seconds"], plan["budget_seconds"]
        found.append(
            f"The build took {show_duration(actual)} of a budget of {show_duration(budget)}: {over:.0%} too long."
        )
    if data.get("unreadable"):
        found.append(f"Could not be read, and is left out here: {', '.join(data['unreadable'])}.")
    return found


def _elsewhere(data: Mapping[str, Any], measurement: Mapping[str, Any]) -> list[str]:
    """Where else, among the other measurements, a rival is ahead."""
    found = []
    for other in data.get("evaluation") or []:
        own = own_row(other)
        if other is measurement or own is None:
            continue
        ahead = [_label(row) for row in rivals(other) if row["bits_per_byte"] <= own["bits_per_byte"]]
        if ahead:
            name, value = other.get("name"), own["bits_per_byte"]
            found.append(
                f'On "{name}" the model needs {_number(value)} bits per byte and does not get ahead of {_join(ahead)}.'
            )
    return found


def _measurement_caveats(measurement: Mapping[str, Any]) -> list[str]:
    found = []
    own = own_row(measurement)
    assert own is not None
    for row in rivals(measurement):
        worse, near = row["bits_per_byte"] <= own["bits_per_byte"], overlap(own, row)
        if worse and not near:
            reason = {
                "baseline": "counting tokens predicts this text better than the network does. "
                "A longer budget or more text should turn that round.",
                "compressor": "a general compressor with no training predicts this text better.",
            }.get(str(row.get("kind")), "prefer that one for text like this.")
            found.append(f"Worse than {_label(row)}: {reason}")
        elif near:
            found.append(
                f"The 95% interval overlaps {_label(row)} ({_number(row['bits_per_byte'])}): this "
                "measurement does not settle which of the two is better."
            )
    name = measurement.get("name")
    if name == "validation":
        found.append(
            "Measured on the validation split, which also chose the best checkpoint: the figure is a little too good."
        )
    if own.get("low") is None or own.get("high") is None:
        found.append("There is no interval for this figure, so its uncertainty is not known.")
    facts = measurement.get("data") or {}
    documents, size = facts.get("documents"), facts.get("bytes")
    few = documents is not None and documents < SMALL_TEST_DOCUMENTS
    if few or (size is not None and size < SMALL_TEST_BYTES):
        amount = " and ".join(
            part
            for part in (
                f"{documents} document{'' if documents == 1 else 's'}" if documents is not None else "",
                show_bytes(size) if size is not None else "",
            )
            if part
        )
        found.append(f"The text measured on is short ({amount}): other texts may well give another figure.")
    return found
