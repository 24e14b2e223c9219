"""Arithmetic of Gaussian latent vectors: samples, divergence, free bits, importance weights, interpolation. Pure."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)


def gaussian_log_density(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log N(z; mean, diag exp(log_variance)) in nats, summed over the last dimension."""
    return -0.5 * (LOG_2PI + log_variance + (z - mean).square() * torch.exp(-log_variance)).sum(-1)


def standard_log_density(z: Tensor) -> Tensor:
    """log N(z; 0, I) in nats, summed over the last dimension."""
    return -0.5 * (LOG_2PI + z.square()).sum(-1)


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, diag exp(log_variance)) || N(0, I)) of each dimension, in nats (Kingma and Welling 2014, app. B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance)


def free_divergence(each_nL: Tensor, free: float) -> Tensor:
    """Sum over segments and dimensions of the divergence, none below `free` nats a dimension on average.

    Kingma et al. 2016, eq. 15: for each dimension max(free, mean over the batch), times the segments.
    """
    if not len(each_nL):
        return each_nL.sum()
    return len(each_nL) * each_nL.mean(0).clamp_min(free).sum()


def importance_bound(log_joint: Tensor, log_proposal: Tensor) -> Tensor:
    """log of the mean over samples of p(x, z) / q(z) (Burda et al. 2016, eq. 8).

    In expectation a lower bound of log p(x) that tightens with the number of samples, exact for q(z) = p(z | x).

    Args:
        log_joint: [..., K], log p(x | z) + log p(z) in nats.
        log_proposal: [..., K], log q(z) of the distribution that the samples came from.

    Returns:
        [...], nats.
    """
    return torch.logsumexp(log_joint - log_proposal, -1) - math.log(log_joint.shape[-1])


def mutual_information(mean: Tensor, log_variance: Tensor, z: Tensor, rows: int = 512) -> float:
    """Estimate of I(x; z) under q(z | x) and the texts given, in nats (Hoffman and Johnson 2016; Dieng et al. 2019).

    The mean of log q(z_n | x_n) - log 1/N sum_m q(z_n | x_m): the aggregated posterior is that of these N texts, so
    the estimate is at most log N, and too low where the true value is near that.

    Args:
        mean, log_variance: [N, L], of q(z | x_n).
        z: [N, L], a sample of each.
        rows: samples compared with all texts at once.
    """
    mean, log_variance, z = (part.double() for part in (mean, log_variance, z))
    total = 0.0
    for start in range(0, len(z), rows):
        part = slice(start, start + rows)
        own = gaussian_log_density(z[part], mean[part], log_variance[part])
        # log q(z_n | x_m) for all pairs by matrix products: z² e^-v - 2 z m e^-v + m² e^-v
        inverse = torch.exp(-log_variance)
        distance = z[part].square() @ inverse.T - 2 * z[part] @ (mean * inverse).T + (mean.square() * inverse).sum(1)
        pairs = -0.5 * (LOG_2PI * z.shape[1] + log_variance.sum(1) + distance)
        total += float((own - (torch.logsumexp(pairs, 1) - math.log(len(z)))).sum())
    return total / max(1, len(z))


def active_units(mean: Tensor, threshold: float = 0.01) -> int:
    """Dimensions whose posterior mean varies between texts: variance above 0.01 (Burda et al. 2016, section 4.1).

    Args:
        mean: [N, L], of q(z | x_n).
        threshold: of the variance.
    """
    return int((mean.double().var(0, unbiased=False) > threshold).sum())


def linear_path(first: Tensor, last: Tensor, steps: int) -> Tensor:
    """[steps, L], evenly from `first` to `last` on a straight line."""
    return torch.stack([torch.lerp(first, last, share) for share in torch.linspace(0, 1, steps).tolist()])


def spherical_path(first: Tensor, last: Tensor, steps: int) -> Tensor:
    """[steps, L], evenly along the great circle between the directions, the lengths linearly (White 2016).

    The straight line's middle is shorter than vectors of the prior are; this path is not. Parallel or zero vectors
    have no such circle: they get the straight line.
    """
    one, two = first.norm(), last.norm()
    if one == 0 or two == 0:
        return linear_path(first, last, steps)
    a, b = first / one, last / two
    angle = torch.arccos((a @ b).clamp(-1, 1))
    if torch.sin(angle) < 1e-4:
        return linear_path(first, last, steps)
    rows = []
    for share in torch.linspace(0, 1, steps).tolist():
        direction = (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / torch.sin(angle)
        rows.append(direction * ((1 - share) * one + share * two))
    return torch.stack(rows)
