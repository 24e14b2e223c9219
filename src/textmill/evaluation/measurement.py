"""One measurement: rows of figures, each with its signature, on the same documents. Touches no files."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from textmill import __version__
from textmill.evaluation.bootstrap import interval
from textmill.evaluation.score import score_model

if TYPE_CHECKING:
    import torch

    from textmill.base.progress import Progress
    from textmill.evaluation.config import EvaluationConfig
    from textmill.evaluation.held_out import HeldOut
    from textmill.models.protocol import LanguageModel
    from textmill.tokens.tokenizer import Tokenizer


class Clock:
    """What is left of a time limit.

    Args:
        limit: seconds; None for no limit.
    """

    def __init__(self, limit: float | None) -> None:
        self.limit, self.began = limit, time.monotonic()

    def left(self) -> float:
        """Seconds left, infinite without a limit, never below 0."""
        return math.inf if self.limit is None else max(0.0, self.limit - (time.monotonic() - self.began))


class Measurement:
    """Collects the rows of one measurement.

    Args:
        name: of the measurement, "test" or the name of other texts.
        source: what the signature calls the text, e.g. "split:test".
        held_out: the documents.
        tokenizer: whose tokens they are.
        config: the settings.
        progress: where to report.
        clock: how much time is left.
    """

    def __init__(
        self,
        name: str,
        source: str,
        held_out: HeldOut,
        tokenizer: Tokenizer,
        config: EvaluationConfig,
        progress: Progress,
        clock: Clock,
    ) -> None:
        self.name, self.source, self.held_out, self.tokenizer = name, source, held_out, tokenizer
        self.config, self.progress, self.clock = config, progress, clock
        self.rows: list[dict[str, Any]] = []
        self.notes: list[str] = []

    def signature(self, facts: dict[str, Any]) -> str:
        """Everything that decides a figure, in one line: `bpb|split:test|docs:12|…|textmill:0.1.0`."""
        held_out = self.held_out
        parts = ["bpb", self.source, f"docs:{held_out.drawn}", f"bytes:{len(held_out.text)}"]
        if held_out.drawn != str(len(held_out.documents)):
            facts = {**facts, "draw": self.config.seed}
        parts += [f"data:{held_out.hash[:8]}", *(f"{key}:{value}" for key, value in facts.items())]
        return "|".join([*parts, f"textmill:{__version__}"])

    def add_model(
        self,
        model: LanguageModel,
        *,
        name: str,
        label: str,
        kind: str,
        parameters: int,
        facts: dict[str, Any],
        note: str = "",
        stride: int | None = None,
        device: torch.device | str | None = None,
        seconds: float = 0.0,
    ) -> None:
        """Score a language model on the documents and add its row; fitting it took `seconds`."""
        began = time.monotonic()
        config = self.config
        with_progress = self.progress if kind == "model" else None
        scores = score_model(
            model,
            self.held_out.documents,
            self.tokenizer,
            stride=stride,
            device=device,
            progress=with_progress,
            total_tokens=self.held_out.tokens,
        )
        bounds = interval(scores, resamples=config.resamples, seed=config.seed)
        if scores.context is not None:
            facts = {**facts, "ctx": scores.context, "stride": scores.stride}
        facts["end"] = "scored"
        row: dict[str, Any] = {
            "name": name,
            "label": label,
            "kind": kind,
            "bits_per_byte": scores.bits_per_byte,
        }
        if bounds is None:
            note = " ".join(filter(None, [note, "No interval: there is too little text to resample."]))
        else:
            row |= {"low": bounds.low, "high": bounds.high}
            facts |= {"ci": f"bootstrap{config.resamples}-{bounds.unit}", "seed": config.seed}
            if bounds.unit == "segment":
                few = "The interval resamples segments of few documents, so it is narrow."
                note = " ".join(filter(None, [note, few]))
        row |= {
            "token_perplexity": scores.token_perplexity,
            "parameters": parameters,
            "seconds": round(seconds + time.monotonic() - began, 3),
            "signature": self.signature(facts),
            "note": note,
        }
        self.rows.append(row)

    def add_compressor(
        self, *, name: str, label: str, size: int, seconds: float, facts: dict[str, Any], note: str = ""
    ) -> None:
        """Add the row of a compressor that made `size` bytes of the documents' text."""
        self.rows.append(
            {
                "name": name,
                "label": label,
                "kind": "compressor",
                "bits_per_byte": 8 * size / len(self.held_out.text),
                "seconds": round(seconds, 3),
                "signature": self.signature(facts),
                "note": note,
            }
        )

    def leave_out(self, label: str, why: str) -> None:
        """Say that a row is not there, and why."""
        self.notes.append(f"{label} left out: {why}")
        self.progress.say(self.notes[-1])

    def result(self, description: str, **more: Any) -> dict[str, Any]:
        """The measurement as it is written to `evaluation/NAME.json`, best row first."""
        held_out = self.held_out
        return {
            "name": self.name,
            "data": {
                "description": description,
                "documents": len(held_out.documents),
                "documents_available": held_out.available,
                "bytes": len(held_out.text),
                "tokens": held_out.tokens,
                "hash": held_out.hash,
                **more,
            },
            "rows": sorted(self.rows, key=lambda row: (row["bits_per_byte"], row["name"])),
            "notes": self.notes,
        }
