"""How surprising a text is to a model of the user's own good text, as CCNet does (Wenzek et al. 2020, arXiv
1911.00359), in bits per byte. Reads and writes its model file.

A trigram model over words; a word that it does not know is spelled by a second trigram model, over the bytes of the
words that it saw. So every byte is paid for, and figures of different languages and spellings compare. A word is a run
of letters with the space before it, or one digit, punctuation mark, Han, kana or Hangul character, or a run of
blanks.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from textmill.base.errors import Failure, UsageError
from textmill.base.files import write_atomic
from textmill.corpus.judging.kneser_ney import BEGIN, MOST_SYMBOLS, UNKNOWN, Tables, estimate, hashed, log_probability
from textmill.corpus.judging.kneser_ney import find as find_slot
from textmill.corpus.judging.rules import Rule
from textmill.corpus.kernels import FNV_BASIS, inline, kernel, mix
from textmill.corpus.texts import Texts

COLUMNS: dict[str, str] = {
    "perplexity_bits_per_byte": "Bits that the n-gram model of the good text needs for a byte of this one; lower is "
    "more alike."
}

RULES = (
    Rule(
        "perplexity",
        "perplexity_bits_per_byte",
        "max",
        3.0,
        "Its words and their order are unlike the good text: lists, code, menus, another language.",
        source="own: after 11 MB of speeches, other speeches have 1.3, shuffled ones 2.0, technical prose 2.2 to 3, "
        "menus and lists 4.7, Chinese 12; where that differs, take a percentile of `cutoffs`",
    ),
)

LEAST_BYTES = 10_000
"""Good text below which a model would say nothing."""

MOST_WORDS = 1 << 18
"""Known words; the most frequent ones, of those seen twice or more."""

MOST_GRAMS = 1 << 20
"""Trigrams and pairs that are kept without pruning those seen once: about 40 MB of tables."""

MOST_LETTERS = 48
"""Bytes of a word; a longer run is cut."""

_FORMAT = "textmill n-grams 1"
_PRIME = np.uint64(0x100000001B3)
_END = 258
_BYTE = 2
_SPELLED = 259
"""Symbols of the spelling model: unknown, begin, 256 bytes, end."""


@inline
def _class(lead: int) -> int:
    """0 blank, 1 letter, 2 anything that stands alone."""
    if lead >= 0x80:
        return 1 if 0xC3 <= lead <= 0xDF or lead < 0xC0 else 2
    if 97 <= lead <= 122 or 65 <= lead <= 90:
        return 1
    return 0 if lead <= 32 else 2


@inline
def _word_end(data: np.ndarray, at: int, end: int) -> int:
    """Where the word that begins at `at` ends."""
    start = at
    if data[at] == 32 and at + 1 < end and _class(data[at + 1]) != 0:
        at += 1
    kind = _class(data[at])
    if kind == 0:
        lead = data[at]
        while at < end and data[at] == lead and at - start < MOST_LETTERS:
            at += 1
        if lead == 32 and at < end and _class(data[at]) != 0 and at - start > 1:
            at -= 1  # the last blank belongs to the word
        return at
    at += 1
    if kind == 2:
        while at < end and 0x80 <= data[at] < 0xC0:
            at += 1
        return at
    while at < end and _class(data[at]) == 1 and (at - start < MOST_LETTERS or 0x80 <= data[at] < 0xC0):
        at += 1
    return at


@inline
def _hash(data: np.ndarray, at: int, stop: int) -> np.uint64:
    value = FNV_BASIS
    for place in range(at, stop):
        value = (value ^ np.uint64(data[place])) * _PRIME
    return mix(value) >> np.uint64(1)  # never the mark of a free slot


@kernel
def _split(data: np.ndarray, offsets: np.ndarray, words: np.ndarray, places: np.ndarray) -> int:
    """Hash uint64 and first byte int64 of every word, each text after an entry with place -1; gives the number of
    entries, which may be more than there is room for."""
    count, room = 0, len(words)
    for row in range(len(offsets) - 1):
        at, end = offsets[row], offsets[row + 1]
        if count < room:
            words[count] = 0
            places[count] = -1
        count += 1
        while at < end:
            stop = _word_end(data, at, end)
            if count < room:
                words[count] = _hash(data, at, stop)
                places[count] = at
            count += 1
            at = stop
    return count


@kernel
def _spell(data: np.ndarray, places: np.ndarray, out: np.ndarray) -> int:
    """The words that begin at these places as symbols of the spelling model, int64 out."""
    count = 0
    for number in range(len(places)):
        at = places[number]
        stop = _word_end(data, at, len(data))
        out[count] = BEGIN
        count += 1
        for place in range(at, stop):
            out[count] = np.int64(data[place]) + _BYTE
            count += 1
        out[count] = _END
        count += 1
    return count


@kernel
def _score(
    data: np.ndarray,
    offsets: np.ndarray,
    word_keys: np.ndarray,
    word_ids: np.ndarray,
    s1: np.ndarray,
    s2: np.ndarray,
    s3: np.ndarray,
    s4: np.ndarray,
    s5: np.ndarray,
    w1: np.ndarray,
    w2: np.ndarray,
    w3: np.ndarray,
    w4: np.ndarray,
    w5: np.ndarray,
    out: np.ndarray,
) -> None:
    """Bits of every text, float64 [n]: tables of the spelling model, then of the word model."""
    for row in range(len(offsets) - 1):
        at, end = offsets[row], offsets[row + 1]
        first: Any = UNKNOWN
        second: Any = BEGIN
        context: Any = np.int64(-1)
        bits = 0.0
        while at < end:
            stop = _word_end(data, at, end)
            slot = find_slot(word_keys, _hash(data, at, stop))
            symbol: Any = np.int64(word_ids[slot]) if slot >= 0 else UNKNOWN
            value, context = log_probability(w1, w2, w3, w4, w5, first, second, symbol, context)
            bits -= value
            if symbol == UNKNOWN:
                a: Any = UNKNOWN
                b: Any = BEGIN
                inner: Any = np.int64(-1)
                for place in range(at, stop + 1):
                    letter: Any = np.int64(data[place]) + _BYTE if place < stop else _END
                    value, inner = log_probability(s1, s2, s3, s4, s5, a, b, letter, inner)
                    bits -= value
                    a, b = b, letter
            first, second = second, symbol
            at = stop
        out[row] = bits


class Perplexity:
    """An n-gram model of good text.

    Args:
        word_keys: uint64 [2**k], hashes of the known words, open addressing; word_ids: int32 [2**k], their symbols.
        words: tables of the model of words; letters: of their spelling.
    """

    def __init__(self, word_keys: np.ndarray, word_ids: np.ndarray, words: Tables, letters: Tables) -> None:
        self.word_keys, self.word_ids, self.words, self.letters = word_keys, word_ids, words, letters

    @classmethod
    def train(cls, good: Texts, most_words: int = MOST_WORDS, most_grams: int = MOST_GRAMS) -> Perplexity:
        """Learn the wording of `good`; the same texts give the same model.

        Args:
            good: texts; about 300 bytes of memory are needed for each of their words.
            most_words: known words at most.
            most_grams: as for `estimate`.

        Raises:
            UsageError: there is too little text.
        """
        if len(good.data) < LEAST_BYTES:
            raise UsageError(
                f"{len(good.data)} bytes are too little good text.",
                f"A model of wording needs at least {LEAST_BYTES:,} bytes, better a million.",
                "Name more text, or leave --good away.",
            )
        count = _split(good.data, good.offsets, np.empty(0, np.uint64), np.empty(0, np.int64))
        hashes = np.empty(count, dtype=np.uint64)
        places = np.empty(count, dtype=np.int64)
        _split(good.data, good.offsets, hashes, places)
        begins = places < 0
        distinct, where, inverse, counts = np.unique(
            hashes[~begins], return_index=True, return_inverse=True, return_counts=True
        )
        order = np.lexsort((distinct, -counts))  # by frequency, ties by hash
        order = order[: min(most_words, MOST_SYMBOLS - 2, int(np.count_nonzero(counts > 1)))]
        symbols = np.full(len(distinct), UNKNOWN, dtype=np.int64)
        symbols[order] = np.arange(2, len(order) + 2)
        ids = np.full(count, BEGIN, dtype=np.int64)
        ids[~begins] = symbols[inverse]
        keys, slots = hashed(distinct[order])
        word_ids = np.zeros(len(keys), dtype=np.int32)
        word_ids[slots] = symbols[order]
        seen = places[~begins][where]
        letters = np.empty(len(seen) * (MOST_LETTERS + 6), dtype=np.int64)
        letters = letters[: _spell(good.data, seen, letters)]
        return cls(keys, word_ids, estimate(ids, len(order) + 2, most_grams), estimate(letters, _SPELLED, most_grams))

    def bits(self, texts: Texts) -> np.ndarray:
        """Bits of every text, float64 [n]."""
        out = np.empty(len(texts), dtype=np.float64)
        _score(texts.data, texts.offsets, self.word_keys, self.word_ids, *self.letters, *self.words, out)
        return out

    def measure(self, texts: Texts) -> dict[str, np.ndarray]:
        """The column of `COLUMNS`, float64 [n]; NaN for an empty text."""
        sizes = texts.sizes.astype(np.float64)
        return {"perplexity_bits_per_byte": self.bits(texts) / np.where(sizes > 0, sizes, np.nan)}

    def save(self, path: Path) -> None:
        """Write the model; the same model gives the same bytes."""
        from safetensors.numpy import save

        tensors = {"word_keys": self.word_keys, "word_ids": self.word_ids}
        for name, tables in (("words", self.words), ("letters", self.letters)):
            tensors.update({f"{name}.{field}": array for field, array in tables._asdict().items()})
        write_atomic(Path(path), save(tensors, {"format": _FORMAT}))

    @classmethod
    def load(cls, path: Path) -> Perplexity:
        """Read a model; reading the same unchanged file again costs nothing.

        Raises:
            Failure: it is no model of this kind.
        """
        state = Path(path).stat()
        return _load(str(path), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=2)
def _load(path: str, size: int, changed: int) -> Perplexity:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            if (file.metadata() or {}).get("format") != _FORMAT:
                raise ValueError("its format is another")
            tables = [
                Tables(*(file.get_tensor(f"{name}.{field}") for field in Tables._fields))
                for name in ("words", "letters")
            ]
            return Perplexity(file.get_tensor("word_keys"), file.get_tensor("word_ids"), *tables)
    except (SafetensorError, ValueError, KeyError) as error:
        raise Failure(f"{path} is no n-gram model of Textmill.", str(error), "Train it again with --good.") from error


def cutoffs(
    values: np.ndarray, languages: np.ndarray, head: float = 0.3, middle: float = 0.6
) -> Mapping[str, tuple[float, float]]:
    """Where the best and the middle part of each language end, as in CCNet (30%, 60%), in bits per byte.

    Args:
        values: perplexity_bits_per_byte, float64 [n].
        languages: code of each document, str [n].
        head: share of documents in the best part; middle: share in the best and the middle part together.
    """
    found = {}
    for language in np.unique(languages).tolist():
        known = values[(languages == language) & ~np.isnan(values)]
        if len(known):
            first, second = np.quantile(known, [head, middle])
            found[language] = (float(first), float(second))
    return found
