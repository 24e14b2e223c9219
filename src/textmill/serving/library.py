"""The models of a server by name, each with its own engine, loaded and unloaded while it serves. Reads folders."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from textmill.base.errors import UsageError, nearest
from textmill.base.run import RUN_FILE
from textmill.generation.engine import Engine, EngineConfig
from textmill.generation.loading import OpenModel, model_folder, open_draft, open_model
from textmill.generation.sampling import device_of
from textmill.models.families import FAMILIES, family_of
from textmill.serving.errors import ApiError
from textmill.serving.metrics import Metrics


def _warm(opened: OpenModel) -> None:
    """Read one token, so that the first request does not wait for what is compiled or loaded at first use."""
    with torch.inference_mode():
        begin = torch.tensor([[opened.tokenizer.document_begin]], device=device_of(opened.model))
        _, state = opened.model.read(begin, opened.model.start(1))
        opened.model.read(begin, state)


@dataclass
class Served:
    """One model that is served."""

    name: str
    path: Path
    """The run or model folder."""
    family: str
    opened: OpenModel | None
    """None for encoders, which write nothing."""
    engine: Engine | None
    encoder: Any = None
    """(model, tokenizer) of families with embeddings."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while the encoder computes."""
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def run(self) -> Path | None:
        """The run that the model belongs to, if it is one's."""
        return next((place for place in (self.path, self.path.parent) if (place / RUN_FILE).exists()), None)

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self.opened.tokenizer if self.opened is not None else self.encoder[1]

    @property
    def context(self) -> int | None:
        """How many tokens it can look back on."""
        model = self.opened.model if self.opened is not None else self.encoder[0]
        return model.context

    @property
    def expect(self) -> str:
        """What to expect of its writing."""
        family = FAMILIES.get(self.family)
        told = family.expect if family is not None else ""
        if self.opened is not None and not self.opened.chat:
            base = "A base model: it continues text, it does not answer."
            return f"{base} {told}".strip()
        return told


class Library:
    """The models of a server.

    Args:
        config: of every engine.
        metrics: told of every model.
    """

    def __init__(self, config: EngineConfig, metrics: Metrics) -> None:
        self.config, self.metrics = config, metrics
        self._models: dict[str, Served] = {}
        self._lock = threading.Lock()

    def load(self, path: Path | str, name: str = "", device: str | None = None) -> Served:
        """Load a model and serve it.

        Args:
            path: a run, or a model folder.
            name: the name to serve it under; by default the folder's.
            device: where to compute.

        Raises:
            UsageError: there is no model at that place, or the name is taken.
        """
        path = Path(path)
        name = name or (path.resolve().name if path.resolve().name != "model" else path.resolve().parent.name)
        with self._lock:
            if name in self._models:
                raise UsageError(
                    f'A model named "{name}" is served already.', fix=f"Give another name: {path} --alias other-name"
                )
        folder = model_folder(path)
        family = family_of(folder)
        writes = family not in FAMILIES or FAMILIES[family].generates
        if writes:
            opened = open_model(path, device)
            _warm(opened)
            holder: list[Engine] = []
            observe = self.metrics.watch(name, lambda: holder[0].stats())
            holder.append(
                Engine(
                    opened.model,
                    opened.tokenizer,
                    self.config,
                    observe,
                    open_draft(self.config.draft, opened.tokenizer),
                )
            )
            served = Served(name, path, family, opened, holder[0])
        else:
            from textmill.models.bert.embeddings import open_encoder

            served = Served(name, path, family, None, None, open_encoder(folder, device))
        if writes and hasattr(opened.model, "around"):
            served.encoder = opened.model, opened.tokenizer
        with self._lock:
            self._models[name] = served
        return served

    def get(self, name: Any) -> Served:
        """The model of this name.

        Raises:
            ApiError: there is none (404).
        """
        if not isinstance(name, str) or not name:
            if len(self._models) == 1 and name is None:
                return next(iter(self._models.values()))
            raise ApiError(400, f"Name a model: {', '.join(self._models)}.", "model", "model_missing")
        found = self._models.get(name)
        if found is None:
            raise ApiError(
                404,
                f"There is no model {name[:100]!r} here.{nearest(name, self._models)} "
                f"Served are: {', '.join(self._models) or 'none'}.",
                "model",
                "model_not_found",
            )
        return found

    def all(self) -> list[Served]:
        """Every model."""
        return list(self._models.values())

    async def unload(self, name: str, seconds: float) -> None:
        """Stop serving a model, after what it is writing is done or the time is up."""
        served = self.get(name)
        with self._lock:
            del self._models[served.name]
        self.metrics.forget(served.name)
        if served.engine is not None:
            await asyncio.to_thread(served.engine.close, drain=True, timeout=seconds)

    def close(self, seconds: float) -> None:
        """End every engine, each within the time that is left."""
        ends = time.monotonic() + seconds
        for served in self.all():
            if served.engine is not None:
                served.engine.close(drain=seconds > 0, timeout=max(0.01, ends - time.monotonic()))
