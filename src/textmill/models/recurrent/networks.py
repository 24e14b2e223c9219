"""RNN, GRU and LSTM language models, with the regularization of AWD-LSTM (Merity, Keskar and Socher 2017)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textmill.base.errors import UsageError
from textmill.models.recurrent.cells import GRULayer, LSTMLayer, RNNLayer
from textmill.models.recurrent.config import GATES, RecurrentConfig
from textmill.models.recurrent.model import State, StatefulModel, locked_dropout

WIDTHS = (128, 192, 256, 384, 512, 768, 1024, 1536)


class Layer(nn.Module):
    """One cell over a sequence: matrices stacked gate by gate, in the order of `torch.nn`.

    Attributes:
        input: [G H, D] input-to-hidden.
        hidden: [G H, H] hidden-to-hidden.
        bias: [G H], the sum of the two biases of `torch.nn`.
        reset_bias: [H], GRU only: the bias inside the product with the reset gate.
    """

    def __init__(self, kind: str, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.kind, self.hidden_size = kind, hidden_size
        rows = GATES[kind] * hidden_size
        self.input = nn.Parameter(torch.empty(rows, input_size))
        self.hidden = nn.Parameter(torch.empty(rows, hidden_size))
        self.bias = nn.Parameter(torch.empty(rows))
        if kind == "gru":
            self.reset_bias = nn.Parameter(torch.empty(hidden_size))

    def forward(self, x_BTD: Tensor, state: State, weight: Tensor) -> tuple[Tensor, State]:
        """Outputs [B, T, H] and the new state.

        Args:
            x_BTD: inputs, in the dtype of the matrix products.
            state: [hidden], or [hidden, cell] of an LSTM, each [B, H] fp32.
            weight: the hidden-to-hidden matrix, with weight dropout where there is any.
        """
        if x_BTD.is_cuda:
            return self.library(x_BTD, state, weight)
        # Time first: each step is then a contiguous piece.
        x_TBD = x_BTD.transpose(0, 1).contiguous()
        projected = F.linear(x_TBD, self.input.to(x_TBD.dtype), self.bias.to(x_TBD.dtype))
        new: State
        if self.kind == "lstm":
            outputs, *new = LSTMLayer.apply(projected, weight, *state)
        elif self.kind == "gru":
            outputs, *new = GRULayer.apply(projected, weight, self.reset_bias, *state)
        else:
            outputs, *new = RNNLayer.apply(projected, weight, *state)
        return outputs.transpose(0, 1), new

    def library(self, x_BTD: Tensor, state: State, weight: Tensor) -> tuple[Tensor, State]:
        """The same by torch's own kernel (cuDNN on a GPU)."""
        dtype = x_BTD.dtype
        second = torch.zeros_like(self.bias)
        if self.kind == "gru":
            second = torch.cat((second[: 2 * self.hidden_size], self.reset_bias))
        weights = [part.to(dtype) for part in (self.input, weight, self.bias, second)]
        before = [part.to(dtype)[None] for part in state]
        run = {"lstm": torch.lstm, "gru": torch.gru, "rnn": torch.rnn_tanh}[self.kind]
        start: Any = before if self.kind == "lstm" else before[0]
        outputs, *new = run(x_BTD, start, weights, True, 1, 0.0, self.training, False, True)
        return outputs, [part[0].float() for part in new]


class Recurrent(StatefulModel):
    """An RNN, GRU or LSTM language model.

    Args:
        config: its shape; the kind must be the family's.
    """

    config_class: ClassVar[type] = RecurrentConfig
    rate_factors: ClassVar[dict[str, float]] = {"head": 7.5, "matrix": 2.0}
    """Their learning rates against a Transformer's (docs/LOG.md, 2026-11-26)."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        if config.kind != self.family:
            raise UsageError(f'The family "{self.family}" was given the configuration of a "{config.kind}".')
        self.embedding = nn.Embedding(config.vocabulary, config.embedding_size)
        self.layers = nn.ModuleList(Layer(config.kind, size, hidden) for size, hidden in config.sizes)
        if not config.tied_head:
            self.head = nn.Linear(config.sizes[-1][1], config.vocabulary, bias=False)
        if config.output_bias:
            self.output_bias = nn.Parameter(torch.zeros(config.vocabulary))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initial weights: tables uniform within 0.1 (Merity et al. 2017); cells uniform within 1 / sqrt(H), as
        `torch.nn` has them; biases 0, those of LSTM forget gates 1 (Jozefowicz et al. 2015)."""
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        if not self.config.tied_head:
            nn.init.uniform_(self.head.weight, -0.1, 0.1)
        for layer in self.layers:
            bound = layer.hidden_size**-0.5
            for name, parameter in layer.named_parameters():
                if "bias" in name:
                    nn.init.zeros_(parameter)
                else:
                    nn.init.uniform_(parameter, -bound, bound)
            if layer.kind == "lstm":
                nn.init.ones_(layer.bias.data[layer.hidden_size : 2 * layer.hidden_size])

    @property
    def head_weight(self) -> Tensor:
        return self.embedding.weight if self.config.tied_head else self.head.weight

    @property
    def head_bias(self) -> Tensor | None:
        return self.output_bias if self.config.output_bias else None

    def start(self, batch: int) -> State:
        """Zeros: for each layer hidden [B, H], and for an LSTM cell [B, H]."""
        each = 2 if self.config.kind == "lstm" else 1
        return [torch.zeros(batch, hidden, device=self.device) for _, hidden in self.config.sizes for _ in range(each)]

    def embed(self, tokens_BT: Tensor) -> Tensor:
        """Token vectors [B, T, D], with embedding and input dropout while training."""
        config = self.config
        x = self.embedding(tokens_BT)
        if self.training and config.dropout_embedding:
            kept = torch.empty(config.vocabulary, device=x.device).bernoulli_(1 - config.dropout_embedding)
            x = x * (kept / (1 - config.dropout_embedding))[tokens_BT][..., None]
        return locked_dropout(x.to(self.compute_dtype), config.dropout_input, self.training)

    def hidden(self, tokens_BT: Tensor, state: State) -> tuple[Tensor, State]:
        """Outputs [B, T, D] of the last layer before output dropout, and the state."""
        config = self.config
        x = self.embed(tokens_BT)
        each = len(state) // len(self.layers)
        new: State = []
        for index, layer in enumerate(self.layers):
            if index:
                x = locked_dropout(x, config.dropout_hidden, self.training)
            weight = F.dropout(layer.hidden, config.dropout_weight, self.training)
            x, part = layer(x, state[index * each : (index + 1) * each], weight)
            new += part
        return x, new

    def finish(self, hidden_BTD: Tensor) -> tuple[Tensor, Tensor | None]:
        """Output dropout, and the penalties AR and TAR (Merity et al. 2017, section 4.7)."""
        config = self.config
        dropped = locked_dropout(hidden_BTD, config.dropout_output, self.training)
        penalty = None
        if config.activation_penalty:
            penalty = config.activation_penalty * dropped.float().square().mean()
        if config.slowness_penalty and hidden_BTD.shape[1] > 1:
            slow = config.slowness_penalty * hidden_BTD.float().diff(dim=1).square().mean()
            penalty = slow if penalty is None else penalty + slow
        return dropped, penalty

    def parameter_roles(self) -> dict[str, list[nn.Parameter]]:
        """Which parameter is of which kind, for the optimizers; a tied table is the output matrix too."""
        roles: dict[str, list[nn.Parameter]] = {"matrix": [], "scalar": [], "table": [], "head": []}
        for layer in self.layers:
            for name, parameter in layer.named_parameters():
                roles["scalar" if "bias" in name else "matrix"].append(parameter)
                if "bias" not in name:
                    parameter.pieces = GATES[layer.kind]  # a matrix for each gate, one above the other
        roles["head" if self.config.tied_head else "table"].append(self.embedding.weight)
        if not self.config.tied_head:
            roles["head"].append(self.head.weight)
        if self.config.output_bias:
            roles["scalar"].append(self.output_bias)
        return roles

    @classmethod
    def ladder(cls, vocabulary: int, context: int, train_tokens: int) -> list[RecurrentConfig]:
        """Two layers of growing width; rows of at most 64 tokens, since the state goes on."""
        return [
            RecurrentConfig(kind=cls.family, vocabulary=vocabulary, context=min(context, 64), width=width)  # type: ignore[arg-type]
            for width in WIDTHS
        ]


class Rnn(Recurrent):
    """Elman's recurrent network with tanh."""

    family: ClassVar[str] = "rnn"
    rate_factors: ClassVar[dict[str, float]] = {"head": 7.5}


class Gru(Recurrent):
    """The gated recurrent unit."""

    family: ClassVar[str] = "gru"


class Lstm(Recurrent):
    """Long short-term memory."""

    family: ClassVar[str] = "lstm"
