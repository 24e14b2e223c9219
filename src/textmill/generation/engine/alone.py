"""The engine for one reader: large Transformers write several times faster by the compiled pass. Touches no files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Literal

from textmill.base.errors import UsageError
from textmill.generation.config import SamplingConfig
from textmill.generation.engine.config import EngineConfig
from textmill.generation.engine.engine import Engine
from textmill.generation.engine.request import Event
from textmill.generation.loading import OpenModel
from textmill.generation.native import best_weights, why_not
from textmill.generation.sampler import Matcher
from textmill.generation.sampling import Generation, generate, stream

Weights = Literal["auto", "float32", "int8", "int4"]


class Writer:
    """Writes with a model: by the model itself, or by the engine where that pays.

    Args:
        opened: the model.
        weights: "auto" takes the engine and int8 for Transformers of 50 million parameters or more on a CPU, and the
            model itself for others, where starting the engine takes longer than it saves; anything else the engine.

    Raises:
        UsageError: these weights were asked for and the model cannot have them.
    """

    def __init__(self, opened: OpenModel, weights: Weights = "auto") -> None:
        self.model, self.tokenizer = opened.model, opened.tokenizer
        self._engine: Engine | None = None
        self.note = ""
        """What was done to the weights, for people; "" if nothing."""
        if weights == "auto":
            if why_not(self.model) or best_weights(self.model) == "float32":
                return
        elif reason := why_not(self.model):
            raise UsageError(
                f"This model cannot be run with {weights} weights.",
                f"Only the compiled pass has them, and {reason}.",
                "Leave --weights out.",
            )
        self._engine = Engine(self.model, self.tokenizer, EngineConfig(weights=weights))
        if weights != "float32":
            self.note = self._engine.weights

    def stream(
        self,
        prompt: str | Sequence[int],
        config: SamplingConfig,
        *,
        end_tokens: Collection[int] = (),
        constraint: Matcher | None = None,
    ) -> Iterator[Event]:
        """One sample as it is written; see `textmill.generation.sampling.stream`."""
        if self._engine is None:
            yield from stream(  # type: ignore[misc]
                self.model, self.tokenizer, prompt, config, end_tokens=end_tokens, constraint=constraint
            )
            return
        ticket = self._engine.submit(prompt, config, end_tokens=end_tokens, constraint=constraint)
        try:
            yield from ticket
        finally:
            if not ticket.done:
                ticket.cancel()

    def generate(self, prompt: str, config: SamplingConfig, *, constraint: Matcher | None = None) -> list[Generation]:
        """All samples after a prompt; see `textmill.generation.sampling.generate`."""
        if self._engine is None:
            return generate(self.model, self.tokenizer, [prompt], config, constraint=constraint)
        ticket = self._engine.submit(prompt, config, constraint=constraint)
        try:
            return ticket.results()
        finally:
            if not ticket.done:
                ticket.cancel()
