"""Models of ours for other programs: a folder for `transformers`, or a GGUF file for llama.cpp. Reads a model folder.

The model folder itself already opens in `transformers`; exporting copies what belongs there, in the type of numbers
asked for, and says whether a stock class opens it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from textmill.base.errors import Failure, UsageError
from textmill.base.files import read_json, write_json
from textmill.base.settings import from_mapping
from textmill.models.config import TransformerConfig
from textmill.models.families import family_of
from textmill.models.gguf.architectures import (
    ARCHITECTURES,
    FREQUENCIES,
    file_name,
    file_settings,
    frequency_divisors,
    to_file,
)
from textmill.models.gguf.quantization import KINDS
from textmill.models.gguf.tokenizer import settings_of
from textmill.models.gguf.writer import write_gguf
from textmill.models.load import CARRIED, WEIGHTS
from textmill.models.safetensors_folder import read_settings, special_text
from textmill.models.stock.config import stock_of
from textmill.models.stock.tensors import shapes_of, slots
from textmill.tokens.special import CHAT_TEMPLATE
from textmill.tokens.tokenizer import Tokenizer

Numbers = Literal["f32", "f16", "bf16", "q8_0"]
FOLDER_TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
FILE_TYPES = {"f32": ("F32", 0), "f16": ("F16", 1), "q8_0": ("Q8_0", 7)}
"""GGUF's name and general.file_type of each."""
COPIED = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
    "generation_config.json", "textmill.json", "README.md", *CARRIED.values(),
)  # fmt: skip


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the folder or file.
        cls: the class of `transformers` that opens it, or llama.cpp's architecture.
        stock: whether `transformers` opens it without code of ours.
        bytes: size on disk.
    """

    path: Path
    cls: str
    stock: bool
    bytes: int


def _config_of(folder: Path) -> tuple[TransformerConfig, dict[str, Any]]:
    if family_of(folder) != "transformer":
        raise UsageError(
            f"A model of family {family_of(folder)} cannot be exported so.",
            "Neither transformers nor llama.cpp has its like.",
            "Only the Transformer can.",
        )
    record = read_json(folder / "config.json")
    return from_mapping(TransformerConfig, record["textmill"]), record


def _answers(folder: Path, record: Mapping[str, Any]) -> bool:
    """Whether the model was fine-tuned to answer; `record` is its config.json."""
    return record.get("chat") is True or read_settings(folder, "textmill.json").get("chat") is True


def export_folder(folder: Path, out: Path, numbers: Numbers = "f32") -> Exported:
    """Write a folder that `transformers` opens.

    Args:
        folder: the model folder.
        out: a folder that is absent or empty.
        numbers: f32, f16 or bf16.
    """
    if numbers not in FOLDER_TYPES:
        raise UsageError(
            f"A folder for transformers cannot hold {numbers}.", fix=f"Choose one of {', '.join(FOLDER_TYPES)}."
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists already.", "Nothing is overwritten.", "Give --out a new folder.")
    config, record = _config_of(folder)
    stock = stock_of(config)
    out.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        if (folder / name).exists():
            shutil.copyfile(folder / name, out / name)
    if numbers == "f32":
        shutil.copyfile(folder / WEIGHTS, out / WEIGHTS)
    else:
        weights = {name: value.to(FOLDER_TYPES[numbers]) for name, value in load_file(folder / WEIGHTS).items()}
        save_file(weights, out / WEIGHTS, metadata={"format": "pt"})
    names = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
    record = record | {"dtype": names[numbers]}
    tokenizer = Tokenizer.load(folder)
    if not tokenizer.imported and _answers(folder, record):
        record["eos_token_id"] = [*tokenizer.ends, *tokenizer.turn_ends]  # where `generate` stops
    write_json(out / "config.json", record)
    size = sum(path.stat().st_size for path in out.iterdir())
    return Exported(out, stock.cls if stock else "TextmillForCausalLM", stock is not None, size)


def export_gguf(folder: Path, out: Path, numbers: Numbers = "f16") -> Exported:
    """Write a GGUF file that llama.cpp opens.

    Args:
        folder: the model folder.
        out: the file, which must not exist.
        numbers: f32, f16 or q8_0 (32 numbers share a scale; 8.5 bits a weight). Vectors stay f32.

    Raises:
        Failure: llama.cpp has no architecture, or no way of cutting text, that does the same.
    """
    if numbers not in FILE_TYPES:
        raise UsageError(f"A GGUF file is not written as {numbers}.", fix=f"Choose one of {', '.join(FILE_TYPES)}.")
    if out.exists():
        raise UsageError(f"{out} exists already.", "Nothing is overwritten.", "Give --out a new name.")
    config, record = _config_of(folder)
    stock = stock_of(config)
    if stock is None:
        raise Failure(
            "This model's arrangement cannot be written as GGUF.",
            "It has parts that no architecture of llama.cpp has.",
            "Train one that has: textmill build … --plan.arrangement llama3 (or another of "
            f"{', '.join(ARCHITECTURES)}).",
        )
    settings = {
        "general.architecture": ARCHITECTURES.get(stock.name, stock.name),
        "general.type": "model",
        "general.name": folder.parent.name if folder.name == "model" else folder.name,
        "general.file_type": FILE_TYPES[numbers][1],
        "general.quantization_version": 2,
        **file_settings(config, stock.name),
        **_tokenizer_settings(folder, config.vocabulary, _answers(folder, record)),
    }
    sources: dict[str, list[str]] = {}
    tensors: dict[str, tuple[tuple[int, ...], str]] = {}
    for name, size in shapes_of(config, slots(config, stock.name)).items():
        place, expert = file_name(name, stock.name)
        sources.setdefault(place, []).append(name)
        shape = to_file(np.broadcast_to(np.float32(0), size), name, config, stock.name).shape
        shape = shape if expert is None else (config.experts, *shape)
        tensors[place] = (shape, _type_of(place, shape, numbers))
    if config.rotary_scaling == "llama3":
        tensors[FREQUENCIES] = ((config.head_size // 2,), "F32")
    with safe_open(folder / WEIGHTS, framework="pt") as stored:
        write_gguf(out, settings, tensors, _fetcher(stored, sources, config, stock.name))
    return Exported(out, settings["general.architecture"], True, out.stat().st_size)


def _fetcher(
    stored: Any, sources: dict[str, list[str]], config: TransformerConfig, kind: str
) -> Callable[[str], np.ndarray]:
    def fetch(place: str) -> np.ndarray:
        if place == FREQUENCIES:
            return frequency_divisors(config)
        parts = [to_file(stored.get_tensor(name).float().numpy(), name, config, kind) for name in sources[place]]
        return np.stack(parts) if "_exps." in place else parts[0]

    return fetch


def _type_of(place: str, shape: tuple[int, ...], numbers: Numbers) -> str:
    """Vectors, routers and tables of positions stay f32; rows that are no whole blocks become f16."""
    if len(shape) == 1 or "ffn_gate_inp" in place or place.startswith("position_embd"):
        return "F32"
    wanted = FILE_TYPES[numbers][0]
    return "F16" if shape[-1] % KINDS[wanted].values else wanted


def _tokenizer_settings(folder: Path, vocabulary: int, answers: bool) -> dict[str, Any]:
    """Settings of the tokenizer; `answers` says of our own models whether they were fine-tuned to answer.

    An imported template may name bos_token and eos_token, which llama.cpp fills in from the settings: they are those of
    the source, though a document may begin and end with others here.
    """
    tokenizer = Tokenizer.load(folder)
    imported = tokenizer.imported or {}
    adds_begin = bool(imported.get("adds_begin", True))
    names = imported.get("names", {})
    bos, eos = (tokenizer.special.get(names.get(name)) for name in ("bos_token", "eos_token"))
    template = imported.get("chat_template", CHAT_TEMPLATE if answers else None)
    turn_ends = tokenizer.turn_ends if tokenizer.imported or answers else []
    ends = list(dict.fromkeys([*([] if eos is None else [eos]), *tokenizer.ends, *turn_ends]))
    padding = special_text(read_settings(folder, "tokenizer_config.json").get("pad_token"))
    return settings_of(
        json.loads(tokenizer.to_json()),
        vocabulary,
        begin=tokenizer.document_begin if adds_begin or bos is None else bos,
        ends=ends,
        turn_end=turn_ends[0] if turn_ends else None,
        padding=None if padding is None else tokenizer.special.get(padding),
        adds_begin=adds_begin,
        template=template,
    )
