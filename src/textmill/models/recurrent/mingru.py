"""minGRU language model (Feng et al. 2024, "Were RNNs All We Needed?"): gates that see the token and not the state, so
that the recurrence is linear in the state and all tokens of a row are trained at once."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textmill.models.recurrent.config import MinGruConfig
from textmill.models.recurrent.model import State, StatefulModel
from textmill.models.recurrent.scan import SquaredReluNetwork, linear_scan, rms_norm, short_convolution

SHAPES = ((2, 128), (3, 192), (4, 256), (6, 384), (8, 512), (12, 768))


class MinGruBlock(nn.Module):
    """Short convolution and minGRU, then feed-forward, each added to the residual stream."""

    def __init__(self, config: MinGruConfig) -> None:
        super().__init__()
        self.config = config
        width, size = config.width, config.state_size
        if config.convolution:
            self.convolution = nn.Parameter(torch.empty(config.convolution, width))
        self.gates = nn.Parameter(torch.empty(2 * size, width))
        self.gate_bias = nn.Parameter(torch.zeros(size))
        self.out = nn.Parameter(torch.empty(width, size))
        if config.feed_forward:
            self.feed_forward = SquaredReluNetwork(width, config.feed_forward * width)

    def drop(self, x: Tensor) -> Tensor:
        """Dropout while training."""
        return F.dropout(x, self.config.dropout, self.training) if self.config.dropout else x

    def forward(self, x_BTD: Tensor, state: State, parallel: bool | None = None) -> tuple[Tensor, State]:
        """Outputs and the new state: [h [B, S]], and with a convolution the last inputs [B, K - 1, D]."""
        dtype = x_BTD.dtype
        y = rms_norm(x_BTD)
        new: State = []
        if self.config.convolution:
            y, last = short_convolution(y, state[1], self.convolution)
            new = [last]
        gate, candidate = F.linear(y, self.gates.to(dtype)).float().chunk(2, -1)
        z = torch.sigmoid(gate + self.gate_bias)
        # g of the paper's appendix B: positive, and continuous at 0.
        candidate = torch.where(candidate >= 0, candidate + 0.5, torch.sigmoid(candidate))
        states = linear_scan(1 - z, z * candidate, state[0], parallel)
        x_BTD = x_BTD + self.drop(F.linear(states.to(dtype), self.out.to(dtype)))
        if self.config.feed_forward:
            x_BTD = x_BTD + self.drop(self.feed_forward(rms_norm(x_BTD)))
        return x_BTD, [states[:, -1].clone(), *new]  # not a view: the whole row would stay in memory


class MinGru(StatefulModel):
    """A minGRU language model.

    Args:
        config: its shape.
    """

    family: ClassVar[str] = "mingru"
    config_class: ClassVar[type] = MinGruConfig

    def __init__(self, config: MinGruConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.blocks = nn.ModuleList(MinGruBlock(config) for _ in range(config.layers))
        if not config.tied_head:
            self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Embedding N(0, 1), normalized right after; entering matrices uniform with variance 1 / fan-in, output
        matrices zero, so that each block starts as the identity; gates start nearly closed in half of the channels, so
        that memories of many lengths exist from the first step."""
        config = self.config
        nn.init.normal_(self.embedding.weight, std=0.02 if config.tied_head else 1.0)
        if not config.tied_head:
            nn.init.normal_(self.head.weight, std=0.001)
        bound = (3 / config.width) ** 0.5
        for block in self.blocks:
            nn.init.uniform_(block.gates, -bound, bound)
            nn.init.zeros_(block.out)
            block.gate_bias.data.copy_(torch.linspace(0.0, -4.0, config.state_size))
            if config.convolution:
                nn.init.zeros_(block.convolution)
                nn.init.ones_(block.convolution.data[-1])
            if config.feed_forward:
                nn.init.uniform_(block.feed_forward.up, -bound, bound)
                nn.init.zeros_(block.feed_forward.down)

    @property
    def head_weight(self) -> Tensor:
        return self.embedding.weight if self.config.tied_head else self.head.weight

    def start(self, batch: int) -> State:
        """Zeros: for each block h [B, S], and the convolution's last inputs [B, K - 1, D]."""
        config, state = self.config, []
        for _ in self.blocks:
            state.append(torch.zeros(batch, config.state_size, device=self.device))
            if config.convolution:
                state.append(torch.zeros(batch, config.convolution - 1, config.width, device=self.device))
        return state

    def hidden(self, tokens_BT: Tensor, state: State, parallel: bool | None = None) -> tuple[Tensor, State]:
        """Last hidden vectors [B, T, D] and the new state; `parallel` as for `linear_scan`."""
        x = rms_norm(self.embedding(tokens_BT)).to(self.compute_dtype)
        each = len(state) // len(self.blocks)
        new: State = []
        for index, block in enumerate(self.blocks):
            x, part = block(x, state[index * each : (index + 1) * each], parallel)
            new += part
        return rms_norm(x), new

    def parameter_roles(self) -> dict[str, list[nn.Parameter]]:
        """Which parameter is of which kind, for the optimizers."""
        tied = self.config.tied_head
        roles: dict[str, list[nn.Parameter]] = {"matrix": [], "scalar": [], "dense": [], "table": [], "head": []}
        for name, parameter in self.blocks.named_parameters():
            kind = "dense" if "convolution" in name else "scalar" if "bias" in name else "matrix"
            roles[kind].append(parameter)
        roles["head" if tied else "table"].append(self.embedding.weight)
        if not tied:
            roles["head"].append(self.head.weight)
        return roles

    @classmethod
    def ladder(cls, vocabulary: int, context: int, train_tokens: int) -> list[MinGruConfig]:
        """Growing depth and width."""
        return [
            MinGruConfig(vocabulary=vocabulary, context=context, layers=layers, width=width) for layers, width in SHAPES
        ]
