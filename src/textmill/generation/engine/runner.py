"""How the engine has a model read: sequences that are begun, read on, copied and dropped. Touches nothing.

Two ways: `StateRunner` (state_runner.py) for every family, a state for each sequence; `PagedRunner` (paged_runner.py)
for Transformers, all sequences in one compiled pass over pages of keys and values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor


class NoRoomError(Exception):
    """There is no memory for more positions; something has to be dropped first."""


@dataclass(eq=False)
class Line:
    """A sequence being read."""

    salt: str
    share: bool
    """Whether its beginning may come from, and stay for, others with the same salt."""
    tokens: list[int] = field(default_factory=list)
    """What was read so far."""
    state: Any = None
    """The runner's own."""


@dataclass
class Reading:
    """Tokens to read on a line."""

    line: Line
    tokens: list[int]
    every: bool = False
    """Whether the log-probabilities after each of the tokens are wanted, rather than after the last."""
    quiet: bool = False
    """Whether none are."""
    guessed: int = 0
    """How many of the last tokens are guesses."""


class Runner(Protocol):
    """Reads for the engine."""

    name: str
    """What it is, for people."""
    weights: str
    """What the model's matrices are made of, for people; "" if they are as they were loaded."""
    cache_limit: int
    """Memory that the cache may take, bytes."""
    context: int
    """Tokens that a prediction can look back on; 0 for no limit."""
    together: bool
    """Whether many sequences at once are read faster than one after the other."""

    @property
    def cache_bytes(self) -> int:
        """Memory of the cache in use."""
        ...

    def begin(self, prompt: Sequence[int], salt: str, share: bool) -> Line:
        """A line for a prompt, perhaps with its beginning read already: `line.tokens` says how much."""
        ...

    def piece(self, line: Line, prompt: Sequence[int]) -> int:
        """How many of the prompt's next tokens to read at once."""
        ...

    def read(self, readings: Sequence[Reading]) -> list[Tensor]:
        """Log-probabilities, float32 [T or 1, V] for each reading ([0, V] for quiet ones).

        Raises:
            NoRoomError: nothing was read.
        """
        ...

    def fork(self, line: Line) -> Line:
        """A copy that goes on by itself."""
        ...

    def unread(self, line: Line, count: int) -> None:
        """Take back the last tokens read (only of runners that read together)."""
        ...

    def drop(self, line: Line) -> None:
        """The line is not needed any more."""
        ...
