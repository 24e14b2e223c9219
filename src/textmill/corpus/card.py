"""The data card: what was read, kept, dropped and why. Touches nothing."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from textmill.corpus.assemble import examples, show_value, source_of
from textmill.corpus.config import CorpusConfig
from textmill.corpus.decide import EXPLANATIONS, Chunks, Rows, Ruling
from textmill.corpus.licences import licence_notes, licences_of_records
from textmill.corpus.split import SPLITS

SHOWN_EXAMPLES = 5
SHOWN_CHARACTERS = 200
LENGTH_EDGES = tuple(2**power for power in range(4, 25))
"""Edges of the histogram of lengths, in characters: powers of two."""


def _amounts(rows: Rows, chosen: np.ndarray) -> dict[str, int]:
    return {"documents": int(np.count_nonzero(chosen)), "bytes": int(rows.size[chosen].sum())}


def dropped_card(chunks: Chunks, rows: Rows, found: Ruling) -> dict[str, dict[str, Any]]:
    """By rule: documents, bytes, explanation and the first examples, by name."""
    explanations = {**EXPLANATIONS, **{rule.name: rule.explanation for rule in found.rules}}
    first = examples(chunks, rows, SHOWN_EXAMPLES)
    wanted = np.sort(np.concatenate(list(first.values()) or [np.zeros(0, np.int64)]))
    sources = source_of(chunks, wanted)
    texts = dict(zip(wanted.tolist(), chunks.texts_of(wanted).strings(), strict=True)) if len(wanted) else {}
    card: dict[str, dict[str, Any]] = {}
    for number, reason in enumerate(rows.reasons):
        chosen = rows.reason == number
        if not chosen.any():
            continue
        shown = []
        for row in first[number].tolist():
            source, language, unreadable = sources[row]
            value = {"unreadable": unreadable, "language": language or "unknown"}.get(reason) or show_value(
                reason, float(rows.value[row])
            )
            shown.append({"source": source, "value": value, "text": texts[row][:SHOWN_CHARACTERS]})
        name = "binary" if reason == "unreadable" else reason
        amounts = _amounts(rows, chosen)
        if name in card:  # unreadable files and damaged texts are one rule for people
            card[name]["documents"] += amounts["documents"]
            card[name]["bytes"] += amounts["bytes"]
            card[name]["examples"] = (card[name]["examples"] + shown)[:SHOWN_EXAMPLES]
            continue
        card[name] = {**amounts, "explanation": explanations[reason], "examples": shown}
    return dict(sorted(card.items()))


def _licences(chunks: Chunks, rows: Rows, noted: dict[str, str]) -> dict[str, str]:
    """Licence notes by source: samples', folders', and what the kept records say themselves."""
    counts: dict[int, Counter[str]] = {}
    begin = 0
    for _, table in chunks.tables(["meta"]):
        here = np.flatnonzero(rows.kept[begin : begin + table.num_rows])
        licences_of_records(table["meta"].take(here), rows.origin[begin + here], counts)
        begin += table.num_rows
    documents = {at: int(np.count_nonzero(rows.kept & (rows.origin == at))) for at in counts}
    return licence_notes(noted, rows.origins, counts, documents)


def corpus_card(
    chunks: Chunks,
    rows: Rows,
    split: np.ndarray,
    found: Ruling,
    config: CorpusConfig,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """The card; it holds no time, so equal inputs give equal bytes.

    Args:
        chunks: the documents.
        rows: the decisions over them.
        split: int8 [n], index into SPLITS.
        found: the rules.
        config: the settings.
        facts: what the steps before counted: `read`, `licences`, `moved`, `cut`, `near_duplicates`, `removed`,
            `mixture`, `measured`.
    """
    kept = rows.kept
    lengths = np.sort(rows.characters[kept])

    def percentile(share: int) -> int:
        return int(lengths[max(0, math.ceil(share / 100 * len(lengths)) - 1)]) if len(lengths) else 0

    rule = (
        f"By the content's hash alone: {100 * config.validation_share:g}% validation, "
        f"{100 * config.test_share:g}% test."
    )
    moved = facts["moved"]
    if moved:
        rule += f" Without a document of its own, {' and '.join(moved)} got the one nearest to its range."
    languages = {name: _amounts(rows, kept & (rows.language == at)) for at, name in enumerate(rows.languages)}
    by_bytes = sorted(languages.items(), key=lambda pair: (-pair[1]["bytes"], pair[0]))
    sources = [
        {"source": name, **_amounts(rows, kept & (rows.origin == at)), "read": _amounts(rows, rows.origin == at)}
        for at, name in enumerate(rows.origins)
    ]
    histogram = np.histogram(lengths, bins=[0, *LENGTH_EDGES, np.iinfo(np.int64).max])[0].tolist()
    return {
        "sources": sources,
        "read": facts["read"],
        "kept": {**_amounts(rows, kept), "characters": int(rows.characters[kept].sum())},
        "splits": {name: _amounts(rows, kept & (split == at)) for at, name in enumerate(SPLITS)},
        "split_rule": rule,
        "moved": moved,
        "cut": facts["cut"],
        "languages": {name: amounts for name, amounts in by_bytes if amounts["documents"]},
        "dropped": dropped_card(chunks, rows, found),
        "rules": rows.effects,
        "near_duplicates": facts["near_duplicates"],
        "removed": facts["removed"],
        "mixture": facts["mixture"],
        "pii": facts["pii"],
        "lengths": {str(share): percentile(share) for share in (1, 25, 50, 75, 99)},
        "length_histogram": {"edges": [0, *LENGTH_EDGES], "documents": histogram},
        "measured": facts["measured"],
        "licences": _licences(chunks, rows, facts["licences"]),
    }
