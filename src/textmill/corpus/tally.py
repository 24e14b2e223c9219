"""What happened while reading: counts of files, documents and problems, which add up over chunks. Touches
nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

SHOWN_PROBLEMS = 20
AMOUNTS = ("files", "records", "documents", "bytes", "problems")
_DETAIL = re.compile(r"""\s*[:("'].*|\d[\d,.]*\s*""", re.S)


class Tally:
    """Counts that end in the data card's `read` section. It can be pickled, and written as JSON.

    Attributes:
        problems: the first problems, `{"source": …, "problem": …}`; `problem_count` counts all of them.
        problem_kinds: all problems by their wording without details.
        missing_columns: columns that files without a text column have, by file.
        by_format: files, records, documents, bytes and problems, by kind ("html", "python", …).
        by_source: the same, by the argument that led to them.
    """

    def __init__(self) -> None:
        self.files = self.records = self.bytes = self.repaired = self.problem_count = 0
        self.formats: Counter[str] = Counter()
        self.encodings: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.problems: list[dict[str, str]] = []
        self.problem_kinds: Counter[str] = Counter()
        self.missing_columns: dict[str, list[str]] = {}
        self.by_format: dict[str, Counter[str]] = {}
        self.by_source: dict[str, Counter[str]] = {}
        self.reading: tuple[str, str] | None = None
        """Origin and kind of the file that is being read: what `problem` and `count` are counted under."""

    def problem(self, source: str, text: str) -> None:
        """Count a problem; keep it when it is among the first."""
        self.problem_count += 1
        self.problem_kinds[_DETAIL.sub(" ", text).strip()[:80] or text[:80]] += 1
        self.count("problems")
        if len(self.problems) < SHOWN_PROBLEMS:
            self.problems.append({"source": source, "problem": text})

    def count(self, what: str, amount: int = 1) -> None:
        """Count files, records, documents, bytes or problems of the file that is being read."""
        if self.reading is not None and amount:
            origin, kind = self.reading
            self.by_source.setdefault(origin, Counter())[what] += amount
            self.by_format.setdefault(kind, Counter())[what] += amount
        if what == "records":
            self.records += amount

    def merge(self, other: Tally) -> Tally:
        """Add what was counted elsewhere; in the chunks' order, so that the first problems stay the first."""
        for name in ("files", "records", "bytes", "repaired", "problem_count"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("formats", "encodings", "skipped", "problem_kinds"):
            getattr(self, name).update(getattr(other, name))
        self.problems = [*self.problems, *other.problems][:SHOWN_PROBLEMS]
        for source, columns in other.missing_columns.items():
            self.missing_columns.setdefault(source, columns)
        for name in ("by_format", "by_source"):
            mine = getattr(self, name)
            for key, counts in getattr(other, name).items():
                mine.setdefault(key, Counter()).update(counts)
        return self

    def to_json(self) -> dict[str, Any]:
        """Everything, for `from_json`."""
        found = {name: value for name, value in vars(self).items() if name != "reading"}
        return {name: _plain(value) for name, value in found.items()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Tally:
        """What `to_json` gave."""
        tally = cls()
        for name, value in stored.items():
            if name in ("by_format", "by_source"):
                value = {key: Counter(counts) for key, counts in value.items()}
            elif isinstance(getattr(tally, name), Counter):
                value = Counter(value)
            setattr(tally, name, value)
        return tally

    def card(self) -> dict[str, Any]:
        """The `read` section of `card.json`."""
        return {
            "files": self.files,
            "records": self.records,
            "bytes": self.bytes,
            "formats": dict(sorted(self.formats.items())),
            "encodings": dict(sorted(self.encodings.items())),
            "repaired": self.repaired,
            "skipped": dict(sorted(self.skipped.items())),
            "by_format": _amounts(dict(sorted(self.by_format.items()))),
            "by_source": _amounts(self.by_source),
            "problem_count": self.problem_count,
            "problem_kinds": dict(sorted(self.problem_kinds.items())),
            "problems": self.problems,
        }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, list) else value


def _amounts(counted: dict[str, Counter[str]]) -> dict[str, dict[str, int]]:
    return {key: {name: counts[name] for name in AMOUNTS} for key, counts in counted.items()}
