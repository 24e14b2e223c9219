"""The decoder Transformer, each part a named switch. Needs torch alone: an exported model carries this very file.

Its parts are in transformer_parts.py. Shape legend: B rows, T tokens read now, S tokens in the cache, D width,
H heads, G key-value heads, K head size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .transformer_parts import (
    Block,
    Experts,
    Norm,
    rms_norm,
    rotary_angles,
    rotary_frequencies,
    rotary_table,
    rotate,
    sinusoids,
    visible,
)
from .transformer_shape import has_value_embedding, head_size, kv_heads, norm_epsilon

__all__ = ["Block", "State", "Transformer", "rms_norm", "rotary_table", "rotate"]

SMALLEST_CACHE = 256
"""Positions that a cache has room for at first; it doubles as it fills, up to twice the context."""


@dataclass
class State:
    """What the model remembers between reads: per layer a key-value window, and the last tokens.

    Attributes:
        keys, values: per layer [B, G, capacity, K], of which the first `length` positions are filled.
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


class Transformer(nn.Module):
    """A decoder Transformer language model (protocol `LanguageModel`).

    Args:
        config: a `TransformerConfig` (or any object with its attributes).
    """

    family = "transformer"
    objective = "next-token"
    carries = False

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
                str(layer): nn.Embedding(config.vocabulary, kv_heads(config) * head_size(config))
                for layer in range(config.layers)
                if has_value_embedding(config, layer)
            }
        )
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        if config.norm != "rms":
            self.final_norm = Norm(config.width, config.norm, norm_epsilon(config))
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
        return next(self.parameters()).device

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
            for projection in self._outputs():
                nn.init.normal_(projection.weight, std=0.02 / (2 * config.layers) ** 0.5)
            return
        bound = 3**0.5 * config.width**-0.5
        outputs = {id(layer) for layer in self._outputs()}
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                if id(module) in outputs:
                    nn.init.zeros_(module.weight)
                else:
                    nn.init.uniform_(module.weight, -bound, bound)
                if module.bias is not None:
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

    def _outputs(self) -> list[nn.Linear]:
        """The layers that write to the residual stream: of each attention, and of each feed-forward part."""
        found = []
        for block in self.blocks:
            found.append(block.attention.out)
            found += [module.down for module in block.modules() if hasattr(module, "down")]
        return found

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
        if config.embedding_scale:
            x = x * config.width**0.5
        if config.bigram_buckets:
            x = x + self.bigram(self.bigram_rows(tokens_BT, previous_B))
        if config.position == "learned":
            x = x + self.position.weight[start : start + tokens_BT.shape[1]]
        if config.position == "sinusoidal":
            x = x + sinusoids(start, tokens_BT.shape[1], config.width, x.device)
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

    def angles(self, start: int, length: int) -> tuple[tuple[Tensor, Tensor] | tuple[None, None], ...]:
        """Rotary cosines and sines for these positions, of layers that see everything and of local ones; or Nones."""
        config = self.config
        if config.position != "rotary":
            return (None, None), (None, None)
        everywhere = rotary_angles(start, length, rotary_frequencies(config, False, self.device))
        if not (config.window and config.rotary_base_local):
            return everywhere, everywhere
        return everywhere, rotary_angles(start, length, rotary_frequencies(config, True, self.device))

    def final(self, x_BTD: Tensor) -> Tensor:
        """The last normalization."""
        if self.config.norm == "rms":
            return rms_norm(x_BTD, norm_epsilon(self.config))
        normed: Tensor = self.final_norm(x_BTD)
        return normed

    def hidden(self, tokens_BT: Tensor, run_block: Callable[..., Tensor] = Block.forward) -> Tensor:
        """Last hidden vectors [B, T, D] of whole rows of at most `context` tokens, each row starting afresh.

        `run_block` may be a compiled `Block.forward`.
        """
        x0 = self.embed(tokens_BT, 0, None)
        x = x0.clone()  # never the same tensor: a compiled block would be compiled once more for that case
        angles = self.angles(0, tokens_BT.shape[1])
        for block, table in zip(self.blocks, self.tables(tokens_BT), strict=True):
            x = run_block(block, x, x0, table, *angles[block.local])
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

    # ---- training ------------------------------------------------------------------------------------------------

    def training_parts(self, compile: Callable[[Callable[..., Any]], Callable[..., Any]] | None) -> dict[str, Any]:
        """What `training_loss` takes besides its batch: the block and the loss kernel, compiled where asked for."""
        from textmill.models.cross_entropy import chunk_loss

        return {
            "run_block": compile(Block.forward) if compile else Block.forward,
            "kernel": compile(chunk_loss) if compile else chunk_loss,
        }

    def training_loss(
        self, batch: dict[str, Tensor], scale: float, state: Any = None, **parts: Any
    ) -> tuple[Tensor, None]:
        """Next-token loss of `batch["tokens"]` [B, T] against `batch["targets"]`: the sum of nats times `scale`."""
        from textmill.models.cross_entropy import linear_cross_entropy

        hidden = self.hidden(batch["tokens"], parts.get("run_block", Block.forward))
        more = {"kernel": parts["kernel"]} if "kernel" in parts else {}
        cap = self.config.logit_softcap
        targets = batch["targets"].flatten()
        loss = linear_cross_entropy(hidden.flatten(0, 1), self.head_weight, targets, cap=cap, scale=scale, **more)
        balances = [module.balance for module in self.modules() if isinstance(module, Experts)]
        if balances and self.config.balance_loss:
            share = self.config.balance_loss * int((targets >= 0).sum()) * scale
            loss = loss + share * torch.stack([one for one in balances if one is not None]).mean()
        return loss, None

    def parameter_roles(self) -> dict[str, list[nn.Parameter]]:
        """Every parameter once, by its part in the model: what an optimizer has to know."""
        tied = self.config.tied_head
        routers = [p for name, p in self.blocks.named_parameters() if ".router." in name or ".shared_gate." in name]
        matrices = [p for p in self.blocks.parameters() if p.ndim == 2 and not any(p is one for one in routers)]
        added = [table.weight for table in self.value_tables.values()]
        if self.config.bigram_buckets:
            added.append(self.bigram.weight)
        tables = [module.weight for module in self.modules() if isinstance(module, nn.Embedding)]
        tables = [p for p in tables if not any(p is one for one in added)]
        head = tables if tied else [self.head.weight]  # a tied table is the output matrix too: the head's gentle rate
        known = {id(p) for p in (*matrices, *routers, *added, *tables, *head)}
        return {
            "table": [] if tied else tables,
            "added_table": added,
            "head": head,
            "scalar": [p for p in self.parameters() if id(p) not in known],
            "dense": routers,
            "matrix": matrices,
        }

    # ---- one family among others (only inside Textmill; an exported model does without) ----------------------------

    @classmethod
    def ladder(cls, vocabulary: int, context: int, train_tokens: int) -> list[Any]:
        """Configurations to choose from, small to large; how much text there is does not change them."""
        from textmill.models.presets import ladder

        return ladder(vocabulary, context)

    def save(self, folder: Path, document_end: int | None) -> None:
        """Write config.json and model.safetensors into `folder` (models/load.py)."""
        from textmill.models.load import save_model

        save_model(self, folder, document_end=document_end)

    @classmethod
    def load(cls, folder: Path, device: str | torch.device, precision: Literal["fp32", "bf16"]) -> Transformer:
        """Open a model folder in evaluation mode (models/load.py)."""
        from textmill.models.load import load_model

        model: Transformer = load_model(folder, device, precision)
        return model

    # ---- the protocol: start and read ----------------------------------------------------------------------------

    def start(self, batch: int) -> State:
        """The state before any token."""
        return State(batch)

    @torch.no_grad()
    def read(self, tokens_BT: Tensor, state: State) -> tuple[Tensor, State]:
        """Read tokens and return log-probabilities [B, T, V] of what follows each, and the new state.

        Rotary models slide: each token sees at most `context` tokens back, itself included. Models with a learned
        or sinusoidal table of positions start over from the last half of the context when the table ends.
        """
        pieces = []
        for part in tokens_BT.split(self.config.context, dim=1):
            while part.shape[1]:
                room = self.config.context - state.length
                slides = self.config.position == "rotary"
                if not slides and room == 0:
                    state = self._start_over(state)
                    room = self.config.context - state.length
                size = part.shape[1] if slides else min(room, part.shape[1])
                pieces.append(self.logits(self._extend(part[:, :size], state)).log_softmax(-1))
                part = part[:, size:]
        return torch.cat(pieces, 1), state

    def _start_over(self, state: State) -> State:
        assert state.recent is not None
        fresh = self.start(state.batch)
        self._extend(state.recent[:, -(self.config.context // 2) :], fresh)
        return fresh

    def _make_room(self, state: State, batch: int, positions: int) -> None:
        """Room for this many positions in the cache; it doubles, so that a long context costs what is used of it."""
        config = self.config
        capacity = state.keys[0].shape[2] if state.keys else 0
        if positions <= capacity:
            return
        shape = (batch, kv_heads(config), min(2 * config.context, max(SMALLEST_CACHE, 2 * capacity, positions)))
        for name in ("keys", "values"):
            new = [
                torch.empty((*shape, head_size(config)), dtype=self.compute_dtype, device=self.device)
                for _ in self.blocks
            ]
            for buffer, before in zip(new, getattr(state, name), strict=False):
                buffer[:, :, : state.length] = before[:, :, : state.length]
            setattr(state, name, new)

    def _extend(self, tokens_BT: Tensor, state: State) -> Tensor:
        """Hidden vectors of new tokens, their keys and values added to the state in place."""
        config, T = self.config, tokens_BT.shape[1]
        if state.length + T > 2 * config.context:  # slide: keep what the next token may still see
            keep = config.context
            for buffer in (*state.keys, *state.values):
                buffer[:, :, :keep] = buffer[:, :, state.length - keep : state.length].clone()
            state.length = keep
        self._make_room(state, tokens_BT.shape[0], state.length + T)
        previous = None if state.recent is None else state.recent[:, -1]
        x0 = x = self.embed(tokens_BT, state.position, previous)
        angles = self.angles(state.position, T)
        S, total = state.length, state.length + T
        masks: dict[int, Tensor] = {}
        for index, (block, table) in enumerate(zip(self.blocks, self.tables(tokens_BT), strict=True)):
            x = block.enter(x, x0)
            q, k, v = block.attention.project(block.norm(x, 1), *angles[block.local], table)
            state.keys[index][:, :, S:total] = k
            state.values[index][:, :, S:total] = v
            reach = block.attention.reach
            seen = slice(max(0, S - reach + 1), total)  # from the oldest key that any of the new tokens may see
            if T > 1 and reach not in masks:
                masks[reach] = visible(T, total - seen.start, reach, self.device)
            mixed = block.attention.mix(
                q, state.keys[index][:, :, seen], state.values[index][:, :, seen], masks.get(reach)
            )
            x = block.finish(x, mixed)
        state.length = total
        state.position += T
        seen = tokens_BT if state.recent is None else torch.cat((state.recent, tokens_BT), 1)
        state.recent = seen[:, -config.context :]
        return self.final(x)
