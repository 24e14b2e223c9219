"""The files that KenLM made of public-domain text, and ARPA files as plain dictionaries, read by code of their own."""

from __future__ import annotations

import gzip
from pathlib import Path

from textmill.models.ngram.config import TrainingConfig
from textmill.models.ngram.files import line_blocks, open_bytes
from textmill.models.ngram.train import Trained, train_words

FIXTURES = Path(__file__).parents[1] / "fixtures" / "lmplz"
Values = dict[tuple[bytes, ...], tuple[float, float]]


def parse(data: bytes) -> list[Values]:
    """For each order the n-grams with their log10 probability and back-off weight, in the order of the file."""
    orders: list[Values] = []
    for line in data.split(b"\n"):
        if line.startswith(b"\\") and line.endswith(b"-grams:"):
            orders.append({})
        elif b"\t" in line:
            log10, words, *weight = line.split(b"\t")
            orders[-1][tuple(words.split(b" "))] = float(log10), float(weight[0]) if weight else 0.0
    return orders


def lmplz(name: str) -> bytes:
    """An ARPA file of lmplz."""
    return gzip.decompress((FIXTURES / f"{name}.arpa.gz").read_bytes())


def train(name: str, config: TrainingConfig, memory: int | None = None, block: int = 1 << 23) -> Trained:
    """A model of one of the texts."""
    with open_bytes(FIXTURES / name) as stream:
        return train_words(line_blocks(stream, block), config, memory=memory)
