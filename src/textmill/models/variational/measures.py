"""What the latent vectors of an autoencoder or a VAE hold, in figures. Reads no file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from textmill.base.errors import Failure
from textmill.models.variational.latent import active_units, divergence, importance_bound, mutual_information
from textmill.models.variational.segment_model import SegmentModel
from textmill.models.variational.segments import Segments

ACTIVE = 0.01
"""Variance of the posterior mean above which a dimension is active (Burda et al. 2016)."""
AT_ONCE = 256
"""Segments measured at once."""


def _take(segments: Segments, index: torch.Tensor) -> Segments:
    return Segments(*(part[index] for part in segments))


def segments_of_documents(model: SegmentModel, documents: Sequence[np.ndarray]) -> Segments:
    """The segments of documents, each closed by its document-end token."""
    ids = [np.asarray(document, dtype=np.int64) for document in documents if len(document)]
    if not ids:
        raise Failure("There is no text to measure.", "The documents hold no token.", "Give it other texts.")
    targets = torch.from_numpy(np.concatenate(ids))[None]
    first = np.concatenate([np.append(model.config.document_end, one[:-1]) for one in ids])
    return model.segments_of(torch.from_numpy(first)[None].to(model.device), targets.to(model.device))


@torch.no_grad()
def latent_report(
    model: SegmentModel, documents: Sequence[np.ndarray], *, samples: int | None = None, most: int = 2000
) -> dict[str, Any]:
    """Reconstruction, divergence, mutual information, active units and likelihood, from samples that are counted.

    Args:
        model: in evaluation mode.
        documents: int64 ids of each, the document-end token last.
        samples: latent samples a segment; the model's own number by default.
        most: segments to measure, evenly spread, when there are more.

    Returns:
        a JSON-able dictionary; nats are means over segments:
        `family`, `documents`, `segments` (measured), `segments_available`, `tokens` (in those measured), `samples`;
        `reconstruction_nats` -E_q log p(x | z); `divergence_nats` KL(q(z | x) || p(z)); `elbo_nats` their sum;
        `importance_weighted_nats` {samples: -bound} with the encoder alone as proposal, upper bounds of the nats
        that fall with the samples (the smaller numbers from groups of the same samples); `score_nats` the bound that
        `score` gives, whose proposal is the prior in a `prior_share` of the samples, with its standard error over
        segments `score_error`, and per token `nats_per_token`;
        `mutual_information_nats` I(x; z) with one sample a segment, at most `mutual_information_ceiling` = log
        segments; `marginal_divergence_nats` KL(q(z) || p(z)), the divergence less the mutual information
        (Hoffman and Johnson 2016); `active_units`, `latent` (all of them), `active_threshold`.
        For an autoencoder q is the Gaussian of `proposal_width` around the code, in units of the codes' spread: its
        divergence and mutual information depend on that width.
    """
    found = segments_of_documents(model, documents)
    available, K = len(found.content), samples or model.samples
    chosen = torch.arange(min(available, most), device=found.content.device) * available // min(available, most)
    segments = _take(found, chosen)
    means, variances, zs, reconstructions, divergences, weights, scores = [], [], [], [], [], [], []
    for index in torch.arange(len(chosen), device=chosen.device).split(AT_ONCE):
        part = _take(segments, index)
        mean, log_variance = model.posterior(part.content)
        drawn = model.draw(part, K, 0.0)
        means.append(mean)
        variances.append(log_variance)
        zs.append(drawn.z[:, -1])
        reconstructions.append(-drawn.token_log_probs.double().sum(2).mean(1))
        divergences.append(divergence(mean.double(), log_variance.double()).sum(1))
        scores.append(model.draw(part, K, model.config.prior_share).bound.double())
        weights.append((drawn.log_joint - drawn.log_proposal).double())
    weight = torch.cat(weights)
    counts = [k for k in (1, 4, 16, 64, 256) if k < K and K % k == 0] + [K]
    bounds = {k: importance_bound(grouped, torch.zeros_like(grouped)).mean(1) for k, grouped in _groups(weight, counts)}
    score = torch.cat(scores)
    n, tokens = len(weight), int(segments.lengths.sum())
    reconstructed, diverged = float(torch.cat(reconstructions).mean()), float(torch.cat(divergences).mean())
    shared = mutual_information(torch.cat(means), torch.cat(variances), torch.cat(zs))
    return {
        "family": model.family,
        "documents": len(documents),
        "segments": n,
        "segments_available": available,
        "tokens": tokens,
        "samples": K,
        "reconstruction_nats": reconstructed,
        "divergence_nats": diverged,
        "elbo_nats": reconstructed + diverged,
        "importance_weighted_nats": {str(k): -float(bound.mean()) for k, bound in bounds.items()},
        "score_nats": -float(score.mean()),
        "score_error": float(score.std(unbiased=False)) / math.sqrt(n),
        "prior_share": model.config.prior_share,
        "nats_per_token": -float(score.sum()) / tokens,
        "mutual_information_nats": shared,
        "mutual_information_ceiling": math.log(n),
        "marginal_divergence_nats": diverged - shared,
        "active_units": active_units(torch.cat(means), ACTIVE),
        "latent": model.config.latent,
        "active_threshold": ACTIVE,
    }


def _groups(weight: torch.Tensor, counts: list[int]) -> list[tuple[int, torch.Tensor]]:
    """For each k the log-weights [n, K] as [n, K / k, k]."""
    return [(k, weight.view(len(weight), -1, k)) for k in counts]
