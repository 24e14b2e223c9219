"""What all models with a state of fixed size share: the loss with carried state, reading, and scoring side by side.

Shape legend: B rows, T tokens, D size of the last hidden vector, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textmill.base.files import read_json
from textmill.models.cross_entropy import CHUNK_ELEMENTS, chunk_loss, eager_chunk_loss, linear_cross_entropy
from textmill.models.neural import CONFIG, NeuralModel

SCORED_ROWS = 64
"""Documents that `score` reads side by side."""
SCORED_TOKENS = 4096
"""Tokens that `score` reads at once."""

State = list[Tensor]
"""Everything that is remembered: tensors [B, …], all zero before the first token."""


def locked_dropout(x_BTD: Tensor, share: float, training: bool) -> Tensor:
    """Dropout with one mask for all positions of a row (Gal and Ghahramani 2016)."""
    if not training or not share:
        return x_BTD
    mask = torch.empty(x_BTD.shape[0], 1, x_BTD.shape[2], device=x_BTD.device).bernoulli_(1 - share)
    return x_BTD * mask.div_(1 - share).to(x_BTD.dtype)


class StatefulModel(NeuralModel):
    """A language model whose state has one size however much was read (protocol `LanguageModel`).

    A family gives `embedding`, `head_weight`, `start` and `hidden`.

    Attributes:
        document_end: id of the document-end token, by which `score` tells documents apart.
    """

    carries: ClassVar[bool] = True
    bf16: ClassVar[bool] = True
    embedding: nn.Embedding

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.context = None
        self.document_end = 0

    @classmethod
    def load(
        cls, folder: Path, device: str | torch.device | None = None, precision: Literal["bf16", "fp32"] = "fp32"
    ) -> Self:
        """Open a folder that `save` wrote, in evaluation mode (`NeuralModel.load`)."""
        model = super().load(folder, device, precision)
        model.document_end = read_json(folder / CONFIG).get("document_end") or 0
        return model

    # ---- what a family gives -------------------------------------------------------------------------------------

    @property
    def head_weight(self) -> Tensor:
        """The output matrix [V, D]."""
        raise NotImplementedError

    @property
    def head_bias(self) -> Tensor | None:
        """The output's bias [V], or None."""
        return None

    def start(self, batch: int) -> State:
        """The state before any token."""
        raise NotImplementedError

    def hidden(self, tokens_BT: Tensor, state: State) -> tuple[Tensor, State]:
        """Last hidden vectors [B, T, D] and the state after the last token; gradients flow through both."""
        raise NotImplementedError

    def finish(self, hidden_BTD: Tensor) -> tuple[Tensor, Tensor | None]:
        """What enters the output matrix while training, and a penalty that joins the mean loss."""
        return hidden_BTD, None

    # ---- training ------------------------------------------------------------------------------------------------

    def restarted(self, state: State) -> State:
        """The state with a random share of its rows (`config.restart`) empty again."""
        if not self.config.restart:
            return state
        kept = torch.rand(state[0].shape[0], device=state[0].device) >= self.config.restart
        return [part * kept.view(-1, *([1] * (part.ndim - 1))) for part in state]

    def training_parts(self, compile: Callable[[Callable[..., Any]], Callable[..., Any]] | None) -> dict[str, Any]:
        """What `training_loss` takes besides its batch: the loss kernel, compiled where asked for."""
        return {"kernel": compile(chunk_loss) if compile else eager_chunk_loss}

    def training_loss(
        self,
        batch: dict[str, Tensor],
        scale: float,
        state: State | None = None,
        kernel: Callable[..., tuple[Tensor, Tensor]] = eager_chunk_loss,
    ) -> tuple[Tensor, State]:
        """Cross-entropy of the next token, by truncated back-propagation with the state carried over.

        Args:
            batch: "tokens" and "targets", int64 [B, T]; targets of -1 do not count.
            scale: factor of the sum of nats; one over the number of targets that count gives the mean.
            state: what the step before returned, where these rows go on from its rows.
            kernel: the loss of a chunk of logits, from `training_parts`.

        Returns:
            the loss, penalties included; the detached state.
        """
        tokens, targets = batch["tokens"], batch["targets"]
        state = self.start(len(tokens)) if state is None else self.restarted(state)
        length = tokens.shape[1]
        if getattr(self.config, "random_cut", False) and length > 1:
            cut = int(torch.randint(1, length, ()))
            first, state = self.hidden(tokens[:, :cut], state)
            second, state = self.hidden(tokens[:, cut:], [part.detach() for part in state])
            raw = torch.cat((first, second), 1)
        else:
            raw, state = self.hidden(tokens, state)
        hidden, penalty = self.finish(raw)
        loss = linear_cross_entropy(
            hidden.flatten(0, 1),
            self.head_weight,
            targets.flatten(),
            scale=scale,
            bias=self.head_bias,
            kernel=kernel,
        )
        if penalty is not None:
            loss = loss + penalty * (scale * (targets >= 0).sum())  # this batch's share of the whole step
        return loss, [part.detach() for part in state]

    # ---- reading and scoring -------------------------------------------------------------------------------------

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (float32) of hidden vectors [..., D]."""
        raw = F.linear(hidden, self.head_weight.to(hidden.dtype)).float()
        return raw if self.head_bias is None else raw + self.head_bias

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits [B, T, V] of whole rows, each from an empty state."""
        return self.logits(self.hidden(tokens_BT, self.start(len(tokens_BT)))[0])

    @torch.no_grad()
    def read(self, tokens_BT: Tensor, state: State) -> tuple[Tensor, State]:
        """Read tokens; log-probabilities [B, T, V] of what follows each, and the new state."""
        hidden, state = self.hidden(tokens_BT, state)
        return self.logits(hidden).log_softmax(-1), state

    def log_probs_of(self, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
        """Log-probabilities [N] of targets, with few logits at once."""
        rows = max(1, CHUNK_ELEMENTS // self.vocabulary)
        found = [
            -F.cross_entropy(self.logits(hidden_ND[i : i + rows]), targets_N[i : i + rows], reduction="none")
            for i in range(0, len(hidden_ND), rows)
        ]
        return torch.cat(found) if found else torch.zeros(0, device=self.device)

    @torch.no_grad()
    def target_log_probs(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Log-probability in nats [B, T] of each target, each row from an empty state; 0 where the target is -1."""
        wanted = targets_BT >= 0
        hidden, _ = self.hidden(tokens_BT, self.start(len(tokens_BT)))
        scores = torch.zeros(targets_BT.shape, device=self.device)
        scores[wanted] = self.log_probs_of(hidden[wanted], targets_BT[wanted])
        return scores

    @torch.no_grad()
    def score(self, ids: np.ndarray) -> np.ndarray:
        """Log-probabilities, in nats, of documents read side by side, the longest first.

        Args:
            ids: int64 [N], documents each closed by the document-end token (the last one may be cut).

        Returns:
            float64 [N]; each document's first token is predicted after one document-end token, as by `read`.
        """
        ids = np.asarray(ids, dtype=np.int64)
        found = np.empty(len(ids))
        ends = np.flatnonzero(ids == self.document_end) + 1
        if len(ids) and (not len(ends) or ends[-1] != len(ids)):
            ends = np.append(ends, len(ids))
        begins = np.concatenate(([0], ends[:-1])) if len(ends) else ends
        order = np.argsort(begins - ends, kind="stable")  # longest first
        for group in range(0, len(order), SCORED_ROWS):
            rows = order[group : group + SCORED_ROWS]
            self._score_rows(ids, found, begins[rows], ends[rows])
        return found

    def _score_rows(self, ids: np.ndarray, found: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> None:
        """Score documents ids[begin:end], the longest first, writing into `found`."""
        lengths = ends - begins
        state = self.start(len(begins))
        at = 0
        while at < lengths[0]:
            rows = int((lengths > at).sum())
            piece = int(min(lengths[0] - at, max(1, SCORED_TOKENS // rows)))
            places = begins[:rows, None] + at + np.arange(piece)
            inside = places < ends[:rows, None]
            targets = np.where(inside, ids[np.minimum(places, len(ids) - 1)], self.document_end)
            before = np.where(inside, ids[np.clip(places - 1, 0, len(ids) - 1)], self.document_end)
            if at == 0:
                before[:, 0] = self.document_end
            state = [part[:rows] for part in state]
            hidden, state = self.hidden(torch.from_numpy(before).to(self.device), state)
            mask = torch.from_numpy(inside).to(self.device)
            values = self.log_probs_of(hidden[mask], torch.from_numpy(targets).to(self.device)[mask])
            found[places[inside]] = values.double().cpu().numpy()
            at += piece
