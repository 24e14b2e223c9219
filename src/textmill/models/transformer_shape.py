"""Sizes and roles that follow from a Transformer's configuration. Imports nothing: exported models carry this file.

A configuration is a `TransformerConfig` or any object with its attributes; 0 in a field means "as usual".
"""

from __future__ import annotations

from typing import Any


def head_size(config: Any) -> int:
    """Size of one attention head, K."""
    return int(config.head_dim or config.width // config.heads)


def kv_heads(config: Any) -> int:
    """Heads of keys and values, G; each serves heads / G heads of queries (Ainslie et al. 2023)."""
    return int(config.kv_heads or config.heads)


def hidden_size(config: Any) -> int:
    """Hidden size of the feed-forward part."""
    return int(config.feed_forward_size or config.feed_forward * config.width)


def expert_size(config: Any) -> int:
    """Hidden size of one expert."""
    return int(config.expert_size or hidden_size(config))


def norm_epsilon(config: Any) -> float:
    """What normalizations add to the variance: by default 1e-6 (RMSNorm) or 1e-5 (LayerNorm)."""
    return float(config.norm_epsilon or (1e-5 if config.norm == "layer" else 1e-6))


def rotary_size(config: Any) -> int:
    """How many of a head's values are rotated, an even number."""
    return int(head_size(config) * config.rotary_share) // 2 * 2


def is_fused(config: Any) -> bool:
    """Whether queries, keys and values come from one matrix [3 D, D]; else each has its own."""
    return kv_heads(config) == config.heads and head_size(config) * config.heads == config.width


def is_local(config: Any, layer: int) -> bool:
    """Whether this layer's attention sees only the last `window` tokens."""
    return bool(config.window) and config.window_pattern[layer % len(config.window_pattern)] == "L"


def reach(config: Any, layer: int) -> int:
    """How many tokens back this layer's attention sees, the token itself included."""
    return int(min(config.context, config.window) if is_local(config, layer) else config.context)


def has_experts(config: Any, layer: int) -> bool:
    """Whether this layer's feed-forward part is a mixture of experts."""
    return bool(config.experts) and (layer + 1) % config.expert_every == 0


def has_value_embedding(config: Any, layer: int) -> bool:
    """Every second layer, the last one included, has a value table."""
    return bool(config.value_embeddings) and layer % 2 == (config.layers - 1) % 2


def attention_matrices(config: Any) -> int:
    """Values in the matrices of one layer's attention."""
    queries = int(config.heads) * head_size(config)
    return int(config.width) * (2 * queries + 2 * kv_heads(config) * head_size(config))


def feed_forward_matrices(config: Any, layer: int, active: bool) -> int:
    """Values in the matrices of one layer's feed-forward part; with `active`, only those that multiply each token."""
    each = (3 if config.gated else 2) * int(config.width)
    if not has_experts(config, layer):
        return each * hidden_size(config)
    count = config.experts_used if active else config.experts
    shared = each * int(config.shared_expert_size) + (int(config.width) if config.shared_expert_size else 0)
    return int(config.experts) * int(config.width) + count * each * expert_size(config) + shared
