"""Settings of the engine. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from textmill.base.errors import UsageError


@dataclass(frozen=True)
class EngineConfig:
    """How many requests are worked on at once, and in how much memory."""

    max_running: int = 64
    """Samples that are written side by side; more wait for their turn."""
    max_waiting: int = 512
    """Requests that may wait; one more is refused as busy."""
    prefill_tokens: int = 256
    """Prompt tokens read between two rounds of writing, so that a long prompt does not hold up those who are being
    written to."""
    cache_bytes: int = 512 << 20
    """Memory for what was read: keys and values of Transformers, states of other families. What nobody uses stays
    there, so that a conversation is not read anew at every turn, until its room is needed. A Transformer takes no less
    than one whole context needs."""
    weights: Literal["auto", "float32", "int8", "int4"] = "auto"
    """How a Transformer's matrices are kept: auto is int8 from 50 million parameters on, where memory decides the
    speed, and float32 below; those of a GGUF file stay as they are there. int8 costs hardly any quality, int4 some."""
    cache: Literal["float32", "int8"] = "float32"
    """How a Transformer's keys and values are kept: int8 holds nearly four times as much text in the same memory, with
    a small loss. Only in the compiled pass."""
    draft_tokens: int = 5
    """Tokens guessed ahead from what the text has said before, and checked all at once; the text stays the same. Only
    in the compiled pass; 0: none."""
    draft: str = ""
    """Run or model folder of a quicker model with the same tokenizer, an n-gram say, that guesses ahead where the text
    itself does not: --engine.draft runs/counts. The text stays the same."""
    compiled: bool = True
    """Run Transformers by a compiled pass, if there is a C++ compiler."""
    threads: int = 0
    """Threads that compute; 0: one for each core, of which replicas get a share each."""
    prefix_sharing: bool = True
    """Take up the beginnings of prompts read before (each key's own alone)."""
    buffer_events: int = 1024
    """Events that may lie unread before a sample is paused until its reader has caught up."""

    def __post_init__(self) -> None:
        least_of = {"max_running": 1, "prefill_tokens": 1, "buffer_events": 1}
        for name in ("max_running", "max_waiting", "prefill_tokens", "cache_bytes", "draft_tokens", "threads",
                     "buffer_events"):  # fmt: skip
            least = least_of.get(name, 0)
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}.", f"It has to be at least {least}.")
