"""Settings of word vectors. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from textmill.base.errors import UsageError


@dataclass(frozen=True)
class VectorsConfig:
    """What gets a vector, and how it is learned (Mikolov et al. 2013)."""

    units: Literal["tokens", "words"] = "tokens"
    """tokens: those of the run's tokenizer, to begin a model's embeddings with. words: whole words, lower case, Chinese
    ones by jieba's dictionary, to look at and to measure on analogies."""
    architecture: Literal["skip-gram", "cbow"] = "skip-gram"
    """skip-gram predicts the neighbours of a word, better for rare ones; cbow the word from its neighbours, faster."""
    dimensions: int = 128
    """Size of a vector. As an embedding it must equal the model's width."""
    window: int = 5
    """Neighbours on each side, at most."""
    passes: int = 5
    """Times that the text is read."""
    negative: int = 5
    """Random words that each true neighbour is told apart from."""
    sample: float = 1e-3
    """Words more frequent than this share are passed over now and then; 0 for never."""
    min_count: int = 5
    """Words seen less often get no vector."""
    seed: int = 0
    """Of the first vectors, the windows and the random words."""
    workers: int = 1
    """Threads. With one the result repeats itself to the byte; with more it does not."""

    def __post_init__(self) -> None:
        for name in ("dimensions", "window", "passes", "negative", "min_count", "workers"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.sample < 0:
            raise UsageError(f"sample must not be negative, as {self.sample} is.")
