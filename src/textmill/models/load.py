"""A model folder: `config.json` and `model.safetensors` that Textmill and `transformers` both open."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file

from textmill import __version__
from textmill.base.errors import Failure
from textmill.base.files import read_json, write_json
from textmill.base.hardware import hardware
from textmill.base.settings import from_mapping
from textmill.models.config import TransformerConfig
from textmill.models.families import family_named, family_of
from textmill.models.neural import WEIGHTS, reading_model
from textmill.models.stock.config import STOCK, stock_of
from textmill.models.stock.tensors import join_weights, slots, split_weights
from textmill.models.transformer import Transformer

CARRIED = {
    "huggingface/modeling_textmill.py": "modeling_textmill.py",
    "transformer.py": "transformer_textmill.py",
    "transformer_parts.py": "transformer_parts.py",
    "transformer_shape.py": "transformer_shape.py",
}
"""The code that travels with a model for which `transformers` has no class."""


def is_gpt2(config: TransformerConfig) -> bool:
    """Whether the arrangement is GPT-2's own."""
    stock = stock_of(config)
    return stock is not None and stock.name == "gpt2"


def _export_config(config: TransformerConfig, document_end: int | None) -> dict[str, Any]:
    fields = asdict(config)
    common: dict[str, Any] = {"textmill": fields, "textmill_version": __version__, "dtype": "float32"}
    # Stock classes have a padding token by default, maybe one past a small vocabulary.
    common |= {"bos_token_id": document_end, "eos_token_id": document_end, "pad_token_id": None}
    stock = stock_of(config)
    if stock is not None:
        return common | {"architectures": [stock.cls], "model_type": stock.name} | stock.write(config)
    return (
        common
        | fields
        | {
            "architectures": ["TextmillForCausalLM"],
            "model_type": "textmill",
            "tie_word_embeddings": False,  # a tied head is inside the carried code, not a matter of transformers
            "auto_map": {
                "AutoConfig": "modeling_textmill.TextmillConfig",
                "AutoModelForCausalLM": "modeling_textmill.TextmillForCausalLM",
            },
        }
    )


def save_model(
    model: Any, folder: Path, *, document_end: int | None = None, more: dict[str, Any] | None = None
) -> None:
    """Write a model of any family into `folder`.

    A Transformer becomes `config.json` and `model.safetensors` (fp32) that `transformers` opens, with code files too
    where no stock class fits; another family writes what its own `save` does.

    Args:
        model: the model.
        folder: made if it is not there.
        document_end: the token that begins and ends a document.
        more: entries of config.json to set as well (a Transformer's).
    """
    if model.family != "transformer":
        model.save(folder, document_end)
        return
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    weights = {name: value.detach().to("cpu", torch.float32) for name, value in model.state_dict().items()}
    stock = stock_of(config)
    if stock is not None:
        weights = split_weights(slots(config, stock.name), weights)
    else:
        weights = {f"model.{name}": value.contiguous() for name, value in weights.items()}
        here = Path(__file__).parent
        for source, name in CARRIED.items():
            shutil.copyfile(here / source, folder / name)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    write_json(folder / "config.json", _export_config(config, document_end) | (more or {}))


def fast_precision(device: str | torch.device) -> Literal["bf16", "fp32"]:
    """The arithmetic in which this device multiplies large matrices fastest."""
    return "bf16" if torch.device(device).type == "cuda" or hardware().bf16_is_fast else "fp32"


def load_model(
    folder: Path | str,
    device: str | torch.device | None = None,
    precision: Literal["auto", "bf16", "fp32"] = "fp32",
) -> Any:
    """Open a model folder of any family, ready to score and generate (evaluation mode).

    Args:
        folder: e.g. `runs/mine/model`.
        device: where to put it; the GPU when there is one, else the CPU.
        precision: arithmetic of the matrix products; the weights stay fp32. "auto" is what is fast for many rows
            at once; single rows (generation on a CPU) are as fast in fp32.
    """
    folder = Path(folder)
    family = family_of(folder)
    if family != "transformer":
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        arithmetic = fast_precision(place) if precision == "auto" else precision
        return family_named(family).model_class().load(folder, place, arithmetic)
    with reading_model(folder):
        record = read_json(folder / "config.json")
        config = from_mapping(TransformerConfig, record["textmill"])
        stored = load_file(folder / WEIGHTS)
    name = record.get("model_type", "textmill")
    try:
        if name in STOCK:
            weights = join_weights(slots(config, name), stored.__getitem__)
        else:
            weights = {key.removeprefix("model."): value for key, value in stored.items()}
        model = Transformer(config)
        model.load_state_dict(weights)
    except (KeyError, RuntimeError) as error:
        raise Failure(
            f"The model in {folder} cannot be read.",
            f"Its weights do not fit its configuration ({str(error).splitlines()[0]}).",
            "Train or import it again.",
        ) from error
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if (fast_precision(place) if precision == "auto" else precision) == "bf16":
        model.compute_dtype = torch.bfloat16
    return model.to(place).eval()
