"""The one protocol behind which every family of language model lives. Imports torch for its types alone."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch


@runtime_checkable
class LanguageModel(Protocol):
    """A state machine over tokens.

    Attributes:
        vocabulary: number of token ids, V.
        context: how many tokens back a prediction can see; None when the state has no such limit.
    """

    vocabulary: int
    context: int | None

    def start(self, batch: int) -> Any:
        """The state before any token, for `batch` sequences."""
        ...

    def read(self, tokens: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        """Read `tokens` [B, T] (int64) and predict what follows each of them.

        Returns:
            log-probabilities [B, T, V] in nats (float32), position t being the distribution of the token after
            `tokens[:, t]`; and the new state. The state passed in may be reused or consumed; use the one returned.
        """
        ...
