"""What the engine counts. Touches nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

Observer = Callable[[str, float], None]
"""Told of each duration in seconds: "time_to_first_token", "inter_token", "e2e", "queue", "prefill", "decode"."""


@dataclass
class EngineStats:
    """A moment of the engine; the counts only grow."""

    runner: str = ""
    """How the model is read."""
    running: int = 0
    """Samples being written or read for."""
    waiting: int = 0
    """Requests not begun yet."""
    prompt_tokens: int = 0
    """Tokens of prompts, cached ones included."""
    generation_tokens: int = 0
    """Tokens written."""
    prefix_queries: int = 0
    """Tokens of prompts for which a cached state was looked for."""
    prefix_hits: int = 0
    """Of these, tokens that did not have to be read again."""
    guessed: int = 0
    """Tokens guessed ahead."""
    guessed_right: int = 0
    """Of these, how many were what would have been chosen."""
    preemptions: int = 0
    """Samples put off because memory for keys and values ran out."""
    cache_bytes: int = 0
    """Memory of the cache in use."""
    cache_limit: int = 0
    """Memory that they may take."""
    finished: Counter[str] = field(default_factory=Counter)
    """Samples by what ended them."""
