"""The compact form of an n-gram model that queries read: hash tables, as they lie in a file. Reads and writes it.

An n-gram is found by where its context stands and its last word. So a text is scored order by order, for all of its
words at a time: the look-ups do not wait for one another, and memory is busy with many of them at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from textmill.base.errors import Failure
from textmill.corpus.kernels import kernel, mix
from textmill.models.ngram.estimation import Grams
from textmill.models.ngram.files import write_whole
from textmill.models.ngram.index import FREE, pack

FORMAT = "textmill n-grams 2"
LOAD = 0.7
"""How full a table is: 23 bytes an n-gram, two look-ups on the average."""
SEGMENT = 1 << 18
"""Tokens scored at a time, so that what is known of them stays in the processor's cache."""
_DTYPES = {"U64": np.uint64, "I64": np.int64, "I32": np.int32, "F32": np.float32, "U8": np.uint8}
_TOP = np.uint64(32)


@kernel
def _fill(
    keys: np.ndarray,
    values: np.ndarray,
    contexts: np.ndarray,
    slots_below: np.ndarray,
    below: bool,
    words: np.ndarray,
    log10: np.ndarray,
    backoff: np.ndarray,
    slots: np.ndarray,
) -> None:
    """Enter the n-grams of one order; `slots` tells where each went."""
    size = np.uint64(len(keys) // 2)
    for row in range(len(words)):
        context = contexts[row]
        if below:
            context = slots_below[context]
        key = pack(context, words[row])
        slot = ((mix(key) >> _TOP) * size) >> _TOP
        while keys[2 * slot] != FREE:
            slot += np.uint64(1)
            if slot == size:
                slot = np.uint64(0)
        keys[2 * slot] = key
        values[4 * slot + 2] = log10[row]
        values[4 * slot + 3] = backoff[row]
        slots[row] = slot


@kernel
def _score_order(
    order: int,
    keys: np.ndarray,
    values: np.ndarray,
    tokens: np.ndarray,
    closed: bool,
    before: np.ndarray,
    weights: np.ndarray,
    log10: np.ndarray,
    lengths: np.ndarray,
) -> None:
    """Score tokens [n] with the n-grams of one order, knowing what those of one less gave.

    before int32 [n], in and out: where the n-gram of one order less that ends at each token stands, -1 for none; then
    that of this order. weights float32 [n], likewise: its weight as a context.
    log10 float32 and lengths uint8 [n] are improved on.
    """
    size = np.uint64(len(keys) // 2)
    context: Any = np.int64(-1)
    weight = np.float32(0)
    for at in range(len(tokens)):
        place = np.int64(-1)
        mine, own = np.int64(before[at]), weights[at]
        found_weight = np.float32(0)
        if context >= 0:
            if mine >= 0 or not closed:
                key = pack(context, tokens[at])
                slot = ((mix(key) >> _TOP) * size) >> _TOP
                held = keys[2 * slot]
                while held != key and held != FREE:
                    slot += np.uint64(1)
                    if slot == size:
                        slot = np.uint64(0)
                    held = keys[2 * slot]
                if held == key:
                    place = np.int64(slot)
                    found_weight = values[4 * slot + 3]
            if place >= 0:
                log10[at] = values[4 * place + 2]
                lengths[at] = order
            else:
                log10[at] += weight
        before[at] = place
        weights[at] = found_weight
        context, weight = mine, own


def score_segments(
    score: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], tokens: np.ndarray, order: int
) -> tuple[np.ndarray, np.ndarray]:
    """What `score` gives for a text, a segment at a time, so that its working memory is bounded.

    Args:
        score: base-10 log-probabilities float32 [n] and lengths uint8 [n] of a text's tokens.
        tokens: the text.
        order: words that a probability depends on.
    """
    log10 = np.empty(len(tokens), dtype=np.float32)
    lengths = np.empty(len(tokens), dtype=np.uint8)
    for first in range(0, len(tokens), SEGMENT):
        # A few tokens before the segment are scored once more, to know what came before.
        begin = max(0, first - order + 1)
        part, skip = tokens[begin : first + SEGMENT], first - begin
        values, sizes = score(part)
        log10[first : first + SEGMENT], lengths[first : first + SEGMENT] = values[skip:], sizes[skip:]
    return log10, lengths


@dataclass
class Tables:
    """An n-gram model ready for queries.

    Attributes:
        log10: float32 [words], of each word alone.
        backoff: float32 [words], its weight as a context.
        keys: for each order from 2, uint64 [2 slots]: the place of the context (a word, then a slot) and the last
            word, packed, all ones where free; and, bit for bit, log10 and back-off weight as float32.
        closed: whether each n-gram's suffix is one too, so that a word need not be looked up with long contexts
            where a shorter one was not found.
        counts: n-grams of each order.
    """

    log10: np.ndarray
    backoff: np.ndarray
    keys: list[np.ndarray]
    closed: bool
    counts: list[int]

    @property
    def order(self) -> int:
        """Words of the longest n-gram."""
        return len(self.keys) + 1

    @property
    def grams(self) -> int:
        """N-grams of all orders."""
        return sum(self.counts)

    @classmethod
    def build(cls, grams: Grams, closed: bool = True) -> Tables:
        """The tables of a model."""
        unigrams = grams.orders[0]
        below = np.zeros(0, dtype=np.int32)
        keys: list[np.ndarray] = []
        for order in grams.orders[1:]:
            size = int(len(order) / LOAD) + 2
            table = np.full(2 * size, FREE, dtype=np.uint64)
            slots = np.empty(len(order), dtype=np.int32)
            _fill(
                table, table.view(np.float32), order.context, below, len(keys) > 0, order.last, order.log10,
                order.backoff, slots,
            )  # fmt: skip
            keys.append(table)
            below = slots
        return cls(unigrams.log10, unigrams.backoff, keys, closed, [len(order) for order in grams.orders])

    def score(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Score each of tokens, int32 [n], after those before it.

        A text begins with the id of `<s>`, which is known to nobody as a successor, so nothing is remembered across
        it; its own score means nothing.

        Returns:
            base-10 log probabilities float32 [n], and uint8 [n] how many words the n-gram has that each is taken
            from.
        """
        return score_segments(self._score, tokens, self.order)

    def _score(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log10, weights = self.log10[tokens], self.backoff[tokens]
        lengths = np.ones(len(tokens), dtype=np.uint8)
        before = tokens.copy()
        for k, table in enumerate(self.keys, start=2):
            _score_order(
                k, table, table.view(np.float32), tokens, self.closed, before, weights, log10, lengths
            )  # fmt: skip
        return log10, lengths

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything that is stored, by name."""
        return {"log10": self.log10, "backoff": self.backoff} | {
            f"order-{k}": table for k, table in enumerate(self.keys, start=2)
        }

    @property
    def facts(self) -> dict[str, str]:
        """What else is stored."""
        return {"closed": str(int(self.closed)), "counts": json.dumps(self.counts)}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], facts: Mapping[str, str]) -> Tables:
        """What `arrays` and `facts` describe."""
        counts = json.loads(facts["counts"])
        keys = [arrays[f"order-{k}"] for k in range(2, len(counts) + 1)]
        return cls(arrays["log10"], arrays["backoff"], keys, facts["closed"] == "1", counts)


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray], facts: Mapping[str, str]) -> None:
    """Write arrays as a safetensors file, which can be mapped into memory as it lies; whole or not at all."""
    names = {dtype: name for name, dtype in _DTYPES.items()}
    ordered = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"format": FORMAT, **facts}}
    at = 0
    for name in ordered:
        array = arrays[name]
        header[name] = {
            "dtype": names[array.dtype.type],
            "shape": list(array.shape),
            "data_offsets": [at, at + array.nbytes],
        }
        at += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % 64)

    def blocks() -> Iterator[bytes | memoryview]:
        yield len(text).to_bytes(8, "little") + text
        for name in ordered:
            yield np.ascontiguousarray(arrays[name]).view(np.uint8).data

    write_whole(path, blocks())


def is_saved(begin: bytes) -> bool:
    """Whether a file that begins so may be one of `save_arrays`."""
    return len(begin) > 9 and begin[8:9] == b"{" and int.from_bytes(begin[:8], "little") < 1 << 24


def load_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Map the arrays of a file that `save_arrays` wrote; nothing is read before it is used.

    Raises:
        Failure: the file is damaged, or of another kind.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= size - 8:
                raise ValueError("its header is longer than the file")
            header = json.loads(stream.read(length))
        facts = header.pop("__metadata__")
        if facts.get("format") != FORMAT:
            raise ValueError("it is of another kind or version")
        arrays = {}
        whole = np.asarray(np.memmap(path, dtype=np.uint8, mode="c"))[8 + length :]
        for name, entry in header.items():
            begin, stop = entry["data_offsets"]
            if not 0 <= begin <= stop <= len(whole):
                raise ValueError(f"{name} lies outside of the file")
            arrays[name] = whole[begin:stop].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Failure(
            f"{path} is no n-gram model of Textmill.", f"{error}.", "Make it again with: textmill ngram … --binary"
        ) from error
    return arrays, facts
