"""KenLM's binary files, mapped and queried as they are (probing) or unpacked (trie). Reads them, writes none.

The formats are those of KenLM's version 5 files, on little-endian machines.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from textmill.base.errors import Failure
from textmill.corpus.kernels import inline, kernel
from textmill.models.ngram.config import MAX_ORDER
from textmill.models.ngram.counting import Level, Space, find_contexts
from textmill.models.ngram.estimation import Grams, Order
from textmill.models.ngram.tables import Tables, score_segments
from textmill.models.ngram.words import Words

MAGIC = b"mmap lm http://kheafield.com/code format version 5\n\0"
_ANY_VERSION = b"mmap lm http://kheafield.com/code"
_TEST_VALUES = struct.pack("<3f3IQ", 0.0, 1.0, -0.5, 1, 0xFFFFFFFF, 0, 1)
_MAGIC_SIZE = 56
KINDS = (
    "probing",
    "probing with rest costs",
    "trie",
    "quantized trie",
    "trie with compressed pointers",
    "quantized trie with compressed pointers",
)
_VERSIONS = {0: 0, 2: 1}
"""Kinds that are read, and their version of the search structure."""
_MULTIPLY_1 = np.uint64(8978948897894561157)
_MULTIPLY_2 = np.uint64(17894857484156487943)
_SIGN = np.uint32(0x80000000)


def is_kenlm(begin: bytes) -> bool:
    """Whether a file that begins so is one of KenLM's."""
    return begin.startswith(_ANY_VERSION[: len(begin)]) and len(begin) >= 8


@dataclass
class _File:
    """A mapped file: its bytes, its header, and where the part that is read next begins."""

    path: Path
    data: np.ndarray
    kind: int
    multiplier: float
    counts: list[int]
    at: int

    def take(self, size: int) -> np.ndarray:
        """The next bytes, uint8 [size]."""
        if size < 0 or self.at + size > len(self.data):
            raise self.damaged(f"It has {len(self.data):,} bytes and should have more than {self.at + size:,}")
        found = self.data[self.at : self.at + size]
        self.at += size
        return found

    def damaged(self, why: str) -> Failure:
        """The error of a file that is not whole."""
        return Failure(
            f"{self.path} is no whole KenLM binary file.", f"{why}.", "Make it again from its ARPA file, or give that."
        )

    def words(self) -> Words:
        """The vocabulary, which stands at the end."""
        strings = self.data[self.at :].tobytes()
        if not strings.startswith(b"<unk>\0"):
            raise Failure(
                f"{self.path} holds no words.",
                "It was built without its vocabulary, or it is cut off.",
                "Build it again with: build_binary MODEL.arpa MODEL.binary",
            )
        return Words.of(strings.split(b"\0")[:-1])


def _open(path: Path) -> _File:
    data = np.asarray(np.memmap(path, dtype=np.uint8, mode="c"))
    begin = data[: _MAGIC_SIZE + len(_TEST_VALUES) + 20].tobytes()
    file = _File(path, data, 0, 0.0, [], 0)
    if not begin.startswith(MAGIC):
        shown = begin[len(_ANY_VERSION) : 50].split(b"\n")[0].decode("ascii", "replace").strip()
        raise Failure(
            f"{path} is a KenLM binary file that Textmill does not read.",
            f'It is marked "{shown}"; files of format version 5 are read.',
            "Build it again from its ARPA file with a newer KenLM, or give the ARPA file.",
        )
    if begin[_MAGIC_SIZE : _MAGIC_SIZE + len(_TEST_VALUES)] != _TEST_VALUES:
        raise file.damaged("Its test values are not those of a 64-bit little-endian machine")
    file.at = _MAGIC_SIZE + len(_TEST_VALUES)
    order, file.multiplier, file.kind, _, version = struct.unpack("<B3xfIB3xI", file.take(20).tobytes())
    if file.kind not in _VERSIONS or version != _VERSIONS[file.kind]:
        name = KINDS[file.kind] if file.kind < len(KINDS) else f"kind {file.kind}"
        raise Failure(
            f"{path} is a KenLM binary file of a kind that Textmill does not read: {name}, version {version}.",
            "Probing and plain trie files are read; quantization loses precision, and compressed pointers are rare.",
            "Build it with: build_binary probing MODEL.arpa MODEL.binary, or give the ARPA file.",
        )
    if not 2 <= order <= MAX_ORDER:
        raise Failure(f"{path} is of order {order}.", f"Textmill reads orders 2 to {MAX_ORDER} of KenLM's files.")
    file.counts = np.frombuffer(file.take(8 * order).tobytes(), dtype=np.int64).tolist()
    if min(file.counts) < 0 or max(file.counts) > len(data):
        raise file.damaged("Its counts of n-grams are more than its bytes")
    file.at += -file.at % 8
    return file


@inline
def _chain(node: np.uint64, word: int) -> np.uint64:
    """KenLM's hash of an n-gram with one more word before it."""
    return (node * _MULTIPLY_1) ^ (np.uint64(word + 1) * _MULTIPLY_2)


@kernel
def _score_probing(
    order: int,
    keys: np.ndarray,
    values: np.ndarray,
    step: int,
    tokens: np.ndarray,
    nodes: np.ndarray,
    found: np.ndarray,
    weights: np.ndarray,
    weighted: bool,
    log10: np.ndarray,
    lengths: np.ndarray,
) -> None:
    """As `tables._score_order`, for KenLM's tables: keys are hashes of all words, the last one first.

    keys uint32 and values float32 are two views of the same entries, `step` words of 32 bits each.
    """
    size = np.uint64(len(keys) // step)
    weight, known = np.float32(0), False
    for at in range(len(tokens)):
        own, mine = weights[at], found[at]
        found_weight, here = np.float32(0), False
        if known and mine and at >= order - 1:
            node = _chain(nodes[at], tokens[at - order + 1])
            nodes[at] = node
            slot = node % size
            while True:
                entry = slot * np.uint64(step)
                held = np.uint64(keys[entry]) | (np.uint64(keys[entry + 1]) << np.uint64(32))
                if held == node:
                    here = True
                    log10[at] = -abs(values[entry + 2])
                    lengths[at] = order
                    if weighted:
                        found_weight = values[entry + 3]
                    break
                if held == 0:
                    break
                slot += np.uint64(1)
                if slot == size:
                    slot = np.uint64(0)
        if not here and known:
            log10[at] += weight
        found[at] = here
        weights[at] = found_weight
        weight, known = own, mine


class Probing:
    """A probing model, queried where it lies in its file."""

    def __init__(self, file: _File) -> None:
        counts = file.counts
        self.counts, self.order = counts, len(counts)
        version = int(np.frombuffer(file.take(8)[:4].tobytes(), dtype=np.uint32)[0])
        if version != 0:
            raise file.damaged(f"Its vocabulary is of version {version}, not 0")
        file.take(12 * self._buckets(counts[0], file.multiplier))  # hashes of words: the words themselves follow
        unigrams = file.take(8 * (counts[0] + 1)).view(np.float32).reshape(-1, 2)
        self.log10, self.backoff = -np.abs(unigrams[:, 0]), unigrams[:, 1].copy()
        self.keys = [
            file.take(width * self._buckets(count, file.multiplier)).view(np.uint32)
            for count, width in zip(counts[1:], [16] * (self.order - 2) + [12], strict=True)
        ]

    @staticmethod
    def _buckets(entries: int, multiplier: float) -> int:
        return max(entries + 1, int(np.float32(multiplier) * np.float32(entries)))

    def score(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `Tables.score`."""
        return score_segments(self._score, tokens, self.order)

    def _score(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log10, weights = self.log10[tokens], self.backoff[tokens]
        lengths = np.ones(len(tokens), dtype=np.uint8)
        nodes, found = tokens.astype(np.uint64), np.ones(len(tokens), dtype=np.bool_)
        for k, table in enumerate(self.keys, start=2):
            step = 3 if k == self.order else 4
            _score_probing(
                k, table, table.view(np.float32), step, tokens, nodes, found, weights, k < self.order, log10, lengths
            )  # fmt: skip
        return log10, lengths


def _bits(data: np.ndarray, first: int, step: int, width: int, count: int) -> np.ndarray:
    """`count` numbers of `width` bits (at most 57), uint64, from bit `first` on, `step` bits apart."""
    at = first + step * np.arange(count, dtype=np.int64)
    byte, shift = at >> 3, (at & 7).astype(np.uint64)
    value = np.zeros(count, dtype=np.uint64)
    for place in range(8):
        value |= data[byte + place].astype(np.uint64) << np.uint64(8 * place)
    return (value >> shift) & np.uint64((1 << width) - 1)


def _floats(bits: np.ndarray) -> np.ndarray:
    """Log probabilities stored without their sign."""
    return (bits.astype(np.uint32) | _SIGN).view(np.float32)


def _read_trie(file: _File) -> Tables:
    """Unpack a trie: n-grams stand below their suffixes, the last word first, sorted by word."""
    counts = file.counts
    file.take(8 * (1 + counts[0]))  # hashes of words
    entry = np.dtype([("log10", "<f4"), ("backoff", "<f4"), ("next", "<u8")])
    unigrams = file.take(16 * (counts[0] + 2)).view(entry)
    word_bits = counts[0].bit_length()
    log10, backoff = [unigrams["log10"][: counts[0]].copy()], [unigrams["backoff"][: counts[0]].copy()]
    ids = np.arange(counts[0], dtype=np.int32)
    nothing = ids[:0]
    levels = [Level(ids, ids, nothing, nothing, nothing, nothing)]
    bounds = unigrams["next"][: counts[0] + 1].astype(np.int64)
    for k in range(2, len(counts) + 1):
        count, highest = counts[k - 1], k == len(counts)
        next_bits = 0 if highest else counts[k].bit_length()
        step = word_bits + (31 if highest else 63 + next_bits)
        data = file.take(((1 + count) * step + 7) // 8 + 8)
        if bounds[0] != 0 or bounds[-1] != count or (np.diff(bounds) < 0).any():
            raise file.damaged(f"The {k}-grams are out of order")
        suffix = np.repeat(np.arange(len(bounds) - 1, dtype=np.int32), np.diff(bounds))
        first = _bits(data, 0, step, word_bits, count).astype(np.int32)
        levels.append(Level(first, levels[-1].last[suffix], suffix, nothing, nothing, nothing))
        log10.append(_floats(_bits(data, word_bits, step, 31, count)))
        if highest:
            backoff.append(np.zeros(count, dtype=np.float32))
        else:
            backoff.append(_bits(data, word_bits + 31, step, 32, count).astype(np.uint32).view(np.float32))
            bounds = _bits(data, word_bits + 63, step, next_bits, count + 1).astype(np.int64)
    try:
        find_contexts(levels, Space(None))
    except (ValueError, IndexError) as error:
        raise file.damaged(f"Its n-grams do not fit one another: {error}") from error
    orders = [
        Order(level.context, level.last, log, weight) for level, log, weight in zip(levels, log10, backoff, strict=True)
    ]
    return Tables.build(Grams(orders, []))


def read_kenlm(path: Path) -> tuple[Words, Probing | Tables]:
    """Open a KenLM binary file: its vocabulary and what scores with it.

    Raises:
        Failure: the file is damaged, of another version, or of a kind that is not read; says which.
    """
    file = _open(path)
    model = Probing(file) if file.kind == 0 else _read_trie(file)
    words = file.words()
    if len(words) > len(model.log10):
        raise file.damaged(f"It has {len(words):,} words and {len(model.log10):,} 1-grams")
    return words, model
