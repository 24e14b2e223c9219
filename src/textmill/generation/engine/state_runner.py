"""Every family: a protocol state for each sequence, read by itself. No files.

Prompts are read in pieces at fixed places, so what comes out is the same to the last bit whether a sequence is alone
or among others, read at once or in parts, or gone on with from a kept state (batch invariance by construction). The
price: sequences do not share the reading of the weights.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from textmill.generation.engine.runner import Line, Reading
from textmill.generation.engine.states import PIECE, PrefixCache
from textmill.generation.sampling import device_of
from textmill.models.protocol import LanguageModel


class StateRunner:
    """Reads any `LanguageModel`.

    Args:
        model: the model.
        cache_bytes: memory for states of prompts read before.
    """

    name = "one by one, by the model's own protocol"
    weights = ""
    together = False

    def __init__(self, model: LanguageModel, cache_bytes: int) -> None:
        self.model, self._device = model, device_of(model)
        self.context = model.context or 0
        self._cache = PrefixCache(cache_bytes)
        self.cache_limit = cache_bytes

    @property
    def cache_bytes(self) -> int:
        """Memory of the kept states."""
        return self._cache.bytes

    def begin(self, prompt: Sequence[int], salt: str, share: bool) -> Line:
        """A line, with the longest known beginning of the prompt read."""
        line = Line(salt, share)
        if share:
            known, line.state = self._cache.find(self._cache.keys(prompt, salt))
            line.tokens = list(prompt[:known])
        if line.state is None:
            line.state = self.model.start(1)
        return line

    def piece(self, line: Line, prompt: Sequence[int]) -> int:
        """To the next of the fixed places."""
        return min(PIECE, len(prompt) - len(line.tokens))

    def read(self, readings: Sequence[Reading]) -> list[Tensor]:
        """One sequence after the other."""
        found = []
        for reading in readings:
            line = reading.line
            tokens = torch.tensor([reading.tokens], device=self._device)
            log_probs_BTV, line.state = self.model.read(tokens, line.state)
            line.tokens += reading.tokens
            if line.share and len(reading.tokens) == PIECE and len(line.tokens) % PIECE == 0:
                keys = self._cache.keys([*line.tokens, 0], line.salt)
                self._cache.add(keys[-1], line.state)
            log_probs = log_probs_BTV[0].float().cpu()
            found.append(log_probs if reading.every else log_probs[:0] if reading.quiet else log_probs[-1:])
        return found

    def fork(self, line: Line) -> Line:
        """A copy of the state."""
        return Line(line.salt, line.share, list(line.tokens), copy.deepcopy(line.state))

    def unread(self, line: Line, count: int) -> None:
        """A state cannot be taken back."""
        raise NotImplementedError("states of this family only go forward")

    def drop(self, line: Line) -> None:
        """Free the state."""
        line.state = None
