"""The evidence lower bound as an objective: what the autoencoder and the VAE need of a step. Touches nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from textmill.models.variational.config import VaeConfig, divergence_weight
from textmill.models.variational.noise import key_of, mix, normal, uniform
from textmill.models.variational.segments import places


class EvidenceLowerBound:
    """Rows cut into segments, with the tokens that the decoder does not see, noise, and the divergence's weight.

    Args:
        config: of the autoencoder or the VAE.
        special: the tokenizer's special tokens; not needed.
        seed: of noise and word dropout.
    """

    def __init__(self, config: Any, special: dict[str, int] | None = None, seed: int = 0) -> None:
        del special
        self.config, self.seed = config, seed

    def batch(self, tokens: np.ndarray, targets: np.ndarray, step: int) -> dict[str, Tensor]:
        """What `training_loss` takes, a pure function of the arguments, the seed and the configuration.

        Args:
            tokens: int64 [B, T].
            targets: int64 [B, T], -1 where it is not to be learned.
            step: number of the step.

        Returns:
            tokens, targets; place int64 [B, T], each target's place in its segment, -1 in none; dropped bool [B, T],
            word dropout; and for the VAE noise float32 [B, M, L], for the m-th segment of each row, and
            divergence_weight, a scalar.
        """
        config = self.config
        B, T = targets.shape
        place = places(config, targets)
        rows = mix(key_of(self.seed, step) ^ mix(np.arange(B, dtype=np.uint64)))
        found: dict[str, Tensor] = {
            "tokens": torch.from_numpy(tokens),
            "targets": torch.from_numpy(targets),
            "place": torch.from_numpy(place),
            "dropped": torch.from_numpy(uniform(rows, T) < config.word_dropout),
        }
        if isinstance(config, VaeConfig):
            most = max(1, int((place == 0).sum(1).max(initial=0)))
            found["noise"] = torch.from_numpy(normal(mix(rows), most, config.latent))
            found["divergence_weight"] = torch.tensor(divergence_weight(config, step), dtype=torch.float32)
        return found
