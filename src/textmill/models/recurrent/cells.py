"""One layer of an RNN, GRU or LSTM over a whole sequence, with its gradients written out. Needs torch alone.

The input's part of all gates comes in as one matrix product; only hidden-to-hidden products are left for the loop over
time. `nn.LSTM` on a CPU has no such loop in bf16 worth the name (its bf16 kernel is ten times slower than fp32), and no
place for DropConnect. The products may be bf16; gates, cells and gradients between steps stay fp32.

Shape legend: T tokens, B rows, H hidden size, G matrices stacked in a cell (1, 3, 4 in the order of torch: r z n; i f g
o). Time comes first, so that each step is a contiguous piece.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def _weight_gradient(gradient_TBG: Tensor, hidden_TBH: Tensor, weight: Tensor) -> Tensor:
    """Gradient of the hidden-to-hidden matrix [G H, H] over all steps at once."""
    return (gradient_TBG.flatten(0, 1).T @ hidden_TBH.flatten(0, 1)).to(weight.dtype)


class LSTMLayer(torch.autograd.Function):
    """Long short-term memory (Hochreiter and Schmidhuber 1997; Gers et al. 2000), gates as in `nn.LSTM`."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, projected: Tensor, weight: Tensor, hidden: Tensor, cell: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Args: projected [T, B, 4H] the input's part with biases, weight [4H, H], hidden and cell [B, H].

        Returns: outputs [T, B, H] in the dtype of `projected`, last hidden and cell [B, H] fp32.
        """
        T, B, _ = projected.shape
        H, dtype = weight.shape[1], projected.dtype
        matrix = weight.to(dtype).T  # a view: with one row, bf16 products of a transposed copy are ten times slower
        gates = projected.to(torch.float32, copy=True)
        cells = torch.empty(T + 1, B, H, device=weight.device)
        squashed = torch.empty(T, B, H, device=weight.device)
        outputs = torch.empty(T + 1, B, H, dtype=dtype, device=weight.device)
        cells[0], outputs[0] = cell, hidden
        product = torch.empty(B, 4 * H, dtype=dtype, device=weight.device)
        for t in range(T):
            torch.mm(outputs[t], matrix, out=product)
            a = gates[t].add_(product)
            a[:, : 2 * H].sigmoid_()
            a[:, 2 * H : 3 * H].tanh_()
            a[:, 3 * H :].sigmoid_()
            i, f, g, o = a.split(H, 1)
            c = torch.mul(f, cells[t], out=cells[t + 1]).addcmul_(i, g)
            torch.mul(o, torch.tanh(c, out=squashed[t]), out=outputs[t + 1])
        ctx.save_for_backward(gates, cells, squashed, outputs, weight)
        last = gates[-1, :, 3 * H :] * squashed[-1]
        return outputs[1:], last, cells[-1].clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        gates, cells, squashed, outputs, weight = ctx.saved_tensors
        from_outputs, from_hidden, from_cell = upstream
        T, B, H = squashed.shape
        dtype = outputs.dtype
        matrix = weight.to(dtype)
        i, f, g, o = gates.split(H, 2)
        # What each gate's gradient is a multiple of, for all steps at once: only dh and dc depend on the step after.
        to_cell = o * (1 - squashed.square())
        factor = torch.empty(T, B, 3, H, device=weight.device)
        torch.mul(g * i, 1 - i, out=factor[:, :, 0])
        torch.mul(cells[:-1] * f, 1 - f, out=factor[:, :, 1])
        torch.mul(i, 1 - g.square(), out=factor[:, :, 2])
        factor_o = squashed * o * (1 - o)
        gradient = torch.empty(T, B, 4 * H, dtype=dtype, device=weight.device)
        dh, dc = from_hidden.float(), from_cell.float().clone()
        for t in range(T - 1, -1, -1):
            dh = dh + from_outputs[t]
            dc.addcmul_(dh, to_cell[t])
            torch.mul(factor[t], dc[:, None], out=gradient[t, :, : 3 * H].view(B, 3, H))
            torch.mul(factor_o[t], dh, out=gradient[t, :, 3 * H :])
            dc.mul_(f[t])
            dh = torch.mm(gradient[t], matrix).float()
        return gradient, _weight_gradient(gradient, outputs[:-1], weight), dh, dc


class GRULayer(torch.autograd.Function):
    """Gated recurrent unit (Cho et al. 2014) with the reset gate after the matrix, as in `nn.GRU` and cuDNN."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, projected: Tensor, weight: Tensor, bias: Tensor, hidden: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Args: projected [T, B, 3H], weight [3H, H], bias [H] inside the reset product, hidden [B, H].

        Returns: outputs [T, B, H], last hidden [B, H] fp32.
        """
        T, B, _ = projected.shape
        H, dtype = weight.shape[1], projected.dtype
        matrix = weight.to(dtype).T  # a view: with one row, bf16 products of a transposed copy are ten times slower
        gates = projected.to(torch.float32, copy=True)
        inner = torch.empty(T, B, H, device=weight.device)
        states = torch.empty(T + 1, B, H, device=weight.device)
        outputs = torch.empty(T + 1, B, H, dtype=dtype, device=weight.device)
        states[0], outputs[0] = hidden, hidden
        product = torch.empty(B, 3 * H, dtype=dtype, device=weight.device)
        for t in range(T):
            torch.mm(outputs[t], matrix, out=product)
            a = gates[t]
            a[:, : 2 * H].add_(product[:, : 2 * H]).sigmoid_()
            torch.add(bias, product[:, 2 * H :], out=inner[t])
            n = a[:, 2 * H :].addcmul_(a[:, :H], inner[t]).tanh_()
            torch.lerp(n, states[t], a[:, H : 2 * H], out=states[t + 1])
            outputs[t + 1] = states[t + 1]
        ctx.save_for_backward(gates, inner, states, outputs, weight)
        return outputs[1:], states[-1].clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        gates, inner, states, outputs, weight = ctx.saved_tensors
        from_outputs, from_hidden = upstream
        T, B, H = inner.shape
        dtype = outputs.dtype
        matrix = weight.to(dtype)
        r, z, n = gates.split(H, 2)
        new = (1 - z) * (1 - n.square())  # multiplied by dh: the gradient of the candidate before its tanh
        factor = torch.empty(T, B, 3, H, device=weight.device)
        torch.mul(new * inner * r, 1 - r, out=factor[:, :, 0])
        torch.mul((states[:-1] - n) * z, 1 - z, out=factor[:, :, 1])
        torch.mul(new, r, out=factor[:, :, 2])
        recurrent = torch.empty(T, B, 3 * H, dtype=dtype, device=weight.device)
        total = torch.empty(T, B, H, device=weight.device)
        dh = from_hidden.float()
        for t in range(T - 1, -1, -1):
            torch.add(dh, from_outputs[t], out=total[t])
            torch.mul(factor[t], total[t][:, None], out=recurrent[t].view(B, 3, H))
            dh = torch.addcmul(torch.mm(recurrent[t], matrix).float(), total[t], z[t])
        projected = recurrent.clone()
        torch.mul(new, total, out=projected[:, :, 2 * H :])
        bias = recurrent[:, :, 2 * H :].float().sum((0, 1))
        return projected, _weight_gradient(recurrent, outputs[:-1], weight), bias, dh


class RNNLayer(torch.autograd.Function):
    """Elman's recurrent network with tanh (Elman 1990), as `nn.RNN`."""

    @staticmethod
    def forward(ctx: Any, projected: Tensor, weight: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Args: projected [T, B, H], weight [H, H], hidden [B, H]. Returns: outputs [T, B, H], last hidden [B, H]."""
        T, B, H = projected.shape
        dtype = projected.dtype
        matrix = weight.to(dtype).T  # a view: with one row, bf16 products of a transposed copy are ten times slower
        states = projected.to(torch.float32, copy=True)
        outputs = torch.empty(T + 1, B, H, dtype=dtype, device=weight.device)
        outputs[0] = hidden
        for t in range(T):
            outputs[t + 1] = states[t].add_(torch.mm(outputs[t], matrix)).tanh_()
        ctx.save_for_backward(outputs, states, weight)
        return outputs[1:], states[-1].clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        outputs, states, weight = ctx.saved_tensors
        from_outputs, from_hidden = upstream
        matrix = weight.to(outputs.dtype)
        slope = 1 - states.square()
        gradient = torch.empty_like(outputs[1:])
        dh = from_hidden.float()
        for t in range(len(gradient) - 1, -1, -1):
            torch.mul(dh + from_outputs[t], slope[t], out=gradient[t])
            dh = torch.mm(gradient[t], matrix).float()
        return gradient, _weight_gradient(gradient, outputs[:-1], weight), dh
