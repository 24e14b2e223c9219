"""What llama.cpp calls things: settings and tensors of a GGUF file, and those of the same model in `transformers`.

A GGUF file is translated to the stock model and back; models/stock does the rest. Touches no
file. Names: gguf-py's constants.py in github.com/ggml-org/llama.cpp; layouts: its convert_hf_to_gguf.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from textmill.base.errors import Failure
from textmill.models import transformer_shape as shape
from textmill.models.config import TransformerConfig

ARCHITECTURES = {
    "gpt2": "gpt2",
    "llama": "llama",
    "mixtral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "qwen2_moe": "qwen2moe",
    "qwen3_moe": "qwen3moe",
}
"""llama.cpp's architecture for each `model_type`."""
FREQUENCIES = "rope_freqs.weight"
LLAMA3_FACTORS = (8.0, 32.0)
"""Factors of Llama 3.1 and 3.2; their other figures are the same, and the file keeps only what comes of them."""

Get = Callable[..., Any]


def stock_settings(values: Mapping[str, Any], names: set[str], source: str) -> dict[str, Any]:
    """The entries of config.json that a GGUF file's settings mean.

    Args:
        values: the file's settings.
        names: the names of its tensors.
        source: what to call the file in an error.

    Raises:
        Failure: the architecture is not supported, or a setting is missing.
    """
    name = str(values.get("general.architecture"))
    if values.get("split.count", 1) > 1:
        raise Failure(
            f"{source} is one of {values['split.count']} parts.",
            "Only whole files can be imported.",
            "Join the parts with llama.cpp's own tool: llama-gguf-split --merge",
        )
    if name not in ARCHITECTURES.values():
        known = ", ".join(dict.fromkeys(ARCHITECTURES.values()))
        raise Failure(
            f'{source} is a model of architecture "{name}", which cannot be imported.', f"Supported: {known}."
        )

    def get(key: str, default: Any = None) -> Any:
        found = values.get(f"{name}.{key}", default)
        if found is None:
            raise Failure(f"{source} lacks the setting {name}.{key}.", "The model's shape cannot be told without it.")
        return found

    if name == "gpt2":
        return _gpt2_settings(get, values, "output.weight" not in names)
    heads = get("attention.head_count")
    base = get("rope.freq_base", 10000.0)
    found: dict[str, Any] = {
        "model_type": next(key for key, value in ARCHITECTURES.items() if value == name),
        "vocab_size": _vocabulary(name, values, source),
        "max_position_embeddings": get("context_length"),
        "num_hidden_layers": get("block_count"),
        "hidden_size": get("embedding_length"),
        "intermediate_size": get("feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": get("attention.head_count_kv", heads),
        "head_dim": get("attention.key_length", get("embedding_length") // max(1, heads)),
        "rms_norm_eps": get("attention.layer_norm_rms_epsilon"),
        "rope_theta": base,
        "hidden_act": "gelu_pytorch_tanh" if name.startswith("gemma") else "silu",
        "hidden_activation": "gelu_pytorch_tanh",
        "tie_word_embeddings": "output.weight" not in names,
    }
    rotated = get("rope.dimension_count", found["head_dim"])
    if rotated != found["head_dim"]:
        raise Failure(f"{source} rotates {rotated} of {found['head_dim']} values of a head.", "That is not supported.")
    if name == "llama" and (scale := get("rope.scaling.type", "none")) not in ("none", "linear"):
        raise Failure(f'{source} asks for rotary positions of type "{scale}".', "Supported: none, linear, Llama 3's.")
    if get("rope.scaling.type", "none") == "linear":
        found["rope_scaling"] = {"rope_type": "linear", "factor": get("rope.scaling.factor")}
    if name == "llama":
        biased = "blk.0.attn_q.bias" in names
        found |= {"attention_bias": biased, "mlp_bias": biased}
    if name in ("gemma2", "gemma3"):
        found |= {
            "sliding_window": get("attention.sliding_window"),
            "query_pre_attn_scalar": _attention_scalar(name, found),
            "attn_logit_softcapping": get("attn_logit_softcapping", 50.0 if name == "gemma2" else 0.0),
            "final_logit_softcapping": get("final_logit_softcapping", 30.0 if name == "gemma2" else 0.0),
            "rope_local_base_freq": get("rope.freq_base_swa", 10000.0),
        }
    return found | _expert_settings(name, get, values)


def _attention_scalar(name: str, found: Mapping[str, Any]) -> int:
    """Scores are divided by the root of the head size, but of width / heads in the largest Gemmas (known by depth)."""
    if (name, found["num_hidden_layers"]) in (("gemma2", 46), ("gemma3", 62)):
        return int(found["hidden_size"] // found["num_attention_heads"])
    return int(found["head_dim"])


def _gpt2_settings(get: Get, values: Mapping[str, Any], tied: bool) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "vocab_size": _vocabulary("gpt2", values, "The file"),
        "n_positions": get("context_length"),
        "n_embd": get("embedding_length"),
        "n_layer": get("block_count"),
        "n_head": get("attention.head_count"),
        "n_inner": get("feed_forward_length"),
        "activation_function": "gelu_new",
        "layer_norm_epsilon": get("attention.layer_norm_epsilon"),
        "tie_word_embeddings": tied,
    }


def _expert_settings(name: str, get: Get, values: Mapping[str, Any]) -> dict[str, Any]:
    count = values.get(f"{name}.expert_count", 0)
    if not count:
        return {}
    used = get("expert_used_count")
    if name == "llama":
        return {"model_type": "mixtral", "num_local_experts": count, "num_experts_per_tok": used}
    found = {
        "num_experts": count,
        "num_experts_per_tok": used,
        "moe_intermediate_size": get("expert_feed_forward_length"),
        "norm_topk_prob": name == "qwen3moe",
    }
    if name == "qwen2moe":
        found["shared_expert_intermediate_size"] = get("expert_shared_feed_forward_length")
    return found


def _vocabulary(name: str, values: Mapping[str, Any], source: str) -> int:
    tokens = values.get("tokenizer.ggml.tokens")
    found = len(tokens) if tokens is not None else values.get(f"{name}.vocab_size", 0)
    if not found:
        raise Failure(f"{source} has no vocabulary.", "It lacks tokenizer.ggml.tokens.")
    return int(found)


def llama3_scaling(factors: np.ndarray, base: float, source: str) -> dict[str, Any]:
    """The rope_scaling that these divisors of the frequencies came of (Llama 3.1 and 3.2 store nothing else)."""
    frequency = base ** -(np.arange(len(factors)) / len(factors))
    for factor in LLAMA3_FACTORS:
        if np.allclose(_llama3_divisors(frequency, factor, 1.0, 4.0, 8192), factors, rtol=1e-3):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            }
    raise Failure(
        f"{source} slows down rotary positions in a way that is not known.", f"{FREQUENCIES} is not Llama 3's."
    )


def _llama3_divisors(frequency: np.ndarray, factor: float, low: float, high: float, original: int) -> np.ndarray:
    share = np.clip((original * frequency / (2 * math.pi) - low) / (high - low), 0, 1)
    return np.asarray(1 / ((1 - share) / factor + share))


def file_settings(config: TransformerConfig, name: str) -> dict[str, Any]:
    """The settings of a GGUF file for this model of `transformers`.

    Raises:
        Failure: llama.cpp has no architecture for it, or one that would compute something else.
    """
    if name not in ARCHITECTURES:
        raise Failure(
            f'A model of type "{name}" cannot be written as GGUF.',
            "llama.cpp has no architecture that computes the same.",
            f"Types that can: {', '.join(ARCHITECTURES)}.",
        )
    _refuse_what_differs(config, name)
    arch = ARCHITECTURES[name]
    found: dict[str, Any] = {
        "context_length": config.context,
        "embedding_length": config.width,
        "block_count": config.layers,
        "feed_forward_length": shape.hidden_size(config),
        "attention.head_count": config.heads,
        "vocab_size": config.vocabulary,
    }
    if name == "gpt2":
        found["attention.layer_norm_epsilon"] = shape.norm_epsilon(config)
        return {f"{arch}.{key}": value for key, value in found.items()}
    found |= {
        "attention.head_count_kv": shape.kv_heads(config),
        "attention.key_length": config.head_size,
        "attention.value_length": config.head_size,
        "attention.layer_norm_rms_epsilon": shape.norm_epsilon(config),
        "rope.freq_base": config.rotary_base,
        "rope.dimension_count": config.head_size,
    }
    if config.rotary_scaling == "linear":
        found |= {"rope.scaling.type": "linear", "rope.scaling.factor": config.rotary_factor}
    if name in ("gemma2", "gemma3_text"):
        found["attention.sliding_window"] = config.window
    if name == "gemma2":
        caps = {"attn_logit_softcapping": config.attention_softcap, "final_logit_softcapping": config.logit_softcap}
        found |= caps
    if config.experts:
        found |= {"expert_count": config.experts, "expert_used_count": config.experts_used}
    if config.experts and name != "mixtral":
        found["expert_feed_forward_length"] = shape.expert_size(config)
    if config.shared_expert_size:
        found["expert_shared_feed_forward_length"] = config.shared_expert_size
    return {f"{arch}.{key}": value for key, value in found.items()}


def _refuse_what_differs(config: TransformerConfig, name: str) -> None:
    """llama.cpp knows some things of an architecture by heart; a model that differs would be computed wrongly."""
    pattern = {"gemma2": "LG", "gemma3_text": "LLLLLG"}.get(name)
    same_pattern = pattern is None or all(
        shape.is_local(config, layer) == (pattern[layer % len(pattern)] == "L") for layer in range(config.layers)
    )
    scale = config.attention_scale or config.head_size**-0.5
    problems = {
        "a window in a type of model that has none there": bool(config.window) and pattern is None,
        f"local layers in another pattern than {pattern}": not same_pattern,
        "another scale of the attention scores": not math.isclose(scale, config.head_size**-0.5),
        "a base of local rotary positions other than 10,000": name == "gemma3_text" and config.rotary_base_local != 1e4,
        "caps": name == "gemma3_text" and bool(config.attention_softcap or config.logit_softcap),
        "plain layers among those with experts": bool(config.experts) and config.expert_every != 1,
        "renormalized weights of experts": name == "qwen2_moe" and config.expert_renormalize,
        "weights of experts that are not renormalized": name == "qwen3_moe" and not config.expert_renormalize,
        "another activation": name == "gpt2" and config.activation != "gelu",
    }
    for what, is_so in problems.items():
        if is_so:
            raise Failure(
                f"This model cannot be written as GGUF: it has {what}.",
                "llama.cpp would compute something else.",
                "Export it as a folder for transformers instead: --format huggingface",
            )


# ---- tensors ---------------------------------------------------------------------------------------------------------

NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "transformer.wte.weight": "token_embd.weight",
    "transformer.wpe.weight": "position_embd.weight",
    "transformer.ln_f.weight": "output_norm.weight",
    "transformer.ln_f.bias": "output_norm.bias",
}
INSIDE = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "block_sparse_moe.gate": "ffn_gate_inp",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
GEMMA_INSIDE = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
EXPERT = re.compile(r"(?:mlp|block_sparse_moe)\.experts\.(\d+)\.(\w+)")
EXPERT_PARTS = {
    "gate_proj": "gate", "up_proj": "up", "down_proj": "down", "w1": "gate", "w3": "up", "w2": "down",
}  # fmt: skip
LAYER = re.compile(r"(?:model\.layers|transformer\.h)\.(\d+)\.(.+)\.(weight|bias)")


def file_name(theirs: str, name: str) -> tuple[str, int | None]:
    """Where a tensor of the stock model is in a GGUF file: its name there, and which expert of it.

    Args:
        theirs: name in `transformers`.
        name: the `model_type`.
    """
    if theirs in NAMES:
        return NAMES[theirs], None
    found = LAYER.fullmatch(theirs)
    assert found, theirs
    layer, inside, kind = found.groups()
    if expert := EXPERT.fullmatch(inside):
        return f"blk.{layer}.ffn_{EXPERT_PARTS[expert[2]]}_exps.{kind}", int(expert[1])
    post_normed = name in ("gemma2", "gemma3_text")
    known = INSIDE | (GEMMA_INSIDE if post_normed else {})
    return f"blk.{layer}.{known[inside]}.{kind}", None


def from_file(values: np.ndarray, theirs: str, config: TransformerConfig, name: str) -> np.ndarray:
    """A tensor as `transformers` has it, from how the GGUF file has it."""
    if name == "gpt2" and values.ndim == 2 and ".h." in theirs:
        return values.T
    if name.startswith("gemma") and theirs.endswith("norm.weight"):
        return values - 1  # the file holds 1 + weight
    if heads := _paired_heads(theirs, config, name):
        size = values.shape[0] // heads
        return values.reshape(heads, size // 2, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
    if theirs.endswith("shared_expert_gate.weight"):
        return values.reshape(1, -1)
    return values


def to_file(values: np.ndarray, theirs: str, config: TransformerConfig, name: str) -> np.ndarray:
    """The inverse of `from_file`."""
    if name.startswith("gemma") and theirs.endswith("norm.weight"):
        return values + 1
    if heads := _paired_heads(theirs, config, name):
        size = values.shape[0] // heads
        return values.reshape(heads, 2, size // 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
    if theirs.endswith("shared_expert_gate.weight"):
        return values.reshape(-1)
    return from_file(values, theirs, config, name)  # a transposition undoes itself


def _paired_heads(theirs: str, config: TransformerConfig, name: str) -> int:
    """Heads of a matrix whose rotary pairs the file keeps side by side (the llama architecture); 0 for others."""
    if ARCHITECTURES.get(name) != "llama":
        return 0
    if ".q_proj." in theirs:
        return config.heads
    return shape.kv_heads(config) if ".k_proj." in theirs else 0


def frequency_divisors(config: TransformerConfig) -> np.ndarray:
    """What Llama 3's rule divides each frequency by, float32 [K/2]."""
    count = config.head_size // 2
    frequency = config.rotary_base ** -(np.arange(count) / count)
    low, high, original = config.rotary_low, config.rotary_high, config.rotary_original
    return _llama3_divisors(frequency, config.rotary_factor, low, high, original).astype(np.float32)
