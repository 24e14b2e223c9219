"""The encoder-decoder: reads one text in both directions, writes another from left to right. No files but `save`.

Shape legend: B rows, T tokens of the decoder, S tokens of the source, P keys that the cache holds, D width, H heads,
K head size, V vocabulary, R rows of the table (V and the sentinels).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textmill.base.errors import UsageError
from textmill.models.cross_entropy import chunk_loss, linear_cross_entropy
from textmill.models.encoder_decoder.config import EncoderDecoderConfig, is_t5
from textmill.models.encoder_decoder.parts import Block, bucket
from textmill.models.neural import NeuralModel
from textmill.models.transformer_parts import Norm, rms_norm, rotary_table

LOGIT_ELEMENTS = 1 << 22
"""Logits held at once when scoring (16 MB)."""


@dataclass
class Memory:
    """What the encoder made of the sources, as every block of the decoder looks at it.

    Attributes:
        keys, values: for each decoder block [B, H, S, K].
        mask: bool [B, 1, 1, S], True where a source has a token; None where all are equally long.
    """

    keys: list[Tensor]
    values: list[Tensor]
    mask: Tensor | None


@dataclass
class State:
    """What the model remembers between reads: the encoded sources and a window of the decoder's keys and values.

    Attributes:
        memory: the encoded sources.
        keys, values: for each decoder block [B, H, P, K]; empty before the first read.
        position: tokens that the decoder has read.
    """

    memory: Memory
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    position: int = 0


class EncoderDecoder(NeuralModel):
    """An encoder-decoder Transformer (Vaswani et al. 2017) in the manner of T5 and BART, trained to undo noise.

    It is a language model too (protocol `LanguageModel`): with an empty source the decoder reads from left to right,
    and a share of its training rows is of that kind. `start(batch, source)` takes sources.

    Args:
        config: shape, arrangement, and training mixture.
    """

    family = "encoder-decoder"
    config_class = EncoderDecoderConfig
    objective = "denoising"
    carries = False
    bf16 = True

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.rows, config.width)
        self.encoder = nn.ModuleList(Block(config, decoder=False) for _ in range(config.encoder_layers))
        self.decoder = nn.ModuleList(Block(config, decoder=True) for _ in range(config.decoder_layers))
        self.encoder_norm = Norm(config.width, "rms-weight", config.norm_epsilon)
        self.decoder_norm = Norm(config.width, "rms-weight", config.norm_epsilon)
        if config.position == "relative":
            self.encoder_bias = nn.Embedding(config.buckets, config.heads)
            self.decoder_bias = nn.Embedding(config.buckets, config.heads)
        if not config.tied_head:
            self.head = nn.Linear(config.width, config.rows, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initial weights.

        Modern: embedding N(0, 1), matrices uniform with variance 1 / width, output projections zero, output matrix
        N(0, 0.001). T5: N(0, 1 / fan-in), queries smaller by the root of the head size, because scores are not
        divided by it.
        """
        config = self.config
        width, inner = config.width, config.heads * config.head_size
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
        nn.init.normal_(self.embedding.weight, std=1.0)
        if config.position == "relative":
            for table in (self.encoder_bias, self.decoder_bias):
                nn.init.normal_(table.weight, std=0.0 if config.zero_init else width**-0.5)
        for block in (*self.encoder, *self.decoder):
            parts = [block.attention, *([block.cross] if hasattr(block, "cross") else [])]
            if config.zero_init:
                for module in block.modules():
                    if isinstance(module, nn.Linear):
                        nn.init.uniform_(module.weight, -((3 / width) ** 0.5), (3 / width) ** 0.5)
                for out in (*(part.out for part in parts), block.feed_forward.down):
                    nn.init.zeros_(out.weight)
            elif not config.qk_norm:
                for part in parts:
                    layer = part.query if hasattr(part, "query") else part.query_key_value
                    nn.init.normal_(layer.weight[:inner], std=(width * config.head_size) ** -0.5)
        if not config.tied_head and config.zero_init:
            nn.init.normal_(self.head.weight, std=0.001)

    @property
    def head_weight(self) -> Tensor:
        """The output matrix [R, D]."""
        return self.embedding.weight if self.config.tied_head else self.head.weight

    # ---- from tokens to vectors ----------------------------------------------------------------------------------

    def _enter(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        if self.config.embedding_norm:
            x = rms_norm(x)
        x = x.to(self.compute_dtype)
        return F.dropout(x, self.config.dropout, self.training) if self.config.dropout else x

    def _leave(self, x: Tensor, norm: nn.Module) -> Tensor:
        x = norm(x)
        return F.dropout(x, self.config.dropout, self.training) if self.config.dropout else x

    def _angles(self, start: int, length: int) -> tuple[Tensor | None, Tensor | None]:
        if self.config.position != "rotary":
            return None, None
        return rotary_table(start, length, self.config.head_size, self.device)

    def _bias(self, table: nn.Embedding, queries: Tensor, keys: Tensor, both: bool) -> Tensor:
        """The bias of each pair of positions, [1, H, T, P]."""
        distance = keys[None, :] - queries[:, None]
        rows = table(bucket(distance, both, self.config.buckets, self.config.furthest))
        return rows.permute(2, 0, 1)[None].to(self.compute_dtype)

    def encode(self, source_BS: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """What the encoder makes of the sources, [B, S, D].

        Args:
            source_BS: int64, each closed by the document end and padded at its end.
            lengths_B: int64, tokens of each without the padding; None where there is none.
        """
        S = source_BS.shape[1]
        mask = _padding(S, lengths_B)
        if self.config.position == "relative":
            places = torch.arange(S, device=source_BS.device)
            bias = self._bias(self.encoder_bias, places, places, both=True)
            mask = bias if mask is None else torch.where(mask, bias, -torch.inf)
        cos, sin = self._angles(0, S)
        x = self._enter(source_BS)
        for block in self.encoder:
            q, k, v = block.attention.project(block.norm_1(x), cos, sin)
            x = block.finish(x, block.attention.mix(q, k, v, mask))
        return self._leave(x, self.encoder_norm)

    def memory(self, source_BS: Tensor, lengths_B: Tensor | None = None) -> Memory:
        """`encode`, as every block of the decoder looks at it."""
        encoded = self.encode(source_BS, lengths_B)
        shown = [block.cross.show(encoded) for block in self.decoder]
        return Memory([k for k, _ in shown], [v for _, v in shown], _padding(source_BS.shape[1], lengths_B))

    def hidden(self, tokens_BT: Tensor, memory: Memory) -> Tensor:
        """The decoder's last hidden vectors [B, T, D] of whole rows of at most `context` tokens."""
        T = tokens_BT.shape[1]
        mask = None
        if self.config.position == "relative":
            places = torch.arange(T, device=tokens_BT.device)
            bias = self._bias(self.decoder_bias, places, places, both=False)
            mask = bias.masked_fill(places[None, :] > places[:, None], -torch.inf)
        cos, sin = self._angles(0, T)
        x = self._enter(tokens_BT)
        for i, block in enumerate(self.decoder):
            q, k, v = block.attention.project(block.norm_1(x), cos, sin)
            mixed = block.attention.mix(q, k, v, mask, causal=mask is None)
            x = block.finish(x, mixed, (memory.keys[i], memory.values[i], memory.mask))
        return self._leave(x, self.decoder_norm)

    def before_output(self, hidden: Tensor) -> Tensor:
        """Hidden vectors as the output matrix takes them."""
        return hidden * self.config.width**-0.5 if self.config.tied_head else hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Capped logits [..., R] (float32), sentinels last."""
        raw = F.linear(self.before_output(hidden), self.head_weight.to(hidden.dtype)).float()
        cap = self.config.logit_softcap
        return cap * torch.tanh(raw / cap) if cap else raw

    def forward(self, source_BS: Tensor, tokens_BT: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Logits [B, T, R] of what the decoder writes after each of `tokens_BT`, given the sources."""
        return self.logits(self.hidden(tokens_BT, self.memory(source_BS, lengths_B)))

    @property
    def around(self) -> tuple[list[int], list[int]]:
        """Tokens before and after a text that is embedded: it stands where sources do."""
        return [], [self.config.document_end]

    @torch.no_grad()
    def embed(
        self,
        tokens_BT: Tensor,
        lengths_B: Tensor,
        pooling: Literal["mean", "cls"] = "mean",
        normalize: bool = True,
    ) -> Tensor:
        """One vector for each source, float32 [B, D]: the mean of the encoder's, or its first (Ni et al. 2022).

        Args: as of `Bert.embed`.
        """
        from textmill.models.bert.model import pool

        return pool(self.encode(tokens_BT, lengths_B).float(), lengths_B, pooling, normalize)

    # ---- scores --------------------------------------------------------------------------------------------------

    def empty_source(self, rows: int) -> Tensor:
        """Sources of one document end [B, 1]: the decoder is a plain language model."""
        return torch.full((rows, 1), self.config.document_end, dtype=torch.int64, device=self.device)

    @torch.no_grad()
    def target_log_probs(
        self,
        tokens_BT: Tensor,
        targets_BT: Tensor,
        source_BS: Tensor | None = None,
        lengths_B: Tensor | None = None,
    ) -> Tensor:
        """Log-probability in nats [B, T] of each target; 0 where it is -1, whose logits are never made.

        Args:
            tokens_BT, targets_BT: as of every family.
            source_BS, lengths_B: as of `encode`; an empty source by default.
        """
        source = self.empty_source(len(tokens_BT)) if source_BS is None else source_BS
        wanted = (targets_BT >= 0).flatten()
        hidden = self.hidden(tokens_BT, self.memory(source, lengths_B)).flatten(0, 1)[wanted]
        targets = targets_BT.flatten()[wanted]
        step = max(1, LOGIT_ELEMENTS // self.config.rows)
        scores = torch.zeros(wanted.shape, device=hidden.device)
        if len(hidden):
            parts = [self._log_probs(hidden[i : i + step]) for i in range(0, len(hidden), step)]
            scores[wanted] = torch.cat(
                [part.gather(1, targets[i * step : (i + 1) * step, None])[:, 0] for i, part in enumerate(parts)]
            )
        return scores.view(targets_BT.shape)

    def _log_probs(self, hidden: Tensor) -> Tensor:
        """Log-probabilities [..., V] over the tokenizer's tokens: sentinels stand for no text."""
        return self.logits(hidden)[..., : self.vocabulary].log_softmax(-1)

    # ---- the protocol: start and read ----------------------------------------------------------------------------

    @torch.no_grad()
    def start(self, batch: int, source: Tensor | None = None, lengths: Tensor | None = None) -> State:
        """The state before any token.

        Args:
            batch: rows.
            source: int64 [B, S], closed by the document end and padded; the empty source when left out.
            lengths: int64 [B], tokens of each source without the padding.
        """
        if source is not None and len(source) != batch:
            raise UsageError(f"{len(source)} sources do not fit {batch} rows.", fix="Give one source for each row.")
        return State(self.memory(self.empty_source(batch) if source is None else source, lengths))

    @torch.no_grad()
    def read(self, tokens_BT: Tensor, state: State) -> tuple[Tensor, State]:
        """Read tokens and return log-probabilities [B, T, V] of what follows each, and the new state.

        A token sees at most `context` tokens back, itself included.
        """
        pieces = [self._log_probs(self._extend(part, state)) for part in tokens_BT.split(self.config.context, dim=1)]
        return torch.cat(pieces, 1), state

    def _extend(self, tokens_BT: Tensor, state: State) -> Tensor:
        """Hidden vectors of new tokens; their keys and values join the state."""
        T, reach = tokens_BT.shape[1], self.config.context
        past = state.keys[0].shape[2] if state.keys else 0
        queries = torch.arange(state.position, state.position + T, device=tokens_BT.device)
        keys = torch.arange(state.position - past, state.position + T, device=tokens_BT.device)
        seen = (keys[None, :] <= queries[:, None]) & (keys[None, :] > queries[:, None] - reach)
        mask: Tensor = seen
        if self.config.position == "relative":
            bias = self._bias(self.decoder_bias, queries, keys, both=False)
            mask = bias.masked_fill(~seen, -torch.inf)
        cos, sin = self._angles(state.position, T)
        x = self._enter(tokens_BT)
        new_keys, new_values = [], []
        for i, block in enumerate(self.decoder):
            q, k, v = block.attention.project(block.norm_1(x), cos, sin)
            if past:
                k, v = torch.cat((state.keys[i], k), 2), torch.cat((state.values[i], v), 2)
            mixed = block.attention.mix(q, k, v, mask)
            x = block.finish(x, mixed, (state.memory.keys[i], state.memory.values[i], state.memory.mask))
            new_keys.append(k[:, :, -reach:])
            new_values.append(v[:, :, -reach:])
        state.keys, state.values = new_keys, new_values
        state.position += T
        return self._leave(x, self.decoder_norm)

    # ---- training ------------------------------------------------------------------------------------------------

    def training_parts(self, compile: Any) -> dict[str, Any]:
        """What `training_loss` takes besides its batch: the loss kernel, compiled where asked for.

        The blocks are not compiled: the lengths of sources and targets change from step to step.
        """
        return {"kernel": compile(chunk_loss) if compile else chunk_loss}

    def training_loss(
        self, batch: dict[str, Tensor], scale: float, state: Any = None, **parts: Any
    ) -> tuple[Tensor, None]:
        """Loss of what the decoder writes: the sum of nats over the targets that count, times `scale`; and None.

        Rows of like shape (no source; a short answer; a long one) are computed together, without the padding that
        they share, so that a row costs what its kind needs.

        Args:
            batch: "tokens" and "targets" int64 [B, T] of the decoder, -1 where nothing counts; "source" int64 [B, S]
                and "source_length" int64 [B].
            scale: factor of the sum.
        """
        tokens, targets, source, length = (batch[name] for name in ("tokens", "targets", "source", "source_length"))
        places = torch.arange(1, targets.shape[1] + 1, device=targets.device)
        written = ((targets >= 0) * places).amax(1)
        kind = torch.where(length <= 1, 0, torch.where(2 * written <= targets.shape[1], 1, 2))
        hidden, answers = [], []
        for one in range(3):
            rows = (kind == one).nonzero()[:, 0]
            if not len(rows):
                continue
            S, T = int(length[rows].max()), int(written[rows].max())
            if not T:
                continue
            memory = self.memory(source[rows, :S], length[rows] if one else None)
            hidden.append(self.hidden(tokens[rows, :T], memory).flatten(0, 1))
            answers.append(targets[rows, :T].flatten())
        if not hidden:
            return self.embedding.weight.sum() * 0.0, None
        counted = torch.cat(answers)
        asked = (counted >= 0).nonzero()[:, 0]
        loss = linear_cross_entropy(
            self.before_output(torch.cat(hidden)[asked]),
            self.head_weight,
            counted[asked],
            cap=self.config.logit_softcap,
            scale=scale,
            **parts,
        )
        return loss, None

    def parameter_roles(self) -> dict[str, list[nn.Parameter]]:
        """Every parameter once, by its part in the model: what an optimizer has to know."""
        matrices = [p for block in (*self.encoder, *self.decoder) for p in block.parameters() if p.ndim == 2]
        tied = self.config.tied_head
        head = [self.embedding.weight] if tied else [self.head.weight]
        tables = [] if tied else [self.embedding.weight]
        known = {id(p) for p in (*matrices, *tables, *head)}
        rest = [p for p in self.parameters() if id(p) not in known]
        return {"table": tables, "head": head, "matrix": matrices, "scalar": rest}

    @classmethod
    def ladder(cls, vocabulary: int, context: int, train_tokens: int) -> list[EncoderDecoderConfig]:
        """Sizes to choose from, small to large, in the modern arrangement: two decoder layers for one of the encoder.

        Args:
            vocabulary, context: as in `EncoderDecoderConfig`.
            train_tokens: tokens of the training split; it decides nothing here, the planner weighs size against it.
        """
        del train_tokens
        shapes = [(1, 2, 128), (2, 4, 128), (2, 4, 192), (2, 4, 256), (3, 6, 384), (4, 8, 512), (6, 12, 768)]
        return [
            EncoderDecoderConfig(
                vocabulary=vocabulary,
                context=context,
                encoder_layers=encoder,
                decoder_layers=decoder,
                width=width,
                heads=width // 64,
                hidden=4 * width,
            )
            for encoder, decoder, width in shapes
        ]

    # ---- files ---------------------------------------------------------------------------------------------------

    def save(self, folder: Path, document_end: int | None = None) -> None:
        """Write config.json and model.safetensors; T5's arrangement under the names of its stock class."""
        if not is_t5(self.config):
            super().save(folder, document_end)
            return
        from textmill.models.encoder_decoder.files import save_t5

        save_t5(self, folder)

    @classmethod
    def load(
        cls, folder: Path, device: str | torch.device | None = None, precision: Literal["fp32", "bf16"] = "fp32"
    ) -> Self:
        """Open what `save` wrote, ready to score and write (evaluation mode)."""
        from textmill.models.encoder_decoder.files import import_t5, is_t5_folder

        if is_t5_folder(folder):
            return import_t5(folder, device, precision)
        return super().load(folder, device, precision)


def _padding(length: int, lengths_B: Tensor | None) -> Tensor | None:
    """Where rows have tokens, bool [B, 1, 1, S]."""
    if lengths_B is None:
        return None
    return (torch.arange(length, device=lengths_B.device) < lengths_B[:, None])[:, None, None]
