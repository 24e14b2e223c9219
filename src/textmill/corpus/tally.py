"""What happened while reading: counts of files, encodings and problems. Touches nothing."""

from __future__ import annotations

from collections import Counter

SHOWN_PROBLEMS = 20


class Tally:
    """Counts that end in the data card's `read` section.

    Attributes:
        problems: the first problems, `{"source": …, "problem": …}`; `problem_count` counts all of them.
        missing_columns: columns that files without a text column have, by file.
    """

    def __init__(self) -> None:
        self.files = self.records = self.bytes = self.repaired = self.problem_count = 0
        self.formats: Counter[str] = Counter()
        self.encodings: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.problems: list[dict[str, str]] = []
        self.missing_columns: dict[str, list[str]] = {}

    def problem(self, source: str, text: str) -> None:
        """Count a problem; keep it when it is among the first."""
        self.problem_count += 1
        if len(self.problems) < SHOWN_PROBLEMS:
            self.problems.append({"source": source, "problem": text})

    def card(self) -> dict[str, object]:
        """The `read` section of `card.json`."""
        return {
            "files": self.files,
            "records": self.records,
            "bytes": self.bytes,
            "formats": dict(sorted(self.formats.items())),
            "encodings": dict(sorted(self.encodings.items())),
            "repaired": self.repaired,
            "skipped": dict(sorted(self.skipped.items())),
            "problem_count": self.problem_count,
            "problems": self.problems,
        }
