"""The sentence VAE (Bowman et al. 2016): a Gaussian latent vector a segment, and the evidence lower bound."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from textmill.models.cross_entropy import linear_cross_entropy
from textmill.models.variational.config import VaeConfig
from textmill.models.variational.latent import divergence, free_divergence
from textmill.models.variational.layers import BUCKET
from textmill.models.variational.segment_model import SegmentModel
from textmill.models.variational.segments import Segments, pack


def reconstruction(model: SegmentModel, segments: Segments, code: Tensor, dropped: Tensor, scale: float) -> Tensor:
    """The decoder's nats for segments given their codes, times `scale`; the reverse decoder's added with its weight.

    Args:
        model: of either family.
        segments: n of them.
        code: [n, L].
        dropped: bool [B T], the rows' places whose input token is hidden from the decoder.
        scale: factor of the sum.
    """
    content, lengths, config = segments.content, segments.lengths, model.config
    place = torch.arange(content.shape[1], device=content.device)[None, :].expand_as(content)
    ids = model.input_ids(segments.before, place == 0)
    hide = dropped[segments.source] & (ids != model.vocabulary) & (content >= 0)
    ids = torch.where(hide, ids.new_full((), model.vocabulary + 1), ids)
    states = model.reverse_states(code)
    beside = model.beside(states)
    parts, targets = [], []
    for index in model.buckets(lengths, BUCKET):
        longest = int(lengths[index].max())
        hidden = model.hidden(ids[index, :longest], code[index], None if beside is None else beside[index])
        wanted = content[index, :longest]
        parts.append(hidden[wanted >= 0])
        targets.append(wanted[wanted >= 0])
    loss = linear_cross_entropy(torch.cat(parts), model.table, torch.cat(targets), scale=scale, bias=model.bias)
    if states is None or model.reverse is None:
        return loss
    aligned = states.flip(1)[:, : content.shape[1]][content >= 0]  # the state that stands for each token's position
    backwards = linear_cross_entropy(
        model.reverse.out(aligned),
        model.table,
        content[content >= 0],
        scale=scale * config.reverse_weight,
        bias=model.bias,
    )
    return loss + backwards


class Vae(SegmentModel):
    """A sentence VAE.

    encoder q(z | x) = N(mean, diag variance); prior N(0, I); decoder p(x | z). The training loss is the negative
    evidence lower bound, reconstruction nats plus the divergence, whose weight rises with the steps and which is free
    up to `free_bits` a dimension.
    """

    family = "vae"
    config_class = VaeConfig

    LADDER: ClassVar[tuple[tuple[int, int], ...]] = ((96, 16), (128, 16), (192, 32), (256, 32), (384, 48), (512, 64))
    """(width, latent)."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__(config)
        self.posterior_head = nn.Linear(self.encoder.outputs, 2 * config.latent)

    @classmethod
    def ladder(cls, vocabulary: int, context: int, train_tokens: int) -> list[VaeConfig]:
        """Sizes to choose from, small to large."""
        del train_tokens
        return [
            cls.config_class(
                vocabulary=vocabulary, context=context, width=width, embedding=max(64, width // 2), latent=latent
            )
            for width, latent in cls.LADDER
        ]

    def posterior(self, content: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance [n, L] of q(z | x) for segments [n, S] (-1 after the end)."""
        mean, log_variance = self.posterior_head(self.summary(content)).float().chunk(2, 1)
        return mean, log_variance.clamp(-12.0, 4.0)

    def training_loss(self, batch: dict[str, Tensor], scale: float, state: Any = None) -> tuple[Tensor, Any]:
        """Negative evidence lower bound times `scale`, the divergence annealed, with free bits.

        Args:
            batch: of `EvidenceLowerBound`: tokens, targets, place, dropped [B, T], noise [B, M, L] and
                divergence_weight (a scalar).
            scale: 1 / number of targets, for a mean in nats a token.
            state: not used; segments carry nothing on.
        """
        segments = pack(batch["tokens"], batch["targets"], batch["place"])
        if not len(segments.content):
            return self.bias.sum() * 0.0, None
        mean, log_variance = self.posterior(segments.content)
        noise = batch["noise"][segments.row, segments.ordinal]
        z = mean + torch.exp(0.5 * log_variance) * noise
        loss = reconstruction(self, segments, self.code(z), batch["dropped"].flatten(), scale)
        free = free_divergence(divergence(mean, log_variance), self.config.free_bits)
        return loss + scale * batch["divergence_weight"] * free, None
