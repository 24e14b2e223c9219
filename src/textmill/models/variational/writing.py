"""Text to latent vectors and back: encode sentences, write a segment from each latent vector. Reads no file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from textmill.base.errors import UsageError
from textmill.models.variational.layers import Hidden
from textmill.models.variational.noise import key_of, mix, normal, uniform
from textmill.models.variational.segment_model import SegmentModel
from textmill.models.variational.segments import ends_segment, places


def split_segments(model: SegmentModel, ids: np.ndarray) -> list[np.ndarray]:
    """The segments of one text's ids [N]."""
    place = places(model.config, np.asarray(ids, dtype=np.int64)[None])[0]
    return [np.asarray(part) for part in np.split(ids, np.flatnonzero(place == 0)[1:])]


@torch.no_grad()
def encode(model: SegmentModel, segments: Sequence[np.ndarray]) -> Tensor:
    """The latent vector [n, L] of each segment: the mean of q(z | x).

    Args:
        model: in evaluation mode.
        segments: ids of each, 1 to `config.segment` of them.
    """
    longest = model.config.segment
    wrong = [len(one) for one in segments if not 1 <= len(one) <= longest]
    if wrong:
        raise UsageError(f"A segment has 1 to {longest} tokens, not {wrong[0]}.", fix="Cut it: `split_segments`.")
    content = np.full((len(segments), max(len(one) for one in segments)), -1, dtype=np.int64)
    for row, one in enumerate(segments):
        content[row, : len(one)] = one
    mean, _ = model.posterior(torch.from_numpy(content).to(model.device))
    return mean


def prior_samples(model: SegmentModel, count: int, seed: int) -> Tensor:
    """Latent vectors [count, L] from the prior; a function of the seed."""
    keys = mix(key_of(seed, 2) ^ mix(np.arange(count, dtype=np.uint64)))
    return torch.from_numpy(normal(keys, model.config.latent)).to(model.device)


@torch.no_grad()
def write(model: SegmentModel, z: Tensor, *, temperature: float = 0.0, seed: int = 0) -> list[np.ndarray]:
    """A segment from each latent vector, token by token from a segment's start to its end.

    Args:
        model: in evaluation mode.
        z: [n, L].
        temperature: 0 takes the most probable token each time; else the log-probabilities are divided by it.
        seed: of the draws.

    Returns:
        int64 ids of each segment, its ending token among them.
    """
    config, n = model.config, len(z)
    code = model.code(z)
    beside = model.beside(model.reverse_states(code))
    ids = torch.full((n,), model.vocabulary, dtype=torch.int64, device=z.device)  # a segment's start
    hidden: Hidden | None = None
    written: list[list[int]] = [[] for _ in range(n)]
    going = np.ones(n, dtype=bool)
    for place in range(config.segment):
        log_probs, hidden = model.step(ids, code, None if beside is None else beside[:, place], hidden)
        if temperature > 0:  # Gumbel's trick: the largest of log p / t + noise is a draw
            keys = mix(key_of(seed, 3, place) ^ mix(np.arange(n, dtype=np.uint64)))
            noise = -np.log(-np.log(uniform(keys, model.vocabulary)))
            log_probs = log_probs / temperature + torch.from_numpy(noise).to(log_probs)
        ids = log_probs.argmax(-1)
        taken = ids.cpu().numpy()
        for row in np.flatnonzero(going):
            written[row].append(int(taken[row]))
        going &= ~ends_segment(config, model.ends, taken, np.full(n, place + 1))
        if not going.any():
            break
    return [np.array(one, dtype=np.int64) for one in written]
