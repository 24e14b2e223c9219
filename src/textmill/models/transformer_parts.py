"""Parts of the decoder: normalization, positions, attention, feed-forward, experts. Needs torch alone.

An exported model carries this very file beside transformer.py. Shape legend: B rows, T tokens read now, S keys that
they may see, D width, H query heads, G key-value heads, K head size, E experts.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .transformer_shape import (
    expert_size,
    has_experts,
    has_value_embedding,
    head_size,
    hidden_size,
    is_fused,
    is_local,
    kv_heads,
    norm_epsilon,
    reach,
    rotary_size,
)

CAPPED_QUERIES = 512
"""Queries at once where attention scores are capped: no fused kernel does that, and the scores take memory."""


def rms_norm(x: Tensor, epsilon: float = 1e-6) -> Tensor:
    """RMSNorm without weights, computed in fp32 (Zhang and Sennrich 2019, eq. 4)."""
    scaled = x.float()
    return (scaled * torch.rsqrt(scaled.square().mean(-1, keepdim=True) + epsilon)).to(x.dtype)


class Norm(nn.Module):
    """A normalization with weights over the last dimension, computed in fp32.

    Args:
        size: of that dimension.
        kind: "layer" (LayerNorm with bias), "rms-weight" (RMSNorm times w) or "rms-offset" (times 1 + w, Gemma).
        epsilon: added to the variance.
    """

    def __init__(self, size: int, kind: str, epsilon: float) -> None:
        super().__init__()
        self.kind, self.epsilon = kind, epsilon
        self.weight = nn.Parameter(torch.zeros(size) if kind == "rms-offset" else torch.ones(size))
        if kind == "layer":
            self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "layer":
            return F.layer_norm(x.float(), self.weight.shape, self.weight, self.bias, self.epsilon).to(x.dtype)
        weight = self.weight.float()
        return (rms_norm(x.float(), self.epsilon) * (1 + weight if self.kind == "rms-offset" else weight)).to(x.dtype)


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """The linear layer in the dtype of its input (the weights stay fp32)."""
    return F.linear(x, layer.weight.to(x.dtype), None if layer.bias is None else layer.bias.to(x.dtype))


# ---- positions -------------------------------------------------------------------------------------------------------


def rotate(x_BHTK: Tensor, cos_TK: Tensor, sin_TK: Tensor) -> Tensor:
    """Rotary position embedding, half-split layout (Su et al. 2021, eq. 34); values past the table stay as they are."""
    half = cos_TK.shape[-1]
    x = x_BHTK.float()
    first, second = x[..., :half], x[..., half : 2 * half]
    parts: tuple[Tensor, ...] = (first * cos_TK + second * sin_TK, second * cos_TK - first * sin_TK)
    if 2 * half < x.shape[-1]:
        parts = (*parts, x[..., 2 * half :])
    return torch.cat(parts, -1).to(x_BHTK.dtype)


def rotary_frequencies(config: Any, local: bool, device: torch.device) -> Tensor:
    """Angles a token, float32 [rotated / 2], slowed down for long contexts where the configuration says so.

    "linear" divides all of them by the factor (Chen et al. 2023); "llama3" divides those whose wavelength is longer
    than original / low, leaves those shorter than original / high, and goes smoothly between (Llama 3.1's own rule).
    """
    size = rotary_size(config)
    base = config.rotary_base_local if local and config.rotary_base_local else config.rotary_base
    steps = torch.arange(0, size, 2, device=device, dtype=torch.float32) / size
    frequency = 10000.0**-steps if base == 10000.0 else 1.0 / base**steps
    if config.rotary_scaling == "none" or (local and config.rotary_base_local):
        return frequency
    slow = frequency / config.rotary_factor
    if config.rotary_scaling == "linear":
        return slow
    low, high = config.rotary_low, config.rotary_high
    share = (config.rotary_original * frequency / (2 * math.pi) - low) / (high - low)
    return torch.lerp(slow, frequency, share.clamp(0, 1))


def rotary_table(start: int, length: int, head_size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines [T, K/2] for positions start … start + length - 1, base 10,000."""
    return rotary_angles(start, length, 10000.0 ** (-torch.arange(0, head_size, 2, device=device).float() / head_size))


def rotary_angles(start: int, length: int, frequency: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines [T, n] for positions start … start + length - 1, given angles a token [n]."""
    angle = torch.arange(start, start + length, device=frequency.device, dtype=torch.float32)[:, None] * frequency
    return angle.cos(), angle.sin()


def sinusoids(start: int, length: int, width: int, device: torch.device) -> Tensor:
    """Sines and cosines by turns, [T, D] (Vaswani et al. 2017, sec. 3.5)."""
    place = torch.arange(start, start + length, device=device, dtype=torch.float32)[:, None]
    angle = place * 10000.0 ** (-torch.arange(0, width, 2, device=device, dtype=torch.float32) / width)
    return torch.stack((angle.sin(), angle.cos()), -1).flatten(1)[:, :width]


# ---- attention -------------------------------------------------------------------------------------------------------


def visible(queries: int, keys: int, reach: int, device: torch.device) -> Tensor:
    """Which key each of the last `queries` positions of `keys` may see: itself and reach - 1 before it, bool [T, S]."""
    query = torch.arange(keys - queries, keys, device=device)[:, None]
    key = torch.arange(keys, device=device)[None, :]
    return (key <= query) & (key > query - reach)


def attend(
    q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask_TS: Tensor | None, scale: float | None, cap: float
) -> Tensor:
    """Attention of the last T positions over S keys, [B, H, T, K].

    Args:
        mask_TS: who sees whom; None for every query all keys (T = 1), or causally (T = S).
        scale: factor of the scores; None for K ** -0.5.
        cap: scores become cap * tanh(score / cap) before the softmax (Gemma 2); 0 for none.
    """
    H, T, K = q_BHTK.shape[1:]
    G, S = k_BGSK.shape[1:3]
    if T == 1 and not cap:  # the queries of one group are like so many tokens over the same keys: nothing is copied
        groups = q_BHTK.reshape(-1, G, H // G, K)
        return F.scaled_dot_product_attention(groups, k_BGSK, v_BGSK, scale=scale).reshape(q_BHTK.shape)
    if G < H:
        k_BGSK, v_BGSK = (part.repeat_interleave(H // G, dim=1) for part in (k_BGSK, v_BGSK))
    if not cap:
        return F.scaled_dot_product_attention(
            q_BHTK, k_BGSK, v_BGSK, attn_mask=mask_TS, is_causal=mask_TS is None, scale=scale
        )
    if mask_TS is None:
        mask_TS = visible(T, S, S, q_BHTK.device)
    parts = [slice(None)]  # an exported graph serves every length, and can loop over none
    if not torch.compiler.is_exporting():
        parts = [slice(start, start + CAPPED_QUERIES) for start in range(0, T, CAPPED_QUERIES)]
    pieces = []
    for part in parts:
        scores = (q_BHTK[:, :, part] @ k_BGSK.mT).float() * (K**-0.5 if scale is None else scale)
        scores = (cap * torch.tanh(scores / cap)).masked_fill(~mask_TS[part], -math.inf)
        pieces.append(scores.softmax(-1).to(v_BGSK.dtype) @ v_BGSK)
    return torch.cat(pieces, 2)


class Attention(nn.Module):
    """Causal self-attention with the switches of the configuration."""

    def __init__(self, config: Any, layer: int) -> None:
        super().__init__()
        self.config = config
        self.heads, self.groups, self.size = config.heads, kv_heads(config), head_size(config)
        self.reach = reach(config, layer)
        width, bias = config.width, config.bias or config.qkv_bias
        if is_fused(config):
            self.qkv = nn.Linear(width, 3 * width, bias=bias)
        else:
            self.query = nn.Linear(width, self.heads * self.size, bias=bias)
            self.key = nn.Linear(width, self.groups * self.size, bias=bias)
            self.value = nn.Linear(width, self.groups * self.size, bias=bias)
        self.out = nn.Linear(self.heads * self.size, width, bias=config.bias)
        self.has_value_embedding = has_value_embedding(config, layer)
        if self.has_value_embedding:
            self.value_gate = nn.Parameter(torch.zeros(self.groups))
        if config.qk_norm and config.qk_norm_weight:
            kind = "rms-offset" if config.norm == "rms-offset" else "rms-weight"
            self.query_norm = Norm(self.size, kind, norm_epsilon(config))
            self.key_norm = Norm(self.size, kind, norm_epsilon(config))

    @property
    def inputs(self) -> list[nn.Linear]:
        """The layers that make queries, keys and values."""
        return [self.qkv] if is_fused(self.config) else [self.query, self.key, self.value]

    def project(
        self, x_BTD: Tensor, cos: Tensor | None, sin: Tensor | None, table_BTD: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B, H, T, K], keys and values [B, G, T, K]."""
        B, T = x_BTD.shape[:2]
        if is_fused(self.config):
            qkv = linear(self.qkv, x_BTD).view(B, T, 3, self.heads, self.size)
            q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        else:
            q, k, v = (linear(layer, x_BTD).view(B, T, -1, self.size).transpose(1, 2) for layer in self.inputs)
        if table_BTD is not None:
            # A gate of 2 * sigmoid(0) = 1 at the start: the table takes part from the first step.
            gate = (2 * torch.sigmoid(self.value_gate)).to(x_BTD.dtype).view(1, self.groups, 1, 1)
            v = v + gate * table_BTD.view(B, T, self.groups, self.size).transpose(1, 2)
        if self.config.qk_norm and self.config.qk_norm_weight:
            q, k = self.query_norm(q), self.key_norm(k)
        elif self.config.qk_norm:
            q, k = rms_norm(q), rms_norm(k)
        if cos is not None and sin is not None:
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        return q, k, v

    def mix(self, q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask_TS: Tensor | None) -> Tensor:
        """The attention product [B, H, T, K]; `mask_TS` as in `attend`."""
        config = self.config
        return attend(q_BHTK, k_BGSK, v_BGSK, mask_TS, config.attention_scale or None, config.attention_softcap)

    def combine(self, mixed_BHTK: Tensor) -> Tensor:
        """Heads back to the residual stream [B, T, D]."""
        B, H, T, K = mixed_BHTK.shape
        return linear(self.out, mixed_BHTK.transpose(1, 2).reshape(B, T, H * K))


# ---- feed-forward ----------------------------------------------------------------------------------------------------


def activate(x: Tensor, name: str) -> Tensor:
    """The activation function of this name."""
    if name == "relu2":
        return F.relu(x).square()
    return F.silu(x) if name == "silu" else F.gelu(x, approximate="tanh" if name == "gelu" else "none")


class FeedForward(nn.Module):
    """Two linear layers around the activation; a gated one multiplies in a third (GLU variants, Shazeer 2020).

    Args:
        config: the Transformer's.
        size: hidden size.
    """

    def __init__(self, config: Any, size: int) -> None:
        super().__init__()
        self.activation, self.gated = config.activation, config.gated
        if self.gated:
            self.gate = nn.Linear(config.width, size, bias=config.bias)
        self.up = nn.Linear(config.width, size, bias=config.bias)
        self.down = nn.Linear(size, config.width, bias=config.bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        up = linear(self.up, x_BTD)
        hidden = (
            activate(linear(self.gate, x_BTD), self.activation) * up if self.gated else activate(up, self.activation)
        )
        return linear(self.down, hidden)


class Experts(nn.Module):
    """A mixture of experts (Shazeer et al. 2017): a router sends each token to the few experts that it scores highest.

    Attributes:
        balance: the last load-balancing term, E Σ f P (Fedus et al. 2022, eq. 4; f the share of the choices that fell
            on an expert, P the router's mean probability of it): 1 when even, E when all goes to one expert. Only
            while training; None otherwise.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.router = nn.Linear(config.width, config.experts, bias=False)
        self.experts = nn.ModuleList(FeedForward(config, expert_size(config)) for _ in range(config.experts))
        if config.shared_expert_size:
            self.shared = FeedForward(config, config.shared_expert_size)
            self.shared_gate = nn.Linear(config.width, 1, bias=False)
        self.balance: Tensor | None = None

    @torch.compiler.disable  # which tokens an expert gets is known only at run time
    def forward(self, x_BTD: Tensor) -> Tensor:
        config = self.config
        x = x_BTD.flatten(0, 1)
        probabilities = linear(self.router, x).float().softmax(-1)
        weights, chosen = probabilities.topk(config.experts_used, dim=-1)
        if self.training:
            share = torch.bincount(chosen.flatten(), minlength=config.experts).float() / chosen.numel()
            self.balance = config.experts * (share * probabilities.mean(0)).sum()
        if config.expert_renormalize:
            weights = weights / weights.sum(-1, keepdim=True)
        weights = weights.to(x.dtype)
        out = torch.zeros_like(x)
        if torch.compiler.is_exporting():  # a graph cannot choose rows: every expert reads every token
            shares = torch.zeros_like(probabilities).scatter(1, chosen, weights)
            for index, expert in enumerate(self.experts):
                out = out + expert(x) * shares[:, index, None]
            return self._with_shared(out, x).view(x_BTD.shape)
        for index, expert in enumerate(self.experts):
            rows, place = (chosen == index).nonzero(as_tuple=True)
            if len(rows):
                out = out.index_add(0, rows, expert(x[rows]) * weights[rows, place, None])
        return self._with_shared(out, x).view(x_BTD.shape)

    def _with_shared(self, out: Tensor, x: Tensor) -> Tensor:
        if not self.config.shared_expert_size:
            return out
        return out + torch.sigmoid(linear(self.shared_gate, x)) * self.shared(x)


class Block(nn.Module):
    """Attention, then feed-forward, each added to the residual stream."""

    def __init__(self, config: Any, layer: int) -> None:
        super().__init__()
        self.config = config
        self.local = is_local(config, layer)
        self.attention = Attention(config, layer)
        self.feed_forward = Experts(config) if has_experts(config, layer) else FeedForward(config, hidden_size(config))
        if config.norm != "rms":
            self.norm_1 = Norm(config.width, config.norm, norm_epsilon(config))
            self.norm_2 = Norm(config.width, config.norm, norm_epsilon(config))
        if config.post_norm:
            kind = "rms-weight" if config.norm == "rms" else config.norm
            self.post_norm_1 = Norm(config.width, kind, norm_epsilon(config))
            self.post_norm_2 = Norm(config.width, kind, norm_epsilon(config))
        if config.residual_lambdas:
            self.mix = nn.Parameter(torch.tensor([1.0, 0.1 if layer else 0.0]))

    def norm(self, x_BTD: Tensor, which: int) -> Tensor:
        """The first or second normalization of the block."""
        if self.config.norm == "rms":
            return rms_norm(x_BTD, norm_epsilon(self.config))
        normed: Tensor = (self.norm_1 if which == 1 else self.norm_2)(x_BTD)
        return normed

    def drop(self, x: Tensor) -> Tensor:
        """Dropout while training, where the configuration asks for it."""
        return F.dropout(x, self.config.dropout, self.training) if self.config.dropout else x

    def enter(self, x_BTD: Tensor, x0_BTD: Tensor) -> Tensor:
        """The block's input: the residual stream, mixed with the embedding by learned scalars."""
        if not self.config.residual_lambdas:
            return x_BTD
        mix = self.mix.to(x_BTD.dtype)
        return mix[0] * x_BTD + mix[1] * x0_BTD

    def finish(self, x_BTD: Tensor, mixed_BHTK: Tensor) -> Tensor:
        """Everything after the attention product."""
        if self.config.post_norm:
            x_BTD = x_BTD + self.drop(self.post_norm_1(self.attention.combine(mixed_BHTK)))
            return x_BTD + self.drop(self.post_norm_2(self.feed_forward(self.norm(x_BTD, 2))))
        x_BTD = x_BTD + self.drop(self.attention.combine(mixed_BHTK))
        return x_BTD + self.drop(self.feed_forward(self.norm(x_BTD, 2)))

    def forward(
        self, x_BTD: Tensor, x0_BTD: Tensor, table_BTD: Tensor | None, cos: Tensor | None, sin: Tensor | None
    ) -> Tensor:
        """The whole block over whole rows (training)."""
        x_BTD = self.enter(x_BTD, x0_BTD)
        q, k, v = self.attention.project(self.norm(x_BTD, 1), cos, sin, table_BTD)
        T = x_BTD.shape[1]
        # An exported graph serves every length: traced without the mask, it would look too far back in long rows.
        longest = self.config.context if torch.compiler.is_exporting() else T
        mask = visible(T, T, self.attention.reach, x_BTD.device) if self.attention.reach < longest else None
        return self.finish(x_BTD, self.attention.mix(q, k, v, mask))
