"""Names and layouts of weights in the decoders of `transformers`, both ways. Touches no file.

Two things differ besides names: `transformers` turns its rotary pairs the other way round, which is the same as the
two halves of each head's queries and keys changing places; and GPT-2's matrices are kept as [in, out].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from textmill.base.errors import Failure
from textmill.models import transformer_shape as shape
from textmill.models.config import TransformerConfig

IGNORED = (
    ".rotary_emb.inv_freq",
    ".attn.bias",
    ".attn.masked_bias",
    ".rotary_emb.cos_cached",
    ".rotary_emb.sin_cached",
)
"""Tensors of older files that are computed, not learned."""
NAMED = 8
"""How many names an error shows."""


class Slot(NamedTuple):
    """One tensor of ours and where it is in the stock model.

    Attributes:
        ours: its name in `Transformer.state_dict()`.
        theirs: the names of the tensors that it is made of.
        join: makes it from those.
        split: makes those from it.
    """

    ours: str
    theirs: tuple[str, ...]
    join: Callable[[list[Tensor]], Tensor]
    split: Callable[[Tensor], list[Tensor]]


def _same(ours: str, theirs: str) -> Slot:
    return Slot(ours, (theirs,), lambda parts: parts[0], lambda whole: [whole])


def swap_halves(tensor: Tensor, heads: int) -> Tensor:
    """The two halves of each head's rows exchanged; twice gives the same again."""
    parts = tensor.view(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return parts.flip(1).reshape(tensor.shape)


def _swapped(ours: str, theirs: str, heads: int) -> Slot:
    def swap(tensor: Tensor) -> Tensor:
        return swap_halves(tensor, heads)

    return Slot(ours, (theirs,), lambda parts: swap(parts[0]), lambda whole: [swap(whole)])


def _fused(ours: str, theirs: tuple[str, str, str], heads: int) -> Slot:
    def join(parts: list[Tensor]) -> Tensor:
        return torch.cat((swap_halves(parts[0], heads), swap_halves(parts[1], heads), parts[2]))

    def split(whole: Tensor) -> list[Tensor]:
        q, k, v = whole.chunk(3)
        return [swap_halves(q, heads), swap_halves(k, heads), v]

    return Slot(ours, theirs, join, split)


def slots(config: TransformerConfig, name: str) -> list[Slot]:
    """Where every tensor of ours is in the stock model of this `model_type`."""
    return _gpt2(config) if name == "gpt2" else _llama(config, name)


def _gpt2(config: TransformerConfig) -> list[Slot]:
    found = [
        _same("embedding.weight", "transformer.wte.weight"),
        _same("position.weight", "transformer.wpe.weight"),
        _same("final_norm.weight", "transformer.ln_f.weight"),
        _same("final_norm.bias", "transformer.ln_f.bias"),
    ]
    if not config.tied_head:
        found.append(_same("head.weight", "lm_head.weight"))
    matrices = {
        "attention.qkv": "attn.c_attn",
        "attention.out": "attn.c_proj",
        "feed_forward.up": "mlp.c_fc",
        "feed_forward.down": "mlp.c_proj",
    }
    for layer in range(config.layers):
        ours, theirs = f"blocks.{layer}.", f"transformer.h.{layer}."
        for number in (1, 2):
            found += [
                _same(f"{ours}norm_{number}.{kind}", f"{theirs}ln_{number}.{kind}") for kind in ("weight", "bias")
            ]
        for left, right in matrices.items():
            weight = (f"{theirs}{right}.weight",)
            found.append(Slot(f"{ours}{left}.weight", weight, lambda parts: parts[0].T, lambda whole: [whole.T]))
            found.append(_same(f"{ours}{left}.bias", f"{theirs}{right}.bias"))
    return found


def _llama(config: TransformerConfig, name: str) -> list[Slot]:
    found = [
        _same("embedding.weight", "model.embed_tokens.weight"),
        _same("final_norm.weight", "model.norm.weight"),
    ]
    if not config.tied_head:
        found.append(_same("head.weight", "lm_head.weight"))
    for layer in range(config.layers):
        found += _attention(config, f"blocks.{layer}.attention.", f"model.layers.{layer}.self_attn.")
        found += _norms(config, f"blocks.{layer}.", f"model.layers.{layer}.")
        found += _feed_forward(config, layer, name)
    return found


def _attention(config: TransformerConfig, ours: str, theirs: str) -> list[Slot]:
    heads, groups = config.heads, shape.kv_heads(config)
    found: list[Slot] = []
    for kind in ("weight", "bias") if config.bias or config.qkv_bias else ("weight",):
        names = (f"{theirs}q_proj.{kind}", f"{theirs}k_proj.{kind}", f"{theirs}v_proj.{kind}")
        if shape.is_fused(config):
            found.append(_fused(f"{ours}qkv.{kind}", names, heads))
        else:
            found.append(_swapped(f"{ours}query.{kind}", names[0], heads))
            found.append(_swapped(f"{ours}key.{kind}", names[1], groups))
            found.append(_same(f"{ours}value.{kind}", names[2]))
    found.append(_same(f"{ours}out.weight", f"{theirs}o_proj.weight"))
    if config.bias:
        found.append(_same(f"{ours}out.bias", f"{theirs}o_proj.bias"))
    if config.qk_norm:
        found.append(_swapped(f"{ours}query_norm.weight", f"{theirs}q_norm.weight", 1))
        found.append(_swapped(f"{ours}key_norm.weight", f"{theirs}k_norm.weight", 1))
    return found


def _norms(config: TransformerConfig, ours: str, theirs: str) -> list[Slot]:
    names = {"norm_1": "input_layernorm", "norm_2": "post_attention_layernorm"}
    if config.post_norm:
        names |= {
            "post_norm_1": "post_attention_layernorm",
            "norm_2": "pre_feedforward_layernorm",
            "post_norm_2": "post_feedforward_layernorm",
        }
    return [_same(f"{ours}{left}.weight", f"{theirs}{right}.weight") for left, right in names.items()]


def _feed_forward(config: TransformerConfig, layer: int, name: str) -> list[Slot]:
    ours, theirs = f"blocks.{layer}.feed_forward.", f"model.layers.{layer}."
    plain = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
    kinds = ("weight", "bias") if config.bias else ("weight",)

    def part(left: str, right: str, names: Mapping[str, str]) -> list[Slot]:
        return [_same(f"{left}{a}.{kind}", f"{right}{b}.{kind}") for a, b in names.items() for kind in kinds]

    if not shape.has_experts(config, layer):
        return part(ours, f"{theirs}mlp.", plain)
    mixtral = name == "mixtral"
    place = f"{theirs}block_sparse_moe." if mixtral else f"{theirs}mlp."
    names = {"gate": "w1", "up": "w3", "down": "w2"} if mixtral else plain
    found = [_same(f"{ours}router.weight", f"{place}gate.weight")]
    for expert in range(config.experts):
        found += part(f"{ours}experts.{expert}.", f"{place}experts.{expert}.", names)
    if config.shared_expert_size:
        found += part(f"{ours}shared.", f"{place}shared_expert.", plain)
        found.append(_same(f"{ours}shared_gate.weight", f"{place}shared_expert_gate.weight"))
    return found


def shapes_of(config: TransformerConfig, places: Iterable[Slot]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of the stock model."""
    from textmill.models.transformer import Transformer

    with torch.device("meta"):
        ours = Transformer(config).state_dict()
    found: dict[str, tuple[int, ...]] = {}
    for slot in places:
        parts = slot.split(ours[slot.ours])
        found |= {name: tuple(part.shape) for name, part in zip(slot.theirs, parts, strict=True)}
    return found


def check_shapes(
    wanted: Mapping[str, tuple[int, ...]],
    stored: Mapping[str, tuple[int, ...]],
    source: str,
    *,
    tied: tuple[str, ...] = (),
) -> None:
    """Compare what a file holds with what the model needs, before anything is loaded.

    Args:
        wanted, stored: shapes by name.
        source: what to call the file in an error.
        tied: names that may be there too, because they repeat another tensor.

    Raises:
        Failure: names what is missing, left over, or of another shape.
    """
    missing = [name for name in wanted if name not in stored]
    extra = [name for name in stored if name not in wanted and name not in tied and not name.endswith(IGNORED)]
    wrong = [
        f"{name} is {list(stored[name])}, not {list(size)}"
        for name, size in wanted.items()
        if name in stored and tuple(stored[name]) != tuple(size)
    ]
    problems = [
        f"{len(names)} {what}: {', '.join(names[:NAMED])}{' …' if len(names) > NAMED else ''}."
        for what, names in (
            ("missing", missing),
            ("not part of this model", extra),
            ("of another shape than its configuration says", wrong),
        )
        if names
    ]
    if problems:
        raise Failure(
            f"The tensors in {source} do not fit the model that it describes.",
            "\n".join(problems),
            "Fetch the files again, all of one version; a model changed by hand cannot be imported.",
        )


def join_weights(places: Iterable[Slot], fetch: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Our state dict, in float32, from a function that gives a tensor of the stock model by name."""
    return {slot.ours: slot.join([fetch(name) for name in slot.theirs]).float().contiguous() for slot in places}


def split_weights(places: Iterable[Slot], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The stock model's tensors from our state dict."""
    found: dict[str, Any] = {}
    for slot in places:
        parts = slot.split(weights[slot.ours])
        found |= {name: part.contiguous() for name, part in zip(slot.theirs, parts, strict=True)}
    return found
