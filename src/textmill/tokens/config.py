"""Settings of the tokens stage. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TokenizerConfig:
    """How documents become tokens."""

    vocabulary: int | None = None
    """Number of token ids, 2,048 to 65,536, a multiple of 64; left out, it follows from the corpus."""
    sample_bytes: int = 64_000_000
    """The tokenizer is trained on at most this many bytes, spread evenly over the training split."""
    shard_tokens: int = 100_000_000
    """A new shard file begins when one would grow past this many tokens."""
