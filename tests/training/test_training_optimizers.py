"""Muon: near-orthogonal updates of the right size, and descent."""

import pytest
import torch

from textmill.training.optimizers import Muon, orthogonalize


@pytest.mark.parametrize("shape", [(64, 64), (256, 64), (64, 256)])
def test_orthogonalize_approximates_the_polar_factor(shape):
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape)
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    found = orthogonalize(matrices)
    similarity = (found * (u @ vh)).sum((1, 2)) / (found.norm(dim=(1, 2)) * (u @ vh).norm(dim=(1, 2)))
    assert (similarity > 0.98).all()
    singular = torch.linalg.svdvals(found)
    assert singular.max() < 1.3
    assert singular.median() > 0.7


def test_the_update_does_not_depend_on_the_gradients_scale():
    results = []
    for factor in (1e-3, 1e3):
        torch.manual_seed(0)
        matrix = torch.nn.Parameter(torch.randn(32, 96))
        optimizer = Muon([matrix], lr=0.1, dtype=torch.float32)
        matrix.grad = factor * torch.randn(32, 96)
        optimizer.step()
        results.append(matrix.detach().clone())
    assert torch.allclose(results[0], results[1], atol=1e-4)


def test_a_fused_matrix_is_updated_as_three():
    torch.manual_seed(0)
    fused = torch.nn.Parameter(torch.zeros(96, 32))
    parts = [torch.nn.Parameter(torch.zeros(32, 32)) for _ in range(3)]
    gradient = torch.randn(96, 32)
    fused.grad = gradient.clone()
    for part, piece in zip(parts, gradient.split(32), strict=True):
        part.grad = piece.clone()
    Muon([fused], lr=0.1, dtype=torch.float32).step()
    Muon(parts, lr=0.1, dtype=torch.float32).step()
    assert torch.allclose(fused, torch.cat(list(parts)), atol=1e-5)


def test_it_learns_a_linear_map():
    torch.manual_seed(0)
    truth, inputs = torch.randn(16, 16), torch.randn(256, 16)
    matrix = torch.nn.Parameter(torch.zeros(16, 16))
    optimizer = Muon([matrix], lr=0.1, dtype=torch.float32)
    losses = []
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 200)
        loss = ((inputs @ matrix.T - inputs @ truth.T) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.01 * losses[0]
