"""Averaged SGD that begins to average by itself (NT-ASGD), the optimizer of AWD-LSTM. Needs torch alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class AveragedSGD(torch.optim.Optimizer):
    """Non-monotonically triggered averaged SGD (Merity, Keskar and Socher 2017, algorithm 1).

    Plain SGD at a constant rate. Once a validation is worse than the best of those more than `window` validations ago,
    the weights of all steps from then on are averaged (Polyak and Juditsky 1992); the average is the model.

    Tell it each validation with `observe`, and look at the model inside `with optimizer.averaged():`.

    Args:
        params: all parameters.
        lr: learning rate; 30 for a loss that is a mean over tokens, with gradients clipped to 0.25.
        weight_decay: L2 penalty, added to the gradient.
        window: validations that must pass without improvement, n.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float = 30.0, weight_decay: float = 1.2e-6, window: int = 5
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self.window = window
        self.validations: list[float] = []
        self.averaging = False

    def observe(self, loss: float) -> bool:
        """Take note of a validation loss (any unit; lower is better). Returns whether averaging begins just now."""
        before = self.validations[: -self.window] if len(self.validations) > self.window else []
        starts = not self.averaging and bool(before) and loss > min(before)
        self.averaging = self.averaging or starts
        self.validations.append(loss)
        return starts

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take one step from the gradients, and let the weights join the average once it has begun."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if group["weight_decay"]:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(parameter.grad, alpha=group["lr"])
                if self.averaging:
                    state = self.state[parameter]
                    count = state["averaged_steps"] = state.get("averaged_steps", 0) + 1
                    if count == 1:
                        state["average"] = parameter.detach().clone()
                    else:
                        state["average"].lerp_(parameter, 1 / count)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the parameters hold their averages, where averaging has begun; afterwards, their own values."""
        kept: list[tuple[Tensor, Tensor]] = []
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    average = self.state[parameter].get("average") if parameter in self.state else None
                    if average is not None:
                        kept.append((parameter, parameter.detach().clone()))
                        parameter.copy_(average)
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, value in kept:
                    parameter.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """The averages, and the validations that decide when they begin."""
        return {**super().state_dict(), "trigger": {"validations": self.validations, "averaging": self.averaging}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:  # type: ignore[override]
        """What `state_dict` gave."""
        trigger = state_dict["trigger"]
        super().load_state_dict({name: value for name, value in state_dict.items() if name != "trigger"})
        self.validations, self.averaging = list(trigger["validations"]), bool(trigger["averaging"])
