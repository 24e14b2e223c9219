"""A Transformer scored by the compiled pass: what int8 or int4 weights and caches cost in quality. Touches no files."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from textmill.base.errors import UsageError
from textmill.generation.native import NativeModel, why_not
from textmill.generation.native.packing import CacheType, Weights
from textmill.models.protocol import LanguageModel

LOGITS_BYTES = 64 << 20
"""Memory for logits at a time."""


class Quantized:
    """A model whose targets' log-probabilities come from the compiled pass (protocol `LanguageModel`, to be scored).

    Args:
        model: a Transformer on the CPU.
        weights: how its matrices are kept.
        cache: how its keys and values are kept.

    Raises:
        UsageError: the compiled pass cannot run this model.
    """

    def __init__(self, model: Any, weights: Weights, cache: CacheType = "float32") -> None:
        if reason := why_not(model):
            raise UsageError(
                f"This model cannot be measured with {weights} weights.",
                f"Only the compiled pass has them, and {reason}.",
                "Leave --weights and --cache out.",
            )
        self.model: LanguageModel = model
        self.native = NativeModel(model, weights, cache=cache)
        self.vocabulary, self.context = model.vocabulary, model.context
        self._cache = self.native.new_cache(1)

    def start(self, batch: int) -> Any:
        """As the model itself."""
        return self.model.start(batch)

    def read(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """As the model itself, in floats: scoring asks for targets alone."""
        return self.model.read(tokens, state)

    def target_log_probs(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Log-probabilities [B, T], in nats, of targets [B, T] after tokens [B, T]; targets below 0 are not scored."""
        found = torch.zeros(targets.shape)
        pages = -(-tokens.shape[1] // self.native.page)
        if self._cache.pages < pages:
            self._cache = self.native.new_cache(pages)
        table = np.arange(pages, dtype=np.int32)[None]
        at_once = max(1, LOGITS_BYTES // (4 * self.vocabulary))
        for row, (ids, wanted) in enumerate(zip(tokens.tolist(), targets.tolist(), strict=True)):
            last = max((place for place, target in enumerate(wanted) if target >= 0), default=-1)
            for begin in range(0, last + 1, at_once):  # padding after the last target is not read
                part = range(begin, min(begin + at_once, last + 1))
                places = [place for place in part if wanted[place] >= 0]
                before = [ids[place - 1] if place else -1 for place in part]
                log_probs = self.native.forward(
                    self._cache,
                    [ids[place] for place in part],
                    [0] * len(part),
                    part,
                    before,
                    table,
                    [place - begin for place in places],
                    log_probs=True,
                )
                chosen = torch.tensor([[wanted[place]] for place in places], dtype=torch.int64).reshape(-1, 1)
                found[row, places] = torch.from_numpy(log_probs).gather(-1, chosen)[:, 0]
        return found
