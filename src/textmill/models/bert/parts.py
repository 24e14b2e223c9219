"""Parts of the BERT encoder: activations, normalization, the block. Touches nothing.

Shape legend: B rows, T tokens, D width, H heads, K head size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from textmill.models.bert.config import BertConfig
from textmill.models.transformer_parts import Norm, linear, rms_norm, rotate

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu2": lambda x: F.relu(x).square(),
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}


class PlainNorm(nn.Module):
    """RMSNorm without weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalized over the last dimension."""
        return rms_norm(x)


def make_norm(config: BertConfig) -> nn.Module:
    """The normalization that the configuration asks for."""
    return Norm(config.width, "layer", config.norm_epsilon) if config.norm == "layer" else PlainNorm()


class Block(nn.Module):
    """Attention over the whole row, then feed-forward, each added to the residual stream."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.qkv = nn.Linear(width, 3 * width, bias=config.bias)
        self.out = nn.Linear(width, width, bias=config.bias)
        self.up = nn.Linear(width, config.hidden, bias=config.bias)
        self.down = nn.Linear(config.hidden, width, bias=config.bias)
        self.norm_1 = make_norm(config)
        self.norm_2 = make_norm(config)

    def attend(self, x_BTD: Tensor, mask: Tensor | None, cos: Tensor | None, sin: Tensor | None) -> Tensor:
        """What the attention adds, [B, T, D]."""
        config = self.config
        B, T, D = x_BTD.shape
        qkv = linear(self.qkv, x_BTD).view(B, T, 3, config.heads, config.head_size)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        if config.qk_norm:
            q, k = rms_norm(q), rms_norm(k)
        if cos is not None and sin is not None:
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        drop = config.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=drop)
        return linear(self.out, mixed.transpose(1, 2).reshape(B, T, D))

    def feed(self, x_BTD: Tensor) -> Tensor:
        """What the feed-forward part adds, [B, T, D]."""
        return linear(self.down, ACTIVATIONS[self.config.activation](linear(self.up, x_BTD)))

    def drop(self, x: Tensor) -> Tensor:
        """Dropout while training, where the configuration asks for it."""
        return F.dropout(x, self.config.dropout, self.training) if self.config.dropout else x

    def forward(self, x_BTD: Tensor, mask: Tensor | None, cos: Tensor | None, sin: Tensor | None) -> Tensor:
        """The whole block. `mask` is bool [B, 1, 1, T], True where a token may be looked at; None for everywhere."""
        if self.config.norm_place == "pre":
            x_BTD = x_BTD + self.drop(self.attend(self.norm_1(x_BTD), mask, cos, sin))
            return x_BTD + self.drop(self.feed(self.norm_2(x_BTD)))
        x_BTD = self.norm_1(x_BTD + self.drop(self.attend(x_BTD, mask, cos, sin)))
        return self.norm_2(x_BTD + self.drop(self.feed(x_BTD)))
