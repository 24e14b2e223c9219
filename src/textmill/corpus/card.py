"""The data card: what was read, kept, dropped and why. Touches nothing."""

from __future__ import annotations

import math
from array import array
from typing import Any

from textmill.corpus.config import CorpusConfig
from textmill.corpus.judge import EXPLANATIONS
from textmill.corpus.split import SPLITS
from textmill.corpus.tally import Tally

SHOWN_EXAMPLES = 5
SHOWN_CHARACTERS = 200


def _amounts() -> dict[str, int]:
    return {"documents": 0, "bytes": 0}


def _add(amounts: dict[str, int], size: int, documents: int = 1) -> None:
    amounts["documents"] += documents
    amounts["bytes"] += size


class Card:
    """Counts that become `card.json`.

    Attributes:
        documents: how many are kept.
        dropped: by rule: documents, bytes, explanation and the first examples.
        cut: what was cut because the corpus is small, None when nothing was.
        moved: documents moved to fill an empty split, by split.
    """

    def __init__(self) -> None:
        self.documents = self.bytes = self.characters = 0
        self.sources: dict[str, dict[str, int]] = {}
        self.languages: dict[str, dict[str, int]] = {}
        self.splits = {name: _amounts() for name in SPLITS}
        self.dropped: dict[str, dict[str, Any]] = {}
        self.cut: dict[str, Any] | None = None
        self.moved: dict[str, list[str]] = {}
        self._lengths = array("q")

    def keep(self, origin: str, language: str, split: str, characters: int, size: int) -> None:
        """Count a kept document."""
        self.documents += 1
        self.bytes += size
        self.characters += characters
        self._lengths.append(characters)
        _add(self.sources.setdefault(origin, _amounts()), size)
        _add(self.languages.setdefault(language, _amounts()), size)
        _add(self.splits[split], size)

    def drop(self, rule: str, value: str, source: str, utf8: bytes, size: int) -> None:
        """Count a rejected document, and keep the first of each rule as examples."""
        dropped = self.dropped.setdefault(rule, {**_amounts(), "explanation": EXPLANATIONS[rule], "examples": []})
        _add(dropped, size)
        if len(dropped["examples"]) < SHOWN_EXAMPLES:
            text = utf8[: 4 * SHOWN_CHARACTERS].decode("utf-8", "ignore")[:SHOWN_CHARACTERS]
            dropped["examples"].append({"source": source, "value": value, "text": text})

    def move(self, identity: str, old: str, new: str, size: int) -> None:
        """Count a kept document that changed its split."""
        _add(self.splits[old], -size, -1)
        _add(self.splits[new], size)
        self.moved.setdefault(new, []).append(identity)

    def as_json(self, tally: Tally, licences: dict[str, str], config: CorpusConfig) -> dict[str, Any]:
        """The card; it holds no time, so equal inputs give equal bytes."""
        lengths = sorted(self._lengths)

        def percentile(share: int) -> int:
            return lengths[max(0, math.ceil(share / 100 * len(lengths)) - 1)] if lengths else 0

        rule = (
            f"By the content's hash alone: {100 * config.validation_share:g}% validation, "
            f"{100 * config.test_share:g}% test."
        )
        if self.moved:
            names = " and ".join(self.moved)
            rule += f" Without a document of its own, {names} got the one nearest to its range."
        by_bytes = sorted(self.languages.items(), key=lambda pair: (-pair[1]["bytes"], pair[0]))
        return {
            "sources": [{"source": source, **amounts} for source, amounts in self.sources.items()],
            "read": tally.card(),
            "kept": {"documents": self.documents, "bytes": self.bytes, "characters": self.characters},
            "splits": self.splits,
            "split_rule": rule,
            "moved": self.moved,
            "cut": self.cut,
            "languages": dict(by_bytes),
            "dropped": dict(sorted(self.dropped.items())),
            "lengths": {str(share): percentile(share) for share in (1, 25, 50, 75, 99)},
            "licences": licences,
        }
