"""Settings of the tokens stage. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TokenizerConfig:
    """How documents become tokens."""

    kind: Literal["bpe", "unigram", "wordpiece", "word", "character", "byte"] = "bpe"
    """What a token is. bpe joins frequent pairs; unigram keeps the pieces that make the text most probable;
    wordpiece takes the longest piece that fits; word and character are what they say, the most frequent of them;
    byte has the 256 bytes alone. What the vocabulary lacks is spelled in bytes, so no kind loses any text."""
    vocabulary: int | None = None
    """Number of token ids, 2,048 to 65,536, a multiple of 64; left out, it follows from the corpus."""
    tokenizer: str | None = None
    """Take over this tokenizer instead of learning one: a tokenizer.json or a folder that holds one, a SentencePiece
    .model, a .tiktoken rank file, or a vocab.json with its merges.txt beside it."""
    pattern: Literal["gpt2", "cl100k", "o200k", "qwen2"] | None = None
    """How a .tiktoken file or a vocab.json, which do not say it, cut text into words; left out, the file's name
    decides."""
    sample_bytes: int = 64_000_000
    """The tokenizer is trained on at most this many bytes, spread evenly over the training split."""
    shard_tokens: int = 100_000_000
    """A new shard file begins when one would grow past this many tokens."""
