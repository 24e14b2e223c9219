"""States of prompts read before, by their tokens: read once, gone on from many times. Touches nothing."""

from __future__ import annotations

import copy
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

ENTRY_BYTES = 512
"""What an entry takes besides its tensors: a few Python objects and its key. An n-gram's state is little else."""
PIECE = 64
"""Prompts are read in pieces of so many tokens, counted from their beginning: reading in the same pieces gives the same
numbers to the last bit, whoever else is being served, and a state can be taken up again where a piece ends."""


def state_bytes(state: Any) -> int:
    """Memory of a state's tensors and arrays, bytes."""
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, np.ndarray):
        return int(state.nbytes)
    if isinstance(state, dict):
        return sum(map(state_bytes, state.values()))
    if isinstance(state, list | tuple):
        return sum(map(state_bytes, state))
    return sum(map(state_bytes, vars(state).values())) if hasattr(state, "__dict__") else 64


class PrefixCache:
    """The states after beginnings of prompts, each a whole number of pieces; the least used one goes first.

    Args:
        limit: bytes that the states may take.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes = limit, 0
        self._states: OrderedDict[bytes, tuple[Any, int]] = OrderedDict()

    @staticmethod
    def keys(prompt: Sequence[int], salt: str) -> list[bytes]:
        """A key for each whole piece of the prompt that leaves a token to read; each covers all before it."""
        key = hashlib.blake2b(salt.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        tokens = np.asarray(prompt, dtype=np.int64)
        found = []
        for start in range(0, len(tokens) - PIECE, PIECE):
            key = hashlib.blake2b(tokens[start : start + PIECE].tobytes(), key=key, digest_size=16).digest()
            found.append(key)
        return found

    def find(self, keys: Sequence[bytes]) -> tuple[int, Any]:
        """Tokens covered by the longest known beginning, and a copy of the state after it; (0, None) if none is."""
        for place in range(len(keys), 0, -1):
            if keys[place - 1] in self._states:
                self._states.move_to_end(keys[place - 1])
                return place * PIECE, copy.deepcopy(self._states[keys[place - 1]][0])
        return 0, None

    def add(self, key: bytes, state: Any) -> None:
        """Keep a copy of a state."""
        size = ENTRY_BYTES + state_bytes(state)
        if key in self._states or size > self.limit:
            return
        self._states[key] = (copy.deepcopy(state), size)
        self.bytes += size
        while self.bytes > self.limit:
            _, (_, freed) = self._states.popitem(last=False)
            self.bytes -= freed

    def clear(self) -> None:
        """Forget everything."""
        self._states.clear()
        self.bytes = 0
