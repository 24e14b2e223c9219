"""What a comparison of families says, in words: which to take for this corpus and this time, and how sure that is.
Touches nothing."""

from __future__ import annotations

from typing import Any

from textmill.base.settings import show_bytes, show_count, show_duration


def recommend(board: dict[str, Any], facts: dict[str, Any]) -> str:
    """A recommendation with its reasons and limits.

    Args:
        board: "rows", "failed", "budget_seconds" of the leaderboard.
        facts: "train_bytes", "train_tokens", "vocabulary" of the run.
    """
    rows = [row for row in board["rows"] if row["kind"] == "family" and row["comparable"]]
    mixed = [row for row in board["rows"] if row["kind"] == "mixture" and row["comparable"]]
    if not rows:
        return "No family here has a likelihood that could be compared."
    exact = [row for row in rows if not row["bound"]] or rows
    best = min(exact, key=lambda row: float(row["bits_per_byte"]))
    said = [
        f"For {show_bytes(facts['train_bytes'])} of text and {show_duration(board['budget_seconds'])} in all, take the "
        f"{best['label']}: {best['bits_per_byte']:.3f} bits per byte on validation, "
        f"{best['test_bits_per_byte']:.3f} on test, after {show_duration(best['seconds'])} of training."
    ]
    level = [row for row in exact if row is not best and _overlaps(row, best)]
    if level:
        names = ", ".join(row["label"] for row in level)
        said.append(f"Its 95% interval overlaps with that of {names}: between them this test does not decide.")
    quick = min(exact, key=lambda row: float(row["seconds"]))
    if quick is not best and quick["seconds"] < best["seconds"] / 3:
        behind = quick["bits_per_byte"] - best["bits_per_byte"]
        said.append(
            f"In a hurry: the {quick['label']} needed {show_duration(quick['seconds'])} and is {behind:.3f} behind."
        )
    small = min(exact, key=lambda row: float(row["bytes"]))
    if small is not best and small["bytes"] < best["bytes"] / 4 and small is not quick:
        behind = small["bits_per_byte"] - best["bits_per_byte"]
        said.append(f"Smallest: the {small['label']} with {show_bytes(small['bytes'])}, {behind:.3f} behind.")
    if mixed:
        top = min(mixed, key=lambda row: float(row["bits_per_byte"]))
        gain = best["test_bits_per_byte"] - top["test_bits_per_byte"]
        if best["documents"] < best["documents_drawn"]:
            gain = top["test_gain"]  # the best family was not scored on all of the documents: compare with its halves
        if gain > 0.005:
            said.append(f"Mixing {top['label']} gains {gain:.3f} on test, at the price of running both.")
        else:
            said.append("No mixture of two is worth running both: the best gains less than 0.005 on test.")
    counted = next((row for row in rows if row["family"] == "ngram"), None)
    if best is counted:
        said.append(
            "That counting wins means that the time was too short, or the text too small, for the neural families: "
            "more time or text may turn it."
        )
    said.append(
        f"Limits: one seed, {show_count(best.get('tokens_scored', 0))} tokens of held-out text, this machine, equal "
        "shares of time; with more time the order may change in favour of the larger families."
    )
    short = [row for row in rows if row["documents"] < row["documents_drawn"]]
    if short:
        names = ", ".join(row["label"] for row in short)
        said.append(f"Slow to score, so measured on fewer documents than the others: {names}.")
    if any(row["bound"] for row in rows):
        said.append("Figures of families with latent variables are bounds: their true ones are somewhat lower.")
    if board["failed"]:
        said.append("Left out: " + ", ".join(one["family"] for one in board["failed"]) + ".")
    return " ".join(said)


def _overlaps(row: dict[str, Any], best: dict[str, Any]) -> bool:
    bounds = (row.get("low"), row.get("high"), best.get("low"), best.get("high"))
    if any(value is None for value in bounds):
        return False
    return bool(row["low"] <= best["high"] and best["low"] <= row["high"])
