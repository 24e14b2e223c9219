"""T5 folders of Hugging Face: read into `EncoderDecoder`, and its arrangement written back. Reads and writes them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from textmill import __version__
from textmill.base.errors import UsageError
from textmill.base.files import write_json
from textmill.base.settings import from_mapping
from textmill.models.encoder_decoder.config import EncoderDecoderConfig, t5_arrangement
from textmill.models.encoder_decoder.model import EncoderDecoder
from textmill.models.neural import check_weights, has_model_type, read_stock_folder

WEIGHTS = "model.safetensors"
ACTIVATIONS = {"gated-gelu": "gated_gelu", "relu": "relu"}
"""Names of Hugging Face for ours."""
LEFT_OUT = (
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
)
"""Tensors that nothing here needs: two copies of the shared table, and a bias that was never used."""


def is_t5_folder(folder: Path) -> bool:
    """Whether `folder` holds a T5 under the names of Hugging Face, whoever wrote it."""
    return has_model_type(folder, "t5")


def t5_names(config: EncoderDecoderConfig) -> dict[str, tuple[str, ...]]:
    """Our parameter names to those of `T5ForConditionalGeneration`; a fused matrix of ours is several of theirs."""
    names: dict[str, tuple[str, ...]] = {"embedding.weight": ("shared.weight",)}
    for part, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        names[f"{part}_norm.weight"] = (f"{part}.final_layer_norm.weight",)
        names[f"{part}_bias.weight"] = (f"{part}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",)
        last = 1 if part == "encoder" else 2
        for layer in range(layers):
            ours, theirs = f"{part}.{layer}", f"{part}.block.{layer}.layer"
            own, feed = f"{theirs}.0.SelfAttention", f"{theirs}.{last}.DenseReluDense"
            names |= {
                f"{ours}.attention.query_key_value.weight": (f"{own}.q.weight", f"{own}.k.weight", f"{own}.v.weight"),
                f"{ours}.attention.out.weight": (f"{own}.o.weight",),
                f"{ours}.norm_1.weight": (f"{theirs}.0.layer_norm.weight",),
                f"{ours}.norm_3.weight": (f"{theirs}.{last}.layer_norm.weight",),
                f"{ours}.feed_forward.down.weight": (f"{feed}.wo.weight",),
            }
            if config.activation == "gated_gelu":
                names[f"{ours}.feed_forward.gate.weight"] = (f"{feed}.wi_0.weight",)
                names[f"{ours}.feed_forward.up.weight"] = (f"{feed}.wi_1.weight",)
            else:
                names[f"{ours}.feed_forward.up.weight"] = (f"{feed}.wi.weight",)
            if part == "decoder":
                cross = f"{theirs}.1.EncDecAttention"
                names |= {
                    f"{ours}.cross.query.weight": (f"{cross}.q.weight",),
                    f"{ours}.cross.key_value.weight": (f"{cross}.k.weight", f"{cross}.v.weight"),
                    f"{ours}.cross.out.weight": (f"{cross}.o.weight",),
                    f"{ours}.norm_2.weight": (f"{theirs}.1.layer_norm.weight",),
                }
    if not config.tied_head:
        names["head.weight"] = ("lm_head.weight",)
    return names


def save_t5(model: EncoderDecoder, folder: Path) -> None:
    """Write `config.json` and `model.safetensors` (fp32) that `T5ForConditionalGeneration` opens."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    own = {name: value.detach().to("cpu", torch.float32) for name, value in model.state_dict().items()}
    weights = {
        name: part.contiguous()
        for ours, theirs in t5_names(config).items()
        for name, part in zip(theirs, own[ours].chunk(len(theirs)), strict=True)
    }
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    write_json(
        folder / "config.json",
        {
            "textmill_family": EncoderDecoder.family,
            "textmill": asdict(config),
            "textmill_version": __version__,
            "architectures": ["T5ForConditionalGeneration"],
            "model_type": "t5",
            "is_encoder_decoder": True,
            "dtype": "float32",
            "vocab_size": config.rows,
            "n_positions": config.context,
            "d_model": config.width,
            "d_kv": config.head_size,
            "d_ff": config.hidden,
            "num_layers": config.encoder_layers,
            "num_decoder_layers": config.decoder_layers,
            "num_heads": config.heads,
            "relative_attention_num_buckets": config.buckets,
            "relative_attention_max_distance": config.furthest,
            "dropout_rate": config.dropout,
            "layer_norm_epsilon": config.norm_epsilon,
            "feed_forward_proj": next(name for name, ours in ACTIVATIONS.items() if ours == config.activation),
            "tie_word_embeddings": config.tied_head,
            "scale_decoder_outputs": config.tied_head,
            "decoder_start_token_id": config.document_end,
            "eos_token_id": config.document_end,
            "pad_token_id": config.document_end,
        },
    )


def _config_of(record: dict[str, Any], folder: Path) -> EncoderDecoderConfig:
    """Our configuration of a folder of Hugging Face; what it cannot express is refused by name."""
    if "textmill" in record:
        return from_mapping(EncoderDecoderConfig, record["textmill"])
    kind = record.get("feed_forward_proj", "relu")
    if kind not in ACTIVATIONS:
        raise UsageError(
            f"The T5 in {folder} is of an arrangement that Textmill lacks.",
            f"Its config.json asks for feed_forward_proj {kind!r}.",
            f"Take one with {' or '.join(ACTIVATIONS)}.",
        )
    end = record.get("eos_token_id", 1)
    return t5_arrangement(
        vocabulary=record["vocab_size"],
        context=record.get("n_positions", 512),
        encoder_layers=record["num_layers"],
        decoder_layers=record.get("num_decoder_layers") or record["num_layers"],
        width=record["d_model"],
        heads=record["num_heads"],
        head_size=record["d_kv"],
        hidden=record["d_ff"],
        buckets=record.get("relative_attention_num_buckets", 32),
        furthest=record.get("relative_attention_max_distance", 128),
        activation=ACTIVATIONS[kind],  # type: ignore[arg-type]
        norm_epsilon=record.get("layer_norm_epsilon", 1e-6),
        dropout=record.get("dropout_rate", 0.1),
        document_end=end[0] if isinstance(end, list) else end,
    )


def import_t5(
    folder: Path | str,
    device: str | torch.device | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> EncoderDecoder:
    """Open a T5 folder of Hugging Face (`T5ForConditionalGeneration`, 1.0 or 1.1), ready to score and write.

    Args:
        folder: holds config.json and model.safetensors.
        device: where to put it; the GPU when there is one, else the CPU.
        precision: arithmetic of the matrix products; the weights stay fp32.

    Raises:
        Failure: a file is missing or damaged, or a tensor is missing, unknown or of another shape; it is named.
        UsageError: the arrangement is none that `EncoderDecoderConfig` can express.
    """
    folder = Path(folder)
    record, stored = read_stock_folder(folder, "t5", "T5ForConditionalGeneration")
    config = _config_of(record, folder)
    shared = next((stored[name] for name in ("shared.weight", *LEFT_OUT[:2]) if name in stored), None)
    stored = {name: value for name, value in stored.items() if name not in LEFT_OUT}
    if shared is not None:
        stored["shared.weight"] = shared
        stored = _with_head(stored, record, config)
    config = EncoderDecoderConfig(**{**asdict(config), "tied_head": "lm_head.weight" not in stored})
    model = EncoderDecoder(config)
    names = t5_names(config)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    wanted = {
        name: (shapes[ours][0] // len(theirs), *shapes[ours][1:]) for ours, theirs in names.items() for name in theirs
    }
    check_weights(folder, wanted, stored)
    model.load_state_dict(
        {ours: torch.cat([stored[name] for name in theirs]).float() for ours, theirs in names.items()}
    )
    return model.placed(device, precision)


def _with_head(stored: dict[str, Tensor], record: dict[str, Any], config: EncoderDecoderConfig) -> dict[str, Tensor]:
    """The tensors with an output matrix of their own, unless it is the shared table and logits are scaled.

    The first T5 divides its logits by the root of the width and shares the table; 1.1 does neither. Folders with one
    of the two alone exist: the scale goes into the matrix.
    """
    scaled = bool(record.get("scale_decoder_outputs", record.get("tie_word_embeddings") is not False))
    own = stored.get("lm_head.weight")
    tied = own is None or torch.equal(own, stored["shared.weight"])
    if tied and scaled:
        return {name: value for name, value in stored.items() if name != "lm_head.weight"}
    head = stored["shared.weight"].clone() if own is None else own
    return {**stored, "lm_head.weight": head * config.width**-0.5 if scaled else head}
