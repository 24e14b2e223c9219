"""The decoder Transformer, each part a named switch. Needs torch alone: an exported model carries this very file.

Shape legend: B rows, T tokens read now, S tokens in the cache, D width, H heads, K head size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def rms_norm(x: Tensor) -> Tensor:
    """RMSNorm without weights, computed in fp32 (Zhang and Sennrich 2019, eq. 4)."""
    scaled = x.float()
    return (scaled * torch.rsqrt(scaled.square().mean(-1, keepdim=True) + 1e-6)).to(x.dtype)


def rotate(x_BHTK: Tensor, cos_TK: Tensor, sin_TK: Tensor) -> Tensor:
    """Rotary position embedding, half-split layout (Su et al. 2021, eq. 34)."""
    half = x_BHTK.shape[-1] // 2
    x = x_BHTK.float()
    first, second = x[..., :half], x[..., half:]
    return torch.cat((first * cos_TK + second * sin_TK, second * cos_TK - first * sin_TK), -1).to(x_BHTK.dtype)


def rotary_table(start: int, length: int, head_size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines [T, K/2] for positions start … start + length - 1, base 10,000."""
    frequency = 10000.0 ** (-torch.arange(0, head_size, 2, device=device, dtype=torch.float32) / head_size)
    angle = torch.arange(start, start + length, device=device, dtype=torch.float32)[:, None] * frequency
    return angle.cos(), angle.sin()


@dataclass
class State:
    """What the model remembers between reads: per layer a key-value window, and the last tokens.

    Attributes:
        keys, values: per layer [B, H, capacity, K], of which the first `length` positions are filled.
        length: filled positions.
        position: absolute position of the next token (rotary angles).
        recent: [B, n] the last tokens read, at most `context` of them.
    """

    batch: int
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    length: int = 0
    position: int = 0
    recent: Tensor | None = None


class Attention(nn.Module):
    """Causal self-attention with the switches of the configuration."""

    def __init__(self, config: Any, layer: int) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.qkv = nn.Linear(width, 3 * width, bias=config.bias)
        self.out = nn.Linear(width, width, bias=config.bias)
        self.has_value_embedding = has_value_embedding(config, layer)
        if self.has_value_embedding:
            self.value_gate = nn.Parameter(torch.zeros(config.heads))

    def project(
        self, x_BTD: Tensor, cos: Tensor | None, sin: Tensor | None, table_BTD: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, H, T, K]."""
        B, T = x_BTD.shape[:2]
        heads, size = self.config.heads, self.config.head_size
        bias = None if self.qkv.bias is None else self.qkv.bias.to(x_BTD.dtype)
        qkv = F.linear(x_BTD, self.qkv.weight.to(x_BTD.dtype), bias).view(B, T, 3, heads, size)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        if table_BTD is not None:
            # A gate of 2 * sigmoid(0) = 1 at the start: the table takes part from the first step.
            gate = (2 * torch.sigmoid(self.value_gate)).to(x_BTD.dtype).view(1, heads, 1, 1)
            v = v + gate * table_BTD.view(B, T, heads, size).transpose(1, 2)
        if self.config.qk_norm:
            q, k = rms_norm(q), rms_norm(k)
        if cos is not None and sin is not None:
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        return q, k, v

    def combine(self, mixed_BHTK: Tensor) -> Tensor:
        """Heads back to the residual stream [B, T, D]."""
        B, H, T, K = mixed_BHTK.shape
        flat = mixed_BHTK.transpose(1, 2).reshape(B, T, H * K)
        bias = None if self.out.bias is None else self.out.bias.to(flat.dtype)
        return F.linear(flat, self.out.weight.to(flat.dtype), bias)


class FeedForward(nn.Module):
    """Two linear layers around the activation."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.activation = config.activation
        self.up = nn.Linear(config.width, config.feed_forward * config.width, bias=config.bias)
        self.down = nn.Linear(config.feed_forward * config.width, config.width, bias=config.bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        dtype = x_BTD.dtype
        up = F.linear(x_BTD, self.up.weight.to(dtype), None if self.up.bias is None else self.up.bias.to(dtype))
        hidden = F.relu(up).square() if self.activation == "relu2" else F.gelu(up, approximate="tanh")
        bias = None if self.down.bias is None else self.down.bias.to(dtype)
        return F.linear(hidden, self.down.weight.to(dtype), bias)


def has_value_embedding(config: Any, layer: int) -> bool:
    """Every second layer, the last one included, has a value table."""
    return bool(config.value_embeddings) and layer % 2 == (config.layers - 1) % 2


class Block(nn.Module):
    """Attention, then feed-forward, each added to the residual stream."""

    def __init__(self, config: Any, layer: int) -> None:
        super().__init__()
        self.config = config
        self.attention = Attention(config, layer)
        self.feed_forward = FeedForward(config)
        if config.norm == "layer":
            self.norm_1 = nn.LayerNorm(config.width, eps=1e-5)
            self.norm_2 = nn.LayerNorm(config.width, eps=1e-5)
        if config.residual_lambdas:
            self.mix = nn.Parameter(torch.tensor([1.0, 0.1 if layer else 0.0]))

    def norm(self, x_BTD: Tensor, which: int) -> Tensor:
        """The first or second normalization of the block."""
        if self.config.norm == "rms":
            return rms_norm(x_BTD)
        layer: nn.LayerNorm = self.norm_1 if which == 1 else self.norm_2
        return F.layer_norm(x_BTD.float(), layer.normalized_shape, layer.weight, layer.bias, layer.eps).to(x_BTD.dtype)

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
        x_BTD = x_BTD + self.drop(self.attention.combine(mixed_BHTK))
        return x_BTD + self.drop(self.feed_forward(self.norm(x_BTD, 2)))

    def forward(
        self, x_BTD: Tensor, x0_BTD: Tensor, table_BTD: Tensor | None, cos: Tensor | None, sin: Tensor | None
    ) -> Tensor:
        """The whole block over whole rows (training)."""
        x_BTD = self.enter(x_BTD, x0_BTD)
        q, k, v = self.attention.project(self.norm(x_BTD, 1), cos, sin, table_BTD)
        return self.finish(x_BTD, F.scaled_dot_product_attention(q, k, v, is_causal=True))


class Transformer(nn.Module):
    """A decoder Transformer language model (protocol `LanguageModel`).

    Args:
        config: a `TransformerConfig` (or any object with its attributes).
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.vocabulary: int = config.vocabulary
        self.context: int | None = config.context
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        if config.position == "learned":
            self.position = nn.Embedding(config.context, config.width)
        if config.bigram_buckets:
            self.bigram = nn.Embedding(config.bigram_buckets, config.width)
        if config.smear:
            self.smear_gate = nn.Parameter(torch.zeros(config.width))
        self.value_tables = nn.ModuleDict(
            {
                str(layer): nn.Embedding(config.vocabulary, config.width)
                for layer in range(config.layers)
                if has_value_embedding(config, layer)
            }
        )
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        if config.norm == "layer":
            self.final_norm = nn.LayerNorm(config.width, eps=1e-5)
        if not config.tied_head:
            self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        self.compute_dtype = torch.float32
        self.reset_parameters()

    @property
    def size(self) -> int:
        """Number of trained values."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.weight.device

    @property
    def head_weight(self) -> Tensor:
        """The output matrix [V, D]."""
        return self.embedding.weight if self.config.tied_head else self.head.weight

    def reset_parameters(self) -> None:
        """Initial weights.

        Modern arrangement: embedding N(0, 1) (normalized right after), matrices uniform with variance 1/(3 fan-in)
        scaled by sqrt(3)·0.5, output projections and head zero, tables small. GPT-2: N(0, 0.02), residual
        projections divided by sqrt(2 L).
        """
        config = self.config
        if not config.zero_init:
            for module in self.modules():
                if isinstance(module, nn.Linear | nn.Embedding):
                    nn.init.normal_(module.weight, std=0.02)
                if isinstance(module, nn.Linear) and module.bias is not None:
                    nn.init.zeros_(module.bias)
            for block in self.blocks:
                for projection in (block.attention.out, block.feed_forward.down):
                    nn.init.normal_(projection.weight, std=0.02 / (2 * config.layers) ** 0.5)
            return
        bound = 3**0.5 * config.width**-0.5
        for block in self.blocks:
            nn.init.uniform_(block.attention.qkv.weight, -bound, bound)
            nn.init.uniform_(block.feed_forward.up.weight, -bound, bound)
            for module in (block.attention.out, block.feed_forward.down):
                nn.init.zeros_(module.weight)
            for module in (block.attention.qkv, block.attention.out, *block.feed_forward.children()):
                if getattr(module, "bias", None) is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.embedding.weight, std=1.0 if config.embedding_norm else 0.02)
        if config.tied_head:
            nn.init.normal_(self.embedding.weight, std=0.02)
        else:
            nn.init.normal_(self.head.weight, std=0.001)
        for table in self.value_tables.values():
            nn.init.uniform_(table.weight, -bound, bound)
        if config.bigram_buckets:
            nn.init.zeros_(self.bigram.weight)
        if config.position == "learned":
            nn.init.normal_(self.position.weight, std=0.02)

    # ---- from tokens to the last hidden vector -------------------------------------------------------------------

    def bigram_rows(self, tokens_BT: Tensor, previous_B: Tensor | None) -> Tensor:
        """Hashed row of each (previous token, token); row 0 where there is no previous token."""
        buckets = self.config.bigram_buckets
        before = torch.cat((tokens_BT[:, :1], tokens_BT[:, :-1]), 1)
        if previous_B is not None:
            before = torch.cat((previous_B[:, None], tokens_BT[:, :-1]), 1)
        rows = 1 + ((before * 36313) ^ (tokens_BT * 27191)) % (buckets - 1)
        if previous_B is None:
            rows = torch.cat((torch.zeros_like(rows[:, :1]), rows[:, 1:]), 1)
        return rows

    def embed(self, tokens_BT: Tensor, start: int, previous_B: Tensor | None) -> Tensor:
        """The residual stream's first value [B, T, D]."""
        config = self.config
        x = self.embedding(tokens_BT)
        if config.bigram_buckets:
            x = x + self.bigram(self.bigram_rows(tokens_BT, previous_B))
        if config.position == "learned":
            x = x + self.position.weight[start : start + tokens_BT.shape[1]]
        if config.smear:
            first = x[:, :1] * 0 if previous_B is None else self.embedding(previous_B)[:, None]
            x = x + torch.tanh(self.smear_gate) * torch.cat((first, self.embedding(tokens_BT[:, :-1])), 1)
        if config.embedding_norm:
            x = rms_norm(x)
        x = x.to(self.compute_dtype)
        return F.dropout(x, config.dropout, self.training) if config.dropout else x

    def tables(self, tokens_BT: Tensor) -> list[Tensor | None]:
        """Per layer the value table's rows [B, T, D], or None."""
        names = [str(layer) for layer in range(self.config.layers)]
        return [
            self.value_tables[name](tokens_BT).to(self.compute_dtype) if name in self.value_tables else None
            for name in names
        ]

    def angles(self, start: int, length: int) -> tuple[Tensor | None, Tensor | None]:
        """Rotary cosines and sines for these positions, or None."""
        if self.config.position != "rotary":
            return None, None
        return rotary_table(start, length, self.config.head_size, self.device)

    def final(self, x_BTD: Tensor) -> Tensor:
        """The last normalization."""
        if self.config.norm == "rms":
            return rms_norm(x_BTD)
        norm = self.final_norm
        return F.layer_norm(x_BTD.float(), norm.normalized_shape, norm.weight, norm.bias, norm.eps).to(x_BTD.dtype)

    def hidden(self, tokens_BT: Tensor, run_block: Callable[..., Tensor] = Block.forward) -> Tensor:
        """Last hidden vectors [B, T, D] of whole rows of at most `context` tokens, each row starting afresh.

        `run_block` may be a compiled `Block.forward`.
        """
        x0 = self.embed(tokens_BT, 0, None)
        x = x0.clone()  # never the same tensor: a compiled block would be compiled once more for that case
        cos, sin = self.angles(0, tokens_BT.shape[1])
        for block, table in zip(self.blocks, self.tables(tokens_BT), strict=True):
            x = run_block(block, x, x0, table, cos, sin)
        return self.final(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Capped logits (float32) of hidden vectors."""
        raw = F.linear(hidden, self.head_weight.to(hidden.dtype)).float()
        cap = self.config.logit_softcap
        return cap * torch.tanh(raw / cap) if cap else raw

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits [B, T, V] of whole rows."""
        return self.logits(self.hidden(tokens_BT))

    @torch.no_grad()
    def target_log_probs(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Log-probability in nats [B, T] of each target; 0 where the target is -1, whose logits are never made."""
        wanted = (targets_BT >= 0).flatten()
        hidden = self.hidden(tokens_BT).flatten(0, 1)[wanted]
        targets = targets_BT.flatten()[wanted]
        rows = max(1, (1 << 22) // self.vocabulary)  # 16 MB of logits at once
        scores = torch.zeros(wanted.shape, device=hidden.device)
        if len(hidden):
            scores[wanted] = torch.cat(
                [
                    -F.cross_entropy(self.logits(hidden[i : i + rows]), targets[i : i + rows], reduction="none")
                    for i in range(0, len(hidden), rows)
                ]
            )
        return scores.view(targets_BT.shape)

    # ---- the protocol: start and read ----------------------------------------------------------------------------

    def start(self, batch: int) -> State:
        """The state before any token."""
        return State(batch)

    @torch.no_grad()
    def read(self, tokens_BT: Tensor, state: State) -> tuple[Tensor, State]:
        """Read tokens and return log-probabilities [B, T, V] of what follows each, and the new state.

        Rotary models slide: each token sees at most `context` tokens back, itself included. Models with a learned
        position table start over from the last half of the context when the table ends.
        """
        pieces = []
        for part in tokens_BT.split(self.config.context, dim=1):
            while part.shape[1]:
                room = self.config.context - state.length
                if self.config.position == "learned" and room == 0:
                    state = self._start_over(state)
                    room = self.config.context - state.length
                size = part.shape[1] if self.config.position == "rotary" else min(room, part.shape[1])
                pieces.append(self.logits(self._extend(part[:, :size], state)).log_softmax(-1))
                part = part[:, size:]
        return torch.cat(pieces, 1), state

    def _start_over(self, state: State) -> State:
        assert state.recent is not None
        fresh = self.start(state.batch)
        self._extend(state.recent[:, -(self.config.context // 2) :], fresh)
        return fresh

    def _extend(self, tokens_BT: Tensor, state: State) -> Tensor:
        """Hidden vectors of new tokens, their keys and values added to the state in place."""
        config, T = self.config, tokens_BT.shape[1]
        B, capacity = tokens_BT.shape[0], 2 * config.context
        if not state.keys:
            shape = (B, config.heads, capacity, config.head_size)
            state.keys = [torch.empty(shape, dtype=self.compute_dtype, device=self.device) for _ in self.blocks]
            state.values = [torch.empty_like(keys) for keys in state.keys]
        if state.length + T > capacity:  # slide: keep what the next token may still see
            keep = config.context
            for buffer in (*state.keys, *state.values):
                buffer[:, :, :keep] = buffer[:, :, state.length - keep : state.length].clone()
            state.length = keep
        previous = None if state.recent is None else state.recent[:, -1]
        x0 = x = self.embed(tokens_BT, state.position, previous)
        cos, sin = self.angles(state.position, T)
        S, total = state.length, state.length + T
        first = max(0, total - T - config.context + 1)  # oldest key that any of the new tokens may see
        mask = None
        if T > 1:
            query = torch.arange(S, total, device=self.device)[:, None]
            key = torch.arange(first, total, device=self.device)[None, :]
            mask = (key <= query) & (key > query - config.context)
        for index, (block, table) in enumerate(zip(self.blocks, self.tables(tokens_BT), strict=True)):
            x = block.enter(x, x0)
            q, k, v = block.attention.project(block.norm(x, 1), cos, sin, table)
            state.keys[index][:, :, S:total] = k
            state.values[index][:, :, S:total] = v
            mixed = F.scaled_dot_product_attention(
                q, state.keys[index][:, :, first:total], state.values[index][:, :, first:total], attn_mask=mask
            )
            x = block.finish(x, mixed)
        state.length = total
        state.position += T
        seen = tokens_BT if state.recent is None else torch.cat((state.recent, tokens_BT), 1)
        state.recent = seen[:, -config.context :]
        return self.final(x)
