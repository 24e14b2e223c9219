"""NT-ASGD: averages as torch's ASGD does, begins by the rule of the paper, goes on from a checkpoint."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from textmill.training.averaged_sgd import AveragedSGD


def quadratic(optimizer_of, steps=40, begin=None):
    """Noisy steps down a bowl; the parameter after them, and the optimizer."""
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
    optimizer = optimizer_of([parameter])
    for step in range(steps):
        if begin == step:
            optimizer.averaging = True
        optimizer.zero_grad()
        ((parameter + torch.randn(2)).square().sum()).backward()
        optimizer.step()
    return parameter, optimizer


def test_the_average_is_that_of_torch():
    # torch's average begins afresh with the second step.
    ours, optimizer = quadratic(lambda p: AveragedSGD(p, lr=0.1, weight_decay=0.01), begin=1)
    theirs, reference = quadratic(lambda p: torch.optim.ASGD(p, lr=0.1, lambd=0.0, alpha=0.0, t0=0, weight_decay=0.01))
    assert torch.allclose(ours, theirs, atol=1e-6)
    own = ours.detach().clone()
    with optimizer.averaged():
        assert torch.allclose(ours, reference.state[theirs]["ax"], atol=1e-5)
        assert not torch.allclose(ours, own, atol=1e-3)
    assert torch.equal(ours, own)


def test_without_averaging_it_is_plain_descent():
    ours, optimizer = quadratic(lambda p: AveragedSGD(p, lr=0.1, weight_decay=0.01))
    theirs, _ = quadratic(lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.01))
    assert torch.allclose(ours, theirs, atol=1e-6)
    with optimizer.averaged():
        assert torch.allclose(ours, theirs, atol=1e-6)


@given(st.lists(st.floats(0, 10), max_size=15), st.integers(1, 4))
def test_averaging_begins_when_the_paper_says(losses, window):
    """Algorithm 1: at validation t > n, when v_t > min of the logs up to t - n - 1."""
    optimizer = AveragedSGD([torch.nn.Parameter(torch.zeros(1))], window=window)
    begun = [optimizer.observe(loss) for loss in losses]
    logs, triggered, wanted = [], False, []
    for t, loss in enumerate(losses):
        now = not triggered and t > window and loss > min(logs[: t - window])
        triggered = triggered or now
        wanted.append(now)
        logs.append(loss)
    assert begun == wanted
    assert optimizer.averaging == triggered


@pytest.mark.parametrize("begin", [None, 5])
def test_it_goes_on_from_a_checkpoint(begin):
    parameter, optimizer = quadratic(lambda p: AveragedSGD(p, lr=0.1, window=1), steps=10, begin=begin)
    optimizer.observe(2.0)
    again = torch.nn.Parameter(parameter.detach().clone())
    other = AveragedSGD([again], lr=0.1, window=1)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for one, held in ((parameter, optimizer), (again, other)):
        torch.manual_seed(1)
        held.observe(3.0)
        held.observe(4.0)
        assert held.averaging
        for _ in range(5):
            one.grad = torch.randn(2)
            held.step()
    assert torch.equal(parameter, again)
    with optimizer.averaged(), other.averaged():
        assert torch.equal(parameter, again)
