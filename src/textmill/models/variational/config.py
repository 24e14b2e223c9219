"""Settings of the autoencoder and of the VAE; the divergence's weight at a step. Imports nothing heavy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from textmill.base.errors import UsageError

ReversePath = Literal["none", "aligned", "unaligned"]
Annealing = Literal["none", "linear", "logistic", "cyclical"]


@dataclass(frozen=True)
class AutoencoderConfig:
    """Shape of a sequence autoencoder: an encoder from a segment to a vector, a decoder from the vector to the text."""

    vocabulary: int = 4096
    """Token ids."""
    context: int = 256
    """Tokens of a training row; segments do not cross rows."""
    segment: int = 64
    """Most tokens of a segment, the span of text that one latent vector stands for."""
    shortest: int = 8
    """Tokens before which a sentence's end does not end the segment ("Mr." does not); a document's end always does."""
    document_end: int = 0
    """Id of the document-end token, which always ends a segment."""
    ends: tuple[int, ...] = ()
    """Ids of further tokens that end a segment. Left empty, training takes the tokenizer's sentence ends
    (`Vae.fitted`); a model made without a tokenizer has segments of `segment` tokens."""
    width: int = 256
    """Hidden size of the decoder, and of each direction of the encoder."""
    embedding: int = 128
    """Size of a token's vector; the table serves encoder, decoders and output alike (tied)."""
    layers: int = 1
    """Recurrent layers of the encoder and of the decoder, and of a Transformer encoder."""
    cell: Literal["lstm", "gru"] = "lstm"
    """The recurrent cell."""
    encoder: Literal["recurrent", "transformer"] = "recurrent"
    """What reads a segment: the cell in both directions, or a small Transformer whose outputs are averaged."""
    latent: int = 32
    """Size of the latent vector."""
    word_dropout: float = 0.2
    """Share of the decoder's input tokens that a learned vector replaces in training (Bowman et al. 2016), so that
    the decoder needs the latent vector."""
    dropout: float = 0.0
    """Dropout of embeddings and of the decoder's outputs."""
    reverse_path: ReversePath = "none"
    """A decoder that writes the segment backwards from the latent vector alone, and whose states the forward decoder
    sees: "aligned", at each position the state that stands for the same position; "unaligned", in the order in which
    they were written (the control: the same parameters and work)."""
    reverse_width: int = 128
    """Hidden size of the reverse decoder."""
    reverse_feedback: Literal["expected", "none"] = "expected"
    """What the reverse decoder reads at a step: the expectation of its own last output, or nothing but the latent."""
    reverse_weight: float = 0.5
    """Weight of the reverse decoder's own reconstruction in the training loss. It is no part of any likelihood."""
    samples: int = 16
    """Latent samples a segment for the importance-weighted likelihood of `score`."""
    validation_samples: int = 4
    """The same while training (`target_log_probs`): a looser bound that costs less."""
    prior_share: float = 0.5
    """Share of those samples that is drawn from the prior, which guards against a proposal that misses."""
    particles: int = 32
    """Latent vectors, drawn from the prior at each segment's start, whose mixture `read` predicts with."""
    proposal_width: float = 0.1
    """Autoencoder only: standard deviation of the importance proposal around a code, in those of all codes."""
    seed: int = 0
    """Of the samples that scoring and reading draw."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "ends", tuple(int(i) for i in self.ends))  # a list when it comes from JSON
        for name in (
            "vocabulary", "context", "segment", "shortest", "width", "embedding", "layers", "latent", "samples",
            "validation_samples", "particles", "reverse_width",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for name in ("word_dropout", "dropout", "prior_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is a share and must lie between 0 and 1, not {getattr(self, name)}.")
        for name, known in (
            ("cell", ("lstm", "gru")),
            ("encoder", ("recurrent", "transformer")),
            ("reverse_path", ("none", "aligned", "unaligned")),
            ("reverse_feedback", ("expected", "none")),
        ):
            if getattr(self, name) not in known:
                raise UsageError(f'{name} "{getattr(self, name)}" is not known.', fix=f"Choose: {', '.join(known)}.")
        outside = [i for i in (self.document_end, *self.ends) if not 0 <= i < self.vocabulary]
        if outside:
            raise UsageError(
                f"Segments cannot end at token {outside[0]}.",
                f"The vocabulary has ids 0 to {self.vocabulary - 1}.",
                "Give ids of the tokenizer that made the shards.",
            )
        if self.proposal_width <= 0:
            raise UsageError("proposal_width must be above 0.")
        if self.encoder == "transformer" and self.width % 4:
            raise UsageError("A Transformer encoder has four heads.", fix="Give a width that is a multiple of 4.")

    @property
    def gates(self) -> int:
        """Matrices of the recurrent cell."""
        return 4 if self.cell == "lstm" else 3

    @property
    def step_inputs(self) -> int:
        """Size of what the forward decoder reads at each step: token, latent vector, reverse state."""
        reverse = self.reverse_width if self.reverse_path != "none" else 0
        return self.embedding + self.latent + reverse

    @property
    def matmul_parameters(self) -> int:
        """Weights that multiply each token (those that multiply a segment once are left out)."""
        g, H, E, R = self.gates, self.width, self.embedding, self.reverse_width
        if self.encoder == "transformer":
            encoder = E * H + self.layers * 12 * H * H
        else:
            encoder = 2 * g * H * (E + H) + (self.layers - 1) * 2 * g * H * 3 * H
        decoder = g * H * (self.step_inputs + H) + (self.layers - 1) * g * H * 2 * H
        output = H * E + E * self.vocabulary
        reverse = 0
        if self.reverse_path != "none":
            reverse = 3 * R * R + R * E + E * self.vocabulary
            if self.reverse_feedback == "expected":  # which passes no gradient back: a third of the work
                reverse += 3 * R * E + (2 * E * self.vocabulary + R * E) // 3
        return encoder + decoder + output + reverse

    def flops_per_token(self) -> float:
        """Of one training step, forward and backward, a token: 6 a weight (Kaplan et al. 2020)."""
        return 6.0 * self.matmul_parameters


@dataclass(frozen=True)
class VaeConfig(AutoencoderConfig):
    """Shape and objective of a sentence VAE (Bowman et al. 2016, "Generating sentences from a continuous space")."""

    prior_share: float = 0.25
    """Share of the samples for `score` that is drawn from the prior: where the text's latent vectors tell little, the
    prior's are the better proposal. 0 is the bound of Burda et al. as it stands in the paper."""
    annealing: Annealing = "linear"
    """How the weight of the divergence rises from 0: linear, logistic (Bowman et al. 2016), cyclical (Fu et al. 2019:
    again and again, the first half of each cycle rising), or none (full from the first step)."""
    annealing_steps: int = 300
    """Steps of the rise; of one cycle, where it is cyclical."""
    cycles: int = 4
    """Cyclical only: cycles, after which the weight stays full."""
    divergence_weight: float = 1.0
    """The full weight; 1 makes the training loss the evidence lower bound."""
    free_bits: float = 0.25
    """Nats of divergence that each latent dimension has for free, on average over a batch (Kingma et al. 2016, eq. 15):
    below it there is no pressure to fall further, so the latent vector is not given up."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.annealing not in ("none", "linear", "logistic", "cyclical"):
            raise UsageError(
                f'annealing "{self.annealing}" is not known.', fix="Choose: none, linear, logistic, cyclical."
            )
        for name in ("annealing_steps", "cycles"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for name in ("free_bits", "divergence_weight"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must not be negative.")


def divergence_weight(config: VaeConfig, step: int) -> float:
    """Weight of the divergence at `step` (0-based), a pure function of it.

    linear: step / steps. logistic: the logistic curve from 0.0025 at step 0 through 1/2 at half of the steps
    (Bowman et al. 2016, figure 2), full from `annealing_steps` on. cyclical: min(1, 2 · position in the cycle)
    (Fu et al. 2019, eq. 6-7, R = 0.5), full after the last cycle.
    """
    full, share = config.divergence_weight, step / config.annealing_steps
    if config.annealing == "none":
        return full
    if config.annealing == "cyclical":
        return full if share >= config.cycles else full * min(1.0, 2 * (share % 1.0))
    if share >= 1:
        return full
    if config.annealing == "linear":
        return full * share
    return full / (1 + math.exp(-12 * (share - 0.5)))
