"""Muon for the matrices inside the blocks, AdamW for tables, head and scalars; or averaged SGD for all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from textmill.training.averaged_sgd import AveragedSGD
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
                    # A fused query-key-value matrix is three square ones: orthogonalize each by itself. Other
                    # matrices made of several, one above the other, say so in an attribute `pieces`.
                    kind = (*parameter.shape, getattr(parameter, "pieces", 0))
                    shapes.setdefault(kind, []).append(parameter)
            for (*size_2d, _), parameters in shapes.items():
                shape = tuple(size_2d)
                updates = []
                for parameter in parameters:
                    state = self.state[parameter]
                    if "momentum" not in state:
                        state["momentum"] = torch.zeros_like(parameter)
                    buffer = state["momentum"]
                    buffer.lerp_(parameter.grad, 1 - group["momentum"])
                    updates.append(torch.lerp(parameter.grad, buffer, group["momentum"]))
                pieces = getattr(parameters[0], "pieces", shape[0] // shape[1] if shape[0] == 3 * shape[1] else 1)
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


def make_optimizers(model: Any, config: TrainingConfig, table_decay: float = 0.0) -> dict[str, torch.optim.Optimizer]:
    """AdamW and Muon over a model's parameters, by the roles that it gives them.

    Args:
        model: any neural family; `parameter_roles()` names each parameter's part: "matrix" (Muon), and for AdamW
            "table" (embeddings), "added_table" (tables that are added to others), "head" (the output matrix), "dense"
            (matrices that Muon does not suit) and "scalar" (norms, biases, gates). A family may offer `rate_factors`,
            by which its rates differ from a Transformer's.
        config: the learning rates.
        table_decay: weight decay of the added tables (bigrams, values); not of the embedding.

    Returns:
        "adam" and "muon", those that have something to do; or "asgd" alone. Each group keeps its learning rate in
        "base".
    """
    if config.optimizer == "asgd":
        averaged = AveragedSGD((p for p in model.parameters() if p.requires_grad), lr=config.sgd_rate)
        averaged.param_groups[0]["base"] = config.sgd_rate
        return {"asgd": averaged}
    scale = (getattr(model.config, "width", 768) / 768) ** -0.5
    roles = model.parameter_roles()
    factors = getattr(model, "rate_factors", {})
    rates = {
        "table": config.table_rate * scale,
        "added_table": config.table_rate * scale,
        "head": config.head_rate * scale,
        "dense": config.dense_rate,
        "scalar": config.scalar_rate,
    }
    rates = {role: rate * factors.get(role, 1.0) for role, rate in rates.items()}
    unknown = set(roles) - {*rates, "matrix"}
    assert not unknown, f"unknown roles of parameters: {unknown}"
    counted = [id(p) for group in roles.values() for p in group]
    every = [id(p) for p in model.parameters() if p.requires_grad]
    assert sorted(counted) == sorted(every), "a parameter has no role, or two"
    groups: list[dict[str, Any]] = [
        {"params": roles[role], "lr": rate, **({"weight_decay": table_decay} if role == "added_table" else {})}
        for role, rate in rates.items()
        if roles.get(role)
    ]
    found: dict[str, torch.optim.Optimizer] = {}
    if groups:
        found["adam"] = torch.optim.AdamW(groups, betas=(0.8, 0.95), eps=1e-10, weight_decay=0.0, fused=True)
    if roles.get("matrix"):
        found["muon"] = Muon(
            roles["matrix"],
            lr=config.matrix_rate * factors.get("matrix", 1.0),
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            dtype=model.compute_dtype,
        )
    for optimizer in found.values():
        for group in optimizer.param_groups:
            group["base"] = group["lr"]
    return found
