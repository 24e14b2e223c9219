"""The models of a server by name, each with its own engine, loaded and unloaded while it serves. Reads folders."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from textmill.base.errors import UsageError, nearest
from textmill.base.run import RUN_FILE
from textmill.generation.engine import Engine, EngineConfig
from textmill.generation.loading import OpenModel, is_gguf, model_folder, open_draft, open_model
from textmill.generation.native import why_not
from textmill.generation.sampling import device_of
from textmill.models.families import FAMILIES, family_of
from textmill.models.lora import Adapted, apply_lora
from textmill.serving.errors import ApiError
from textmill.serving.metrics import Metrics


def _warm(opened: OpenModel) -> None:
    """Read one token, so that the first request does not wait for what is compiled or loaded at first use."""
    with torch.inference_mode():
        begin = torch.tensor([[opened.tokenizer.document_begin]], device=device_of(opened.model))
        _, state = opened.model.read(begin, opened.model.start(1))
        opened.model.read(begin, state)


def own_name(path: Path) -> str:
    """The name under which a model is served if none is given: its folder's or its file's."""
    place = path.resolve()
    return place.stem if is_gguf(place) else place.name if place.name != "model" else place.parent.name


def weights_at(path: Path) -> Path:
    """The model folder, or the GGUF file, that a run or path stands for.

    Raises:
        UsageError: there is none.
    """
    return path if is_gguf(path) else model_folder(path)


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
    base: str = ""
    """The model that it is an adapter of; "" if it is none."""
    adapter: Adapted | None = None
    """What the adapter changed."""

    @property
    def run(self) -> Path | None:
        """The run that the model belongs to, if it is one's."""
        if self.base:
            return None
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
        if config.threads:
            torch.set_num_threads(config.threads)
        self._models: dict[str, Served] = {}
        self._lock, self._loading = threading.Lock(), threading.Lock()

    def load(self, path: Path | str, name: str = "", device: str | None = None) -> Served:
        """Load a model and serve it.

        Args:
            path: a run, a model folder, or a GGUF file.
            name: the name to serve it under; by default the folder's or the file's.
            device: where to compute.

        Raises:
            UsageError: there is no model at that place, or the name is taken.
        """
        path = Path(path)
        name = name or own_name(path)
        with self._lock:
            if name in self._models:
                raise UsageError(
                    f'A model named "{name}" is served already.', fix=f"Give another name: {path} --alias other-name"
                )
        folder = weights_at(path)
        family = family_of(folder)
        writes = family not in FAMILIES or FAMILIES[family].generates
        if writes:
            opened = open_model(path, device)
            served = Served(name, path, family, opened, self._engine(name, opened))
        else:
            from textmill.models.bert.embeddings import open_encoder

            served = Served(name, path, family, None, None, open_encoder(folder, device))
        if writes and hasattr(opened.model, "around"):
            served.encoder = opened.model, opened.tokenizer
        with self._lock:
            self._models[name] = served
        return served

    def _engine(self, name: str, opened: OpenModel, base: Engine | None = None) -> Engine:
        if not self.config.compiled or why_not(opened.model):  # the compiled pass leaves the model's own aside
            _warm(opened)
        holder: list[Engine] = []
        observe = self.metrics.watch(name, lambda: holder[0].stats())
        draft = open_draft(self.config.draft, opened.tokenizer)
        holder.append(Engine(opened.model, opened.tokenizer, self.config, observe, draft, base))
        return holder[0]

    def load_adapter(self, name: str, path: Path | str, base: str = "") -> Served:
        """Serve a model that is served already, as a LoRA adapter makes it, under a name of its own.

        It has its own copies of the matrices that the adapter changes, and its own cache; the rest is the base's.

        Args:
            name: the name to serve it under.
            path: the adapter's folder.
            base: the model's name; may be left out where only one Transformer is served.

        Raises:
            UsageError: the name is taken, there is no such model or no adapter that fits it.
        """
        if not name:
            raise UsageError("The adapter has no name.", fix="Give it one.")
        if name in self._models:
            raise UsageError(f"The lora adapter '{name}' has already been loaded.")
        below = self._base(base)
        assert below.opened is not None
        adapter = apply_lora(below.opened.model, path)
        opened = replace(below.opened, folder=Path(path), model=adapter.model)
        with self._loading:  # one after another, so that a name is taken once
            if name in self._models:
                raise UsageError(f"The lora adapter '{name}' has already been loaded.")
            engine = self._engine(name, opened, below.engine)
            served = Served(name, Path(path), below.family, opened, engine, base=below.name, adapter=adapter)
            with self._lock:
                gone = self._models.get(below.name) is not below
                if not gone:
                    self._models[name] = served
        if gone:
            self.metrics.forget(name)
            engine.close(drain=False, timeout=1.0)
            raise UsageError(f"The model {below.name} was unloaded meanwhile.")
        return served

    def _base(self, name: str) -> Served:
        """The model that an adapter is for."""
        fit = {one.name: one for one in self.all() if one.family == "transformer" and not one.base and one.engine}
        if name and name not in fit:
            raise UsageError(
                f"There is no Transformer {name[:100]!r} here that could take an adapter.{nearest(name, fit)}",
                f"Served are: {', '.join(fit) or 'none'}.",
            )
        if not name and len(fit) != 1:
            raise UsageError(
                "It is not clear which model the adapter belongs to.",
                f"Served are the Transformers: {', '.join(fit) or 'none'}.",
                "Name one: base_model_name in the request, --lora NAME=PATH@MODEL on the command line." if fit else "",
            )
        return fit[name or next(iter(fit))]

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
            adapters = [one.name for one in self._models.values() if one.base == served.name]
            if adapters:
                raise ApiError(
                    400,
                    f"The model {served.name} has the adapters {', '.join(adapters)}: unload them first.",
                    "name",
                    "has_adapters",
                )
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
