"""Next-token loss fused with the output matrix: logits exist one chunk at a time, gradients are made on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

CHUNK_ELEMENTS = 1 << 22
"""Logits held at once: 4 M values, 16 MB in fp32, which stays in the last-level cache of most machines."""


def chunk_loss(logits: Tensor, targets: Tensor, cap: float, scale: float) -> tuple[Tensor, Tensor]:
    """Sum of cross-entropies of one chunk, and its gradient with respect to the uncapped logits.

    Args:
        logits: [n, V] before the cap.
        targets: [n] token ids; -1 counts for nothing.
        cap: logits become cap * tanh(logit / cap); 0 for none.
        scale: factor of the gradient.

    Returns:
        loss sum in nats (float32), gradient [n, V] in the logits' dtype.
    """
    raw = logits.float()
    capped = cap * torch.tanh(raw / cap) if cap else raw
    log_total = capped.logsumexp(-1, keepdim=True)
    counted = (targets >= 0)[:, None]
    index = targets.clamp_min(0)[:, None]
    loss = ((log_total - capped.gather(1, index)) * counted).sum()
    gradient = torch.exp(capped - log_total)
    column = torch.arange(logits.shape[1], device=logits.device)[None, :]
    gradient = torch.where(column == index, gradient - 1.0, gradient)
    if cap:
        gradient = gradient * (1.0 - (capped / cap).square())
    return loss, (gradient * (counted * scale)).to(logits.dtype)


def eager_chunk_loss(logits: Tensor, targets: Tensor, cap: float, scale: float) -> tuple[Tensor, Tensor]:
    """`chunk_loss` for use without a compiler: few passes over memory, where `chunk_loss` is written to be fused."""
    if cap:
        return chunk_loss(logits, targets, cap, scale)
    log_probs = torch.log_softmax(logits, -1, dtype=torch.float32)
    counted = (targets >= 0)[:, None]
    index = targets.clamp_min(0)[:, None]
    loss = -(log_probs.gather(1, index) * counted).sum()
    gradient = log_probs.exp_()
    gradient.scatter_add_(1, index, torch.full_like(index, -1, dtype=torch.float32))
    return loss, gradient.mul_(counted * scale).to(logits.dtype)


class LinearCrossEntropy(torch.autograd.Function):
    """`cross_entropy(cap(hidden @ weight.T), targets)` summed and scaled; gradients are made in the forward pass."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        cap: float,
        scale: float,
        kernel: Callable[[Tensor, Tensor, float, float], tuple[Tensor, Tensor]],
        bias: Tensor | None,
    ) -> Tensor:
        rows = max(64, CHUNK_ELEMENTS // weight.shape[0])
        matrix = weight.to(hidden.dtype)
        gradient_hidden = torch.empty_like(hidden)
        gradient_weight = torch.zeros_like(weight, dtype=torch.float32)
        gradient_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), rows):
            part = hidden[start : start + rows]
            logits = part @ matrix.T
            if bias is not None:
                logits = logits + bias.to(logits.dtype)
            loss, gradient = kernel(logits, targets[start : start + rows], cap, scale)
            total += loss
            torch.mm(gradient, matrix, out=gradient_hidden[start : start + rows])
            gradient_weight += gradient.T @ part
            if gradient_bias is not None:
                gradient_bias += gradient.float().sum(0)
        ctx.save_for_backward(gradient_hidden, gradient_weight, gradient_bias)
        return total * scale

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradient_hidden, gradient_weight, gradient_bias = ctx.saved_tensors
        factor = upstream[0]  # 1 in the training loop: the scale was folded in above
        return (
            gradient_hidden * factor.to(gradient_hidden.dtype),
            gradient_weight * factor,
            None,
            None,
            None,
            None,
            None if gradient_bias is None else gradient_bias * factor,
        )


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    cap: float = 0.0,
    scale: float | None = None,
    kernel: Callable[[Tensor, Tensor, float, float], tuple[Tensor, Tensor]] = chunk_loss,
    bias: Tensor | None = None,
) -> Tensor:
    """Cross-entropy in nats of the next token.

    Args:
        hidden: [n, D] last hidden vectors.
        weight: [V, D] output matrix.
        targets: [n] token ids, -1 for positions that do not count.
        cap: soft cap of the logits, 0 for none.
        scale: factor of the sum; 1 / n by default (the mean).
        kernel: `chunk_loss`, or its compiled form.
        bias: [V], added to the logits before the cap.
    """
    factor = 1.0 / max(1, len(targets)) if scale is None else scale
    return LinearCrossEntropy.apply(hidden, weight, targets, cap, factor, kernel, bias)
