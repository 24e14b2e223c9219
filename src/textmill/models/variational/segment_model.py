"""What the autoencoder and the VAE share: segments with latent vectors, as one language model of whole documents."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textmill.models.neural import NeuralModel
from textmill.models.variational.config import AutoencoderConfig
from textmill.models.variational.latent import gaussian_log_density, importance_bound, standard_log_density
from textmill.models.variational.layers import (
    BUCKET,
    Decoder,
    Hidden,
    RecurrentEncoder,
    ReverseDecoder,
    TransformerEncoder,
)
from textmill.models.variational.noise import content_keys, normal
from textmill.models.variational.particles import ParticleState, read_tokens
from textmill.models.variational.segments import Segments, end_table, pack, places, sentence_ends

if TYPE_CHECKING:
    from textmill.tokens.tokenizer import Tokenizer

LOGITS = 1 << 22
"""Logits made at once: 16 MB in fp32."""
SCORED_ROWS = 1024
"""Pairs of a segment and a latent sample that are decoded at once while scoring."""


class Samples(NamedTuple):
    """Latent samples of segments, and what the importance-weighted likelihood is made of; all in nats."""

    z: Tensor
    """[n, K, L], in the space whose prior is N(0, I)."""
    token_log_probs: Tensor
    """[n, K, S], log p(token | tokens before it in the segment, z); 0 after the end."""
    log_prior: Tensor
    """[n, K]."""
    log_proposal: Tensor
    """[n, K], log density of the distribution that z was drawn from."""

    @property
    def log_joint(self) -> Tensor:
        """log p(x, z) [n, K]."""
        return self.token_log_probs.sum(2) + self.log_prior

    @property
    def bound(self) -> Tensor:
        """The importance-weighted bound of each segment's log-probability, [n]."""
        return importance_bound(self.log_joint, self.log_proposal)


class SegmentModel(NeuralModel):
    """A language model whose documents are segments, each written by a decoder from a latent vector of its own.

    p(document) is the product over its segments of p(x | the token before it) = E[p(x | z, the token before it)],
    z ~ N(0, I). The segments end at places that the text before them settles (segments.py), so this is a distribution
    over documents. The expectation has no closed form: `score` and `target_log_probs` give an importance-weighted
    bound (Burda et al. 2016) with the encoder and the prior as proposals, hence an upper bound of the nats; `read`
    predicts with a mixture over samples of the prior, left to right.

    Attributes:
        bound: figures from `score` are bounds: the true ones are no worse, in expectation over the samples.
        samples: latent samples a segment in `score` and `target_log_probs`.
        validation_tokens: as many are scored at each validation, which costs several samples.
    """

    objective = "evidence-lower-bound"
    bound: ClassVar[bool] = True
    validation_tokens: ClassVar[int] = 16384

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__(config)
        self.context = None  # the state has no limit: every segment starts afresh
        self.samples = config.samples
        self.ends = end_table(config)
        V, E = config.vocabulary, config.embedding
        self.embedding = nn.Embedding(V + 2, E)
        """Token vectors, then what stands for a segment's start after an end, and for a dropped token."""
        self.encoder = RecurrentEncoder(config) if config.encoder == "recurrent" else TransformerEncoder(config)
        self.decoder = Decoder(config)
        self.out = nn.Linear(config.width, E)
        self.bias = nn.Parameter(torch.zeros(V))
        self.reverse = ReverseDecoder(config) if config.reverse_path != "none" else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Small token vectors (they are the output matrix too), and forget gates open (Jozefowicz et al. 2015)."""
        nn.init.normal_(self.embedding.weight, std=0.1)
        for module in self.modules():
            if isinstance(module, nn.LSTM):
                for name, parameter in module.named_parameters():
                    if "bias_ih" in name:
                        nn.init.ones_(parameter.data[module.hidden_size : 2 * module.hidden_size])

    def parameter_roles(self) -> dict[str, list[nn.Parameter]]:
        """The tied table as "head", other matrices "dense", vectors "scalar"."""
        others = [p for p in self.parameters() if p is not self.embedding.weight]
        return {
            "head": [self.embedding.weight],
            "dense": [p for p in others if p.ndim > 1],
            "scalar": [p for p in others if p.ndim <= 1],
        }

    @classmethod
    def fitted(cls, config: AutoencoderConfig, tokenizer: Tokenizer) -> AutoencoderConfig:
        """The configuration with segments that end where this tokenizer's sentences do, unless it says where."""
        return replace(config, document_end=tokenizer.document_end, ends=config.ends or sentence_ends(tokenizer))

    # ---- parts ---------------------------------------------------------------------------------------------------

    @property
    def table(self) -> Tensor:
        """The token vectors [V, E], which are the output matrix too."""
        return self.embedding.weight[: self.vocabulary]

    def embed(self, ids: Tensor) -> Tensor:
        """Vectors of ids."""
        x = self.embedding(ids)
        return F.dropout(x, self.config.dropout, self.training) if self.config.dropout else x

    def input_ids(self, before: Tensor, first: Tensor) -> Tensor:
        """What the decoder reads: the token before, or a segment's start where that token ended one.

        Args:
            before: int64, any shape, tokens of the vocabulary.
            first: bool, the same shape: whether the segment's first token is predicted there.
        """
        ends = torch.from_numpy(self.ends).to(before.device)[before] > 0
        return torch.where(first & ends, before.new_full((), self.vocabulary), before)

    def buckets(self, lengths: Tensor, size: int) -> Iterator[Tensor]:
        """Indices of segments of about one length, up to `size` at once."""
        return iter(torch.argsort(lengths, stable=True).split(max(1, size)))

    def summary(self, content: Tensor) -> Tensor:
        """The encoder's summary of segments [n, S] (-1 after the end)."""
        lengths = (content >= 0).sum(1)
        parts, order = [], []
        for index in self.buckets(lengths, BUCKET if self.training else SCORED_ROWS):
            longest = int(lengths[index].max())
            parts.append(self.encoder(self.embed(content[index, :longest].clamp_min(0)), lengths[index]))
            order.append(index)
        return torch.cat(parts)[torch.argsort(torch.cat(order))]

    def posterior(self, content: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance [n, L] of the proposal for z given segments [n, S] (-1 after the end)."""
        raise NotImplementedError

    def code(self, z: Tensor) -> Tensor:
        """What the decoder reads for a z of the space whose prior is N(0, I)."""
        return z

    def reverse_states(self, code: Tensor) -> Tensor | None:
        """The reverse decoder's states [n, segment, R] in writing order, or None where there is none."""
        return None if self.reverse is None else self.reverse(code, self.table)

    def beside(self, states: Tensor | None) -> Tensor | None:
        """The reverse states by the position of the forward decoder that reads them."""
        if states is None or self.config.reverse_path == "unaligned":
            return states
        return states.flip(1)

    def hidden(self, ids: Tensor, code: Tensor, beside: Tensor | None) -> Tensor:
        """Decoder outputs [n, S, E] for whole segments, in the space of the token vectors.

        Args:
            ids: int64 [n, S] from `input_ids`, dropped tokens replaced.
            code: [n, L].
            beside: [n, >= S, R] or None.
        """
        part = None if beside is None else beside[:, : ids.shape[1]]
        out, _ = self.decoder.step(self.embed(ids), code, part, self.decoder.begin(code))
        out = self.out(out)
        return F.dropout(out, self.config.dropout, self.training) if self.config.dropout else out

    def step(self, ids: Tensor, code: Tensor, beside: Tensor | None, hidden: Hidden | None) -> tuple[Tensor, Hidden]:
        """Log-probabilities [n, V] of the next token of each segment, and the decoder's state; one token at a time."""
        hidden = self.decoder.begin(code) if hidden is None else hidden
        part = None if beside is None else beside[:, None]
        out, after = self.decoder.step(self.embed(ids[:, None]), code, part, hidden)
        return F.linear(self.out(out[:, 0]), self.table, self.bias).float().log_softmax(-1), after

    # ---- likelihood ----------------------------------------------------------------------------------------------

    def token_log_probs(self, segments: Segments, z: Tensor) -> Tensor:
        """log p(token | tokens before it, z), [n, K, S]; 0 after a segment's end.

        Args:
            segments: n of them.
            z: [n, K, L].
        """
        n, K, _ = z.shape
        content, lengths = segments.content, segments.lengths
        place = torch.arange(content.shape[1], device=content.device)[None, :].expand_as(content)
        ids = self.input_ids(segments.before, place == 0)
        result = z.new_zeros(n, K, content.shape[1])
        for index in self.buckets(lengths, SCORED_ROWS // K):
            longest = int(lengths[index].max())
            code = self.code(z[index].flatten(0, 1))
            hidden = self.hidden(
                ids[index, :longest].repeat_interleave(K, 0), code, self.beside(self.reverse_states(code))
            )
            targets = content[index, :longest].repeat_interleave(K, 0)
            values = z.new_zeros(targets.shape)
            values[targets >= 0] = self.target_scores(hidden[targets >= 0], targets[targets >= 0])
            result[index, :, :longest] = values.view(len(index), K, longest)
        return result

    def target_scores(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """log p [m] of targets [m] from decoder outputs [m, E], a few logits at a time."""
        rows = max(1, LOGITS // self.vocabulary)
        parts = [
            -F.cross_entropy(
                F.linear(hidden[i : i + rows], self.table, self.bias).float(), targets[i : i + rows], reduction="none"
            )
            for i in range(0, len(hidden), rows)
        ]
        return torch.cat(parts) if parts else hidden.new_zeros(0)

    @torch.no_grad()
    def draw(self, segments: Segments, samples: int, prior_share: float) -> Samples:
        """Latent samples of each segment, with everything that a bound needs.

        A pure function of each segment's tokens, of the seed and of the arguments: the same in every batch. The first
        samples, `prior_share` of them rounded down, come from the prior, the others from the encoder; the density
        that they are weighed with is that of this mixture (Veach and Guibas 1995, "balance heuristic"; Owen and Zhou
        2000), so the mean weight is unbiased.
        """
        content = segments.content
        mean, log_variance = (part[:, None] for part in self.posterior(content))
        keys = content_keys(content.cpu().numpy(), self.config.seed)
        noise = torch.from_numpy(normal(keys, samples, self.config.latent)).to(content.device)
        z = mean + torch.exp(0.5 * log_variance) * noise
        free = min(int(samples * prior_share), samples - 1)
        z[:, :free] = noise[:, :free]
        log_prior = standard_log_density(z)
        log_proposal = gaussian_log_density(z, mean, log_variance)
        if free:
            log_proposal = torch.logaddexp(
                log_proposal + math.log1p(-free / samples), log_prior + math.log(free / samples)
            )
        return Samples(z, self.token_log_probs(segments, z), log_prior, log_proposal)

    def segments_of(self, tokens: Tensor, targets: Tensor) -> Segments:
        """The segments of rows [B, T]; targets of -1 are in none."""
        place = torch.from_numpy(places(self.config, targets.cpu().numpy())).to(targets.device)
        return pack(tokens, targets, place)

    @torch.no_grad()
    def bounds(self, tokens: Tensor, targets: Tensor, samples: int) -> Tensor:
        """Shares [B, T] of each target in the importance-weighted bound of its segment, in nats.

        A token's own share is its log-probability averaged over the samples by their importance weights; what is
        left of the bound (the divergence) is divided evenly among the segment's tokens. Only sums over whole
        segments are bounds of log-probabilities.
        """
        segments = self.segments_of(tokens, targets)
        result = torch.zeros(targets.numel(), device=targets.device)
        if len(segments.content):
            drawn = self.draw(segments, samples, self.config.prior_share)
            weights = (drawn.log_joint - drawn.log_proposal).softmax(1)
            own = (weights[:, :, None] * drawn.token_log_probs).sum(1)
            rest = (drawn.bound - own.sum(1)) / segments.lengths
            inside = segments.content >= 0
            result[segments.source[inside]] = (own + rest[:, None])[inside]
        return result.view(targets.shape)

    def target_log_probs(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Shares [B, T] of each target in the bound of its segment (`bounds`); 0 where the target is -1.

        Tokens before a row's first counted target are not looked at, but for the last of them.
        """
        return self.bounds(tokens, targets, self.samples)

    def validation_log_probs(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """The same with fewer samples, for validation along the training."""
        return self.bounds(tokens, targets, self.config.validation_samples)

    def score(self, ids: np.ndarray) -> np.ndarray:
        """Shares float64 [N] of each token in the bound of its segment, in nats.

        Args:
            ids: int64 [N], documents one after another, each closed by the document-end token.
        """
        targets = torch.from_numpy(np.asarray(ids, dtype=np.int64))[None].to(self.device)
        first = targets.new_full((1, 1), self.config.document_end)
        found = self.bounds(torch.cat((first, targets[:, :-1]), 1), targets, self.samples)
        return np.asarray(found[0].double().cpu().numpy())

    # ---- the protocol: start and read ----------------------------------------------------------------------------

    def start(self, batch: int) -> ParticleState:
        """The state before any token."""
        return ParticleState(batch)

    @torch.no_grad()
    def read(self, tokens: Tensor, state: Any) -> tuple[Tensor, ParticleState]:
        """Log-probabilities [B, T, V] of what follows each token, and the new state: a mixture over particles.

        At a segment's start `particles` latent vectors are drawn from the prior, a function of the seed and of the
        text before; within it each weighs as much as it made the segment's tokens so far probable. So the nats of a
        segment are those of the mean over the particles of p(x | z), a bound looser than the encoder's.
        """
        return read_tokens(self, tokens, state)
