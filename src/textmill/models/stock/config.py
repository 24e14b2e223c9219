"""Configurations of the decoders in `transformers`, both ways: config.json and `TransformerConfig`. Touches nothing.

Whether a `TransformerConfig` has a stock class is not written down anywhere: it has one when what is written for that
class reads back as the same arrangement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from textmill.base.errors import Failure, UsageError
from textmill.models import transformer_shape as shape
from textmill.models.config import TransformerConfig
from textmill.models.presets import PLAIN
from textmill.models.stock.fields import GLOBAL, LOCAL, Fields, layer_types, pattern_of, read_rotary, write_rotary


@dataclass(frozen=True)
class Stock:
    """A decoder of `transformers`.

    Attributes:
        name: its `model_type`.
        cls: its class with an output matrix.
        read: from the entries of config.json.
        write: to the entries of config.json that describe the shape.
    """

    name: str
    cls: str
    read: Callable[[Fields], TransformerConfig]
    write: Callable[[TransformerConfig], dict[str, Any]]


# ---- GPT-2 -----------------------------------------------------------------------------------------------------------


def _read_gpt2(fields: Fields) -> TransformerConfig:
    for name in ("scale_attn_by_inverse_layer_idx", "add_cross_attention"):
        fields.refuse(name, "Only GPT-2's own arrangement can be imported.")
    width = fields.need("n_embd")
    return TransformerConfig(
        **PLAIN,
        vocabulary=fields.need("vocab_size"),
        context=fields.need("n_positions"),
        layers=fields.need("n_layer"),
        width=width,
        heads=fields.need("n_head"),
        feed_forward_size=fields.get("n_inner", 4 * width),
        position="learned",
        norm="layer",
        norm_epsilon=fields.get("layer_norm_epsilon", 1e-5),
        activation=fields.activation("activation_function"),  # type: ignore[arg-type]
        bias=True,
        tied_head=fields.get("tie_word_embeddings", True),
    )


def _write_gpt2(config: TransformerConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocabulary,
        "n_positions": config.context,
        "n_embd": config.width,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_inner": shape.hidden_size(config),
        "activation_function": _activation_name(config, {"gelu": "gelu_new"}),
        "layer_norm_epsilon": shape.norm_epsilon(config),
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": 0.0,
        "tie_word_embeddings": config.tied_head,
    }


def _activation_name(config: TransformerConfig, names: Mapping[str, str] | None = None) -> str:
    known = {"silu": "silu", "gelu": "gelu_pytorch_tanh", "gelu-exact": "gelu"} | dict(names or {})
    return known.get(config.activation, config.activation)


# ---- Llama and its kin -----------------------------------------------------------------------------------------------


def _read_llama(fields: Fields, *, head_dim: int = 0, tied: bool = False, **more: Any) -> TransformerConfig:
    heads, width = fields.need("num_attention_heads"), fields.need("hidden_size")
    return TransformerConfig(
        **PLAIN
        | {
            "vocabulary": fields.need("vocab_size"),
            "context": fields.need("max_position_embeddings"),
            "layers": fields.need("num_hidden_layers"),
            "width": width,
            "heads": heads,
            "kv_heads": fields.get("num_key_value_heads", heads),
            "head_dim": fields.get("head_dim", head_dim or width // max(1, heads)),
            "feed_forward_size": fields.need("intermediate_size"),
            "norm": "rms-weight",
            "norm_epsilon": fields.get("rms_norm_eps", 1e-6),
            "gated": True,
            "tied_head": fields.get("tie_word_embeddings", tied),
        }
        | ({} if "rotary_base" in more else read_rotary(fields))
        | ({} if "activation" in more else {"activation": fields.activation("hidden_act")})
        | more
    )


def _write_llama(config: TransformerConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context,
        "num_hidden_layers": config.layers,
        "hidden_size": config.width,
        "num_attention_heads": config.heads,
        "num_key_value_heads": shape.kv_heads(config),
        "head_dim": config.head_size,
        "intermediate_size": shape.hidden_size(config),
        "hidden_act": _activation_name(config),
        "rms_norm_eps": shape.norm_epsilon(config),
        "tie_word_embeddings": config.tied_head,
        "attention_dropout": 0.0,
        **write_rotary(config),
    }


def _read_plain_llama(fields: Fields) -> TransformerConfig:
    biased = {bool(fields.get(name, False)) for name in ("attention_bias", "mlp_bias")}
    if len(biased) > 1:
        raise Failure(
            f"{fields.source} has bias vectors in attention or feed-forward alone.",
            "Textmill has them in both, in neither, or in queries, keys and values.",
        )
    return _read_llama(fields, bias=biased.pop())


def _write_plain_llama(config: TransformerConfig) -> dict[str, Any]:
    return _write_llama(config) | {"attention_bias": config.bias, "mlp_bias": config.bias}


def _read_mistral(fields: Fields) -> TransformerConfig:
    return _read_llama(fields, window=fields.get("sliding_window", 0))


def _write_mistral(config: TransformerConfig) -> dict[str, Any]:
    return _write_llama(config) | {"sliding_window": config.window or None}


def _qwen_window(fields: Fields, kinds: list[str]) -> dict[str, Any]:
    if not fields.get("use_sliding_window", False) or not fields.get("sliding_window"):
        return {}
    kinds = fields.get("layer_types", kinds)
    return {"window": fields.need("sliding_window"), "window_pattern": pattern_of(kinds, fields.source)}


def _upper_layers(fields: Fields) -> list[str]:
    """Qwen's rule: the layers from max_window_layers on are local."""
    first = fields.get("max_window_layers", 28)
    return [LOCAL if layer >= first else GLOBAL for layer in range(fields.need("num_hidden_layers"))]


def _write_window(config: TransformerConfig) -> dict[str, Any]:
    if not config.window:
        return {"use_sliding_window": False, "layer_types": layer_types(config)}
    return {"use_sliding_window": True, "sliding_window": config.window, "layer_types": layer_types(config)}


def _read_qwen2(fields: Fields) -> TransformerConfig:
    return _read_llama(fields, qkv_bias=True, **_qwen_window(fields, _upper_layers(fields)))


def _read_qwen3(fields: Fields, **more: Any) -> TransformerConfig:
    fields.refuse("attention_bias", "Textmill's Qwen 3 has no bias vectors.")
    window = _qwen_window(fields, _upper_layers(fields))
    return _read_llama(fields, head_dim=128, qk_norm=True, qk_norm_weight=True, **window, **more)


def _write_qwen(config: TransformerConfig) -> dict[str, Any]:
    return _write_llama(config) | _write_window(config)


# ---- Gemma -----------------------------------------------------------------------------------------------------------


def _read_gemma(fields: Fields, **more: Any) -> TransformerConfig:
    fields.refuse("attention_bias", "Textmill's Gemma has no bias vectors.")
    fields.refuse("use_bidirectional_attention", "Textmill's Transformer looks back only.")
    activation = fields.activation("hidden_activation", "hidden_act")
    return _read_llama(
        fields,
        head_dim=256,
        tied=True,
        norm="rms-offset",
        embedding_scale=True,
        activation="gelu" if activation == "gelu-exact" else activation,  # early files say "gelu" and mean tanh
        **more,
    )


def _write_gemma(config: TransformerConfig) -> dict[str, Any]:
    return _write_llama(config) | {"hidden_activation": _activation_name(config)}


def _read_gemma2(fields: Fields, every: int = 2, **more: Any) -> TransformerConfig:
    kinds = [GLOBAL if (layer + 1) % every == 0 else LOCAL for layer in range(fields.need("num_hidden_layers"))]
    settings: dict[str, Any] = {
        "post_norm": True,
        "attention_scale": float(fields.get("query_pre_attn_scalar", 256)) ** -0.5,
        "window": fields.get("sliding_window", 4096),
        "window_pattern": pattern_of(fields.get("layer_types", kinds), fields.source),
        "attention_softcap": float(fields.values.get("attn_logit_softcapping", 50.0) or 0.0),
        "logit_softcap": float(fields.values.get("final_logit_softcapping", 30.0) or 0.0),
    }
    return _read_gemma(fields, **settings | more)


def _write_gemma2(config: TransformerConfig) -> dict[str, Any]:
    scale = config.attention_scale or config.head_size**-0.5
    return _write_gemma(config) | {
        "query_pre_attn_scalar": round(scale**-2),
        "sliding_window": config.window,
        "layer_types": layer_types(config),
        "attn_logit_softcapping": config.attention_softcap or None,
        "final_logit_softcapping": config.logit_softcap or None,
    }


def _read_gemma3(fields: Fields) -> TransformerConfig:
    both = fields.get("rope_parameters") or {}
    older = {"rope_theta": fields.get("rope_theta", 1_000_000.0), **(fields.get("rope_scaling") or {})}
    everywhere = older | (both.get(GLOBAL) or {})
    local = dict(both.get(LOCAL) or {})
    if local.get("rope_type", "default") != "default":
        raise Failure(f"{fields.source} slows down the rotary positions of its local layers.", "That is not supported.")
    caps = {"attn_logit_softcapping": "attention_softcap", "final_logit_softcapping": "logit_softcap"}
    return _read_gemma2(
        fields,
        every=fields.get("_sliding_window_pattern", fields.get("sliding_window_pattern", 6)),
        qk_norm=True,
        qk_norm_weight=True,
        rotary_base_local=float(local.get("rope_theta", fields.get("rope_local_base_freq", 10_000.0))),
        **read_rotary(Fields({"rope_parameters": everywhere}, fields.source)),
        **{ours: float(fields.get(theirs, 0.0)) for theirs, ours in caps.items()},
    )


def _write_gemma3(config: TransformerConfig) -> dict[str, Any]:
    return _write_gemma2(config) | {"rope_local_base_freq": config.rotary_base_local}


# ---- mixtures of experts ---------------------------------------------------------------------------------------------


def _read_mixtral(fields: Fields) -> TransformerConfig:
    used = fields.get("num_experts_per_tok", 2)
    return _read_llama(
        fields,
        window=fields.get("sliding_window", 0),
        **read_rotary(fields, 1_000_000.0),
        experts=fields.need("num_local_experts"),
        experts_used=used,
        balance_loss=fields.get("router_aux_loss_coef", 0.001) * used,
    )


def _write_mixtral(config: TransformerConfig) -> dict[str, Any]:
    return _write_mistral(config) | {
        "num_local_experts": config.experts,
        "num_experts_per_tok": config.experts_used,
        "router_aux_loss_coef": config.balance_loss / config.experts_used,  # theirs counts every choice of a token
    }


def _experts(fields: Fields) -> dict[str, Any]:
    fields.refuse("mlp_only_layers", "Layers without experts can only be every n-th one.")
    used = fields.need("num_experts_per_tok")
    return {
        "experts": fields.need("num_experts"),
        "experts_used": used,
        "expert_size": fields.need("moe_intermediate_size"),
        "expert_every": fields.get("decoder_sparse_step", 1),
        "expert_renormalize": bool(fields.get("norm_topk_prob", False)),
        "balance_loss": fields.get("router_aux_loss_coef", 0.001) * used,
    }


def _write_experts(config: TransformerConfig) -> dict[str, Any]:
    return {
        "num_experts": config.experts,
        "num_experts_per_tok": config.experts_used,
        "moe_intermediate_size": shape.expert_size(config),
        "decoder_sparse_step": config.expert_every,
        "norm_topk_prob": config.expert_renormalize,
        "router_aux_loss_coef": config.balance_loss / config.experts_used,
        "mlp_only_layers": [],
    }


def _read_qwen2_moe(fields: Fields) -> TransformerConfig:
    kinds = [
        LOCAL if (layer + 1) % 2 and layer < fields.get("max_window_layers", 28) else GLOBAL
        for layer in range(fields.need("num_hidden_layers"))
    ]
    return _read_llama(
        fields,
        qkv_bias=bool(fields.get("qkv_bias", True)),
        shared_expert_size=fields.need("shared_expert_intermediate_size"),
        **_qwen_window(fields, kinds),
        **_experts(fields),
    )


def _write_qwen2_moe(config: TransformerConfig) -> dict[str, Any]:
    shared = {"shared_expert_intermediate_size": config.shared_expert_size, "qkv_bias": config.qkv_bias}
    return _write_qwen(config) | _write_experts(config) | shared


STOCK: dict[str, Stock] = {
    stock.name: stock
    for stock in (
        Stock("gpt2", "GPT2LMHeadModel", _read_gpt2, _write_gpt2),
        Stock("llama", "LlamaForCausalLM", _read_plain_llama, _write_plain_llama),
        Stock("mistral", "MistralForCausalLM", _read_mistral, _write_mistral),
        Stock("qwen2", "Qwen2ForCausalLM", _read_qwen2, _write_qwen),
        Stock("qwen3", "Qwen3ForCausalLM", _read_qwen3, _write_qwen),
        Stock("gemma", "GemmaForCausalLM", _read_gemma, _write_gemma),
        Stock("gemma2", "Gemma2ForCausalLM", _read_gemma2, _write_gemma2),
        Stock("gemma3_text", "Gemma3ForCausalLM", _read_gemma3, _write_gemma3),
        Stock("mixtral", "MixtralForCausalLM", _read_mixtral, _write_mixtral),
        Stock("qwen2_moe", "Qwen2MoeForCausalLM", _read_qwen2_moe, _write_qwen2_moe),
        Stock(
            "qwen3_moe",
            "Qwen3MoeForCausalLM",
            lambda fields: _read_qwen3(fields, **_experts(fields)),
            lambda config: _write_qwen(config) | _write_experts(config),
        ),
    )
}
"""By `model_type`. The first that fits a configuration is the one it is exported as."""


def canonical(config: TransformerConfig) -> TransformerConfig:
    """The same function written the same way: nothing left to be derived, nothing that only training knows."""
    local = any(shape.is_local(config, layer) for layer in range(config.layers))
    experts = any(shape.has_experts(config, layer) for layer in range(config.layers))
    scaled = config.rotary_scaling != "none"
    default = TransformerConfig()
    unused: dict[str, Any] = {"dropout": 0.0, "zero_init": False, "balance_loss": 0.0, "feed_forward": 4}
    if not local:
        unused |= {"window": 0, "window_pattern": "L", "rotary_base_local": 0.0}
    if not scaled:
        unused |= {"rotary_factor": 1.0}
    if config.rotary_scaling != "llama3":
        unused |= {name: getattr(default, name) for name in ("rotary_low", "rotary_high", "rotary_original")}
    if not experts:
        names = ("experts", "experts_used", "expert_size", "expert_every", "expert_renormalize", "shared_expert_size")
        unused |= {name: getattr(default, name) for name in names}
    if config.position != "rotary":
        unused |= {"rotary_base": default.rotary_base, "rotary_share": 1.0}
    resolved: dict[str, Any] = {
        "kv_heads": shape.kv_heads(config),
        "head_dim": config.head_size,
        "feed_forward_size": shape.hidden_size(config),
        "norm_epsilon": shape.norm_epsilon(config),
        "attention_scale": config.attention_scale or config.head_size**-0.5,
        "qkv_bias": config.qkv_bias or config.bias,
        "qk_norm_weight": config.qk_norm and config.qk_norm_weight,
    }
    if local:
        resolved["window_pattern"] = "".join(
            "L" if shape.is_local(config, layer) else "G" for layer in range(config.layers)
        )
    if experts:
        resolved["expert_size"] = shape.expert_size(config)
    return replace(config, **resolved | unused)


def stock_of(config: TransformerConfig) -> Stock | None:
    """The decoder of `transformers` that computes the same function; None where there is none."""
    for stock in STOCK.values():
        try:
            again = stock.read(Fields(stock.write(config), stock.name))
        except (Failure, UsageError):
            continue
        if canonical(again) == canonical(config):
            return stock
    return None


def read_stock(values: Mapping[str, Any], source: str) -> tuple[Stock, TransformerConfig]:
    """The decoder and the arrangement that a config.json describes.

    Args:
        values: its entries.
        source: what to call it in an error.

    Raises:
        Failure: it is of another architecture, or asks for what is not supported.
    """
    name = values.get("model_type")
    if name not in STOCK:
        raise Failure(
            f'{source} is a model of type "{name}", which cannot be imported.',
            f"Supported: {', '.join(STOCK)}.",
            "SmolLM2 and Llama are of type llama; of a Gemma 3 that also sees, only its text part could be used.",
        )
    if values.get("quantization_config"):
        raise Failure(
            f"{source} describes quantized weights.",
            f"Its quantization_config says {values['quantization_config'].get('quant_method', 'so')}.",
            "Take the original folder, or a GGUF file of the same model.",
        )
    try:
        config = STOCK[name].read(Fields(values, source))
    except UsageError as error:
        raise Failure(f"{source} describes a model that cannot be.", error.what, error.fix) from error
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise Failure(f"{source} is damaged.", f"An entry makes no sense ({type(error).__name__}: {error}).") from error
    return STOCK[name], config
