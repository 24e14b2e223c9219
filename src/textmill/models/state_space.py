"""Mamba-2 (Dao and Gu 2024, "Transformers are SSMs"): a linear recurrence with a matrix as state, in plain torch.

Shape legend: B rows, T tokens, H heads, P head size, N state size, Q tokens of a chunk, C chunks, D width.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textmill.models.recurrent.config import StateSpaceConfig
from textmill.models.recurrent.model import State, StatefulModel
from textmill.models.recurrent.scan import rms_norm, short_convolution

__all__ = ["Mamba", "StateSpaceConfig", "state_space_dual", "state_space_steps"]

SHAPES = ((2, 128), (4, 192), (6, 256), (8, 384), (12, 512), (16, 768))


def state_space_steps(
    x_BTHP: Tensor, decay_BTH: Tensor, b_BTN: Tensor, c_BTN: Tensor, state_BHPN: Tensor
) -> tuple[Tensor, Tensor]:
    """S[t] = exp(decay[t]) S[t-1] + x[t] b[t]ᵀ, y[t] = S[t] c[t], token by token (Dao and Gu 2024, eq. 1)."""
    outputs = []
    for t in range(x_BTHP.shape[1]):
        state_BHPN = state_BHPN * decay_BTH[:, t].exp()[..., None, None]
        state_BHPN = state_BHPN + x_BTHP[:, t, :, :, None] * b_BTN[:, t, None, None]
        outputs.append(torch.einsum("bhpn,bn->bhp", state_BHPN, c_BTN[:, t]))
    return torch.stack(outputs, 1), state_BHPN


def state_space_dual(
    x_BTHP: Tensor, decay_BTH: Tensor, b_BTN: Tensor, c_BTN: Tensor, state_BHPN: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """The same by chunks (state-space duality, section 6): inside a chunk a masked matrix product, as attention has it;
    between chunks the state.

    Args:
        x_BTHP: what is written, already times its step size, fp32.
        decay_BTH: logarithm of each token's decay, at most 0.
        b_BTN: where it is written, shared by the heads.
        c_BTN: where is read.
        state_BHPN: the state before.
        chunk: tokens of a chunk, Q.

    Returns:
        y [B, T, H, P] and the state after the last token.
    """
    B, T, H, P = x_BTHP.shape
    N = b_BTN.shape[-1]
    Q = min(chunk, T)
    C = -(-T // Q)
    pad = C * Q - T  # padded tokens write nothing and do not decay
    x = F.pad(x_BTHP, (0, 0, 0, 0, 0, pad)).view(B, C, Q, H, P).transpose(2, 3)
    decay = F.pad(decay_BTH, (0, 0, 0, pad)).view(B, C, Q, H).transpose(2, 3).cumsum(-1)
    b = F.pad(b_BTN, (0, 0, 0, pad)).view(B, C, Q, N)
    c = F.pad(c_BTN, (0, 0, 0, pad)).view(B, C, Q, N)

    # Inside chunks: token i reads what token j <= i wrote, decayed by all between them.
    between = decay[..., :, None] - decay[..., None, :]
    causal = torch.ones(Q, Q, dtype=torch.bool, device=x.device).tril()
    between = between.masked_fill(~causal, -math.inf).exp()
    y = ((c @ b.mT)[:, :, None] * between) @ x

    # What each chunk leaves behind, what enters each chunk, and what is read of that.
    left = (x * (decay[..., -1:] - decay).exp()[..., None]).mT @ b[:, :, None]
    whole = decay[..., -1].exp()[..., None, None]
    entering = []
    for index in range(C):
        entering.append(state_BHPN)
        state_BHPN = state_BHPN * whole[:, index] + left[:, index]
    y = y + (c[:, :, None] @ torch.stack(entering, 1).mT) * decay.exp()[..., None]
    return y.transpose(2, 3).reshape(B, C * Q, H, P)[:, :T], state_BHPN


class MambaBlock(nn.Module):
    """One mixer, added to the residual stream. Names and order as in the paper: gate, x, B, C, step size."""

    def __init__(self, config: StateSpaceConfig) -> None:
        super().__init__()
        self.config = config
        inner, channels = config.inner, config.inner + 2 * config.state
        self.norm = nn.Parameter(torch.ones(config.width))
        self.entrance = nn.Parameter(torch.empty(inner + channels + config.heads, config.width))
        self.convolution = nn.Parameter(torch.empty(config.convolution, channels))
        self.convolution_bias = nn.Parameter(torch.zeros(channels))
        self.step_bias = nn.Parameter(torch.empty(config.heads))
        self.log_rate = nn.Parameter(torch.empty(config.heads))
        self.skip = nn.Parameter(torch.ones(config.heads))
        self.gate_norm = nn.Parameter(torch.ones(inner))
        self.out = nn.Parameter(torch.empty(config.width, inner))

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        """Outputs and the new state: [S [B, H, P, N], the convolution's last inputs [B, K - 1, channels]]."""
        config, dtype = self.config, x_BTD.dtype
        B, T, _ = x_BTD.shape
        projected = F.linear(rms_norm(x_BTD, self.norm, 1e-5), self.entrance.to(dtype))
        gate, mixed, step = projected.split((config.inner, config.inner + 2 * config.state, config.heads), -1)
        mixed, last = short_convolution(mixed, state[1], self.convolution)
        mixed = F.silu(mixed.float() + self.convolution_bias)
        x, b, c = mixed.split((config.inner, config.state, config.state), -1)
        x = x.view(B, T, config.heads, config.head)
        step = F.softplus(step.float() + self.step_bias)
        decay = -self.log_rate.exp() * step
        scanned = x * step[..., None]
        if T == 1:
            y, new = state_space_steps(scanned, decay, b, c, state[0])
        else:
            y, new = state_space_dual(scanned, decay, b, c, state[0], config.chunk)
        y = (y + self.skip[:, None] * x).reshape(B, T, config.inner)
        y = rms_norm(y * F.silu(gate.float()), self.gate_norm, 1e-5).to(dtype)
        out = F.linear(y, self.out.to(dtype))
        if config.dropout:
            out = F.dropout(out, config.dropout, self.training)
        return x_BTD + out, [new, last]


class Mamba(StatefulModel):
    """A Mamba-2 language model.

    Args:
        config: its shape.
    """

    family: ClassVar[str] = "mamba"
    config_class: ClassVar[type] = StateSpaceConfig

    def __init__(self, config: StateSpaceConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.blocks = nn.ModuleList(MambaBlock(config) for _ in range(config.layers))
        self.final_norm = nn.Parameter(torch.ones(config.width))
        if not config.tied_head:
            self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As the authors': rates 1 to H, step sizes log-uniform between 0.001 and 0.1; output matrices zero, so that
        each block starts as the identity."""
        config = self.config
        nn.init.normal_(self.embedding.weight, std=0.02)
        if not config.tied_head:
            nn.init.normal_(self.head.weight, std=0.001)
        bound = (1 / config.width) ** 0.5
        for block in self.blocks:
            nn.init.uniform_(block.entrance, -bound, bound)
            nn.init.uniform_(block.convolution, -(config.convolution**-0.5), config.convolution**-0.5)
            nn.init.zeros_(block.out)
            block.log_rate.data.copy_(torch.arange(1, config.heads + 1).log())
            step = torch.exp(torch.rand(config.heads) * (math.log(0.1) - math.log(0.001)) + math.log(0.001))
            block.step_bias.data.copy_(step + torch.log(-torch.expm1(-step)))  # softplus of it is the step size

    @property
    def head_weight(self) -> Tensor:
        return self.embedding.weight if self.config.tied_head else self.head.weight

    def start(self, batch: int) -> State:
        """Zeros: for each block S [B, H, P, N] and the convolution's last inputs [B, K - 1, channels]."""
        config, state = self.config, []
        for _ in self.blocks:
            state.append(torch.zeros(batch, config.heads, config.head, config.state, device=self.device))
            channels = config.inner + 2 * config.state
            state.append(torch.zeros(batch, config.convolution - 1, channels, device=self.device))
        return state

    def hidden(self, tokens_BT: Tensor, state: State) -> tuple[Tensor, State]:
        """Last hidden vectors [B, T, D] and the new state."""
        x = self.embedding(tokens_BT).to(self.compute_dtype)
        new: State = []
        for index, block in enumerate(self.blocks):
            x, part = block(x, state[2 * index : 2 * index + 2])
            new += part
        return rms_norm(x, self.final_norm, 1e-5), new

    def parameter_roles(self) -> dict[str, list[nn.Parameter]]:
        """Which parameter is of which kind, for the optimizers."""
        tied = self.config.tied_head
        roles: dict[str, list[nn.Parameter]] = {"matrix": [], "scalar": [self.final_norm], "dense": [], "head": []}
        for block in self.blocks:
            for name, parameter in block.named_parameters():
                roles["matrix" if name in ("entrance", "out") else "scalar" if parameter.ndim == 1 else "dense"].append(
                    parameter
                )
        roles["head"].append(self.embedding.weight)
        if not tied:
            roles["head"].append(self.head.weight)
        return roles

    @classmethod
    def ladder(cls, vocabulary: int, context: int, train_tokens: int) -> list[StateSpaceConfig]:
        """Growing depth and width."""
        return [
            StateSpaceConfig(vocabulary=vocabulary, context=context, layers=layers, width=width)
            for layers, width in SHAPES
        ]
