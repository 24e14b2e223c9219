"""A classifier of two kinds of text, trained on the user's own examples. Reads and writes its model file.

Logistic regression on hashed words and pairs of neighbours, as in fastText (Joulin et al. 2016, arXiv 1607.01759)
without the hidden layer. A word is a run of letters in small letters, a number, one punctuation mark, one break of
lines, or one Han, kana or Hangul character, so Chinese is read as characters and pairs of characters.
"""

from __future__ import annotations

import json
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np

from textmill.base.errors import Failure, UsageError
from textmill.base.files import write_atomic
from textmill.corpus.judging.rules import Rule
from textmill.corpus.kernels import FNV_BASIS, inline, kernel, mix
from textmill.corpus.texts import Texts

COLUMNS: dict[str, str] = {
    "quality_score": "How much the text is like the good examples, 0 to 1; above 0.5 the good class is likelier."
}

RULES = (
    Rule(
        "quality",
        "quality_score",
        "min",
        0.5,
        "Unlike the text that was called good: the classifier trained on it gives the other class more.",
        source="even odds",
    ),
)

BITS = 20
"""The hash table of weights has 2**20 places, 4 MB: it stays in the cache, and collisions cost little (fastText's
models for web text use as many or twice as many)."""

PASSAGE = 300
"""Words of a training passage. A longer text weighs its words as if it had this many, so a long document is not
surer than a short one for its length alone."""

EPOCHS = 4
LEARNING_RATE = 0.3
HELD_OUT = 10
"""One document in ten is held out of training; the reported figures are measured on these alone."""

_FORMAT = "textmill classifier 1"
_FNV_PRIME = np.uint64(0x100000001B3)
_PAIR = np.uint64(0x9E3779B97F4A7C15)


@inline
def _kind(lead: int) -> int:
    """What begins with this byte: 0 space, 1 letters, 2 digits, 3 one character, 4 a break of lines."""
    if lead >= 0x80:
        return 1 if 0xC3 <= lead <= 0xDF or lead < 0xC0 else 3
    if 97 <= lead <= 122 or 65 <= lead <= 90:
        return 1
    if 48 <= lead <= 57:
        return 2
    return 4 if lead == 10 else 0 if lead <= 32 else 3


@inline
def _next(data: np.ndarray, at: int, end: int) -> tuple[int, np.uint64]:
    """End and hash of the word that begins at `at`, which is no space."""
    kind = _kind(data[at])
    value = FNV_BASIS
    if kind == 4:
        while at < end and (data[at] == 10 or data[at] == 32):
            at += 1
        return at, mix(np.uint64(10))
    if kind == 2:
        while at < end and 48 <= data[at] <= 57:
            at += 1
        return at, mix(np.uint64(48))
    if kind == 3:
        value = (value ^ np.uint64(data[at])) * _FNV_PRIME
        at += 1
        while at < end and 0x80 <= data[at] < 0xC0:
            value = (value ^ np.uint64(data[at])) * _FNV_PRIME
            at += 1
        return at, mix(value)
    while at < end and _kind(data[at]) == 1:
        letter = data[at]
        if 65 <= letter <= 90:
            letter |= 32
        value = (value ^ np.uint64(letter)) * _FNV_PRIME
        at += 1
    return at, mix(value)


@kernel
def _features(data: np.ndarray, offsets: np.ndarray, mask: np.uint64, out: np.ndarray, ends: np.ndarray) -> int:
    """Features of every text, two a word: uint32 out, ends int64 [n]; gives how many there are, which may be more
    than `out` holds."""
    count = 0
    for row in range(len(offsets) - 1):
        at, end = offsets[row], offsets[row + 1]
        before = np.uint64(0)
        while at < end:
            if _kind(data[at]) == 0:
                at += 1
                continue
            at, value = _next(data, at, end)
            if count + 2 <= len(out):
                out[count] = np.uint32(value & mask)
                out[count + 1] = np.uint32(mix(value ^ (before * _PAIR)) & mask)
            count += 2
            before = value
        ends[row] = count
    return count


@kernel
def _fit(
    features: np.ndarray,
    begins: np.ndarray,
    ends: np.ndarray,
    targets: np.ndarray,
    shares: np.ndarray,
    order: np.ndarray,
    weights: np.ndarray,
    rate: float,
) -> None:
    """Stochastic gradient steps over passages in this order, the rate falling to zero; weights float32 [places + 1],
    the last one the bias."""
    bias = len(weights) - 1
    steps = len(order)
    for step in range(steps):
        row = order[step]
        begin, end = begins[row], ends[row]
        scale = 1.0 / np.sqrt(end - begin)
        total = np.float64(weights[bias])
        for at in range(begin, end):
            total += weights[features[at]] * scale
        guess = 1.0 / (1.0 + np.exp(-total))
        move = rate * (1.0 - step / steps) * shares[row] * (targets[row] - guess)
        weights[bias] += np.float32(0.1 * move)
        change = np.float32(move * scale)
        for at in range(begin, end):
            weights[features[at]] += change


@kernel
def _score(data: np.ndarray, offsets: np.ndarray, weights: np.ndarray, most: int, out: np.ndarray) -> None:
    """Probability of the good class, float64 [n]."""
    bias = len(weights) - 1
    mask = np.uint64(bias - 1)
    for row in range(len(offsets) - 1):
        at, end = offsets[row], offsets[row + 1]
        before = np.uint64(0)
        total, count = 0.0, 0
        while at < end:
            if _kind(data[at]) == 0:
                at += 1
                continue
            at, value = _next(data, at, end)
            total += weights[value & mask] + weights[mix(value ^ (before * _PAIR)) & mask]
            count += 2
            before = value
        if count == 0:
            out[row] = 0.5
            continue
        out[row] = 1.0 / (1.0 + np.exp(-(weights[bias] + total / count * np.sqrt(min(count, most)))))


class Report(NamedTuple):
    """What was measured on texts that training did not see.

    Attributes:
        auc: probability that a good text scores above a bad one, ties counting half.
        accuracy: mean of the shares of good and of bad texts that are told right at 0.5.
        good: held-out texts of the good class; bad: of the other.
        whole: held out by whole documents; otherwise by passages, which share documents with training.
    """

    auc: float
    accuracy: float
    good: int
    bad: int
    whole: bool


class Classifier:
    """Tells two kinds of text apart.

    Args:
        weights: float32 [2**bits + 1], one a feature; the last is the bias.
        report: measured when it was trained.
    """

    def __init__(self, weights: np.ndarray, report: Report) -> None:
        self.weights, self.report = weights, report

    @classmethod
    def train(cls, good: Texts, bad: Texts, seed: int = 0, kinds: tuple[str, str] = ("good", "bad")) -> Classifier:
        """Learn to tell `good` from `bad`; the same texts and seed give the same weights.

        Args:
            good: texts whose class scores 1.
            bad: texts whose class scores 0.
            seed: draws the order of training.
            kinds: what the two are called; the first is also the setting that asks for them (--good).

        Raises:
            UsageError: a side has too little text to learn from and to measure on.
        """
        mask = np.uint64((1 << BITS) - 1)
        sides = []
        whole = min(len(good), len(bad)) >= HELD_OUT
        for name, texts in zip(kinds, (good, bad), strict=True):
            features, ends = _all_features(texts, mask)
            begins, stops, documents = _passages(ends)
            if len(begins) < 2:
                raise UsageError(
                    f"There is too little {name} text to train a classifier.",
                    f"It has {len(features) // 2} words; at least {2 * PASSAGE} in two passages are needed.",
                    f"Name more text, or leave --{kinds[0]} away.",
                )
            held = _held_out(texts)[documents] if whole else np.arange(len(begins)) % HELD_OUT == HELD_OUT - 1
            if held.all() or not held.any():
                held = np.arange(len(begins)) == len(begins) - 1
                whole = False
            sides.append((features, begins, stops, documents, held))
        features = np.concatenate([side[0] for side in sides])
        shift = len(sides[0][0])
        begins = np.concatenate([sides[0][1], sides[1][1] + shift])
        stops = np.concatenate([sides[0][2], sides[1][2] + shift])
        held = np.concatenate([side[4] for side in sides])
        targets = np.repeat(np.array([1.0, 0.0]), [len(sides[0][1]), len(sides[1][1])])
        seen = ~held
        counts = np.array([np.count_nonzero(seen & (targets == kind)) for kind in (0.0, 1.0)])
        shares = (counts.sum() / (2.0 * counts))[targets.astype(np.int64)]
        shares = np.minimum(shares, 10.0)
        weights = np.zeros((1 << BITS) + 1, dtype=np.float32)
        rows = np.flatnonzero(seen)
        generator = np.random.default_rng(seed)
        order = np.concatenate([generator.permutation(rows) for _ in range(EPOCHS)])
        _fit(features, begins, stops, targets, shares, order, weights, LEARNING_RATE)
        model = cls(weights, Report(np.nan, np.nan, 0, 0, whole))
        scores = []
        for (side_features, side_begins, side_stops, documents, side_held), texts in zip(
            sides, (good, bad), strict=True
        ):
            if whole:
                scores.append(model.scores(texts.take(np.unique(documents[side_held]))))
            else:
                values = [
                    weights[side_features[begin:end]].sum(dtype=np.float64) / np.sqrt(end - begin) + weights[-1]
                    for begin, end in zip(side_begins[side_held], side_stops[side_held], strict=True)
                ]
                scores.append(1.0 / (1.0 + np.exp(-np.array(values))))
        model.report = Report(
            auc(scores[0], scores[1]),
            float((np.mean(scores[0] > 0.5) + np.mean(scores[1] <= 0.5)) / 2),
            len(scores[0]),
            len(scores[1]),
            whole,
        )
        return model

    def scores(self, texts: Texts) -> np.ndarray:
        """Probability of the good class, float64 [n]; 0.5 for a text without a word."""
        out = np.empty(len(texts), dtype=np.float64)
        _score(texts.data, texts.offsets, self.weights, 2 * PASSAGE, out)
        return out

    def measure(self, texts: Texts) -> dict[str, np.ndarray]:
        """The column of `COLUMNS`."""
        return {"quality_score": self.scores(texts)}

    def summary(self, name: str = "quality", kind: str = "good") -> str:
        """One sentence on how well it tells the classes apart; `kind` is what the class that scores 1 is called."""
        report = self.report
        what = "documents" if report.whole else "passages of the same documents, so that these figures flatter"
        return (
            f"The {name} classifier ranks a {kind} text above another in {100 * report.auc:.1f}% of pairs and tells "
            f"{100 * report.accuracy:.1f}% right, on {report.good} + {report.bad} held-out {what}."
        )

    def save(self, path: Path) -> None:
        """Write the model; the same model gives the same bytes."""
        from safetensors.numpy import save

        used = np.flatnonzero(self.weights).astype(np.uint32)
        # One entry: the library writes several in an order that changes from save to save.
        metadata = {"textmill": json.dumps({"format": _FORMAT, "report": self.report._asdict()})}
        write_atomic(Path(path), save({"places": used, "weights": self.weights[used]}, metadata))

    @classmethod
    def load(cls, path: Path) -> Classifier:
        """Read a model; reading the same unchanged file again costs nothing.

        Raises:
            Failure: it is no model of this kind.
        """
        state = Path(path).stat()
        return _load(str(path), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=2)
def _load(path: str, size: int, changed: int) -> Classifier:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            metadata = json.loads((file.metadata() or {}).get("textmill", "{}"))
            if metadata.get("format") != _FORMAT:
                raise ValueError(f"its format is {metadata.get('format')!r}")
            weights = np.zeros((1 << BITS) + 1, dtype=np.float32)
            weights[file.get_tensor("places")] = file.get_tensor("weights")
            return Classifier(weights, Report(**metadata["report"]))
    except (SafetensorError, ValueError, KeyError, TypeError, IndexError) as error:
        raise Failure(
            f"{path} is no classifier of Textmill.", str(error), "Type the command again with its paths."
        ) from error


def auc(good: np.ndarray, bad: np.ndarray) -> float:
    """Area under the ROC curve by the rank sum of Mann and Whitney, ties counting half."""
    values = np.concatenate([good, bad])
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    total = ranks[inverse[: len(good)]].sum()
    return float((total - len(good) * (len(good) + 1) / 2) / (len(good) * len(bad)))


def _all_features(texts: Texts, mask: np.uint64) -> tuple[np.ndarray, np.ndarray]:
    """Features uint32 of all texts, and where each text's end, int64 [n]."""
    ends = np.empty(len(texts), dtype=np.int64)
    count = _features(texts.data, texts.offsets, mask, np.empty(0, np.uint32), ends)
    features = np.empty(count, dtype=np.uint32)
    _features(texts.data, texts.offsets, mask, features, ends)
    return features, ends


def _passages(ends: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Begin, end and text of every passage of at most 2 * PASSAGE features; a short rest joins the one before."""
    starts = np.concatenate([[0], ends[:-1]])
    sizes = ends - starts
    pieces = np.maximum(1, sizes // (2 * PASSAGE))
    pieces[sizes == 0] = 0
    documents = np.repeat(np.arange(len(ends)), pieces)
    number = np.arange(len(documents)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begins = starts[documents] + number * (sizes[documents] // pieces[documents])
    stops = np.where(number == pieces[documents] - 1, ends[documents], begins + sizes[documents] // pieces[documents])
    return begins.astype(np.int64), stops.astype(np.int64), documents


def _held_out(texts: Texts) -> np.ndarray:
    """Which texts are held out, bool [n]: by their content, so that copies are on the same side."""
    return np.array([blake2b(texts[row], digest_size=8).digest()[0] % HELD_OUT == 0 for row in range(len(texts))], bool)
