"""Sentences on the corpus: what was made of it, and what to know before using it. Pure functions; touches nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textmill.base.settings import show_bytes
from textmill.report.card import card_view, mapping, number

MUCH_DROPPED = 0.3
"""A single rule that drops this share of all documents is worth a look at its examples."""
MISSED_SHARE = 0.02
"""A part of the mixture this far from its wanted share is named."""
UNKNOWN_SHARE = 0.3
"""With this share of the text in no known language, language rules judge blindly."""


def corpus_sentence(data: Mapping[str, Any]) -> str:
    """What was done with the texts so far and what to type next, from `report.data.collect`'s dictionary."""
    kept = mapping(mapping(data.get("corpus")).get("kept"))
    view = card_view(mapping(data.get("corpus")))
    totals = view["totals"]
    made = "tokenized" if data.get("tokens") else "ready"
    sentence = (
        f"The corpus is {made}: {number(kept.get('documents')):,.0f} "
        f"{'pieces of documents' if totals['cut'] else 'documents'}, "
        f"{show_bytes(number(kept.get('bytes')))} of clean text"
    )
    gone = totals["dropped"]["documents"]
    if gone:
        sentence += f"; {gone:,.0f} of {totals['judged']:,.0f} documents read were left out"
    board = mapping(data.get("leaderboard"))
    own = [row for row in board.get("rows", []) if row.get("kind") == "family" and row.get("comparable")]
    if own:
        best = min(own, key=lambda row: number(row.get("bits_per_byte")))
        return (
            f"{sentence}. {len(own)} families of model were compared on it: alone, the {best['label']} predicts it "
            f"best, at {number(best.get('bits_per_byte')):.3f} bits per byte."
        )
    sentence += ". No model is trained from it yet"
    commands = mapping(data.get("commands"))
    following = commands.get("train" if data.get("tokens") else "tokens")
    return f"{sentence}; next, type: {following}" if following else f"{sentence}."


def corpus_caveats(data: Mapping[str, Any]) -> list[str]:
    """What a careful reader should know of the corpus, from `collect`'s dictionary."""
    card = mapping(data.get("corpus"))
    if not card:
        return []
    record = mapping(mapping(data.get("stages")).get("corpus"))
    configuration = mapping(record.get("configuration"))
    view = card_view(card, configuration)
    found = []
    for rule in [*view["dropped"], *view["dropped_more"]]:
        if rule["share"] > MUCH_DROPPED:
            found.append(
                f'The rule "{rule["name"].replace("_", " ")}" dropped {rule["share"]:.0%} of the documents: '
                "read its examples below before you trust it."
            )
    missed = [part for part in view["mixture"] if part["limited"] and part["wanted"] - part["reached"] > MISSED_SHARE]
    if missed:
        parts = ", ".join(f'"{one["name"]}" is {one["reached"]:.0%} instead of {one["wanted"]:.0%}' for one in missed)
        found.append(
            f"The training text falls short of the wanted mixture: {parts}, even with each document read "
            f"{max(one['copies'] for one in missed):g} times."
        )
    private = view["private"]
    if private and private["total"] and private["total"]["found"] and configuration.get("pii") == "measure":
        found.append(
            f"The text holds personal data: {private['total']['found']:,.0f} finds in "
            f"{private['total']['documents']:,.0f} documents. --pii replace puts placeholders in its place."
        )
    if view["totals"]["cut"]:
        found.append(
            "Long documents were cut into pieces, and training, validation and test hold pieces of the same "
            "documents: figures on the test split are a little too good."
        )
    unknown = next((row["share"] for row in view["languages"] if not row["code"]), 0.0)
    if unknown > UNKNOWN_SHARE:
        found.append(f"For {unknown:.0%} of the text the language is not known.")
    problems = view["reading"]["problem_count"]
    if problems and not data.get("evaluation"):
        found.append(
            f"{problems:,.0f} {'problem was' if problems == 1 else 'problems were'} met while reading: see below."
        )
    return found
