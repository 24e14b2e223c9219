"""The BERT encoder: reads a text in both directions and fills in what is masked. No files but through `save`.

Shape legend: B rows, T tokens, D width, H heads, K head size, V vocabulary, n masked positions.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NoReturn, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textmill.base.errors import UsageError
from textmill.models.bert.config import BertConfig, is_stock
from textmill.models.bert.parts import ACTIVATIONS, Block, make_norm
from textmill.models.cross_entropy import chunk_loss, linear_cross_entropy
from textmill.models.neural import NeuralModel
from textmill.models.transformer_parts import linear, rotary_table

MASKS_APART = 16
"""Masked positions of one copy when scoring lie so many tokens apart."""
COPY_TOKENS = 16_384
"""Tokens of masked copies read at once when scoring."""
LOGIT_ELEMENTS = 1 << 22
"""Logits held at once when scoring (16 MB)."""


class Bert(NeuralModel):
    """A bidirectional encoder trained to fill in masked tokens (Devlin et al. 2019).

    It predicts no next token: `start` and `read` refuse. What it gives instead: `pseudo_log_likelihood` for scores,
    `embed` for vectors, and `hidden` for the heads of `heads.py`.

    Args:
        config: shape and arrangement.
    """

    family = "bert"
    config_class = BertConfig
    bf16 = True
    objective = "masked-token"
    carries = False
    validation_tokens = 16_384
    """Targets of a validation during training: each of its windows is read `MASKS_APART` times."""
    pseudo_likelihood = True
    """Its bits per byte come from tokens that are predicted from both sides: not comparable with other families'."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        if config.position == "learned":
            self.position = nn.Embedding(config.context + 1, config.width)
        if config.token_types:
            self.token_type = nn.Embedding(config.token_types, config.width)
        self.embedding_norm = make_norm(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        if config.norm_place == "pre":
            self.final_norm = make_norm(config)
        if config.head == "transform":
            self.transform = nn.Linear(config.width, config.width)
            self.transform_norm = make_norm(config)
            self.output_bias = nn.Parameter(torch.zeros(config.vocabulary))
        if config.head != "none" and not config.tied_head:
            self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        if config.pooler:
            self.pooler = nn.Linear(config.width, config.width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initial weights.

        Stock: N(0, 0.02), biases zero. Modern: embedding N(0, 1) (normalized right after), matrices uniform with
        variance 1 / width, output projections zero, output matrix N(0, 0.001).
        """
        config = self.config
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        if not config.zero_init:
            return
        bound = 3**0.5 * config.width**-0.5
        for block in self.blocks:
            nn.init.uniform_(block.qkv.weight, -bound, bound)
            nn.init.uniform_(block.up.weight, -bound, bound)
            nn.init.zeros_(block.out.weight)
            nn.init.zeros_(block.down.weight)
        if not config.tied_head:
            nn.init.normal_(self.embedding.weight, std=1.0)
            if config.head != "none":
                nn.init.normal_(self.head.weight, std=0.001)

    # ---- from tokens to vectors ----------------------------------------------------------------------------------

    def hidden(
        self,
        tokens_BT: Tensor,
        lengths_B: Tensor | None = None,
        token_types_BT: Tensor | None = None,
        run_block: Callable[..., Tensor] = Block.forward,
    ) -> Tensor:
        """Last hidden vectors [B, T, D].

        Args:
            tokens_BT: int64, at most context + 1 long.
            lengths_B: int64, tokens of each row that are text; what follows them is padding that no token looks at.
                None where there is no padding.
            token_types_BT: int64, the sentence that each token belongs to; 0 for all by default.
            run_block: `Block.forward`, or its compiled form.

        Raises:
            UsageError: the rows are too long, or a token is outside the vocabulary.
        """
        config, T = self.config, tokens_BT.shape[1]
        if config.context + 1 < T:
            raise UsageError(
                f"A text of {T} tokens is too long for this encoder.",
                f"It reads {config.context + 1} tokens at once.",
                "Cut the text into shorter pieces.",
            )
        x = self.embedding(tokens_BT)
        if config.token_types:
            x = x + (self.token_type.weight[0] if token_types_BT is None else self.token_type(token_types_BT))
        if config.position == "learned":
            x = x + self.position.weight[:T]
        x = self.embedding_norm(x).to(self.compute_dtype)
        if config.dropout:
            x = F.dropout(x, config.dropout, self.training)
        cos, sin = rotary_table(0, T, config.head_size, x.device) if config.position == "rotary" else (None, None)
        mask = None
        if lengths_B is not None:
            mask = (torch.arange(T, device=x.device) < lengths_B[:, None])[:, None, None]
        for block in self.blocks:
            x = run_block(block, x, mask, cos, sin)
        return self.final_norm(x) if config.norm_place == "pre" else x

    @property
    def head_weight(self) -> Tensor:
        """The output matrix [V, D]."""
        self._need_head()
        return self.embedding.weight if self.config.tied_head else self.head.weight

    def _need_head(self) -> None:
        if self.config.head == "none":
            raise UsageError(
                "This encoder cannot fill in masked tokens.",
                "It came without the head that predicts them; it gives embeddings alone.",
                "Import a model that was saved as BertForMaskedLM, or train one: textmill build TEXTS --family bert",
            )

    def before_output(self, hidden: Tensor) -> Tensor:
        """Hidden vectors [..., D] as the output matrix takes them."""
        self._need_head()
        if self.config.head != "transform":
            return hidden
        return self.transform_norm(ACTIVATIONS[self.config.activation](linear(self.transform, hidden)))

    def logits(self, hidden: Tensor) -> Tensor:
        """Capped logits [..., V] (float32) of hidden vectors [..., D]."""
        vectors = self.before_output(hidden)
        bias = self.output_bias.to(vectors.dtype) if self.config.head == "transform" else None
        raw = F.linear(vectors, self.head_weight.to(vectors.dtype), bias).float()
        cap = self.config.logit_softcap
        return cap * torch.tanh(raw / cap) if cap else raw

    def forward(self, tokens_BT: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Logits [B, T, V] of every position, of what stands there."""
        return self.logits(self.hidden(tokens_BT, lengths_B))

    def pooled(self, hidden_BTD: Tensor) -> Tensor:
        """BERT's pooler: tanh of a dense layer over the first token [B, D]; the bare first vector without one."""
        first = hidden_BTD[:, 0]
        return torch.tanh(linear(self.pooler, first)) if self.config.pooler else first

    # ---- embeddings ----------------------------------------------------------------------------------------------

    @property
    def around(self) -> tuple[list[int], list[int]]:
        """Tokens before and after a text that is embedded."""
        return [self.config.begin], [self.config.finish]

    @torch.no_grad()
    def embed(
        self,
        tokens_BT: Tensor,
        lengths_B: Tensor,
        pooling: Literal["mean", "cls"] = "mean",
        normalize: bool = True,
    ) -> Tensor:
        """One vector for each row, float32 [B, D].

        Args:
            tokens_BT: int64, each text between what `around` says, padded at its end.
            lengths_B: int64, tokens of each row without the padding.
            pooling: the mean of all tokens' vectors, those around the text included (Reimers and Gurevych 2019), or
                the first token's.
            normalize: to length 1, so that a dot product is a cosine.
        """
        hidden = self.hidden(tokens_BT, lengths_B).float()
        return pool(hidden, lengths_B, pooling, normalize)

    # ---- scores --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def pseudo_log_likelihood(
        self,
        tokens_BT: Tensor,
        targets_BT: Tensor,
        *,
        apart: int | None = None,
        words_BT: Tensor | None = None,
    ) -> Tensor:
        """Log-probability in nats [B, T] of each target, masked, given everything around it; 0 where it is -1.

        Exact (by default) each target has a copy of its row of its own, in which it alone is masked (Salazar et al.
        2020, eq. 1): T copies of a row of T. With `apart` = m one copy masks every m-th position: m copies, and an
        approximation, for what is masked beside a target tells nothing of it.

        Args:
            tokens_BT: int64, what is read before each target.
            targets_BT: int64, the token that follows each; -1 where it is not to be scored. After the last target
                that counts, a row is padding.
            apart: distance of the positions masked together; None for one at a time.
            words_BT: int64, a number for each target's word, equal for the tokens of one word. Given, those that
                follow the target in its own word are masked too, so that a word is spelled from left to right
                (PLL-word-l2r: Kauf and Ivanova 2023).
        """
        if apart is not None and words_BT is not None:
            raise UsageError(
                "Scoring by words needs a copy for each token.",
                "What is masked together would overlap.",
                "Leave out apart.",
            )
        rows, lengths = _text_of(tokens_BT, targets_BT)
        wanted = targets_BT >= 0
        row, place = wanted.nonzero(as_tuple=True)
        scores = torch.zeros(targets_BT.shape, dtype=torch.float32, device=tokens_BT.device)
        if not len(row):
            return scores
        # Copies: those of one row that share the remainder of the place by `apart` are masked together.
        key = row * tokens_BT.shape[1] + (place if apart is None else place % apart)
        _, copy = key.unique(return_inverse=True)
        source = torch.zeros(int(copy.max()) + 1, dtype=torch.int64, device=row.device).scatter_(0, copy, row)
        order = copy.argsort(stable=True)
        row, place, copy = row[order], place[order], copy[order]
        size = max(1, COPY_TOKENS // rows.shape[1])
        for start in range(0, len(source), size):
            part = (copy >= start) & (copy < start + size)
            at, where = copy[part] - start, place[part] + 1  # the target of place t stands at t + 1
            copies = rows[source[start : start + size]].clone()
            if words_BT is not None:
                words = words_BT[row[part]]
                later = torch.arange(words.shape[1], device=words.device) > place[part][:, None]
                same = later & (words == words.gather(1, place[part][:, None]))
                spelled, after = same.nonzero(as_tuple=True)
                copies[at[spelled], after + 1] = self.config.mask
            copies[at, where] = self.config.mask
            hidden = self.hidden(copies, lengths[source[start : start + size]])[at, where]
            answers = targets_BT[row[part], place[part]]
            step = max(1, LOGIT_ELEMENTS // self.vocabulary)
            scores[row[part], place[part]] = torch.cat(
                [
                    -F.cross_entropy(self.logits(hidden[i : i + step]), answers[i : i + step], reduction="none")
                    for i in range(0, len(hidden), step)
                ]
            )
        return scores

    def target_log_probs(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """`pseudo_log_likelihood` with one position in `MASKS_APART` masked together, for scoring a whole corpus."""
        return self.pseudo_log_likelihood(tokens_BT, targets_BT, apart=MASKS_APART)

    # ---- the protocol: an honest refusal -------------------------------------------------------------------------

    def start(self, batch: int) -> NoReturn:
        """Refuse: an encoder reads a text as a whole.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "A BERT encoder has no next-token distribution.",
            "It sees both sides of a token and can only fill gaps; it cannot write on or chat.",
            "Use it for embeddings (textmill embed RUN TEXT) or scores (textmill evaluate RUN). To write, build "
            "another family: textmill build TEXTS --family transformer",
        )

    def read(self, tokens: Tensor, state: Any) -> NoReturn:
        """Refuse, as `start` does."""
        self.start(len(tokens))

    # ---- training ------------------------------------------------------------------------------------------------

    def training_parts(self, compile: Callable[[Callable[..., Any]], Callable[..., Any]] | None) -> dict[str, Any]:
        """What `training_loss` takes besides its batch: the block and the loss kernel, compiled where asked for."""
        return {
            "run_block": compile(Block.forward) if compile else Block.forward,
            "kernel": compile(chunk_loss) if compile else chunk_loss,
        }

    def training_loss(
        self, batch: dict[str, Tensor], scale: float, state: Any = None, **parts: Any
    ) -> tuple[Tensor, None]:
        """Loss of the masked tokens: `batch["tokens"]` [B, T] with masks, `batch["targets"]` -1 where nothing is asked.

        Returns:
            the sum of nats times `scale`, and None. Hidden vectors that nothing is asked of meet no output matrix.
        """
        hidden = self.hidden(batch["tokens"], run_block=parts.get("run_block", Block.forward)).flatten(0, 1)
        targets = batch["targets"].flatten()
        asked = (targets >= 0).nonzero()[:, 0]
        more = {"kernel": parts["kernel"]} if "kernel" in parts else {}
        bias = self.output_bias if self.config.head == "transform" else None
        loss = linear_cross_entropy(
            self.before_output(hidden[asked]),
            self.head_weight,
            targets[asked],
            cap=self.config.logit_softcap,
            scale=scale,
            bias=bias,
            **more,
        )
        return loss, None

    def parameter_roles(self) -> dict[str, list[nn.Parameter]]:
        """Every parameter once, by its part in the model: what an optimizer has to know."""
        config = self.config
        matrices = [p for block in self.blocks for p in block.parameters() if p.ndim == 2]
        dense = [layer.weight for name in ("transform", "pooler") if (layer := getattr(self, name, None)) is not None]
        tables = [getattr(self, name).weight for name in ("position", "token_type") if hasattr(self, name)]
        tied = config.tied_head or config.head == "none"
        head = [self.embedding.weight] if tied else [self.head.weight]
        if tied:  # tables that are added to the output matrix's rows move as gently as these do
            head, tables = [*head, *tables], []
        else:
            tables = [self.embedding.weight, *tables]
        known = {id(p) for p in (*matrices, *dense, *tables, *head)}
        return {
            "table": tables,
            "head": head,
            "matrix": matrices,
            "dense": dense,
            "scalar": [p for p in self.parameters() if id(p) not in known],
        }

    @classmethod
    def ladder(cls, vocabulary: int, context: int, train_tokens: int) -> list[BertConfig]:
        """Sizes to choose from, small to large, in the modern arrangement.

        Args:
            vocabulary, context: as in `BertConfig`.
            train_tokens: tokens of the training split; it decides nothing here, the planner weighs size against it.
        """
        del train_tokens
        shapes = [(2, 128), (4, 128), (4, 192), (4, 256), (6, 256), (6, 384), (8, 512), (12, 640), (12, 768)]
        return [
            BertConfig(
                vocabulary=vocabulary, context=context, layers=layers, width=width, heads=width // 64, hidden=4 * width
            )
            for layers, width in shapes
        ]

    # ---- files ---------------------------------------------------------------------------------------------------

    def save(self, folder: Path, document_end: int | None = None) -> None:
        """Write config.json and model.safetensors; the stock arrangement under the names of `BertForMaskedLM`."""
        if not is_stock(self.config):
            super().save(folder, document_end)
            return
        from textmill.models.bert.files import save_stock

        save_stock(self, folder)

    @classmethod
    def load(
        cls, folder: Path, device: str | torch.device | None = None, precision: Literal["fp32", "bf16"] = "fp32"
    ) -> Self:
        """Open what `save` wrote, ready to score and embed (evaluation mode)."""
        from textmill.models.bert.files import is_stock_folder, load_stock

        if is_stock_folder(folder):
            return load_stock(folder, device, precision)
        return super().load(folder, device, precision)


def pool(hidden_BTD: Tensor, lengths_B: Tensor, pooling: Literal["mean", "cls"], normalize: bool) -> Tensor:
    """One vector [B, D] of each row's first `lengths_B` vectors: their mean, or the first; of length 1 if asked."""
    if pooling == "cls":
        found = hidden_BTD[:, 0]
    else:
        inside = torch.arange(hidden_BTD.shape[1], device=hidden_BTD.device) < lengths_B[:, None]
        found = (hidden_BTD * inside[..., None]).sum(1) / lengths_B[:, None].clamp_min(1)
    return F.normalize(found, dim=-1) if normalize else found


def _text_of(tokens_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
    """The text [B, T + 1] that shifted rows were cut from, and how long each is without its padding, [B].

    A target stands one place after the token that it follows; where it is -1, the next token is known from `tokens`.
    """
    T = tokens_BT.shape[1]
    following = torch.cat((tokens_BT[:, 1:], tokens_BT[:, -1:]), 1)
    text = torch.cat((tokens_BT[:, :1], torch.where(targets_BT >= 0, targets_BT, following)), 1)
    places = torch.arange(1, T + 1, device=tokens_BT.device)
    lengths = (places * (targets_BT >= 0)).amax(1) + 1
    return text[:, : int(lengths.max())], lengths
