"""From measured chunks to a decision over every document: rules, exact and near duplicates. Reads `measured/`,
never the inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from textmill.base.errors import UsageError
from textmill.corpus.config import CorpusConfig
from textmill.corpus.judging.dialects import dialect_named, load_rules, measures_for, rules_of
from textmill.corpus.judging.rules import Rule, decide
from textmill.corpus.measure import paths_of
from textmill.corpus.texts import Texts

MAX_DAMAGE = 0.1

KEPT = -1
EXPLANATIONS = {
    "unreadable": "Not text: an image, an archive, a program.",
    "language": "Not in one of the wanted --languages; the value is the language that was found.",
    "duplicate": "The same cleaned text came earlier; duplicate_of tells which document.",
    "near_duplicate": "Verified to repeat most of a document that stays; the value is their Jaccard similarity.",
    "repeated": "After passages that occurred before were cut out, too little was left.",
}
"""Reasons that are no comparison with a threshold."""


@dataclass(frozen=True)
class Ruling:
    """The rules of one configuration, resolved.

    Attributes:
        rules: in order.
        groups: judgement groups that must be measured.
        line_rules: name of the rules that remove single lines, "" for none.
    """

    rules: tuple[Rule, ...]
    groups: tuple[str, ...]
    line_rules: str


def base_rules(config: CorpusConfig) -> tuple[Rule, ...]:
    """The rules that apply to every corpus."""
    return (
        Rule("binary", "damage", "max", MAX_DAMAGE, "More than a tenth of it is unreadable characters."),
        Rule(
            "too_short",
            "characters_weighted",
            "min",
            config.min_characters,
            "Fewer characters than --min-characters (Chinese, Japanese or Korean ones count as three).",
        ),
        Rule(
            "symbols",
            "symbol_ratio",
            "max",
            config.max_symbol_ratio,
            "A larger share of punctuation and symbols than --max-symbol-ratio.",
        ),
    )


def _asked_rules(config: CorpusConfig) -> tuple[Rule, ...]:
    """Rules that a setting of their own switches on."""
    found: list[Rule] = []
    if config.pii == "drop":
        found.append(Rule("pii", "pii_total", "max", 0, "It holds personal data, and --pii drop was asked for."))
    if config.min_quality:
        text = "The classifier trained on --good text gives it less than --min-quality."
        found.append(Rule("quality", "quality_score", "min", config.min_quality, text))
    if config.max_toxicity < 1:
        text = "The classifier trained on --toxic text gives it more than --max-toxicity."
        found.append(Rule("toxicity", "toxicity_score", "max", config.max_toxicity, text))
    if config.max_perplexity:
        text = "Its wording is further from the --good text than --max-perplexity, in bits per byte."
        found.append(Rule("perplexity", "perplexity_bits_per_byte", "max", config.max_perplexity, text))
    if config.decontaminate:
        from textmill.corpus.deduplication.contamination import RULES

        found.extend(RULES)
    return tuple(found)


def ruling(config: CorpusConfig) -> Ruling:
    """Resolve the rules that the settings ask for.

    Raises:
        UsageError: unknown dialect, rule, a threshold that is no number, or one on what nothing was learned for.
    """
    config.check_learned()
    names: list[str] = []
    thresholds: dict[str, float] = {}
    for name in config.rules:
        if name.endswith(".toml"):
            dialects, given = load_rules(Path(name))
            names.extend(dialects)
            thresholds.update(given)
        else:
            names.append(name)
    thresholds.update(config.thresholds)
    asked = base_rules(config) + _asked_rules(config)
    own = {rule.name: rule for rule in asked}
    chosen = rules_of(names, {name: value for name, value in thresholds.items() if name not in own})
    asked = tuple(rule.at(thresholds.get(rule.name, rule.threshold)) for rule in asked)
    if any(rule.column.startswith("zh_") for rule in chosen):
        from textmill.corpus.judging.chinese import check

        check(chosen)
    lines = {dialect_named(name).lines for name in names} - {""}
    if len(lines) > 1:
        raise UsageError(
            f"The dialects {', '.join(names)} remove lines by different rules.",
            fix="Name only one of them in --rules.",
        )
    if any(rule.languages for rule in chosen):  # a dialect for one language takes its documents from the general ones
        own_languages = tuple(sorted({code for rule in chosen for code in rule.languages}))
        chosen = tuple(rule if rule.languages else replace(rule, except_languages=own_languages) for rule in chosen)
    groups = dict.fromkeys([*measures_for(chosen), *(name for name in config.measures if name not in ("pii",))])
    return Ruling(asked + chosen, tuple(sorted(groups)), next(iter(lines), ""))


class Chunks:
    """Random access to the measured documents of a run.

    Args:
        folder: the stage's folder, which holds `measured/`.
        count: number of chunks.
    """

    def __init__(self, folder: Path, count: int, name: str = "measured") -> None:
        self.folder, self.name = folder, name
        self.files = [
            path if path.exists() else None
            for path in (folder / name / f"{number:05d}.parquet" for number in range(count))
        ]
        self._open = lru_cache(maxsize=8)(self._opened)
        self._group = lru_cache(maxsize=24)(self._read_group)
        sizes = [[] if path is None else _group_rows(path) for path in self.files]
        self.starts = np.concatenate([[0], np.cumsum([sum(groups) for groups in sizes])]).astype(np.int64)
        self._group_starts = [np.concatenate([[0], np.cumsum(groups)]).astype(np.int64) for groups in sizes]

    def __len__(self) -> int:
        return int(self.starts[-1])

    def _opened(self, chunk: int) -> pq.ParquetFile:
        return pq.ParquetFile(self.files[chunk])  # type: ignore[arg-type]

    def _read_group(self, chunk: int, group: int) -> Texts:
        return Texts.from_arrow(self._open(chunk).read_row_group(group, columns=["text"], use_threads=False)["text"])

    def texts_of(self, rows: np.ndarray) -> Texts:
        """The texts of these rows, in this order; a few row groups stay in memory."""
        rows = np.asarray(rows, dtype=np.int64)
        found: list[bytes] = [b""] * len(rows)
        order = np.argsort(rows, kind="stable")
        for at in order.tolist():
            row = int(rows[at])
            chunk = int(np.searchsorted(self.starts, row, side="right")) - 1
            inside = row - int(self.starts[chunk])
            starts = self._group_starts[chunk]
            group = int(np.searchsorted(starts, inside, side="right")) - 1
            found[at] = self._group(chunk, group)[inside - int(starts[group])]
        return Texts.from_bytes(found)

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[tuple[int, pa.Table]]:
        """Every chunk that holds documents: its number and its table, some columns or all."""
        for number, path in enumerate(self.files):
            if path is not None:
                yield number, pq.read_table(path, columns=None if columns is None else list(columns), use_threads=False)

    def columns(self) -> list[str]:
        """The columns of the measured documents."""
        first = next((path for path in self.files if path is not None), None)
        return [] if first is None else list(pq.read_schema(first).names)


def _group_rows(path: Path) -> list[int]:
    found = pq.read_metadata(path)
    return [found.row_group(group).num_rows for group in range(found.num_row_groups)]


@dataclass
class Rows:
    """What is decided over every document, in reading order; about 70 bytes a document.

    Attributes:
        identity: uint64 [n, 2], the id's halves.
        size: int64 [n], UTF-8 bytes (of the raw file where there is no text).
        characters: int64 [n].
        language: int32 [n], index into `languages`.
        origin: int32 [n], index into `origins`.
        reason: int16 [n], index into `reasons`, -1 for kept.
        value: float64 [n], the value that the rule saw.
        kept_row: int64 [n], for a repeat the row of the document that it repeats, else -1.
        score: float64 [n], what `order` and `keep` go by.
    """

    identity: np.ndarray
    size: np.ndarray
    characters: np.ndarray
    language: np.ndarray
    origin: np.ndarray
    reason: np.ndarray
    value: np.ndarray
    kept_row: np.ndarray
    score: np.ndarray
    languages: list[str]
    origins: list[str]
    reasons: list[str]
    effects: dict[str, dict[str, Any]]
    pii: dict[str, dict[str, int]]

    def __len__(self) -> int:
        return len(self.size)

    @property
    def kept(self) -> np.ndarray:
        """Which documents stay, bool [n]."""
        return self.reason == KEPT


LAST_REASONS = ("language", "duplicate", "near_duplicate", "repeated")
SCORES = {"easy-first": "perplexity_bits_per_byte", "best-last": "quality_score"}


def halves(identities: Sequence[str]) -> np.ndarray:
    """The ids as two 64-bit numbers each, uint64 [n, 2]."""
    if not len(identities):
        return np.zeros((0, 2), np.uint64)
    raw = np.frombuffer(bytes.fromhex("".join(identities)), dtype=">u8")
    return raw.reshape(-1, 2).astype(np.uint64)


class Judge:
    """Applies the rules to chunk after chunk, in any order, as soon as each is measured.

    Args:
        config: the settings.
        found: the rules.
    """

    def __init__(self, config: CorpusConfig, found: Ruling) -> None:
        self.config, self.rules = config, found.rules
        self.score = SCORES.get(config.order) or ("quality_score" if config.keep == "best" else "")
        self._effects = Effects(found.rules)
        self._pii: dict[str, dict[str, int]] = {}
        self._parts: dict[int, tuple[list[np.ndarray], list[str], list[str]]] = {}

    def add(self, number: int, path: Path) -> None:
        """Judge chunk `number`, whose measured documents are in `path`, unless that is done."""
        if number in self._parts:
            return
        wanted = {"id", "characters", "bytes", "raw_bytes", "unreadable", "language", "origin"}
        private = [name for name in pq.read_schema(path).names if name.startswith("pii_")]
        columns = {rule.column for rule in self.rules} | wanted | {*private} | ({self.score} if self.score else set())
        table = pq.read_table(path, columns=sorted(columns), use_threads=False)
        languages, origins = table["language"].to_pylist(), table["origin"].to_pylist()
        codes = np.array(languages, dtype=np.str_)
        measured = {rule.column: table[rule.column].to_numpy() for rule in self.rules}
        decision = decide(self.rules, measured, codes)
        reason = np.where(decision.rule >= 0, decision.rule + 1, KEPT).astype(np.int16)
        unreadable = np.array([bool(value) for value in table["unreadable"].to_pylist()])
        reason[unreadable] = 0
        if self.config.languages:
            other = (reason == KEPT) & ~np.isin(codes, self.config.languages)
            reason[other] = len(self.rules) + 1
        score = table[self.score].to_numpy().astype(np.float64) if self.score else np.zeros(len(codes))
        arrays = [
            halves(table["id"].to_pylist()),
            np.where(unreadable, table["raw_bytes"].to_numpy(), table["bytes"].to_numpy()),
            table["characters"].to_numpy().astype(np.int64),
            reason,
            decision.value,
            np.nan_to_num(score),
        ]
        self._effects.add(measured, codes, ~unreadable)
        for name in private:
            counts = table[name].to_numpy()
            of = self._pii.setdefault(name, {"documents": 0, "found": 0})
            of["documents"] += int(np.count_nonzero(counts))
            of["found"] += int(counts.sum())
        self._parts[number] = arrays, languages, origins

    def rows(self) -> Rows:
        """The decisions over all chunks, in reading order."""
        reasons = ["unreadable", *(rule.name for rule in self.rules), *LAST_REASONS]
        parts = [self._parts[number] for number in sorted(self._parts)]
        identity, size, characters, reason, value, scores = (
            np.concatenate(column) for column in zip(*(arrays for arrays, _, _ in parts), strict=True)
        )
        languages: dict[str, int] = {}
        origins: dict[str, int] = {}
        language = [languages.setdefault(code, len(languages)) for _, codes, _ in parts for code in codes]
        origin = [origins.setdefault(name, len(origins)) for _, _, names in parts for name in names]
        return Rows(
            identity, size, characters, np.array(language, np.int32), np.array(origin, np.int32), reason, value,
            np.full(len(size), -1, np.int64), scores, list(languages), list(origins), reasons,
            self._effects.as_json(), self._pii,
        )  # fmt: skip


def judge_rows(chunks: Chunks, config: CorpusConfig, found: Ruling, judge: Judge | None = None) -> Rows:
    """Apply the rules to every measured document; `judge` may have done so for some chunks."""
    judge = judge or Judge(config, found)
    for number, path in enumerate(chunks.files):
        if path is not None:
            judge.add(number, path)
    return judge.rows()


class Effects:
    """How many documents each rule alone would drop at other thresholds."""

    FACTORS = (0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0)

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = rules
        self.thresholds = [[_moved(rule.threshold, factor) for factor in self.FACTORS] for rule in rules]
        self.dropped = np.zeros((len(rules), len(self.FACTORS)), np.int64)
        self.documents = 0

    def add(self, measured: dict[str, np.ndarray], languages: np.ndarray, active: np.ndarray) -> None:
        """Count one chunk."""
        self.documents += int(np.count_nonzero(active))
        for number, rule in enumerate(self.rules):
            applies = active & rule.applies(languages)
            values = np.asarray(measured[rule.column], np.float64)[applies]
            self.dropped[number] += rule.counts(values, np.array(self.thresholds[number]))

    def as_json(self) -> dict[str, dict[str, Any]]:
        """By rule: its threshold, and for each threshold tried how many documents it alone would drop."""
        found = {}
        for number, rule in enumerate(self.rules):
            tried = dict(zip(self.thresholds[number], self.dropped[number].tolist(), strict=True))
            found[rule.name] = {
                "column": rule.column,
                "bound": rule.bound,
                "threshold": rule.threshold,
                "would_drop": [{"threshold": at, "documents": tried[at]} for at in sorted(tried)],
            }
        return found


def _moved(threshold: float, factor: float) -> float:
    moved = threshold * factor
    return float(f"{moved:.6g}")


def mark_exact(rows: Rows) -> None:
    """Mark kept documents whose text came earlier as duplicates of the first."""
    kept = np.flatnonzero(rows.kept)
    order = kept[np.lexsort((kept, rows.identity[kept, 1], rows.identity[kept, 0]))]
    same = np.zeros(len(order), bool)
    same[1:] = np.all(rows.identity[order[1:]] == rows.identity[order[:-1]], axis=1)
    first = order[np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))]
    rows.reason[order[same]] = rows.reasons.index("duplicate")
    rows.kept_row[order[same]] = first[same]


def drop_repeats(rows: Rows, chunks: Chunks, config: CorpusConfig) -> dict[str, Any]:
    """Mark exact and near duplicates among the documents that are still kept.

    Returns:
        counts for the card: candidates, verified and confirmed pairs.
    """
    mark_exact(rows)
    if not config.near_duplicates or np.count_nonzero(rows.kept) < 2:
        return {}
    from textmill.corpus.deduplication.near_duplicates import find_near_duplicates

    if config.keep == "longest":
        priority = rows.characters.astype(np.float64)
    elif config.keep == "best":
        priority = rows.score
    else:
        priority = np.zeros(len(rows))
    signatures = load_signatures(chunks)
    found = find_near_duplicates(
        signatures, chunks.texts_of, priority=priority, active=rows.kept, threshold=config.near_threshold
    )
    repeats = np.flatnonzero(rows.kept & (found.kept != np.arange(len(rows))))
    rows.reason[repeats] = rows.reasons.index("near_duplicate")
    rows.value[repeats] = found.similarity[repeats]
    rows.kept_row[repeats] = found.kept[repeats]
    return dict(found.counts)


def load_repeats() -> None:
    """Load the compiled code that `drop_repeats` needs, by comparing a sentence with itself."""
    from textmill.corpus.deduplication.minhash import sign
    from textmill.corpus.deduplication.near_duplicates import find_near_duplicates

    texts = Texts.from_strings(2 * ["The river runs under the old bridge, and people walk over it."])
    find_near_duplicates(sign(texts), texts.take, priority=np.zeros(2))


def load_signatures(chunks: Chunks) -> Any:
    """All signatures in reading order."""
    from textmill.corpus.deduplication.minhash import Signatures

    keys, digests = [], []
    for number, path in enumerate(chunks.files):
        if path is not None:
            with np.load(paths_of(chunks.folder, number)["npz"]) as stored:
                keys.append(stored["keys"])
                digests.append(stored["digest"])
    return Signatures(np.concatenate(keys), np.concatenate(digests))
