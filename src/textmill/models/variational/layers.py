"""The parts of the autoencoder and the VAE: segment encoders, the recurrent decoder, the reverse decoder."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textmill.models.variational.config import AutoencoderConfig

Hidden = tuple[Tensor, ...]
"""The recurrent state of the decoder: (h,) or (h, c), each [layers, n, H]."""
BUCKET = 64
"""Segments of about one length that go through a recurrent network together, so that padding costs little."""


def recurrent(config: AutoencoderConfig, inputs: int, layers: int) -> nn.LSTM | nn.GRU:
    """A recurrent network of the configured cell, batch first."""
    kind = nn.LSTM if config.cell == "lstm" else nn.GRU
    return kind(inputs, config.width, layers, batch_first=True)


def reverse_within(lengths: Tensor, size: int) -> Tensor:
    """Index [n, size] that turns the first `lengths` places of each row around and leaves the others."""
    place = torch.arange(size, device=lengths.device)[None, :]
    return torch.where(place < lengths[:, None], lengths[:, None] - 1 - place, place)


class RecurrentEncoder(nn.Module):
    """The cell in both directions over a segment; its last outputs of both, [n, 2 H]."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        sizes = [config.embedding] + [2 * config.width] * (config.layers - 1)
        self.forwards = nn.ModuleList(recurrent(config, size, 1) for size in sizes)
        self.backwards = nn.ModuleList(recurrent(config, size, 1) for size in sizes)
        self.outputs = 2 * config.width

    def forward(self, x_nSE: Tensor, lengths: Tensor) -> Tensor:
        """Summary [n, 2 H] of embedded segments, whatever stands after their ends."""
        turn = reverse_within(lengths, x_nSE.shape[1])[:, :, None]
        last = (lengths - 1)[:, None, None]
        x = x_nSE
        for index, (ahead, back) in enumerate(zip(self.forwards, self.backwards, strict=True)):
            one, _ = ahead(x)
            two, _ = back(x.gather(1, turn.expand_as(x)))  # from the segment's end to its start
            if index == len(self.forwards) - 1:
                ends = [h.gather(1, last.expand(-1, 1, h.shape[2]))[:, 0] for h in (one, two)]
                return torch.cat(ends, 1)
            x = torch.cat((one, two.gather(1, turn.expand_as(two))), 2)
        raise AssertionError("an encoder has at least one layer")


class TransformerEncoder(nn.Module):
    """Pre-norm self-attention over a segment with sinusoidal positions (Vaswani et al. 2017), averaged, [n, H]."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        H = config.width
        self.enter = nn.Linear(config.embedding, H)
        layer = nn.TransformerEncoderLayer(
            H, 4, 4 * H, config.dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, config.layers, norm=nn.LayerNorm(H), enable_nested_tensor=False)
        self.outputs = H
        rate = torch.exp(torch.arange(0, H, 2) * (-math.log(10000.0) / H))
        angle = torch.arange(config.segment)[:, None] * rate[None, :]
        self.register_buffer("positions", torch.cat((angle.sin(), angle.cos()), 1), persistent=False)

    def forward(self, x_nSE: Tensor, lengths: Tensor) -> Tensor:
        """Summary [n, H] of embedded segments, whatever stands after their ends."""
        S = x_nSE.shape[1]
        after = torch.arange(S, device=lengths.device)[None, :] >= lengths[:, None]
        positions: Tensor = self.positions  # type: ignore[assignment]
        x = self.blocks(self.enter(x_nSE) + positions[:S], src_key_padding_mask=after)
        return x.masked_fill(after[:, :, None], 0.0).sum(1) / lengths[:, None]


class Decoder(nn.Module):
    """The forward generator: the latent vector sets its first state and is part of every step's input."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.states = 2 if config.cell == "lstm" else 1
        self.first = nn.Linear(config.latent, self.states * config.layers * config.width)
        self.cell = recurrent(config, config.step_inputs, config.layers)

    def begin(self, z_nL: Tensor) -> Hidden:
        """The state before a segment's first token."""
        n = len(z_nL)
        parts = torch.tanh(self.first(z_nL)).view(n, self.states, self.config.layers, self.config.width)
        return tuple(parts.permute(1, 2, 0, 3).contiguous())

    def step(self, x_nSE: Tensor, z_nL: Tensor, reverse_nSR: Tensor | None, hidden: Hidden) -> tuple[Tensor, Hidden]:
        """Outputs [n, S, H] after each of S embedded input tokens, and the state after the last.

        Args:
            x_nSE: embeddings of the tokens before.
            z_nL: latent vectors.
            reverse_nSR: the reverse decoder's state for each of these positions, or None.
            hidden: the state before the first of them.
        """
        parts = [x_nSE, z_nL[:, None].expand(-1, x_nSE.shape[1], -1)]
        if reverse_nSR is not None:
            parts.append(reverse_nSR)
        state = hidden if self.states == 2 else hidden[0]
        out, after = self.cell(torch.cat(parts, 2), state)
        return out, after if self.states == 2 else (after,)


class ReverseDecoder(nn.Module):
    """Writes a segment from its last position to its first, from the latent vector alone.

    A recurrent network of gated units (Cho et al. 2014). At each step it reads the latent vector and, with feedback,
    the expectation of its own last output's embedding, never a token of the text: its states are a deterministic
    function of the latent vector, so conditioning on them tells nothing that the latent vector does not.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        R = config.reverse_width
        self.first = nn.Linear(config.latent, R)
        self.from_latent = nn.Linear(config.latent, 3 * R)
        self.from_state = nn.Linear(R, 3 * R)
        if config.reverse_feedback == "expected":
            self.from_output = nn.Linear(config.embedding, 3 * R, bias=False)
        self.out = nn.Linear(R, config.embedding)

    def forward(self, z_nL: Tensor, table_VE: Tensor) -> Tensor:
        """States [n, segment, R] in the order of writing: the first stands for the segment's last position.

        Args:
            z_nL: latent vectors.
            table_VE: the token embeddings, which are the output matrix too.
        """
        h = torch.tanh(self.first(z_nL))
        constant = self.from_latent(z_nL)
        expected: Tensor | None = None
        states = []
        for _ in range(self.config.segment):
            inputs = constant if expected is None else constant + self.from_output(expected)
            reset_in, update_in, new_in = inputs.chunk(3, 1)
            reset_h, update_h, new_h = self.from_state(h).chunk(3, 1)
            update = torch.sigmoid(update_in + update_h)
            new = torch.tanh(new_in + torch.sigmoid(reset_in + reset_h) * new_h)
            h = new + update * (h - new)
            states.append(h)
            if self.config.reverse_feedback == "expected":
                with torch.no_grad():  # feedback passes no gradient: no step's logits are kept
                    expected = F.linear(self.out(h), table_VE).softmax(-1) @ table_VE
        return torch.stack(states, 1)
