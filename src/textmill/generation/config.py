"""How the next token is chosen: one frozen dataclass with vLLM's names. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from textmill.base.errors import UsageError

DEFAULT_MIN_P = 0.05


@dataclass(frozen=True)
class SamplingConfig:
    """How the next token is chosen. The defaults suit small models trained on little text.

    A setting that would have no effect beside the others is an error, so that nobody tunes a knob that turns
    nothing.
    """

    temperature: float = 0.8
    """Divides the scores before sampling: below 1 safer, above 1 wilder, 0 always the likeliest token. A
    small model spreads too much probability over unlikely tokens; 0.8 takes some of that back."""
    top_k: int = 0
    """Keep only the K likeliest tokens; 0 keeps all (a fixed K is too many after "New" and too few after
    "the")."""
    top_p: float = 1.0
    """Keep the likeliest tokens that together hold this share of the probability; 1 keeps all."""
    min_p: float = DEFAULT_MIN_P
    """Drop tokens less likely than this share of the likeliest one's probability; 0 drops none. It cuts the
    long tail of nonsense without taking away choice where many tokens are about equally likely (Nguyen et al.
    2024)."""
    repetition_penalty: float = 1.0
    """Above 1 makes tokens that were already read or written less likely (Keskar et al. 2019); 1 is off. Off
    because a small vocabulary has to repeat its tokens to spell; try 1.1 when a model goes round in
    circles."""
    seed: int | None = None
    """The same seed gives the same text; without one a fresh seed is drawn, and reported."""
    stop: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    """End before this text; it is not shown. May be given several times."""
    max_tokens: int = 200
    """Write at most this many tokens."""
    n: Annotated[int, Parameter(name=("--n", "-n"))] = 1
    """Samples for each prompt. Sample i is the same text however many are asked for."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", (self.stop,) if isinstance(self.stop, str) else tuple(self.stop))
        for name, low, high, example in (
            ("temperature", 0.0, 100.0, "--temperature 0.8, or 0 for the likeliest token each time"),
            ("top_p", 0.0, 1.0, "--top-p 0.9, or 1 to keep all tokens"),
            ("min_p", 0.0, 1.0, "--min-p 0.05, or 0 to drop none"),
            ("repetition_penalty", 0.0, 100.0, "--repetition-penalty 1.1, or 1 for none"),
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise UsageError(
                    f"{name} is {value}.", f"It has to lie between {low:g} and {high:g}.", f"Try {example}."
                )
        self._check_counts()
        if self.temperature == 0:
            self._check_greedy()

    def _check_counts(self) -> None:
        if 0 < self.temperature < 0.01:
            raise UsageError(
                f"temperature is {self.temperature}.",
                "So close to 0 the scores divided by it overflow.",
                "For the likeliest token each time: --temperature 0.",
            )
        if self.top_p == 0:
            raise UsageError(
                "top_p is 0.",
                "No token would be left.",
                "For the likeliest token each time: --temperature 0.",
            )
        if self.repetition_penalty == 0:
            raise UsageError("repetition_penalty is 0.", "Scores are divided by it.", "Leave it out, or try 1.1.")
        for name, low in (("top_k", 0), ("max_tokens", 1), ("n", 1)):
            value = getattr(self, name)
            if value < low:
                raise UsageError(f"{name} is {value}.", f"It has to be at least {low}.", f"Leave {name} out.")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise UsageError(f"seed is {self.seed}.", "It has to lie between 0 and 2**63 - 1.", "Try --seed 1.")
        if "" in self.stop:
            raise UsageError("A stop text is empty.", "Every text contains it.", 'Try --stop "." or leave it out.')

    def _check_greedy(self) -> None:
        """At temperature 0 nothing is drawn, so whatever shapes the drawing would have no effect."""
        idle = [
            name
            for name, off in (
                ("top_k", self.top_k == 0),
                ("top_p", self.top_p == 1),
                ("min_p", self.min_p in (0, DEFAULT_MIN_P)),
                ("seed", self.seed is None),
                ("n", self.n == 1),
            )
            if not off
        ]
        if idle:
            raise UsageError(
                f"{' and '.join(idle)} would have no effect.",
                "At temperature 0 the likeliest token is taken each time; nothing is drawn.",
                f"Leave {' and '.join(idle)} out, or choose a temperature above 0.",
            )
