"""Named sets of rules, and the rule files that choose among them. Reads a rule file, touches nothing else.

The same filter gives other answers in each tool that has it: what counts as a word, as a line, as repeated differs.
So every set of rules bears the name of the code or paper whose decisions it repeats.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from textmill.base.errors import UsageError, nearest
from textmill.corpus.judging.rules import Rule
from textmill.corpus.texts import Texts


@dataclass(frozen=True)
class Dialect:
    """A set of rules in the order in which they are tried.

    Attributes:
        name: e.g. "datatrove-fineweb".
        rules: the first that drops a document is its reason.
        lines: name of the line rules (`c4.LINE_RULES`) applied after Gopher's rules are measured and before
            FineWeb's; "" for none.
        explanation: for whom it is and what differs from its model.
        source: papers and code.
    """

    name: str
    rules: tuple[Rule, ...]
    lines: str
    explanation: str
    source: str


_ENGLISH = (
    "Made for English web pages. Words are those of spaCy's blank English tokenizer, also for other languages, where "
    "datatrove would load another splitter (Chinese: jieba) and the thresholds were never tuned."
)


def _plain() -> Dialect:
    text = "No rules but those that every corpus has: minimum length, unreadable characters, share of symbols."
    return Dialect("plain", (), "", text, "")


def _gopher() -> Dialect:
    from textmill.corpus.judging.gopher import RULES

    text = f"Gopher's repetition rules, then its quality rules, deciding as datatrove 0.10.1 does. {_ENGLISH}"
    return Dialect("datatrove-gopher", RULES, "", text, "Rae et al. 2021, arXiv 2112.11446, section A1.1")


def _c4() -> Dialect:
    from textmill.corpus.judging.c4 import RULES

    text = (
        "C4's rules, deciding as datatrove 0.10.1 does: lines that do not end as sentences do are removed, then pages "
        f"with fewer than five sentences, a curly bracket or lorem ipsum are dropped. {_ENGLISH}"
    )
    return Dialect("datatrove-c4", RULES, "c4", text, "Raffel et al. 2020, arXiv 1910.10683, section 2.2")


def _paragraphs() -> Dialect:
    from textmill.corpus.judging.c4 import PARAGRAPH_RULES

    text = "mC4's rule, deciding as datatrove 0.10.1 does: at least three lines of at least 200 characters."
    return Dialect("datatrove-c4-paragraphs", PARAGRAPH_RULES, "", text, "Xue et al. 2021, arXiv 2010.11934")


def _fineweb() -> Dialect:
    from textmill.corpus.judging import c4, fineweb, gopher

    text = (
        "FineWeb's cascade, deciding as datatrove 0.10.1 does: Gopher repetition, Gopher quality, C4 with lines ending "
        f"in anything (which removes lines), then FineWeb's own rules on what is left. {_ENGLISH}"
    )
    rules = gopher.RULES + c4.ANY_ENDING_RULES + fineweb.RULES
    return Dialect("datatrove-fineweb", rules, "c4-any-ending", text, "Penedo et al. 2024, arXiv 2406.17557")


def _map_cc() -> Dialect:
    from textmill.corpus.judging.chinese import MAP_CC_RULES

    text = "The rules of the Chinese corpus MAP-CC; words and characters are counted as Chinese has them."
    return Dialect("map-cc", MAP_CC_RULES, "", text, "Du et al. 2024, arXiv 2404.04167")


def _chinese_web_text() -> Dialect:
    from textmill.corpus.judging.chinese import CHINESE_WEB_TEXT_RULES

    text = "The rules of ChineseWebText: line and text length, share of Chinese characters, inner repetition."
    return Dialect("chinese-web-text", CHINESE_WEB_TEXT_RULES, "", text, "Chen et al. 2023, arXiv 2311.01149")


def _code() -> Dialect:
    from textmill.corpus.judging.code import CODE_RULES

    text = "Rules for source code: generated, minified and data files are dropped."
    return Dialect("code", CODE_RULES, "", text, "")


_LOADERS: dict[str, Callable[[], Dialect]] = {
    "plain": _plain,
    "datatrove-gopher": _gopher,
    "datatrove-c4": _c4,
    "datatrove-c4-paragraphs": _paragraphs,
    "datatrove-fineweb": _fineweb,
    "map-cc": _map_cc,
    "chinese-web-text": _chinese_web_text,
    "code": _code,
}
NAMES: tuple[str, ...] = tuple(_LOADERS)
"""Every dialect."""

_GROUPS = {"gopher_": "gopher", "c4_": "c4", "fineweb_": "fineweb", "zh_": "chinese", "code_": "code"}
"""Which measures give the columns with this beginning."""

_KEYS = ("dialects", "thresholds")


@lru_cache(maxsize=len(_LOADERS))
def _load(name: str) -> Dialect:
    return _LOADERS[name]()


def dialect_named(name: str) -> Dialect:
    """The dialect of this name.

    Raises:
        UsageError: there is none.
    """
    if name not in _LOADERS:
        fix = f"Known ones: {', '.join(NAMES)}; or the path of a rule file that ends in .toml."
        raise UsageError(f'There is no dialect "{name}".{nearest(name, NAMES)}', fix=fix)
    return _load(name)


def rules_of(names: Sequence[str], thresholds: Mapping[str, float]) -> tuple[Rule, ...]:
    """The rules of several dialects one after the other, with thresholds of one's own.

    Args:
        names: dialects, in order; a rule that an earlier one has is not repeated.
        thresholds: by name of rule.

    Raises:
        UsageError: an unknown dialect or rule.
    """
    rules = tuple(dict.fromkeys(rule for name in names for rule in dialect_named(name).rules))
    known = {rule.name for rule in rules}
    for name, value in thresholds.items():
        if name not in known:
            asked = ", ".join(names) or "no dialect"
            fix = f"Rules of {asked}: {', '.join(sorted(known)) or 'none'}."
            raise UsageError(f'There is no rule "{name}".{nearest(name, known)}', fix=fix)
        _number(name, value, "the thresholds")
    return tuple(
        replace(rule, threshold=float(thresholds[rule.name])) if rule.name in thresholds else rule for rule in rules
    )


def _number(name: str, value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        found = f'{type(value).__name__} "{value}"' if isinstance(value, str) else f"{type(value).__name__} {value}"
        fix = f"Write a number: {name} = 30 or {name} = 0.3, without quotation marks."
        raise UsageError(f'The threshold of "{name}" in {where} is not a number.', f"Found {found}.", fix)
    return float(value)


def load_rules(path: Path) -> tuple[tuple[str, ...], dict[str, float]]:
    """Read a rule file: `dialects = ["datatrove-fineweb"]` and, below `[thresholds]`, `gopher_short_doc = 30`.

    Returns:
        names of the dialects, and thresholds by name of rule. Whether such rules exist, `rules_of` finds out.

    Raises:
        UsageError: no such file, no TOML, an unknown key or dialect, a threshold that is no number.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        fix = f"Dialects that need no file: {', '.join(NAMES)}."
        raise UsageError(f"The rule file {path} cannot be read.", error.strerror or "", fix) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        example = 'dialects = ["datatrove-fineweb"]\n[thresholds]\ngopher_short_doc = 30'
        raise UsageError(f"The rule file {path} is not TOML.", str(error), f"An example:\n{example}") from error
    for key in content:
        if key not in _KEYS:
            fix = "A rule file has dialects = [names], then [thresholds] with one line a rule."
            raise UsageError(f'The rule file {path} has an unknown key "{key}".{nearest(key, _KEYS)}', fix=fix)
    names, thresholds = content.get("dialects", []), content.get("thresholds", {})
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        fix = 'Write dialects = ["datatrove-fineweb"].'
        raise UsageError(f"dialects in {path} is not a list of names.", f"Found {names!r}.", fix)
    if not isinstance(thresholds, dict):
        fix = "Write [thresholds] on a line of its own, then rule = number below it."
        raise UsageError(f"thresholds in {path} is not a table.", f"Found {thresholds!r}.", fix)
    for name in names:
        dialect_named(name)
    return tuple(names), {name: _number(name, value, str(path)) for name, value in thresholds.items()}


def measures_for(rules: Sequence[Rule]) -> tuple[str, ...]:
    """Groups of measures that these rules read, out of gopher, c4, fineweb, chinese, code; in that order."""
    groups = {group for rule in rules for start, group in _GROUPS.items() if rule.column.startswith(start)}
    return tuple(group for group in _GROUPS.values() if group in groups)


class Explained(NamedTuple):
    """What one rule says of one text.

    Attributes:
        rule: name.
        value: what was measured, in the column's unit; NaN where nothing could be.
        threshold: what it is held against.
        keeps: whether the text passes.
        explanation: the rule's.
    """

    rule: str
    value: float
    threshold: float
    keeps: bool
    explanation: str


def measure(texts: Texts, rules: Sequence[Rule], lines: str = "") -> tuple[Texts, dict[str, np.ndarray]]:
    """Measure what these rules read, in a dialect's order: Gopher on the text, line rules, the rest on what is left.

    Args:
        texts: n texts.
        rules: out of `rules_of`.
        lines: a dialect's `lines`.

    Returns:
        the texts after the line rules, and the columns, float64 [n] each.
    """
    from importlib import import_module

    groups = measures_for(rules)
    columns: dict[str, np.ndarray] = {}
    if "gopher" in groups:
        columns.update(import_module("textmill.corpus.judging.gopher").measure(texts))
    needed = {rule.column for rule in rules}
    cleaned = texts
    if lines:
        from textmill.corpus.judging.c4 import clean_lines

        cleaned, found = clean_lines(texts, lines)
        columns.update(found)
    if "c4" in groups and any(name.startswith("c4_") and name not in columns for name in needed):
        measured = import_module("textmill.corpus.judging.c4").measure(texts)
        columns.update({name: values for name, values in measured.items() if name not in columns})
    for group in groups:
        if group not in ("gopher", "c4"):
            columns.update(import_module(f"textmill.corpus.judging.{group}").measure(cleaned))
    return cleaned, columns


def explain(
    text: str,
    names: Sequence[str] = ("datatrove-fineweb",),
    thresholds: Mapping[str, float] | None = None,
    language: str = "",
    known: Mapping[str, float] | None = None,
) -> list[Explained]:
    """Every rule's value for one text, in order, those after the first that drops it too.

    Args:
        text: the document.
        names: dialects.
        thresholds: by name of rule, in place of the dialects' own.
        language: code; rules for other languages are passed over. "" applies all.
        known: columns measured elsewhere, e.g. {"language_confidence": 0.98}; one that is in none is NaN.

    Raises:
        UsageError: an unknown dialect or rule.
    """
    rules = rules_of(names, thresholds or {})
    lines = next((dialect_named(name).lines for name in names if dialect_named(name).lines), "")
    _, columns = measure(Texts.from_strings([text]), rules, lines)
    values = {**{name: float(column[0]) for name, column in columns.items()}, **(known or {})}
    found = []
    for rule in rules:
        if rule.languages and language and language not in rule.languages:
            continue
        value = values.get(rule.column, math.nan)
        keeps = not bool(rule.drops(np.array([value]))[0])
        found.append(Explained(rule.name, value, rule.threshold, keeps, rule.explanation))
    return found
