"""Linear recurrences h[t] = a[t] h[t-1] + b[t], element by element, and the short convolution. Needs torch alone."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def rms_norm(x: Tensor, weight: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    """RMSNorm, computed in fp32 (Zhang and Sennrich 2019, eq. 4)."""
    scaled = x.float()
    scaled = scaled * torch.rsqrt(scaled.square().mean(-1, keepdim=True) + eps)
    return (scaled if weight is None else scaled * weight).to(x.dtype)


def short_convolution(x_BTC: Tensor, before_BKC: Tensor, weight_KC: Tensor) -> tuple[Tensor, Tensor]:
    """Causal convolution of each channel by itself over K tokens; a sum of K shifted products.

    Args:
        x_BTC: inputs.
        before_BKC: [B, K - 1, C] fp32, the inputs before them (zeros at the beginning).
        weight_KC: weights, the last one for the token itself.

    Returns:
        outputs [B, T, C] in the dtype of the inputs, and the last K - 1 inputs, fp32.
    """
    size, T = len(weight_KC), x_BTC.shape[1]
    padded = torch.cat((before_BKC.to(x_BTC.dtype), x_BTC), 1)
    weight = weight_KC.to(x_BTC.dtype)
    result = padded[:, :T] * weight[0]
    for k in range(1, size):
        result = torch.addcmul(result, padded[:, k : k + T], weight[k])
    return result, padded[:, T:].to(torch.float32, copy=True)


def _sequential(a_BTD: Tensor, b_BTD: Tensor, h_BD: Tensor) -> Tensor:
    """All h by T fused multiply-adds, the least work."""
    states = torch.empty_like(b_BTD)
    for t in range(b_BTD.shape[1]):
        h_BD = torch.addcmul(b_BTD[:, t], a_BTD[:, t], h_BD, out=states[:, t])
    return states


def _parallel(a_BTD: Tensor, b_BTD: Tensor, h_BD: Tensor) -> Tensor:
    """All h in about 2 sqrt(T) steps: every stretch of sqrt(T) tokens at once from zero, then the states between
    stretches, then what each state adds to its stretch. Nothing is divided, so that no decay can underflow into a NaN.
    """
    B, T, D = b_BTD.shape
    length = max(1, math.isqrt(T))
    stretches = -(-T // length)
    pad = stretches * length - T
    decay = F.pad(a_BTD, (0, 0, 0, pad), value=1.0).reshape(B, stretches, length, D).clone()
    local = F.pad(b_BTD, (0, 0, 0, pad)).reshape(B, stretches, length, D).clone()
    for k in range(1, length):
        local[:, :, k].addcmul_(decay[:, :, k], local[:, :, k - 1])
        decay[:, :, k].mul_(decay[:, :, k - 1])
    entering = torch.empty(B, stretches, 1, D, dtype=b_BTD.dtype, device=b_BTD.device)
    for s in range(stretches):
        entering[:, s, 0] = h_BD
        h_BD = torch.addcmul(local[:, s, -1], decay[:, s, -1], h_BD)
    return local.addcmul_(decay, entering).reshape(B, stretches * length, D)[:, :T]


class _LinearScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, h: Tensor, parallel: bool) -> Tensor:  # type: ignore[override]
        states = (_parallel if parallel else _sequential)(a, b, h)
        ctx.save_for_backward(a, states, h)
        ctx.parallel = parallel
        return states

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        a, states, h = ctx.saved_tensors
        # The gradient is the same recurrence, backwards: db[t] = g[t] + a[t+1] db[t+1].
        later = torch.cat((a[:, 1:], torch.zeros_like(a[:, :1])), 1).flip(1)
        run = _parallel if ctx.parallel else _sequential
        gradient = run(later, upstream[0].flip(1), torch.zeros_like(h)).flip(1)
        before = torch.cat((h[:, None], states[:, :-1]), 1)
        return gradient * before, gradient, a[:, 0] * gradient[:, 0], None


def linear_scan(a_BTD: Tensor, b_BTD: Tensor, h_BD: Tensor, parallel: bool | None = None) -> Tensor:
    """h[t] = a[t] h[t-1] + b[t] for all t, differentiable.

    Args:
        a_BTD: decays, fp32.
        b_BTD: what is added, fp32.
        h_BD: the state before, fp32.
        parallel: in about 2 sqrt(T) steps instead of T; None does so on a GPU. On a CPU, where two cores have nothing
            to do in parallel, the plain loop does less work.

    Returns:
        h [B, T, D].
    """
    if parallel is None:
        parallel = b_BTD.is_cuda
    result: Tensor = _LinearScan.apply(a_BTD, b_BTD, h_BD, parallel)
    return result


class SquaredReluNetwork(nn.Module):
    """Feed-forward part: two matrices around a squared ReLU (So et al. 2021)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.empty(hidden, width))
        self.down = nn.Parameter(torch.empty(width, hidden))

    def forward(self, x_BTD: Tensor) -> Tensor:
        up = F.relu(F.linear(x_BTD, self.up.to(x_BTD.dtype))).square()
        return F.linear(up, self.down.to(x_BTD.dtype))
