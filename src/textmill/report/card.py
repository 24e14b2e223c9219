"""The data card as the page shows it: shares, order, bars, sentences. Pure functions; touches nothing.

A card made by an earlier version lacks keys that later ones have, and a damaged one may hold anything: what is absent
or of another type is left out of the page, and nothing here raises.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from textmill.report import card_figures
from textmill.report.figures import is_number

SOURCES_SHOWN = 10
SOURCES_FOLDED = 100
FORMATS_SHOWN = 8
LANGUAGES_SHOWN = 12
LICENCES_SHOWN = 20
RULES_SHOWN = 12
EXAMPLES_SHOWN = 5
PROBLEMS_SHOWN = 20

REPEATS = ("duplicate", "near_duplicate", "repeated")
UNREADABLE = ("binary", "unreadable")
REASONS = (
    ("rules", "dropped by rules"),
    ("language", "in other languages"),
    ("repeats", "repeats"),
    ("unreadable", "not readable"),
)
"""What a document may be left out for, with its words in the legend, in the order of the steps."""

PRIVATE = {
    "secret": "keys, tokens, passwords",
    "email": "mail addresses",
    "resident_id": "Chinese identity numbers",
    "iban": "bank accounts (IBAN)",
    "card": "payment cards",
    "bank_card": "UnionPay cards",
    "ssn": "US social security numbers",
    "mobile": "Chinese mobile numbers",
    "phone": "phone numbers",
    "ip": "IP addresses",
    "mac": "network cards (MAC)",
}
"""Kinds of personal data in words, by the end of their column's name."""

PRIVATE_MODES = {
    "measure": "It is counted only; the text still holds it. --pii replace puts placeholders in its place.",
    "replace": "Each find was replaced by a placeholder that names its kind.",
    "drop": "Documents that hold any were dropped.",
}


def mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def listed(value: Any) -> list[Mapping[str, Any]]:
    """The mappings in a list; nothing if it is no list."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def number(value: Any) -> float:
    """The value if it is a finite number, else 0."""
    return value if is_number(value) else 0


def counts(value: Any) -> list[tuple[str, float]]:
    """The numbers of a mapping that are not 0, largest first."""
    found = [(str(key), number(n)) for key, n in mapping(value).items()]
    return sorted(((key, n) for key, n in found if n), key=lambda pair: (-pair[1], pair[0]))


def share(part: float, whole: float) -> float:
    """Part of a whole, 0 when there is no whole."""
    return part / whole if whole else 0.0


def _amounts(value: Any) -> dict[str, float]:
    return {"documents": number(mapping(value).get("documents")), "bytes": number(mapping(value).get("bytes"))}


def card_view(
    card: Mapping[str, Any], configuration: Mapping[str, Any] | None = None, path: str = ""
) -> dict[str, Any]:
    """What the page shows of a data card.

    Args:
        card: `corpus/card.json`.
        configuration: the settings that made it, from `corpus/stage.json`.
        path: the run, for the command lines.

    Returns:
        `totals`, `flow`, `sources`, `formats`, `languages`, `lengths`, `histogram`, `splits`, `mixture`, `repeats`,
        `removed`, `private`, `reading`, `licences`, `dropped`, `idle`, `rethreshold`, `measured`; each empty where
        the card does not say.
    """
    settings, read = mapping(configuration), mapping(card.get("read"))
    dropped = {str(name): mapping(rule) for name, rule in mapping(card.get("dropped")).items()}
    kept = {**_amounts(card.get("kept")), "characters": number(mapping(card.get("kept")).get("characters"))}
    totals = _totals(card, kept, dropped, read)
    rules, idle = _rules(card, dropped, totals["judged"])
    return {
        "totals": totals,
        "flow": _flow(kept, dropped, totals["cut"]),
        **_sources(card),
        "formats": _formats(read)[:FORMATS_SHOWN],
        "formats_more": _formats(read)[FORMATS_SHOWN:],
        "languages": _languages(card)[:LANGUAGES_SHOWN],
        "languages_left": max(0, len(_languages(card)) - LANGUAGES_SHOWN),
        "main_language": next((row["code"] for row in _languages(card)), ""),
        "lengths": [(str(key), number(n)) for key, n in mapping(card.get("lengths")).items()],
        "histogram": card_figures.lengths(
            mapping(card.get("length_histogram")), number(mapping(card.get("lengths")).get("50"))
        ),
        "splits": _splits(card),
        "split_rule": _text(card.get("split_rule")),
        "cut_rule": _text(mapping(card.get("cut")).get("rule")),
        "mixture": _mixture(card),
        "repeats": _repeats(card, dropped, totals["judged"]),
        "removed": [{"name": str(name), **_amounts(amounts)} for name, amounts in mapping(card.get("removed")).items()],
        "private": _private(card, totals["judged"], str(settings.get("pii", ""))),
        "reading": _reading(read),
        **_licences(card),
        "dropped": rules[:RULES_SHOWN],
        "dropped_more": rules[RULES_SHOWN:],
        "idle": idle,
        "plotted": any(rule["effect"] and rule["effect"]["line"] for rule in rules),
        "rethreshold": _rethreshold(rules, settings, path),
        "measured": [str(name) for name in card.get("measured") or []]
        if isinstance(card.get("measured"), list)
        else [],
        "examples_shown": EXAMPLES_SHOWN,
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _totals(
    card: Mapping[str, Any],
    kept: Mapping[str, float],
    dropped: Mapping[str, Mapping[str, Any]],
    read: Mapping[str, Any],
) -> dict[str, Any]:
    """Documents judged, kept and dropped. After long documents were cut, those kept are pieces and no share of them."""
    gone = [_amounts(rule) for rule in dropped.values()]
    judged = kept["documents"] + sum(one["documents"] for one in gone)
    cut = bool(mapping(card.get("cut")))
    whole = sum(number(mapping(one).get("documents")) for one in mapping(read.get("by_format")).values())
    out = sum(one["documents"] for one in gone)
    if cut and whole:
        judged = max(whole, out)  # pieces that repeat one another are among those left out
    return {
        "files": number(read.get("files")),
        "records": number(read.get("records")),
        "read_bytes": number(read.get("bytes")),
        "judged": judged,
        "kept": kept,
        "dropped": {"documents": out, "bytes": sum(one["bytes"] for one in gone)},
        "dropped_share": share(out, judged),
        "cut": cut,
    }


def _reason(name: str) -> str:
    if name in REPEATS:
        return "repeats"
    if name in UNREADABLE:
        return "unreadable"
    return "language" if name == "language" else "rules"


def _flow(kept: Mapping[str, float], dropped: Mapping[str, Mapping[str, Any]], cut: bool) -> list[dict[str, Any]]:
    """Kept and left out as one bar of documents and one of bytes (of bytes alone, where documents became pieces)."""
    rows: list[dict[str, Any]] = []
    for unit in ("bytes",) if cut else ("documents", "bytes"):
        parts = {name: 0.0 for name, _ in REASONS}
        for name, rule in dropped.items():
            parts[_reason(name)] += number(rule.get(unit))
        whole = kept[unit] + sum(parts.values())
        if not whole or whole == kept[unit]:
            continue
        found = [{"kind": "kept", "label": "kept", "amount": kept[unit]}]
        found += [{"kind": name, "label": label, "amount": parts[name]} for name, label in REASONS if parts[name]]
        for part in found:
            part["share"] = share(float(part["amount"]), whole)  # type: ignore[arg-type]
        rows.append({"unit": unit, "parts": found})
    return rows


def _sources(card: Mapping[str, Any]) -> dict[str, Any]:
    """Sources, the largest first, with what was read from each where the card says."""
    rows: list[dict[str, Any]] = []
    for item in listed(card.get("sources")):
        kept = _amounts(item)
        read = _amounts(item.get("read")) if isinstance(item.get("read"), Mapping) else None
        rows.append({"source": str(item.get("source", "")), **kept, "read": read})
    rows.sort(key=lambda row: (-row["bytes"], row["source"]))
    whole = sum(row["bytes"] for row in rows)
    top = max((max(row["bytes"], (row["read"] or row)["bytes"]) for row in rows), default=0) or 1
    for row in rows:
        row["share"] = share(row["bytes"], whole)
        row["width"] = round(100 * row["bytes"] / top, 2)
        row["read_width"] = round(100 * (row["read"] or row)["bytes"] / top, 2)
    return {
        "sources": rows[:SOURCES_SHOWN],
        "sources_more": rows[SOURCES_SHOWN : SOURCES_SHOWN + SOURCES_FOLDED],
        "sources_left": max(0, len(rows) - SOURCES_SHOWN - SOURCES_FOLDED),
        "sources_read": any(row["read"] for row in rows),
    }


def _formats(read: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Formats with what was in them; a card without these amounts gives files by the end of their names."""
    rows: list[dict[str, Any]] = []
    for name, value in mapping(read.get("by_format")).items():
        found = mapping(value)
        rows.append(
            {"name": str(name), **{key: number(found.get(key)) for key in ("files", "documents", "bytes", "problems")}}
        )
    if not rows:
        rows = [{"name": name, "files": n, "documents": None, "bytes": 0} for name, n in counts(read.get("formats"))]
    unit = "bytes" if any(row["bytes"] for row in rows) else "files"
    rows.sort(key=lambda row: (-row[unit], row["name"]))
    top = max((row[unit] for row in rows), default=0) or 1
    return [{**row, "width": round(100 * row[unit] / top, 2)} for row in rows]


def _languages(card: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"code": str(code), **_amounts(value)} for code, value in mapping(card.get("languages")).items()
    ]
    rows.sort(key=lambda row: (-row["bytes"], row["code"]))
    whole = sum(row["bytes"] for row in rows)
    return [{**row, "share": share(row["bytes"], whole)} for row in rows]


def _splits(card: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = mapping(card.get("splits"))
    rows: list[dict[str, Any]] = [
        {"name": name, **_amounts(found[name])} for name in ("train", "validation", "test") if name in found
    ]
    whole = sum(row["bytes"] for row in rows)
    return [{**row, "share": share(row["bytes"], whole)} for row in rows]


def _mixture(card: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name, value in mapping(card.get("mixture")).items():
        found = mapping(value)
        keys = ("wanted", "reached", "copies", "bytes")
        rows.append(
            {
                "name": str(name),
                **{key: number(found.get(key)) for key in keys},
                "limited": found.get("limited") is True,
            }
        )
    return rows


def _repeats(card: Mapping[str, Any], dropped: Mapping[str, Mapping[str, Any]], judged: float) -> dict[str, Any]:
    """Exact and near repeats that were dropped, and the pairs that were compared for it."""
    pairs = {
        key: number(mapping(card.get("near_duplicates")).get(key)) for key in ("candidates", "verified", "confirmed")
    }
    looked = bool(mapping(card.get("near_duplicates")))
    rows: list[dict[str, Any]] = []
    for name, label in (
        ("duplicate", "exact repeats"),
        ("near_duplicate", "near-duplicates"),
        ("repeated", "too little left"),
    ):
        if name in dropped or (name == "near_duplicate" and looked):
            amounts = _amounts(dropped.get(name))
            rows.append({"name": label, **amounts, "share": share(amounts["documents"], judged)})
    return {"rows": rows, "pairs": pairs if looked else None}


def _private(card: Mapping[str, Any], judged: float, mode: str) -> dict[str, Any] | None:
    """Personal data by kind; None where it was not looked for."""
    found = mapping(card.get("pii"))
    if not found:
        return None
    rows: list[dict[str, Any]] = []
    absent: list[str] = []
    every = None
    for column, value in found.items():
        kind = str(column).removeprefix("pii_")
        row: dict[str, Any] = {
            "name": PRIVATE.get(kind, kind.replace("_", " ")),
            "documents": number(mapping(value).get("documents")),
            "found": number(mapping(value).get("found")),
        }
        row["share"] = share(row["documents"], judged)
        if kind == "total":
            every = row
        elif row["found"]:
            rows.append(row)
        else:
            absent.append(row["name"])
    rows.sort(key=lambda row: (-row["documents"], row["name"]))
    top = max((row["documents"] for row in rows), default=0) or 1
    for row in rows:
        row["width"] = round(100 * row["documents"] / top, 2)
    return {"rows": rows, "absent": absent, "total": every, "note": PRIVATE_MODES.get(mode, "")}


def _reading(read: Mapping[str, Any]) -> dict[str, Any]:
    problems = listed(read.get("problems"))
    return {
        "encodings": counts(read.get("encodings")),
        "formats": counts(read.get("formats")) if mapping(read.get("by_format")) else [],
        "repaired": number(read.get("repaired")),
        "skipped": counts(read.get("skipped")),
        "problem_count": number(read.get("problem_count")),
        "kinds": counts(read.get("problem_kinds")),
        "problems": [
            {"source": str(one.get("source", "")), "problem": str(one.get("problem", ""))}
            for one in problems[:PROBLEMS_SHOWN]
        ],
    }


def _licences(card: Mapping[str, Any]) -> dict[str, Any]:
    """Licence notes by source, and whether other sources have none."""
    found = sorted((str(source), str(text)) for source, text in mapping(card.get("licences")).items())
    names = [str(item.get("source", "")) for item in listed(card.get("sources"))]
    return {
        "licences": found[:LICENCES_SHOWN],
        "licences_left": max(0, len(found) - LICENCES_SHOWN),
        "unlicensed": any(not name.startswith(tuple(source for source, _ in found)) for name in names),
    }


def _rules(
    card: Mapping[str, Any], dropped: Mapping[str, Mapping[str, Any]], judged: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rules that dropped something, most first, and those in force that dropped nothing, in the order of the card."""
    known = {str(name): mapping(rule) for name, rule in mapping(card.get("rules")).items()}
    rows: list[dict[str, Any]] = []
    for name, rule in dropped.items():
        amounts = _amounts(rule)
        rows.append(
            {
                "name": name,
                **amounts,
                "share": share(amounts["documents"], judged),
                "explanation": _text(rule.get("explanation")),
                "examples": [_example(one) for one in listed(rule.get("examples"))[:EXAMPLES_SHOWN]],
                "effect": card_figures.effect(known.get(name, {}), judged),
            }
        )
    rows.sort(key=lambda row: (-row["documents"], row["name"]))
    top = max((row["documents"] for row in rows), default=0) or 1
    for row in rows:
        row["width"] = round(100 * row["documents"] / top, 2)
    idle: list[dict[str, Any]] = []
    for name, rule in known.items():
        effect = None if name in dropped else card_figures.effect(rule, judged)
        if effect is not None:
            idle.append({"name": name, "explanation": _text(rule.get("explanation")), "effect": effect})
    return rows, idle


def _example(example: Mapping[str, Any]) -> dict[str, str]:
    found = {key: example.get(key) for key in ("source", "value", "text")}
    return {key: "" if value is None else str(value) for key, value in found.items()}


def _rethreshold(rules: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], path: str) -> str:
    """The command that decides anew with the threshold of the rule that dropped most moved one step looser."""
    rule = next((rule for rule in rules if rule["effect"]), None)
    if rule is None or not path:
        return ""
    looser = rule["effect"]["looser"]
    if looser is None:
        return ""
    chosen = settings.get("rules")
    dialects = [str(name) for name in chosen] if isinstance(chosen, list | tuple) else []
    given = {str(name): number(at) for name, at in mapping(settings.get("thresholds")).items()}
    given[str(rule["name"])] = looser["threshold"]
    words = ["textmill", "corpus", "--rethreshold", *(word for name in dialects for word in ("--rules", name))]
    for name, at in given.items():
        words += [f"--thresholds.{name}", f"{at:g}"]
    return shlex.join([*words, "--out", path])
