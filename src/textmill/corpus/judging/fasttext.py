"""A fastText model for classifying text, read from its file and applied to many texts at once. Reads that file.

The format and the arithmetic are those of fastText (Joulin et al. 2016, "Bag of Tricks for Efficient Text
Classification", arXiv 1607.01759, and "FastText.zip", arXiv 1612.03651, for pruned and quantized models).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from textmill.base.errors import Failure
from textmill.corpus.kernels import FNV_BASIS, inline, kernel, mix

MAGIC, VERSION = 793712314, 12
HIERARCHICAL = 1
_CENTROIDS = 256
_ROOM = 1 << 17
"""Slots of the table from hash to row: thrice the n-grams of the language model, so that most are found at once."""
_FNV_PRIME = np.uint64(0x100000001B3)
_WORD_BIT = np.uint64(1 << 63)


class FastText(NamedTuple):
    """A classifier with character n-grams and a hierarchical softmax.

    Attributes:
        labels: names without `__label__`, in the model's order.
        rows: float32 [words + n-grams, dimension], input vectors.
        keys: uint64 [2**k], open addressing; 0 is an empty slot.
        values: int32 [2**k], row of each key.
        bucket: how many values an n-gram's hash may have.
        shortest, longest: characters of an n-gram.
        end: row of the end-of-line token, -1 when there is none.
        nodes: float32 [labels - 1, dimension], the tree's inner nodes.
        children: int32 [labels - 1, 2], an inner node's children: labels, then inner nodes from len(labels) on.
    """

    labels: list[str]
    rows: np.ndarray
    keys: np.ndarray
    values: np.ndarray
    bucket: int
    shortest: int
    longest: int
    end: int
    nodes: np.ndarray
    children: np.ndarray


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, form: str) -> tuple[int, ...]:
        values: tuple[int, ...] = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return values

    def word(self) -> bytes:
        end = self.data.index(0, self.at)
        word = self.data[self.at : end]
        self.at = end + 1
        return word

    def array(self, kind: type, count: int) -> np.ndarray:
        values: np.ndarray = np.frombuffer(self.data, kind, count, self.at)
        self.at += values.nbytes
        return values

    def quantizer(self) -> tuple[np.ndarray, int, int]:
        """Centroids float32 [parts * 256 * size] with the number of parts and their size."""
        dimension, parts, size, last = self.take("4i")
        if parts * size != dimension or last != size:
            raise ValueError("parts of unequal size")
        return self.array(np.float32, dimension * _CENTROIDS), parts, size

    def matrix(self, quantized: bool) -> np.ndarray:
        """float32 [rows, columns]."""
        if not quantized:
            rows, columns = self.take("qq")
            return self.array(np.float32, rows * columns).reshape(rows, columns).copy()
        (normed,) = self.take("?")
        rows, columns, size = self.take("qqi")
        codes = self.array(np.uint8, size).reshape(rows, -1)
        flat, parts, width = self.quantizer()
        centroids = flat.reshape(parts, _CENTROIDS, width)
        found = np.concatenate([centroids[part][codes[:, part]] for part in range(parts)], axis=1)
        if normed:
            norms = self.array(np.uint8, rows)
            lengths, _, _ = self.quantizer()
            found *= lengths[norms][:, None]
        return np.ascontiguousarray(found[:, :columns], dtype=np.float32)


def _tree(counts: list[int]) -> np.ndarray:
    """Huffman tree over labels in falling order of counts, int32 [labels - 1, 2]; ties as in fastText."""
    size = len(counts)
    weights = counts + [10**15] * (size - 1)
    children = np.zeros((size - 1, 2), dtype=np.int32)
    leaf, node = size - 1, size
    for number in range(size, 2 * size - 1):
        for side in range(2):
            if leaf >= 0 and weights[leaf] < weights[node]:
                children[number - size, side], leaf = leaf, leaf - 1
            else:
                children[number - size, side], node = node, node + 1
        weights[number] = sum(weights[child] for child in children[number - size].tolist())
    return children


def _word_key(word: bytes) -> int:
    """What the kernel computes of a word's bytes."""
    value = int(FNV_BASIS)
    for byte in word:
        value = ((value ^ byte) * int(_FNV_PRIME)) & (2**64 - 1)
    return value | int(_WORD_BIT)


@kernel
def _table(keys: np.ndarray, rows: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    slots, values = np.zeros(room, np.uint64), np.zeros(room, np.int32)
    mask = np.uint64(room - 1)
    for number in range(len(keys)):
        slot = mix(keys[number]) & mask
        while slots[slot] != 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot], values[slot] = keys[number], rows[number]
    return slots, values


def read_fasttext(path: Path) -> FastText:
    """Read a supervised fastText model (.bin or .ftz) with hierarchical softmax and no word n-grams.

    Raises:
        Failure: another kind of model, or not one at all.
    """
    try:
        return _read(_Reader(path.read_bytes()))
    except (ValueError, struct.error, IndexError) as error:
        raise Failure(f"{path.name} is not a fastText model that can be read.", str(error)) from error


def _read(reader: _Reader) -> FastText:
    if reader.take("ii") != (MAGIC, VERSION):
        raise ValueError("wrong magic number or version")
    _, _, _, _, _, word_ngrams, loss, _, bucket, shortest, longest, _ = reader.take("12i")
    reader.take("d")
    if loss != HIERARCHICAL or word_ngrams != 1:
        raise ValueError("only hierarchical softmax without word n-grams is known")
    size, words, labels, _, pruned = reader.take("iiiqq")
    if pruned < 0:
        raise ValueError("only pruned models are known")
    entries: list[tuple[bytes, int]] = []
    for _ in range(size):
        word = reader.word()
        count, _ = reader.take("qb")
        entries.append((word, count))
    pairs = reader.array(np.int32, 2 * pruned).reshape(pruned, 2)
    names = [word.decode().removeprefix("__label__") for word, _ in entries[words:]]
    (quantized,) = reader.take("?")
    rows = reader.matrix(bool(quantized))
    (quantized,) = reader.take("?")
    output = reader.matrix(bool(quantized))
    keys = np.concatenate(
        [
            np.array([_word_key(word) for word, _ in entries[:words]], np.uint64),
            pairs[:, 0].astype(np.uint64) + np.uint64(1),  # 0 is an empty slot
        ]
    )
    numbers = np.concatenate([np.arange(words), words + pairs[:, 1]]).astype(np.int32)
    room = _ROOM
    while room < 2 * len(keys):
        room *= 2
    slots, values = _table(keys, numbers, room)
    plain = {word: number for number, (word, _) in enumerate(entries[:words])}
    children = _tree([count for _, count in entries[words:]])
    return FastText(
        names, rows, slots, values, bucket, shortest, longest, plain.get(b"</s>", -1), output[: labels - 1], children
    )


@inline
def _find(key: np.uint64, keys: np.ndarray, values: np.ndarray) -> np.int64:
    """The row of a key, or -1."""
    mask = np.uint64(len(keys) - 1)
    slot = mix(key) & mask
    while keys[slot] != 0:
        if keys[slot] == key:
            return np.int64(values[slot])
        slot = (slot + np.uint64(1)) & mask
    return np.int64(-1)


@kernel
def _embed(
    data: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    rows: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    bucket: int,
    shortest: int,
    longest: int,
) -> tuple[np.ndarray, np.ndarray]:
    dimension = rows.shape[1]
    total = np.zeros((len(starts), dimension), np.float32)
    counts = np.zeros(len(starts), np.int64)
    word = np.empty(1 << 12, np.uint8)  # "<", the word's bytes, ">"; a longer run of bytes is no word
    word[0] = 60
    for span in range(len(starts)):
        at, stop = starts[span], ends[span]
        while at < stop:
            byte = data[at]
            if byte == 32 or (byte >= 9 and byte <= 13) or byte == 0:
                at += 1
                continue
            size = 1
            key = FNV_BASIS
            while at < stop:
                byte = data[at]
                if byte == 32 or (byte >= 9 and byte <= 13) or byte == 0 or size >= len(word) - 1:
                    break
                word[size] = byte
                key = (key ^ np.uint64(byte)) * _FNV_PRIME
                size += 1
                at += 1
            word[size] = 62
            size += 1
            found = _find(key | _WORD_BIT, keys, values)
            if found >= 0:
                counts[span] += 1
                for place in range(dimension):
                    total[span, place] += rows[found, place]
            for begin in range(size):
                if word[begin] & 0xC0 == 0x80:
                    continue
                value, end, length = np.uint32(2166136261), begin, 0
                while end < size and length < longest:
                    # fastText widens bytes as signed, which sets the upper bits of those from 0x80 on.
                    value = np.uint32((value ^ np.uint32(np.int32(np.int8(word[end])))) * np.uint32(16777619))
                    end += 1
                    while end < size and word[end] & 0xC0 == 0x80:
                        value = np.uint32((value ^ np.uint32(np.int32(np.int8(word[end])))) * np.uint32(16777619))
                        end += 1
                    length += 1
                    if length < shortest or (length == 1 and (begin == 0 or end == size)):
                        continue
                    found = _find(np.uint64(value % np.uint32(bucket)) + np.uint64(1), keys, values)
                    if found >= 0:
                        counts[span] += 1
                        for place in range(dimension):
                            total[span, place] += rows[found, place]
    return total, counts


@kernel
def _descend(hidden: np.ndarray, nodes: np.ndarray, children: np.ndarray) -> np.ndarray:
    labels = len(nodes) + 1
    result = np.zeros((len(hidden), labels), np.float32)
    reached = np.empty(2 * labels - 1, np.float32)
    for row in range(len(hidden)):
        reached[2 * labels - 2] = 1.0
        for node in range(labels - 2, -1, -1):  # a parent's number is above its children's
            score = np.float32(0)
            for place in range(hidden.shape[1]):
                score += hidden[row, place] * nodes[node, place]
            right = np.float32(1) / (np.float32(1) + np.exp(-score))
            reached[children[node, 0]] = reached[labels + node] * (np.float32(1) - right)
            reached[children[node, 1]] = reached[labels + node] * right
        result[row] = reached[:labels]
    return result


def embed(model: FastText, data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the input vectors of spans of a buffer.

    Args:
        model: m.
        data: uint8 [bytes], UTF-8.
        starts, ends: int64 [n], the spans, at character boundaries.

    Returns:
        float32 [n, dimension] and how many vectors each sums, int64 [n]. Sums of spans may be added up.
    """
    return _embed(  # type: ignore[no-any-return]
        data, starts, ends, model.rows, model.keys, model.values, model.bucket, model.shortest, model.longest
    )


def probabilities(model: FastText, sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Probability of each label for summed input vectors as `embed` gives them, float32 [n, labels]."""
    if model.end >= 0:
        sums, counts = sums + model.rows[model.end], counts + 1
    hidden = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
    return _descend(hidden, model.nodes, model.children)  # type: ignore[no-any-return]
