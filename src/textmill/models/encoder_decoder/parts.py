"""Parts of the encoder-decoder: buckets of distance, attention, feed-forward, blocks. Touches nothing.

Shape legend: B rows, T tokens, S tokens of the source, D width, H heads, K head size.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textmill.models.encoder_decoder.config import EncoderDecoderConfig
from textmill.models.transformer_parts import Norm, linear, rms_norm, rotate


def bucket(distance: Tensor, both: bool, buckets: int, furthest: int) -> Tensor:
    """Bucket of each distance key - query: single ones nearby, logarithmic further off (T5's relative positions).

    Args:
        distance: int64 of any shape.
        both: whether keys after the query have buckets of their own; else they count as distance 0.
        buckets, furthest: as in `EncoderDecoderConfig`.

    Returns:
        int64 of the same shape, 0 to buckets - 1.
    """
    first = torch.zeros_like(distance)
    if both:
        buckets //= 2
        first = (distance > 0) * buckets
        back = distance.abs()
    else:
        back = (-distance).clamp_min(0)
    single = buckets // 2
    ratio = torch.log(back.clamp_min(1).float() / single) / math.log(furthest / single)
    far = (single + (ratio * (buckets - single)).to(torch.int64)).clamp_max(buckets - 1)
    return first + torch.where(back < single, back, far)


class FeedForward(nn.Module):
    """Two linear layers around the activation, or three where a gate multiplies in."""

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__()
        self.activation, self.dropout = config.activation, config.dropout
        self.up = nn.Linear(config.width, config.hidden, bias=False)
        if config.activation == "gated_gelu":
            self.gate = nn.Linear(config.width, config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, config.width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        up = linear(self.up, x_BTD)
        if self.activation == "gated_gelu":
            inner = F.gelu(linear(self.gate, x_BTD), approximate="tanh") * up
        else:
            inner = F.relu(up) if self.activation == "relu" else F.relu(up).square()
        return linear(self.down, F.dropout(inner, self.dropout, self.training) if self.dropout else inner)


class Attention(nn.Module):
    """Attention of queries over keys of the same text, or of another."""

    def __init__(self, config: EncoderDecoderConfig, cross: bool = False) -> None:
        super().__init__()
        self.config = config
        inner = config.heads * config.head_size
        if cross:
            self.query = nn.Linear(config.width, inner, bias=False)
            self.key_value = nn.Linear(config.width, 2 * inner, bias=False)
            self.key_value.weight.pieces = 2  # type: ignore[assignment]
        else:
            self.query_key_value = nn.Linear(config.width, 3 * inner, bias=False)
            self.query_key_value.weight.pieces = 3  # type: ignore[assignment]
        self.out = nn.Linear(inner, config.width, bias=False)

    def split(self, layer: nn.Linear, x_BTD: Tensor) -> list[Tensor]:
        """What a fused linear layer holds, each [B, H, T, K]."""
        B, T = x_BTD.shape[:2]
        parts = linear(layer, x_BTD).view(B, T, -1, self.config.heads, self.config.head_size)
        return [part.transpose(1, 2) for part in parts.unbind(2)]

    def project(self, x_BTD: Tensor, cos: Tensor | None, sin: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, H, T, K] of self-attention."""
        q, k, v = self.split(self.query_key_value, x_BTD)
        if self.config.qk_norm:
            q, k = rms_norm(q), rms_norm(k)
        if cos is not None and sin is not None:
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        return q, k, v

    def look(self, x_BTD: Tensor) -> Tensor:
        """Queries [B, H, T, K] of cross-attention."""
        (q,) = self.split(self.query, x_BTD)
        return rms_norm(q) if self.config.qk_norm else q

    def show(self, source_BSD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, H, S, K] of cross-attention."""
        k, v = self.split(self.key_value, source_BSD)
        return rms_norm(k) if self.config.qk_norm else k, v

    def mix(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool = False) -> Tensor:
        """The attention product, back in the residual stream's shape [B, T, D]."""
        drop = self.config.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(
            q, k, v, mask, drop, is_causal=causal, scale=None if self.config.qk_norm else 1.0
        )
        return linear(self.out, mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Self-attention, in the decoder cross-attention, and feed-forward, each over a normalized stream and added."""

    def __init__(self, config: EncoderDecoderConfig, decoder: bool) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.attention = Attention(config)
        self.norm_1 = Norm(config.width, "rms-weight", config.norm_epsilon)
        if decoder:
            self.cross = Attention(config, cross=True)
            self.norm_2 = Norm(config.width, "rms-weight", config.norm_epsilon)
        self.feed_forward = FeedForward(config)
        self.norm_3 = Norm(config.width, "rms-weight", config.norm_epsilon)

    def drop(self, x: Tensor) -> Tensor:
        """Dropout while training, where the configuration asks for it."""
        return F.dropout(x, self.dropout, self.training) if self.dropout else x

    def finish(self, x: Tensor, mixed: Tensor, memory: tuple[Tensor, Tensor, Tensor | None] | None = None) -> Tensor:
        """Everything after the self-attention product; `memory` is the block's keys, values and mask of the source."""
        x = x + self.drop(mixed)
        if memory is not None:
            x = x + self.drop(self.cross.mix(self.cross.look(self.norm_2(x)), *memory))
        return x + self.drop(self.feed_forward(self.norm_3(x)))
