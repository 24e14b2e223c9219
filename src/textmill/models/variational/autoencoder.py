"""The sequence autoencoder: a segment to a vector and back. Its codes' own spread makes it a language model as well."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from textmill.models.variational.config import AutoencoderConfig
from textmill.models.variational.segment_model import SegmentModel
from textmill.models.variational.segments import pack
from textmill.models.variational.vae import reconstruction

MOMENTUM = 0.99
"""Of the running mean and variance of the codes."""


class Autoencoder(SegmentModel):
    """A sequence autoencoder (Dai and Le 2015; Li, Luong and Jurafsky 2015).

    It is trained to reproduce, and has no distribution over its codes. To draw texts and to give texts a probability
    it takes the Gaussian, dimensions apart, that the codes had in training (a running mean and variance) as the prior;
    z is the code in its units. The likelihood is then bounded as the VAE's is, half of the samples from a narrow
    Gaussian around the text's code and half from the prior. That is honest and, since nothing taught the decoder about
    vectors that are no text's code, poor: what the autoencoder is for is its codes.
    """

    family = "autoencoder"
    config_class = AutoencoderConfig
    LADDER: ClassVar[tuple[tuple[int, int], ...]] = ((96, 64), (128, 64), (192, 96), (256, 128), (384, 192), (512, 256))
    """(width, latent)."""
    code_mean: Tensor
    code_variance: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__(config)
        self.code_head = nn.Linear(self.encoder.outputs, config.latent)
        self.register_buffer("code_mean", torch.zeros(config.latent))
        self.register_buffer("code_variance", torch.ones(config.latent))

    @classmethod
    def ladder(cls, vocabulary: int, context: int, train_tokens: int) -> list[AutoencoderConfig]:
        """Sizes to choose from, small to large."""
        del train_tokens
        return [
            cls.config_class(
                vocabulary=vocabulary, context=context, width=width, embedding=max(64, width // 2), latent=latent
            )
            for width, latent in cls.LADDER
        ]

    def encode(self, content: Tensor) -> Tensor:
        """Codes [n, L] of segments [n, S] (-1 after the end)."""
        return self.code_head(self.summary(content)).float()

    def code(self, z: Tensor) -> Tensor:
        """The code for a z in units of the codes' own spread."""
        return self.code_mean + z * self.code_variance.sqrt()

    def posterior(self, content: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance [n, L] of the proposal around each segment's code, in units of the codes' spread."""
        mean = (self.encode(content) - self.code_mean) / self.code_variance.sqrt()
        return mean, torch.full_like(mean, 2 * math.log(self.config.proposal_width))

    def training_loss(self, batch: dict[str, Tensor], scale: float, state: Any = None) -> tuple[Tensor, Any]:
        """Reconstruction nats times `scale`.

        Args:
            batch: of `EvidenceLowerBound`: tokens, targets, place and dropped [B, T].
            scale: 1 / number of targets, for a mean in nats a token.
            state: not used; segments carry nothing on.
        """
        segments = pack(batch["tokens"], batch["targets"], batch["place"])
        if not len(segments.content):
            return self.bias.sum() * 0.0, None
        code = self.encode(segments.content)
        if self.training and len(code) > 1:
            with torch.no_grad():
                self.code_mean.lerp_(code.mean(0), 1 - MOMENTUM)
                spread = (code - self.code_mean).square().mean(0).clamp_min(1e-8)
                self.code_variance.lerp_(spread, 1 - MOMENTUM)
        return reconstruction(self, segments, code, batch["dropped"].flatten(), scale), None
