"""Settings of an evaluation. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from textmill.base.errors import UsageError

MOST_PRIME_BYTES = 60_000_000
"""More would be out of the sight of `xz -9e` by the end of the held-out text."""


@dataclass(frozen=True)
class EvaluationConfig:
    """How text is measured; every setting that changes a figure stands in that figure's signature."""

    splits: tuple[str, ...] = ("test", "validation")
    """Splits of the run to measure when no other texts are named."""
    stride_share: float = 0.5
    """How far the context window moves each time, as a share of its length. Smaller is slower and a little
    better: each token is then predicted from more text."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the model's matrix products; auto is bf16 where this machine multiplies it fast (the figure
    moves by about a thousandth)."""
    weights: tuple[Literal["float32", "int8", "int4"], ...] = ()
    """Measure a Transformer with weights so rounded too, as `generate` and `serve` can have them: what they cost."""
    cache: Literal["float32", "int8"] = "float32"
    """How keys and values are kept in those measurements."""
    max_tokens: int = 2_000_000
    """Score at most so many tokens: whole documents, drawn by the seed. All rows measure the same ones."""
    resamples: int = 1000
    """Bootstrap resamples behind each 95% interval."""
    seed: int = 0
    """Seed of the bootstrap, and of every draw of documents."""
    prime_bytes: int = 16_000_000
    """Bytes of training text that the compressors are given first; 0 leaves those rows out."""
    ngram_order: int = 5
    """Order of the Kneser-Ney model, 2 to 6."""
    ngram_max_tokens: int = 10_000_000
    """Fit the n-gram models on at most so many training tokens (each takes 100 to 200 bytes of memory)."""

    def __post_init__(self) -> None:
        if not 0 < self.stride_share <= 1:
            raise UsageError(
                f"A stride share of {self.stride_share} is not possible.",
                "The window must move, and may not jump over tokens.",
                "Choose one above 0 and up to 1; 0.5 is usual.",
            )
        if not 2 <= self.ngram_order <= 6:
            raise UsageError(f"An n-gram order of {self.ngram_order} is not possible.", fix="Choose from 2 to 6.")
        if self.cache != "float32" and not self.weights:
            raise UsageError(
                "--cache would have no effect.",
                "It belongs to the measurements that --weights asks for.",
                "Add --weights float32 to measure the cache alone.",
            )
        for name in ("max_tokens", "resamples", "ngram_max_tokens"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if not 0 <= self.prime_bytes <= MOST_PRIME_BYTES:
            raise UsageError(
                f"The compressors cannot be given {self.prime_bytes:,} bytes first.",
                "xz -9e looks back over 64 MiB at the most.",
                f"Choose from 0 to {MOST_PRIME_BYTES:,}.",
            )
        if self.seed < 0:
            raise UsageError(f"A seed cannot be negative ({self.seed}).")
