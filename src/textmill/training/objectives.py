"""What a training minimizes: how a batch of text becomes what a model's `training_loss` takes. Touches nothing.

The trainer knows no family, a family knows no optimizer, and an objective knows neither: it turns the tokens of a
step into named tensors, whose "targets" that are not -1 are what counts.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from textmill.base.errors import UsageError
from textmill.tokens.tokenizer import Tokenizer


class Objective(Protocol):
    """Makes the batches of one kind of training."""

    def batch(self, tokens: np.ndarray, targets: np.ndarray, step: int) -> dict[str, Tensor]:
        """Named tensors of one step, a pure function of the arguments and of the objective's seed.

        Args:
            tokens: int64 [B, T].
            targets: int64 [B, T], the token that follows each; -1 where it is not to be learned.
            step: number of the step.

        Returns:
            tensors whose first dimension is B (or a multiple of it, rows of one text row together), and scalars;
            "targets" among them, -1 where nothing counts.
        """
        ...


class NextToken:
    """Predict each token from those before it."""

    def __init__(self, config: Any = None, special: dict[str, int] | None = None, seed: int = 0) -> None:
        del config, special, seed  # nothing to choose

    def batch(self, tokens: np.ndarray, targets: np.ndarray, step: int) -> dict[str, Tensor]:
        """Tokens and targets as they are."""
        return {"tokens": torch.from_numpy(tokens), "targets": torch.from_numpy(targets)}


OBJECTIVES = {
    "next-token": "textmill.training.objectives:NextToken",
    "masked-token": "textmill.training.objective_masked:MaskedToken",
    "denoising": "textmill.training.objective_denoising:Denoising",
    "evidence-lower-bound": "textmill.training.objective_elbo:EvidenceLowerBound",
}
"""Where each lives; loaded when used."""


def make_objective(
    name: str, config: Any, special: dict[str, int], seed: int, tokenizer: Tokenizer | None = None
) -> Objective:
    """The objective of this name.

    Args:
        name: a key of `OBJECTIVES`.
        config: the model's configuration.
        special: the tokenizer's special tokens and their ids.
        seed: of what it draws.
        tokenizer: for objectives that ask where words begin and sentences end.

    Raises:
        UsageError: there is none of this name.
    """
    if name not in OBJECTIVES:
        raise UsageError(f'There is no objective "{name}".', fix=f"Known ones: {', '.join(OBJECTIVES)}.")
    module, _, kind = OBJECTIVES[name].partition(":")
    found = getattr(importlib.import_module(module), kind)
    more = {"tokenizer": tokenizer} if "tokenizer" in inspect.signature(found).parameters else {}
    made: Objective = found(config, special, seed, **more)
    return made


def count_targets(batch: dict[str, Tensor]) -> int:
    """How many targets count."""
    return int((batch["targets"] >= 0).sum())


def rows_of(batch: dict[str, Tensor], start: int, count: int, rows: int, device: Any) -> dict[str, Tensor]:
    """The part of a batch that belongs to text rows start to start + count, of `rows` in all; scalars as they are."""
    found = {}
    for name, value in batch.items():
        if value.ndim:
            each = len(value) // rows
            value = value[start * each : (start + count) * each]
        found[name] = value.to(device)
    return found
