"""The fused loss equals the textbook one, gradients included."""

import pytest
import torch
import torch.nn.functional as F

from textmill.models import cross_entropy
from textmill.models.cross_entropy import linear_cross_entropy


@pytest.mark.parametrize("cap", [0.0, 15.0])
@pytest.mark.parametrize("chunk", [1 << 9, 1 << 22])
@pytest.mark.parametrize("biased", [False, True])
def test_loss_and_gradients_equal_cross_entropy(monkeypatch, cap, chunk, biased):
    monkeypatch.setattr(cross_entropy, "CHUNK_ELEMENTS", chunk)  # many chunks, or one
    torch.manual_seed(0)
    hidden = torch.randn(300, 48, requires_grad=True)
    weight = torch.randn(128, 48, requires_grad=True)
    bias = torch.randn(128, requires_grad=True) if biased else None
    targets = torch.randint(0, 128, (300,))
    targets[::7] = -1
    scale = 1 / int((targets >= 0).sum())
    ours = linear_cross_entropy(hidden, weight, targets, cap=cap, scale=scale, bias=bias)
    ours.backward()
    gradients = [one.grad.clone() for one in (hidden, weight, *([bias] if biased else []))]
    hidden.grad = weight.grad = None
    logits = F.linear(hidden, weight, bias)
    if biased:
        bias.grad = None
    theirs = F.cross_entropy(cap * torch.tanh(logits / cap) if cap else logits, targets, ignore_index=-1)
    theirs.backward()
    assert torch.allclose(ours, theirs, rtol=1e-5)
    assert torch.allclose(gradients[0], hidden.grad, atol=1e-6)
    assert torch.allclose(gradients[1], weight.grad, atol=1e-5)
    if biased:
        assert torch.allclose(gradients[2], bias.grad, atol=1e-5)
