"""Muon for the matrices inside the blocks, AdamW for tables, head and scalars."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from textmill.models.transformer import Transformer
from textmill.training.config import TrainingConfig

# Polar Express (Amsel et al. 2025, alg. 1), five steps, with the safety factor folded in.
POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def orthogonalize(matrices: Tensor) -> Tensor:
    """The nearest (semi-)orthogonal matrix of each in a batch [n, rows, columns], approximately.

    Polar Express iteration in the dtype given; Muon (Jordan et al. 2024) replaces its Newton-Schulz by it.
    """
    x = matrices
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.float().norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-6).to(x.dtype)
    for a, b, c in POLAR_EXPRESS:
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalized (Jordan et al. 2024), with decoupled weight decay that never fights the update.

    Matrices of one shape are stacked and orthogonalized together.

    Args:
        params: matrices.
        lr: step size; the update of a [rows, columns] matrix has spectral norm lr * sqrt(max(1, rows / columns)).
        momentum: Nesterov momentum.
        weight_decay: decay a step, times lr, only where update and weight agree in sign (cautious decay).
        dtype: dtype of the orthogonalization.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        self.dtype = dtype
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take one step from the gradients."""
        for group in self.param_groups:
            shapes: dict[tuple[int, ...], list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    # A fused query-key-value matrix is three square ones: orthogonalize each by itself.
                    shapes.setdefault(tuple(parameter.shape), []).append(parameter)
            for shape, parameters in shapes.items():
                updates = []
                for parameter in parameters:
                    state = self.state[parameter]
                    if "momentum" not in state:
                        state["momentum"] = torch.zeros_like(parameter)
                    buffer = state["momentum"]
                    buffer.lerp_(parameter.grad, 1 - group["momentum"])
                    updates.append(torch.lerp(parameter.grad, buffer, group["momentum"]))
                pieces = shape[0] // shape[1] if shape[0] == 3 * shape[1] else 1
                stacked = torch.stack(updates).to(self.dtype)
                stacked = stacked.view(len(parameters) * pieces, shape[0] // pieces, shape[1])
                polar = orthogonalize(stacked).float().view(len(parameters), *shape)
                rows = shape[0] // pieces
                size = group["lr"] * max(1.0, rows / shape[1]) ** 0.5
                for parameter, update in zip(parameters, polar, strict=True):
                    if group["weight_decay"]:
                        agrees = (update * parameter) > 0
                        parameter.sub_(parameter * agrees, alpha=group["lr"] * group["weight_decay"])
                    parameter.sub_(update, alpha=size)


def make_optimizers(
    model: Transformer, config: TrainingConfig, table_decay: float = 0.0
) -> tuple[torch.optim.AdamW, Muon]:
    """AdamW for tables, head and scalars; Muon for the matrices inside the blocks.

    Args:
        model: the Transformer.
        config: the learning rates.
        table_decay: weight decay of the tables that are added to others (bigrams, values); not of the embedding.
    """
    scale = (model.config.width / 768) ** -0.5
    matrices = [p for block in model.blocks for p in block.parameters() if p.ndim == 2]
    head = [] if model.config.tied_head else [model.head.weight]
    tables = [module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    added = [table.weight for table in model.value_tables.values()]
    if model.config.bigram_buckets:
        added.append(model.bigram.weight)
    known = {id(p) for p in (*matrices, *head, *tables)}
    decayed = {id(p) for p in added}
    # A tied table is the output matrix too: it gets the head's gentle rate.
    table_rate = config.head_rate if model.config.tied_head else config.table_rate
    groups: list[dict[str, Any]] = [
        {"params": [p for p in tables if id(p) not in decayed], "lr": table_rate * scale},
        {"params": added, "lr": config.table_rate * scale, "weight_decay": table_decay},
        {"params": head, "lr": config.head_rate * scale},
        {"params": [p for p in model.parameters() if id(p) not in known], "lr": config.scalar_rate},
    ]
    adam = torch.optim.AdamW(
        [group for group in groups if group["params"]], betas=(0.8, 0.95), eps=1e-10, weight_decay=0.0, fused=True
    )
    muon = Muon(
        matrices,
        lr=config.matrix_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        dtype=model.compute_dtype,
    )
    for optimizer in (adam, muon):
        for group in optimizer.param_groups:
            group["base"] = group["lr"]
    return adam, muon
