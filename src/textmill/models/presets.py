"""Known arrangements of the Transformer at any size: Textmill's own, and those of published models.

Each trains from scratch like any other; all but "modern" open in the stock class of `transformers` and export to GGUF.
What depends on the size (heads of keys and values, hidden size) follows the proportions of the model named. Imports
nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

from textmill.base.errors import UsageError, nearest
from textmill.models.config import TransformerConfig

Arrangement = Literal[
    "modern", "gpt2", "llama2", "llama3", "smollm2", "qwen2", "qwen3", "gemma2", "gemma3", "mistral", "mixtral",
    "qwen2-moe",
]  # fmt: skip
ARRANGEMENTS: tuple[str, ...] = get_args(Arrangement)

LADDER = (
    (2, 128), (2, 192), (3, 192), (2, 256), (3, 256), (4, 256), (5, 320), (6, 384), (8, 512), (10, 640), (12, 768),
    (16, 1024), (20, 1280),
)  # fmt: skip
"""(layers, width) that the planner considers. On budgets of minutes shallow and narrow ones win: they read more."""
BIGRAMS_A_TOKEN = 16
"""Rows of the hashed bigram table for each token of the vocabulary (docs/LOG.md)."""
MOST_BIGRAMS = 131_072

PLAIN: dict[str, Any] = {
    "qk_norm": False,
    "embedding_norm": False,
    "zero_init": False,
    "logit_softcap": 0.0,
    "residual_lambdas": False,
    "value_embeddings": False,
    "bigram_buckets": 0,
    "smear": False,
}
"""Textmill's own parts, switched off."""


def arrange(name: str, **given: Any) -> TransformerConfig:
    """The arrangement `name` at a size.

    Args:
        name: one of ARRANGEMENTS.
        given: vocabulary, context, layers, width, heads, and any other field to set instead of the arrangement's own.

    Raises:
        UsageError: there is no such arrangement, or not at this size.
    """
    if name not in ARRANGEMENTS:
        raise UsageError(
            f'There is no arrangement "{name}".{nearest(name, ARRANGEMENTS)}', fix=f"Known: {', '.join(ARRANGEMENTS)}."
        )
    size = TransformerConfig(**{key: given[key] for key in ("width", "heads", "context", "head_dim") if key in given})
    return TransformerConfig(**{**RULES[name](size), **given})


def bigram_buckets(vocabulary: int) -> int:
    """Rows of the hashed bigram table that suit a vocabulary."""
    return min(BIGRAMS_A_TOKEN * vocabulary, MOST_BIGRAMS)


def ladder(vocabulary: int, context: int) -> list[TransformerConfig]:
    """Sizes of our own arrangement, from small to large, with a head for every 64 of width."""
    buckets = bigram_buckets(vocabulary)
    return [
        TransformerConfig(vocabulary, context, layers, width, heads=max(1, width // 64), bigram_buckets=buckets)
        for layers, width in LADDER
    ]


def _groups(size: TransformerConfig, most: int) -> int:
    """Heads of keys and values when at most so many heads of queries share one."""
    return size.heads // max(share for share in range(1, most + 1) if size.heads % share == 0)


def _round(value: float, multiple: int = 64) -> int:
    return max(multiple, round(value / multiple) * multiple)


def _gpt2(size: TransformerConfig) -> dict[str, Any]:
    """GPT-2 (Radford et al. 2019)."""
    return PLAIN | {"position": "learned", "norm": "layer", "activation": "gelu", "bias": True, "tied_head": True}


def _llama2(size: TransformerConfig) -> dict[str, Any]:
    """Llama 2 (Touvron et al. 2023): the hidden size of SwiGLU is 8/3 of the width."""
    return PLAIN | {
        "norm": "rms-weight",
        "norm_epsilon": 1e-5,
        "activation": "silu",
        "gated": True,
        "feed_forward_size": _round(8 / 3 * size.width),
    }


def _llama3(size: TransformerConfig) -> dict[str, Any]:
    """Llama 3 8B: four heads share their keys and values, base 500,000 (Grattafiori et al. 2024, table 3)."""
    return _llama2(size) | {
        "kv_heads": _groups(size, 4),
        "feed_forward_size": _round(3.5 * size.width),
        "rotary_base": 500_000.0,
    }


def _smollm2(size: TransformerConfig) -> dict[str, Any]:
    """SmolLM2-135M (Allal et al. 2025): Llama with a tied head; three heads share their keys and values."""
    return _llama2(size) | {"kv_heads": _groups(size, 3), "rotary_base": 100_000.0, "tied_head": True}


def _qwen2(size: TransformerConfig) -> dict[str, Any]:
    """Qwen2.5-0.5B (Qwen Team 2024): bias vectors of queries, keys and values; seven heads share."""
    return _llama2(size) | {
        "norm_epsilon": 1e-6,
        "kv_heads": _groups(size, 7),
        "feed_forward_size": _round(4864 / 896 * size.width),
        "rotary_base": 1_000_000.0,
        "qkv_bias": True,
        "tied_head": True,
    }


def _qwen3(size: TransformerConfig) -> dict[str, Any]:
    """Qwen3-0.6B (Qwen Team 2025): normalized queries and keys, heads twice as large as width / heads."""
    return _llama2(size) | {
        "norm_epsilon": 1e-6,
        "kv_heads": _groups(size, 2),
        "head_dim": 2 * size.width // size.heads,
        "feed_forward_size": 3 * size.width,
        "rotary_base": 1_000_000.0,
        "qk_norm": True,
        "qk_norm_weight": True,
        "tied_head": True,
    }


def _gemma2(size: TransformerConfig) -> dict[str, Any]:
    """Gemma 2 2B (Gemma Team 2024): norms before and after, capped scores, every other layer local."""
    return PLAIN | {
        "norm": "rms-offset",
        "post_norm": True,
        "activation": "gelu",
        "gated": True,
        "kv_heads": _groups(size, 2),
        "feed_forward_size": 4 * size.width,
        "window": max(1, size.context // 2),
        "window_pattern": "LG",
        "attention_softcap": 50.0,
        "logit_softcap": 30.0,
        "embedding_scale": True,
        "tied_head": True,
    }


def _gemma3(size: TransformerConfig) -> dict[str, Any]:
    """Gemma 3 1B (Gemma Team 2025): five local layers for each global one, normalized queries and keys, no caps."""
    return _gemma2(size) | {
        "kv_heads": _groups(size, 4),
        "feed_forward_size": 6 * size.width,
        "window_pattern": "LLLLLG",
        "attention_softcap": 0.0,
        "logit_softcap": 0.0,
        "qk_norm": True,
        "qk_norm_weight": True,
        "rotary_base": 1_000_000.0,
        "rotary_base_local": 10_000.0,
    }


def _mistral(size: TransformerConfig) -> dict[str, Any]:
    """Mistral 7B (Jiang et al. 2023): every layer sees a window of half the context."""
    return _llama3(size) | {"rotary_base": 10_000.0, "window": max(1, size.context // 2)}


def _mixtral(size: TransformerConfig) -> dict[str, Any]:
    """Mixtral 8x7B (Jiang et al. 2024): eight experts, two for each token."""
    return _llama3(size) | {"rotary_base": 1_000_000.0, "experts": 8, "experts_used": 2}


def _qwen2_moe(size: TransformerConfig) -> dict[str, Any]:
    """Qwen1.5-MoE-A2.7B in small: 16 fine experts, four for each token, and one that all use."""
    return _qwen2(size) | {
        "kv_heads": size.heads,
        "feed_forward_size": _round(2.75 * size.width),
        "tied_head": False,
        "experts": 16,
        "experts_used": 4,
        "expert_size": _round(0.6875 * size.width),
        "expert_renormalize": False,
        "shared_expert_size": _round(2.75 * size.width),
    }


RULES: dict[str, Callable[[TransformerConfig], dict[str, Any]]] = {
    "modern": lambda size: {},
    "gpt2": _gpt2,
    "llama2": _llama2,
    "llama3": _llama3,
    "smollm2": _smollm2,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "mistral": _mistral,
    "mixtral": _mixtral,
    "qwen2-moe": _qwen2_moe,
}
