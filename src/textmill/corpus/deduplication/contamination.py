"""Decontamination: training text that holds passages of evaluation sets, found by n-gram. Reads evaluation files,
writes its own index where told."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from textmill.base.errors import UsageError
from textmill.corpus.deduplication.shingles import batches, shingle
from textmill.corpus.judging.rules import Rule
from textmill.corpus.texts import Texts

WORDS = 13
"""Words of an n-gram, as in Brown et al., "Language Models are Few-Shot Learners" (2020), appendix C."""
COLUMNS = {
    "contamination_ngrams": "n-grams of the document that occur in an evaluation set.",
    "contamination_share": "Share of the document's words that lie in such an n-gram, 0 to 1.",
    "contamination_example_share": "Largest share of one evaluation text's n-grams that occur in the document, 0 to 1.",
    "contamination_match": 'The first such n-gram as it stands in the document, "" when there is none.',
}
RULES = (
    Rule(
        "contaminated",
        "contamination_ngrams",
        "max",
        0,
        "It shares a run of words with an evaluation set; a model trained on it would be measured on what it has read.",
        source="Brown et al. (2020), appendix C: any common 13-gram",
    ),
)

_FILTER = 1 << 22
_SHOWN = 500
_FORMATS = (".txt", ".jsonl", ".json", ".csv", ".tsv")


class Contamination:
    """The n-grams of evaluation texts. Case, accents, punctuation and spacing do not count, digits do; every Chinese
    character is a word. A text of fewer than n words is one n-gram as a whole, found only where it is a whole document.

    Attributes:
        words: n.
        hashes: uint64 [k], sorted.
        owner: int32 [k], the first evaluation text that holds each.
        sizes: int64 [texts], how many each owns.
    """

    def __init__(self, words: int, hashes: np.ndarray, owner: np.ndarray, sizes: np.ndarray) -> None:
        self.words, self.hashes, self.owner, self.sizes = words, hashes, owner, sizes
        self._filter = np.zeros(_FILTER, bool)
        self._filter[hashes & np.uint64(_FILTER - 1)] = True

    @classmethod
    def from_texts(cls, texts: Texts, words: int = WORDS) -> Contamination:
        """Index the evaluation texts, one a row."""
        values, rows = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
        for first, last in batches(texts):
            found, offsets, _ = shingle(texts, first, last, words, join_digits=False)
            values.append(found)
            rows.append(np.repeat(np.arange(first, last), np.diff(offsets)))
        hashes, at = np.unique(np.concatenate(values), return_index=True)
        owner = np.concatenate(rows)[at]
        return cls(words, hashes, owner.astype(np.int32), np.bincount(owner, minlength=len(texts)))

    @classmethod
    def from_files(cls, paths: Sequence[str | Path], words: int = WORDS) -> Contamination:
        """Index evaluation files (see `evaluation_texts`)."""
        return cls.from_texts(evaluation_texts(paths), words)

    def save(self, path: Path) -> None:
        """Write the index."""
        with path.open("wb") as file:
            np.savez(file, words=self.words, hashes=self.hashes, owner=self.owner, sizes=self.sizes)

    @classmethod
    def load(cls, path: Path) -> Contamination:
        """Read an index that `save` wrote."""
        with np.load(path) as stored:
            return cls(int(stored["words"]), stored["hashes"], stored["owner"], stored["sizes"])

    def measure(self, texts: Texts) -> dict[str, np.ndarray]:
        """The columns of COLUMNS, one value a text."""
        ngrams = np.zeros(len(texts), np.int64)
        share, example = np.zeros(len(texts)), np.zeros(len(texts))
        match = np.full(len(texts), "", dtype=object)
        for first, last in batches(texts):
            values, offsets, places = shingle(texts, first, last, self.words, join_digits=False, located=True)
            hits, which = self._hits(values)
            if not len(hits):
                continue
            rows = np.searchsorted(offsets, hits, side="right") - 1
            here, begins = np.unique(rows, return_index=True)
            ends = np.append(begins[1:], len(hits))
            ngrams[first + here] = ends - begins
            reach = np.minimum(np.diff(hits, append=0), self.words)
            reach[ends - 1] = self.words
            words = np.diff(offsets)[here] + self.words - 1
            share[first + here] = np.add.reduceat(reach, begins) / words
            for row, begin, end in zip(here.tolist(), begins.tolist(), ends.tolist(), strict=True):
                owners, counts = np.unique(self.owner[np.unique(which[begin:end])], return_counts=True)
                example[first + row] = (counts / self.sizes[owners]).max()
                start, stop = places[hits[begin]]
                text = texts.data[start:stop].tobytes().decode()
                match[first + row] = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
        return dict(zip(COLUMNS, (ngrams, share, example, match), strict=True))

    def _hits(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which values are known, and where in `hashes`."""
        likely = np.flatnonzero(self._filter[values & np.uint64(_FILTER - 1)])
        at = np.searchsorted(self.hashes, values[likely])
        at[at == len(self.hashes)] = 0
        known = self.hashes[at] == values[likely] if len(self.hashes) else np.zeros(len(likely), bool)
        return likely[known], at[known]


def evaluation_texts(paths: Sequence[str | Path]) -> Texts:
    """One text a record of .jsonl, .json (a list), .csv and .tsv, all its strings together (question, choices and
    answer stand in fields of different names); one a paragraph of .txt; folders as a whole.

    Raises:
        UsageError: a path is missing, of another format, or damaged.
    """
    texts: list[str] = []
    for given in paths:
        path = Path(given)
        if not path.exists():
            raise UsageError(f"There is no {path}.", "It was named as evaluation text.", "Check the path.")
        files = sorted(one for one in path.rglob("*") if one.suffix in _FORMATS) if path.is_dir() else [path]
        for file in files:
            if file.suffix not in _FORMATS:
                raise UsageError(
                    f"{file} cannot be read as evaluation text.", f"It is not one of {', '.join(_FORMATS)}."
                )
            try:
                texts.extend(_records(file))
            except (ValueError, csv.Error) as error:  # a UnicodeDecodeError is a ValueError, as are JSON's
                raise UsageError(f"{file} is damaged.", str(error), "Save it as UTF-8.") from error
    return Texts.from_strings(text.encode("utf-8", "replace").decode() for text in texts if text.strip())


def _records(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix == ".txt":
            yield from "\n".join(line.strip() for line in file).split("\n\n")
        elif path.suffix == ".json":
            record = json.load(file)
            for one in record if isinstance(record, list) else [record]:
                yield "\n".join(_strings(one))
        elif path.suffix == ".jsonl":
            for line in file:
                if line.strip():
                    yield "\n".join(_strings(json.loads(line)))
        else:
            csv.field_size_limit(1 << 30)
            for row in csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ","):
                yield "\n".join(row)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)
