"""Settings of the hidden Markov family. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from textmill.base.errors import UsageError


@dataclass(frozen=True)
class HiddenMarkovConfig:
    """Shape of a hidden Markov language model, and how expectation maximization learns it."""

    vocabulary: int
    """Token ids, V."""
    states: int = 64
    """Hidden states, K. Time grows with K squared, memory with K times V."""
    document_end: int = 0
    """Id of the token that closes every document. `fit` takes that of the shards it is given."""
    learning: Literal["auto", "batch", "stepwise"] = "auto"
    """batch: every step reads the whole text (Baum and Petrie 1966). stepwise: a step for each batch of documents
    (Liang and Klein 2009). auto: two stepwise passes, which come most of the way, then batch steps."""
    iterations: int = 20
    """Most passes over the text."""
    tolerance: float = 1e-3
    """Learning stops when a pass gains fewer nats a token than this."""
    batch_tokens: int = 8192
    """Tokens in a batch of the stepwise pass, whole documents."""
    step_power: float = 0.7
    """Update k of stepwise learning weighs (k + 2) to the minus this; above 0.5, up to 1 (Liang and Klein 2009)."""
    emission_smoothing: float = 200.0
    """Tokens, spread as over the whole text, that every state is taken to have emitted besides what it did (a Dirichlet
    prior). Above 0, every token has a probability in every state."""
    transition_smoothing: float = 0.1
    """Times that every transition is taken to have been seen besides those that were."""
    initialization: Literal["clusters", "random"] = "clusters"
    """Where learning starts. clusters: one state for each group of tokens with like neighbours. random: the token
    frequencies, disturbed at random in every state."""

    def __post_init__(self) -> None:
        for name in ("vocabulary", "states", "iterations", "batch_tokens"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for name in ("emission_smoothing", "transition_smoothing", "tolerance"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} must not be negative, as {getattr(self, name)} is.")
        if not 0.5 < self.step_power <= 1:
            raise UsageError(
                f"step_power must lie above 0.5 and up to 1, not at {self.step_power}.",
                "Outside, stepwise learning does not converge.",
                "Leave it out to take 0.7.",
            )
        if not 0 <= self.document_end < self.vocabulary:
            raise UsageError(
                f"The document-end token {self.document_end} is not among the {self.vocabulary} tokens.",
                fix="Give the id that closes documents in the shards.",
            )

    @property
    def context(self) -> None:
        """No limit: the belief over states carries all that the model remembers."""
        return

    @property
    def matmul_parameters(self) -> int:
        """Weights that multiply each token in learning: the transitions."""
        return self.states * self.states

    def flops_per_token(self) -> float:
        """FLOPs a token of one pass: forward, backward and transition counts are 2 K^2 each, states 12 K."""
        return 6.0 * self.states * self.states + 12.0 * self.states
