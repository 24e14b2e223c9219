"""What a training is asked to do, and how far it has come. Touches nothing."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import torch

from textmill.training.schedule import Schedule


@dataclass(frozen=True)
class Job:
    """What the loop is asked to do.

    Attributes:
        steps: planned steps.
        seconds: length of the training by the clock; None trains exactly `steps` steps.
        rows: rows of `context` tokens a step.
        micro_rows: rows that go through the model at once, to begin with.
        validate_every: steps between validations.
        table_decay: weight decay of the bigram and value tables.
    """

    steps: int
    seconds: float | None
    rows: int
    micro_rows: int
    validate_every: int
    table_decay: float = 0.0


@dataclass
class TrainState:
    """What changes while training, apart from weights and optimizer moments.

    Attributes:
        step: steps done.
        seconds: seconds of training so far, over all attempts.
        loss_mean: running mean of the training loss, nats a token (0 before the first step).
        best: best validation so far, bits per byte, and its step.
        stale: validations since the best one.
        skipped: steps skipped in a row because of a spike or a NaN.
        rate_factor: factor of all learning rates, halved by each rollback.
        schedule: the schedule as it stands.
        micro_rows: rows that go through the model at once.
        log: lines of training.jsonl so far.
    """

    schedule: Schedule
    micro_rows: int
    step: int = 0
    seconds: float = 0.0
    loss_mean: float = 0.0
    best: float = math.inf
    best_step: int = -1
    stale: int = 0
    skipped: int = 0
    rate_factor: float = 1.0
    log: list[dict[str, Any]] = field(default_factory=list)

    def dump(self) -> dict[str, Any]:
        """As plain values."""
        values = dict(self.__dict__)
        values["schedule"] = dict(self.schedule.__dict__)
        values["log"] = json.dumps(self.log)
        return values

    @classmethod
    def restore(cls, values: dict[str, Any]) -> TrainState:
        """From `dump`."""
        values = dict(values)
        values["schedule"] = Schedule(**values["schedule"])
        values["log"] = json.loads(values["log"])
        return cls(**values)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on a CPU or a GPU."""
    text = str(error).lower()
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    )
