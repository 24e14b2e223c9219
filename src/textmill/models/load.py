"""A model folder: `config.json` and `model.safetensors` that Textmill and `transformers` both open."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from textmill import __version__
from textmill.base.errors import Failure
from textmill.base.files import read_json, write_json
from textmill.base.hardware import hardware
from textmill.base.settings import from_mapping
from textmill.models.config import TransformerConfig, gpt2_arrangement
from textmill.models.transformer import Transformer

WEIGHTS = "model.safetensors"
GPT2_TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


def is_gpt2(config: TransformerConfig) -> bool:
    """Whether the arrangement is GPT-2's own, so that the stock class opens it."""
    shape = {
        name: getattr(config, name)
        for name in ("vocabulary", "context", "layers", "width", "heads", "feed_forward", "dropout")
    }
    return config == gpt2_arrangement(**shape)


def _gpt2_names(config: TransformerConfig) -> dict[str, str]:
    """Textmill's parameter names to those of `GPT2LMHeadModel`."""
    names = {
        "embedding.weight": "transformer.wte.weight",
        "position.weight": "transformer.wpe.weight",
        "final_norm.weight": "transformer.ln_f.weight",
        "final_norm.bias": "transformer.ln_f.bias",
    }
    inside = {
        "norm_1": "ln_1",
        "norm_2": "ln_2",
        "attention.qkv": "attn.c_attn",
        "attention.out": "attn.c_proj",
        "feed_forward.up": "mlp.c_fc",
        "feed_forward.down": "mlp.c_proj",
    }
    for layer in range(config.layers):
        for ours, theirs in inside.items():
            for kind in ("weight", "bias"):
                names[f"blocks.{layer}.{ours}.{kind}"] = f"transformer.h.{layer}.{theirs}.{kind}"
    return names


def _export_config(config: TransformerConfig, document_end: int | None) -> dict[str, Any]:
    fields = asdict(config)
    common: dict[str, Any] = {"textmill": fields, "textmill_version": __version__, "dtype": "float32"}
    if document_end is not None:
        common |= {"bos_token_id": document_end, "eos_token_id": document_end}
    if is_gpt2(config):
        return common | {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "vocab_size": config.vocabulary,
            "n_positions": config.context,
            "n_embd": config.width,
            "n_layer": config.layers,
            "n_head": config.heads,
            "n_inner": config.feed_forward * config.width,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
            "resid_pdrop": config.dropout,
            "embd_pdrop": config.dropout,
            "attn_pdrop": 0.0,
            "tie_word_embeddings": True,
        }
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


def save_model(model: Transformer, folder: Path, *, document_end: int | None = None) -> None:
    """Write `config.json` and `model.safetensors` (fp32) into `folder`; code files too where no stock class fits."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    weights = {name: value.detach().to("cpu", torch.float32) for name, value in model.state_dict().items()}
    if is_gpt2(config):
        names = _gpt2_names(config)
        weights = {names[name]: value for name, value in weights.items()}
        for name in list(weights):
            if name.endswith(GPT2_TRANSPOSED):  # the stock class keeps its matrices as [in, out]
                weights[name] = weights[name].T
    else:
        weights = {f"model.{name}": value for name, value in weights.items()}
        here = Path(__file__).parent
        shutil.copyfile(here / "huggingface" / "modeling_textmill.py", folder / "modeling_textmill.py")
        shutil.copyfile(here / "transformer.py", folder / "transformer_textmill.py")
    weights = {name: value.contiguous() for name, value in weights.items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    write_json(folder / "config.json", _export_config(config, document_end))


def fast_precision(device: str | torch.device) -> Literal["bf16", "fp32"]:
    """The arithmetic in which this device multiplies large matrices fastest."""
    return "bf16" if torch.device(device).type == "cuda" or hardware().bf16_is_fast else "fp32"


def load_model(
    folder: Path | str,
    device: str | torch.device | None = None,
    precision: Literal["auto", "bf16", "fp32"] = "fp32",
) -> Transformer:
    """Open a model folder, ready to score and generate (evaluation mode).

    Args:
        folder: e.g. `runs/mine/model`.
        device: where to put it; the GPU when there is one, else the CPU.
        precision: arithmetic of the matrix products; the weights stay fp32. "auto" is what is fast for many rows
            at once; single rows (generation on a CPU) are as fast in fp32.
    """
    folder = Path(folder)
    try:
        record = read_json(folder / "config.json")
        config = from_mapping(TransformerConfig, record["textmill"])
        stored = load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        raise Failure(
            f"{folder} holds no whole model.",
            f"{Path(str(error.filename or folder)).name} is missing.",
            "Give the folder that `textmill build` or `textmill train` made, such as runs/mine.",
        ) from error
    except (json.JSONDecodeError, KeyError, SafetensorError) as error:
        raise Failure(
            f"The model in {folder} cannot be read.",
            f"A file is damaged or was not made by Textmill ({type(error).__name__}: {error}).",
            "Train it again with the command in run.json; finished stages are not redone.",
        ) from error
    if is_gpt2(config):
        for name in stored:
            if name.endswith(GPT2_TRANSPOSED):
                stored[name] = stored[name].T.contiguous()
        weights = {ours: stored[theirs] for ours, theirs in _gpt2_names(config).items()}
    else:
        weights = {name.removeprefix("model."): value for name, value in stored.items()}
    model = Transformer(config)
    model.load_state_dict(weights)
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if (fast_precision(place) if precision == "auto" else precision) == "bf16":
        model.compute_dtype = torch.bfloat16
    return model.to(place).eval()
