"""Which judgement columns there are, and measuring them over a batch of documents. Touches nothing; each group's
code is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module

import numpy as np

from textmill.corpus.texts import Texts

Measure = Callable[[Texts], dict[str, np.ndarray]]

MODULES = {
    "gopher": "textmill.corpus.judging.gopher",
    "c4": "textmill.corpus.judging.c4",
    "fineweb": "textmill.corpus.judging.fineweb",
    "chinese": "textmill.corpus.judging.chinese",
    "code": "textmill.corpus.judging.code",
}
"""Groups that need the text alone."""

ONLY = {"chinese": ("zh",)}
"""Groups that are measured on documents of some languages only; the others get NaN."""

BY_CHARACTER = ("gopher", "fineweb")
"""Groups that take each character of Chinese and Japanese documents for a word, because no spaces part them."""


def columns_of(groups: Sequence[str]) -> dict[str, str]:
    """The columns of these groups, each with what it means."""
    found: dict[str, str] = {}
    for group in groups:
        if group in MODULES:
            found.update(import_module(MODULES[group]).COLUMNS)
    return found


def measure_groups(
    texts: Texts, groups: Sequence[str], languages: np.ndarray, sources: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Measure groups of judgement columns.

    Args:
        texts: n documents.
        groups: names out of MODULES.
        languages: language code of each document, str [n].
        sources: name of each document, by whose suffix source code is told from prose.

    Returns:
        the columns, float64 [n] each, NaN where a group does not apply.
    """
    found: dict[str, np.ndarray] = {}
    apart = np.isin(languages, ("zh", "ja"))
    for group in groups:
        module = import_module(MODULES[group])
        if group not in ONLY:
            more = {"code": sources, **dict.fromkeys(BY_CHARACTER, apart)}
            measured = module.measure(texts, more[group]) if group in more else module.measure(texts)
            found.update({name: np.asarray(values, np.float64) for name, values in measured.items()})
            continue
        rows = np.flatnonzero(np.isin(languages, ONLY[group]))
        for name in module.COLUMNS:
            found[name] = np.full(len(texts), np.nan)
        if len(rows):
            for name, values in module.measure(texts.take(rows)).items():
                found[name][rows] = values
    return found
