"""Shapes and switches of the recurrent families, one frozen dataclass each. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from textmill.base.errors import UsageError

GATES = {"rnn": 1, "gru": 3, "lstm": 4}
"""Matrices of each cell, stacked."""


def _at_least_one(config: Any, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 1:
            raise UsageError(f"{name} must be at least 1, not {getattr(config, name)}.")


def _shares(config: Any) -> None:
    for field in fields(config):
        value = getattr(config, field.name)
        if (field.name.startswith("dropout") or field.name == "restart") and not 0 <= value < 1:
            raise UsageError(
                f"{field.name} must be at least 0 and below 1, not {value}.", "It is the share of what is left out."
            )


@dataclass(frozen=True)
class RecurrentConfig:
    """An RNN, GRU or LSTM language model. The defaults are a plain one; `awd` gives that of Merity et al. (2017)."""

    kind: Literal["rnn", "gru", "lstm"] = "lstm"
    """The cell: Elman's with tanh, the gated recurrent unit (Cho et al. 2014, with the reset gate after the matrix, as
    in cuDNN), or long short-term memory (Hochreiter and Schmidhuber 1997, with forget gate)."""
    vocabulary: int = 4096
    """Token ids."""
    context: int = 64
    """Tokens of a training row: back-propagation is cut there, the state goes on into the next row."""
    layers: int = 2
    """Cells above one another."""
    width: int = 512
    """Size of the hidden state."""
    embedding: int = 0
    """Size of a token's vector; 0 for the width. Where it differs from the width and the head is tied, the last layer
    has this size."""
    tied_head: bool = True
    """Use the embedding table as the output matrix (Press and Wolf 2017; Inan et al. 2017)."""
    output_bias: bool = True
    """A bias for each token of the output: its frequency."""
    dropout_embedding: float = 0.0
    """Share of the vocabulary whose vectors are zero for a whole step (Gal and Ghahramani 2016)."""
    dropout_input: float = 0.0
    """Locked dropout of the embeddings: one mask for all positions of a row (variational dropout)."""
    dropout_hidden: float = 0.0
    """Locked dropout between the layers."""
    dropout_output: float = 0.0
    """Locked dropout after the last layer."""
    dropout_weight: float = 0.0
    """Share of the hidden-to-hidden weights left out in each step (DropConnect, Wan et al. 2013)."""
    activation_penalty: float = 0.0
    """AR (Merity et al. 2017, eq. 13): this times the mean square of the dropped-out output joins the loss."""
    slowness_penalty: float = 0.0
    """TAR (Merity et al. 2017, eq. 14): this times the mean square of the output's change from token to token."""
    random_cut: bool = False
    """Cut back-propagation at a random place inside each training row as well, so that no place of the text is always
    at the edge (Merity et al. vary the length of the rows for that)."""
    restart: float = 0.02
    """Share of the rows that begin a training step with an empty state instead of the one carried over: documents are
    scored from an empty state, which would otherwise be seen once."""

    def __post_init__(self) -> None:
        if self.kind not in GATES:
            raise UsageError(f'There is no recurrent cell "{self.kind}".', fix=f"Choose one of {', '.join(GATES)}.")
        _at_least_one(self, "vocabulary", "context", "layers", "width")
        _shares(self)
        if self.embedding < 0:
            raise UsageError(f"embedding must be 0 or more, not {self.embedding}.")
        for name in ("activation_penalty", "slowness_penalty"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must be 0 or more, not {getattr(self, name)}.")

    @property
    def embedding_size(self) -> int:
        """Size of a token's vector."""
        return self.embedding or self.width

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(input, hidden) size of each layer."""
        hidden = [self.width] * self.layers
        if self.tied_head:
            hidden[-1] = self.embedding_size
        return list(zip([self.embedding_size, *hidden[:-1]], hidden, strict=True))

    @property
    def matmul_parameters(self) -> int:
        """Weights that multiply each token: the cells and the output matrix."""
        cells = sum(GATES[self.kind] * hidden * (size + hidden) for size, hidden in self.sizes)
        return cells + self.vocabulary * self.sizes[-1][1]

    def flops_per_token(self) -> float:
        """Training FLOPs a token, forward and backward: 6 N."""
        return 6.0 * self.matmul_parameters


def awd_lstm(vocabulary: int, context: int = 70, **changes: Any) -> RecurrentConfig:
    """The AWD-LSTM for the Penn Treebank (Merity et al. 2017, section 5); train it with `AveragedSGD`."""
    values: dict[str, Any] = {
        "layers": 3,
        "width": 1150,
        "embedding": 400,
        "dropout_embedding": 0.1,
        "dropout_input": 0.4,
        "dropout_hidden": 0.25,
        "dropout_output": 0.4,
        "dropout_weight": 0.5,
        "activation_penalty": 2.0,
        "slowness_penalty": 1.0,
        "random_cut": True,
    }
    return RecurrentConfig(kind="lstm", vocabulary=vocabulary, context=context, **(values | changes))


@dataclass(frozen=True)
class MinGruConfig:
    """A minGRU language model (Feng et al. 2024): gates that see the token alone, so that training is parallel."""

    vocabulary: int = 4096
    """Token ids."""
    context: int = 256
    """Tokens of a training row; the state goes on into the next row."""
    layers: int = 4
    """Blocks of convolution, minGRU and feed-forward."""
    width: int = 256
    """Size of the residual stream."""
    expansion: float = 1.5
    """Size of the recurrent state, as a multiple of the width."""
    convolution: int = 4
    """Tokens that the short convolution before each minGRU sees; 0 for none."""
    feed_forward: int = 4
    """Hidden size of the feed-forward part, as a multiple of the width; 0 for none."""
    tied_head: bool = False
    """Use the embedding table as the output matrix."""
    dropout: float = 0.0
    """Share of the activations of each part left out while training."""
    restart: float = 0.02
    """Share of the rows that begin a training step with an empty state."""

    def __post_init__(self) -> None:
        _at_least_one(self, "vocabulary", "context", "layers", "width")
        _shares(self)
        if self.convolution < 0 or self.feed_forward < 0 or self.state_size < 1:
            raise UsageError("convolution and feed_forward must be 0 or more, and expansion above 0.")

    @property
    def state_size(self) -> int:
        """Size of the recurrent state."""
        return round(self.expansion * self.width)

    @property
    def matmul_parameters(self) -> int:
        """Weights that multiply each token."""
        block = 3 * self.width * self.state_size + 2 * self.feed_forward * self.width**2
        return self.layers * (block + self.convolution * self.width) + self.vocabulary * self.width

    def flops_per_token(self) -> float:
        """Training FLOPs a token, forward and backward: 6 N; the scan itself is negligible."""
        return 6.0 * self.matmul_parameters


@dataclass(frozen=True)
class StateSpaceConfig:
    """A Mamba-2 language model (Dao and Gu 2024): a linear recurrence with a large state, trained chunk by chunk."""

    vocabulary: int = 4096
    """Token ids."""
    context: int = 256
    """Tokens of a training row; the state goes on into the next row."""
    layers: int = 6
    """Mixer blocks."""
    width: int = 256
    """Size of the residual stream."""
    expansion: int = 2
    """Inner size of a block, as a multiple of the width."""
    head: int = 64
    """Size of a head, P."""
    state: int = 64
    """Size of the state of each channel of a head, N."""
    convolution: int = 4
    """Tokens that the short convolution sees."""
    chunk: int = 64
    """Tokens of a chunk of the scan: inside it the recurrence is a masked matrix product, between chunks a state."""
    tied_head: bool = False
    """Use the embedding table as the output matrix."""
    dropout: float = 0.0
    """Share of the activations of each block left out while training."""
    restart: float = 0.02
    """Share of the rows that begin a training step with an empty state."""

    def __post_init__(self) -> None:
        _at_least_one(
            self, "vocabulary", "context", "layers", "width", "expansion", "head", "state", "convolution", "chunk"
        )
        _shares(self)
        if self.inner % self.head:
            raise UsageError(
                f"The inner size {self.inner} cannot be divided into heads of {self.head}.",
                fix="Choose a width that is a multiple of the head's size.",
            )

    @property
    def inner(self) -> int:
        """Inner size of a block."""
        return self.expansion * self.width

    @property
    def heads(self) -> int:
        """Heads of a block."""
        return self.inner // self.head

    @property
    def matmul_parameters(self) -> int:
        """Weights that multiply each token."""
        entrance = self.width * (2 * self.inner + 2 * self.state + self.heads)
        short = self.convolution * (self.inner + 2 * self.state)
        return self.layers * (entrance + short + self.inner * self.width) + self.vocabulary * self.width

    def flops_per_token(self) -> float:
        """Training FLOPs a token, forward and backward: 6 N, and the chunked scan's matrix products.

        The scan costs 2 Q N for the scores of a chunk of Q tokens (shared by the heads), 2 Q I for their product with
        the values, and 4 N I to build and read the states, I being the inner size (Dao and Gu 2024, section 6); three
        times that with the backward pass.
        """
        scan = 2 * self.chunk * (self.state + self.inner) + 4 * self.state * self.inner
        return 6.0 * self.matmul_parameters + 3.0 * self.layers * scan
