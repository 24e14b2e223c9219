"""Text scored by an n-gram model over words, whatever the model's file. Reads models and texts."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from textmill.base.errors import Failure, UsageError
from textmill.base.hardware import hardware
from textmill.corpus.kernels import kernel
from textmill.models.ngram.arpa import read_arpa
from textmill.models.ngram.estimation import Grams
from textmill.models.ngram.kenlm import is_kenlm, read_kenlm
from textmill.models.ngram.tables import Tables, is_saved, load_arrays, save_arrays
from textmill.models.ngram.units import WORDS, Units, unit_named
from textmill.models.ngram.words import QUERY_BLANKS, SPECIAL, UNKNOWN, Words, blank_table

LEAST_SHARE = 1 << 19
"""Bytes of text that are worth a thread."""


class Scorer(Protocol):
    """What gives each token its probability."""

    counts: list[int]

    def score(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Base-10 log probabilities float32 [n] of tokens int32 [n], and the lengths of the n-grams used."""
        ...


@kernel
def _sum_sentences(
    tokens: np.ndarray,
    log10: np.ndarray,
    starts: np.ndarray,
    totals: np.ndarray,
    words: np.ndarray,
    unknown: np.ndarray,
    apart: np.ndarray,
) -> None:
    """Of each sentence, whose `<s>` stands at starts[row]: the float32 sum of log10, added in the order of the words
    as KenLM does; the number of tokens and of unknown words; and the float64 sum of the latter."""
    for row in range(len(starts)):
        stop = starts[row + 1] if row + 1 < len(starts) else len(tokens)
        total = np.float32(0)
        misses, missed = 0, 0.0
        for at in range(starts[row] + 1, stop):
            total += log10[at]
            if tokens[at] == UNKNOWN:
                misses += 1
                missed += np.float64(log10[at])
        totals[row], words[row], unknown[row], apart[row] = total, stop - starts[row] - 1, misses, missed


@dataclass
class Sentences:
    """Scores of sentences.

    Attributes:
        log10: float32 [sentences], base-10 log probability of each with its end.
        tokens: int64 [sentences], words and the end.
        unknown: int64 [sentences], words that the model does not know (OOV).
        unknown_log10: float64 [sentences], what those contributed.
    """

    log10: np.ndarray
    tokens: np.ndarray
    unknown: np.ndarray
    unknown_log10: np.ndarray


@dataclass
class Perplexity:
    """Totals of a text, as KenLM's query gives them."""

    sentences: int = 0
    tokens: int = 0
    """Words and sentence ends."""
    oov: int = 0
    """Words that the model does not know."""
    log10: float = 0.0
    oov_log10: float = 0.0

    def add(self, scores: Sentences) -> None:
        """Take more sentences in."""
        self.sentences += len(scores.log10)
        self.tokens += int(scores.tokens.sum())
        self.oov += int(scores.unknown.sum())
        # One after the other, as KenLM adds.
        self.log10 = float(np.cumsum(np.concatenate(([self.log10], scores.log10.astype(np.float64))))[-1])
        self.oov_log10 += float(scores.unknown_log10.sum())

    @property
    def including_oov(self) -> float:
        """Perplexity of a token, unknown words counted at the probability of `<unk>`."""
        return _power(-self.log10, self.tokens)

    @property
    def excluding_oov(self) -> float:
        """Perplexity of a known token."""
        return _power(-(self.log10 - self.oov_log10), self.tokens - self.oov)


def _power(nats: float, tokens: int) -> float:
    if tokens == 0:
        return float("nan")
    exponent = nats / tokens
    return float("inf") if exponent > 308 else 10.0**exponent


@dataclass
class WordModel:
    """An n-gram model over words.

    Attributes:
        words: its vocabulary; id 0 is `<unk>`.
        scorer: its n-grams.
        units: what a text is cut into before it is scored.
        path: the file it came from, for messages.
    """

    words: Words
    scorer: Scorer
    units: Units = WORDS
    path: str = ""
    begin: int = field(init=False)
    end: int = field(init=False)

    def __post_init__(self) -> None:
        self.begin, self.end = (self.words.find(special) for special in SPECIAL[1:])
        if min(self.begin, self.end) < 0:
            raise Failure(
                f"{self.path or 'The model'} does not know <s> and </s>.",
                "Without them it cannot say how a sentence begins and ends.",
                "Make the model with lmplz or textmill ngram.",
            )

    @classmethod
    def of(cls, words: Words, grams: Grams, units: Units = WORDS) -> WordModel:
        """A model that was just estimated."""
        return cls(words, Tables.build(grams), units)

    @property
    def order(self) -> int:
        """Words of the longest n-gram."""
        return len(self.scorer.counts)

    def encode(self, data: bytes | bytearray) -> tuple[np.ndarray, np.ndarray]:
        """Whole lines as ids int32, each line between `<s>` and `</s>`, and where each begins, int64 [lines]; blanks
        are those of KenLM's query."""
        cut = np.frombuffer(bytearray(self.units.cut(data)), dtype=np.uint8)
        return self.words.encode(cut, blank_table(QUERY_BLANKS), self.begin, self.end)

    def score_block(self, data: bytes | bytearray, threads: int | None = None) -> Sentences:
        """Score the lines of `data`; a last line counts whether or not it has a newline.

        Args:
            data: UTF-8 text.
            threads: among which the lines are divided; None takes all cores where there is work for them. It makes
                no difference to the scores.
        """
        if data and not data.endswith(b"\n"):
            data = bytes(data) + b"\n"
        if threads is None:
            threads = min(hardware().cores, 1 + len(data) // LEAST_SHARE)
        if threads > 1:
            cuts = sorted({data.rfind(b"\n", 0, len(data) * part // threads) + 1 for part in range(1, threads)})
            bounds = [0, *cuts, len(data)]
            with ThreadPoolExecutor(threads) as pool:
                parts = pool.map(
                    self._score_lines, (data[begin:stop] for begin, stop in itertools.pairwise(bounds))
                )  # fmt: skip
                return Sentences(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        return Sentences(*self._score_lines(data))

    def _score_lines(self, data: bytes | bytearray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        tokens, starts = self.encode(data)
        log10, _ = self.scorer.score(tokens)
        totals, apart = np.empty(len(starts), dtype=np.float32), np.empty(len(starts))
        words, unknown = np.empty(len(starts), dtype=np.int64), np.empty(len(starts), dtype=np.int64)
        _sum_sentences(tokens, log10, starts, totals, words, unknown, apart)
        return totals, words, unknown, apart

    def score(self, sentences: Iterable[str]) -> np.ndarray:
        """Base-10 log probability of each sentence with its end, float32 [n]; a sentence is words between blanks."""
        lines = [sentence.replace("\n", " ") for sentence in sentences]
        return self.score_block("".join(f"{line}\n" for line in lines).encode()).log10

    def word_scores(self, sentence: str) -> list[tuple[str, float, int, bool]]:
        """For each word of one sentence, and its end: the word, its base-10 log probability, how many words the
        n-gram has that it comes from, and whether it is unknown."""
        line = sentence.replace("\n", " ").encode() + b"\n"
        tokens, _ = self.encode(line)
        log10, lengths = self.scorer.score(tokens)
        names = [*(part.decode("utf-8", "replace") for part in self.units.cut(line).split()), "</s>"]
        return [
            (name, float(log10[at]), int(lengths[at]), bool(tokens[at] == UNKNOWN))
            for at, name in enumerate(names, start=1)
        ]

    def score_text(self, blocks: Iterable[bytes | bytearray]) -> Iterator[Sentences]:
        """Score a text that comes in blocks of whole lines."""
        for block in blocks:
            yield self.score_block(block)

    def save(self, path: Path) -> None:
        """Write the compact form, which opens in milliseconds.

        Raises:
            UsageError: the model is mapped from a KenLM probing file, whose n-grams cannot be listed.
        """
        if not isinstance(self.scorer, Tables):
            raise UsageError(
                f"{self.path} cannot be written in another form.",
                "A probing file holds hashes of n-grams, not the n-grams.",
                "Give the ARPA file that it was made from.",
            )
        count = self.words.count
        arrays = {
            "words": self.words.arena[: self.words.offsets[count]],
            "offsets": self.words.offsets[: count + 1],
            "slots": self.words.slots,
        }
        save_arrays(path, self.scorer.arrays() | arrays, self.scorer.facts | {"units": self.units.name})


def open_model(path: Path | str) -> WordModel:
    """Open an ARPA file (packed or not), Textmill's compact form, or a KenLM binary file; told by its first bytes.

    Raises:
        UsageError: there is no such file.
        Failure: it is damaged or of another kind; says where and why.
    """
    if str(path) == "-":
        words, grams, closed = read_arpa("-")
        return WordModel(words, Tables.build(grams, closed), path="standard input")
    place = Path(path)
    try:
        with place.open("rb") as stream:
            begin = stream.read(64)
    except OSError as error:
        raise UsageError(
            f"There is no model {place}.",
            error.strerror or str(error),
            "Make one with: textmill ngram TEXT --binary MODEL",
        ) from error
    if is_kenlm(begin):
        words, scorer = read_kenlm(place)
        return WordModel(words, scorer, path=str(place))
    if is_saved(begin):
        arrays, facts = load_arrays(place)
        try:
            words = Words(arrays["words"], arrays["offsets"], arrays["slots"])
            return WordModel(words, Tables.of(arrays, facts), unit_named(facts["units"]), str(place))
        except KeyError as error:
            raise Failure(
                f"{place} is no n-gram model over words.",
                f"It lacks {error}.",
                "A model over a run's tokens is opened by its run.",
            ) from error
    words, grams, closed = read_arpa(place)
    return WordModel(words, Tables.build(grams, closed), path=str(place))
