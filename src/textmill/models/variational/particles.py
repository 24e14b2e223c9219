"""Left-to-right prediction with a latent vector for each segment: a mixture over samples of the prior."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from textmill.models.variational.layers import Hidden
from textmill.models.variational.noise import key_of, mix, normal
from textmill.models.variational.segments import ends_segment

if TYPE_CHECKING:
    from textmill.models.variational.segment_model import SegmentModel


@dataclass(frozen=True)
class ParticleState:
    """What is known after the tokens read so far, for B sequences and P particles.

    Attributes:
        batch: B.
        keys: uint64 [B], a hash of all tokens read, which names the next particles; None before the first token.
        length: int64 [B], tokens of the present segment that were read.
        code: [B P, L], what the decoder reads for each particle.
        hidden: the decoder's state of each particle.
        weights: [B, P], log-probability of the segment's tokens so far under each.
        following: [B, P, V], log-probabilities of the next token under each.
        beside: [B P, segment, R], states of the reverse decoder, or None.
    """

    batch: int
    keys: np.ndarray | None = None
    length: np.ndarray | None = None
    code: Tensor | None = None
    hidden: Hidden | None = None
    weights: Tensor | None = None
    following: Tensor | None = None
    beside: Tensor | None = None


def read_tokens(model: SegmentModel, tokens: Tensor, state: ParticleState) -> tuple[Tensor, ParticleState]:
    """`SegmentModel.read`: one token after another."""
    found = []
    for column in tokens.T:
        state = _advance(model, column, state)
        assert state.weights is not None
        assert state.following is not None
        found.append(torch.logsumexp(state.weights.log_softmax(1)[:, :, None] + state.following, 1))
    if not found:
        return torch.zeros(len(tokens), 0, model.vocabulary, device=tokens.device), state
    return torch.stack(found, 1), state


def _advance(model: SegmentModel, token: Tensor, state: ParticleState) -> ParticleState:
    """The state after one more token [B] of each sequence."""
    B, P, config = state.batch, model.config.particles, model.config
    ids = token.cpu().numpy()
    if state.keys is None or state.length is None or state.following is None or state.weights is None:
        before, length, over = np.full(B, key_of(config.seed, 1)), np.zeros(B, np.int64), np.ones(B, bool)
        weights = torch.zeros(B, P, device=token.device)
    else:
        before, length = state.keys, state.length + 1
        over = ends_segment(config, model.ends, ids, length)
        weights = state.weights + state.following.gather(2, token[:, None, None].expand(B, P, 1))[:, :, 0]
    keys = mix(before ^ mix(ids.astype(np.uint64)))
    state = replace(state, keys=keys, length=np.where(over, 0, length), weights=weights)
    if over.any():
        state = _renew(model, state, np.flatnonzero(over))
    assert state.code is not None
    assert state.length is not None
    where = torch.from_numpy(state.length).to(token.device)
    inputs = model.input_ids(token, where == 0).repeat_interleave(P)
    beside = None
    if state.beside is not None:
        rows = torch.arange(B * P, device=token.device)
        beside = state.beside[rows, where.repeat_interleave(P)]
    following, hidden = model.step(inputs, state.code, beside, state.hidden)
    return replace(state, hidden=hidden, following=following.view(B, P, -1))


def _renew(model: SegmentModel, state: ParticleState, rows: np.ndarray) -> ParticleState:
    """Fresh particles from the prior for these sequences, whose segment has just ended."""
    B, P = state.batch, model.config.particles
    assert state.keys is not None
    assert state.weights is not None
    device = state.weights.device
    z = torch.from_numpy(normal(state.keys[rows], P, model.config.latent)).to(device).flatten(0, 1)
    code = model.code(z)
    hidden, beside = model.decoder.begin(code), model.beside(model.reverse_states(code))
    if len(rows) == B:
        return replace(state, code=code, hidden=hidden, beside=beside, weights=torch.zeros_like(state.weights))
    assert state.code is not None
    assert state.hidden is not None
    places = (torch.from_numpy(rows)[:, None] * P + torch.arange(P)[None, :]).flatten().to(device)
    return replace(
        state,
        code=state.code.index_copy(0, places, code),
        hidden=tuple(old.index_copy(1, places, new) for old, new in zip(state.hidden, hidden, strict=True)),
        beside=None if beside is None or state.beside is None else state.beside.index_copy(0, places, beside),
        weights=state.weights.index_fill(0, torch.from_numpy(rows).to(device), 0.0),
    )
