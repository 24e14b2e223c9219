"""A folder as `transformers` and the Hugging Face hub have them: config.json, safetensors, tokenizer. Reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from textmill.base.errors import Failure, UsageError
from textmill.models.config import TransformerConfig
from textmill.models.stock.config import Stock, read_stock
from textmill.models.stock.tensors import check_shapes, join_weights, shapes_of, slots

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
PREFIXES = {"gpt2": "transformer."}
"""What the names of the body's tensors begin with; files that hold the body alone leave it out."""


def read_settings(folder: Path, name: str, needed: bool = False) -> dict[str, Any]:
    """A JSON file of the folder; {} when it is not there and not needed."""
    path = folder / name
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if not needed:
            return {}
        raise UsageError(
            f"There is no model to import in {folder}.",
            f"{name} is missing.",
            "Give a folder with config.json, model.safetensors and tokenizer.json, or a .gguf file.",
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise Failure(f"{path} is damaged.", str(error), "Fetch the file again.") from error
    if not isinstance(found, dict):
        raise Failure(f"{path} is damaged.", "It holds no object.", "Fetch the file again.")
    return found


class SafetensorsFolder:
    """The weights of a folder, in one file or in several with an index.

    Args:
        folder: the folder.

    Attributes:
        shapes: of every tensor, by name.

    Raises:
        UsageError: there are no weights, or only pickled ones.
        Failure: a file is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        files = self._files()
        self._where: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for path in files:
            try:
                with safe_open(path, framework="pt") as stored:
                    for name in stored.keys():  # noqa: SIM118 (no mapping)
                        self._where[name] = path
                        self.shapes[name] = tuple(stored.get_slice(name).get_shape())
            except FileNotFoundError as error:
                raise Failure(
                    f"The weights in {folder} are not whole.", f"{path.name}, named by {INDEX}, is missing."
                ) from error
            except (SafetensorError, OSError) as error:
                raise Failure(f"{path} is damaged.", str(error), "Fetch the file again.") from error

    def _files(self) -> list[Path]:
        if (self.folder / INDEX).exists():
            named = read_settings(self.folder, INDEX).get("weight_map")
            if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
                raise Failure(f"{self.folder / INDEX} is damaged.", "It has no weight_map.", "Fetch the file again.")
            return [self.folder / Path(name).name for name in sorted(set(named.values()))]
        if (self.folder / WEIGHTS).exists():
            return [self.folder / WEIGHTS]
        pickled = sorted(path.name for form in PICKLES for path in self.folder.glob(form))
        if pickled:
            raise UsageError(
                f"The weights in {self.folder} are pickled ({pickled[0]}).",
                "A pickle can run any program when it is opened, so it is not.",
                "Fetch the safetensors files of the same model, or save it with safe_serialization in transformers.",
            )
        raise UsageError(
            f"There are no weights in {self.folder}.",
            f"It has neither {WEIGHTS} nor {INDEX}.",
            "Give a folder with config.json, model.safetensors and tokenizer.json, or a .gguf file.",
        )

    def tensor(self, name: str) -> Tensor:
        """A tensor as it is stored."""
        with safe_open(self._where[name], framework="pt") as stored:
            found: Tensor = stored.get_tensor(name)
            return found


def read_folder(folder: Path) -> tuple[Stock, TransformerConfig, dict[str, Tensor]]:
    """The model in a folder: its type, its arrangement, its weights as our state dict (float32).

    Raises:
        UsageError, Failure: what is missing, not supported, or does not fit together.
    """
    stock, config = read_stock(read_settings(folder, "config.json", needed=True), str(folder / "config.json"))
    weights = SafetensorsFolder(folder)
    prefix = PREFIXES.get(stock.name, "model.")
    bare = not any(name.startswith(prefix) for name in weights.shapes)

    def theirs(name: str) -> str:
        return name.removeprefix(prefix) if bare else name

    places = slots(config, stock.name)
    wanted = {theirs(name): size for name, size in shapes_of(config, places).items()}
    tied = ("lm_head.weight",) if config.tied_head else ()
    check_shapes(wanted, weights.shapes, str(folder), tied=tied)
    return stock, config, join_weights(places, lambda name: weights.tensor(theirs(name)))


def special_text(value: Any) -> str | None:
    """A special token of tokenizer_config.json: text, or an object with "content"."""
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) and value else None
