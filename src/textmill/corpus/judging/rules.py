"""Rules: a measured column, a bound, a threshold. Deciding is comparing columns; no text is read. Touches nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np


@dataclass(frozen=True)
class Rule:
    """Drops a document whose measured value lies beyond the threshold. A NaN is not beyond any.

    Attributes:
        name: e.g. "gopher_short_doc"; what `rejected-*.parquet` and the card say.
        column: the judgement column that it reads.
        bound: "min" drops values below the threshold, "max" values above it.
        threshold: in the column's unit.
        explanation: one sentence for people: what is measured and why it matters.
        strict: a value equal to the threshold is dropped too.
        languages: applies only to documents in these languages; empty means all.
        except_languages: never applies to documents in these languages.
        source: where the rule and its threshold come from.
    """

    name: str
    column: str
    bound: Literal["min", "max"]
    threshold: float
    explanation: str
    strict: bool = False
    languages: tuple[str, ...] = ()
    except_languages: tuple[str, ...] = ()
    source: str = ""

    def applies(self, languages: np.ndarray) -> np.ndarray:
        """Which documents the rule is for, by their language codes, bool [n]."""
        applies = np.ones(len(languages), dtype=bool)
        if self.languages:
            applies &= np.isin(languages, self.languages)
        if self.except_languages:
            applies &= ~np.isin(languages, self.except_languages)
        return applies

    def at(self, threshold: float) -> Rule:
        """The same rule with another threshold."""
        return replace(self, threshold=threshold)

    def drops(self, values: np.ndarray) -> np.ndarray:
        """Which of the values are beyond the threshold, bool [n]."""
        return self._beyond(np.asarray(values, dtype=np.float64), self.threshold)

    def counts(self, values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
        """How many of the values [n] are beyond each of these thresholds [k], int64 [k]."""
        beyond = self._beyond(np.asarray(values, dtype=np.float64)[:, None], thresholds)
        return np.count_nonzero(beyond, axis=0)

    def _beyond(self, values: np.ndarray, threshold: float | np.ndarray) -> np.ndarray:
        if self.bound == "min":
            return values <= threshold if self.strict else values < threshold
        return values >= threshold if self.strict else values > threshold


class Decision(NamedTuple):
    """What the rules say of each document.

    Attributes:
        rule: int16 [n], index of the first rule that drops it, -1 when it stays.
        value: float64 [n], the value that this rule saw, NaN when it stays.
    """

    rule: np.ndarray
    value: np.ndarray


def decide(rules: Sequence[Rule], columns: Mapping[str, np.ndarray], languages: np.ndarray) -> Decision:
    """Apply rules in order; the first that drops a document is its reason.

    Args:
        rules: in order.
        columns: judgement columns, [n] each.
        languages: language code of each document, str [n].
    """
    count = len(languages)
    reason = np.full(count, -1, dtype=np.int16)
    seen = np.full(count, np.nan)
    for number, rule in enumerate(rules):
        values = np.asarray(columns[rule.column], dtype=np.float64)
        dropped = rule.drops(values) & (reason < 0) & rule.applies(languages)
        reason[dropped] = number
        seen[dropped] = values[dropped]
    return Decision(reason, seen)
