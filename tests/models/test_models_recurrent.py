"""RNN, GRU, LSTM and minGRU: the same as torch's, the same by steps as by rows, scored side by side as one by one."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from textmill.base.errors import UsageError
from textmill.models.cross_entropy import chunk_loss, eager_chunk_loss
from textmill.models.protocol import LanguageModel
from textmill.models.recurrent import Gru, Lstm, MinGru, MinGruConfig, RecurrentConfig, Rnn, awd_lstm
from textmill.models.recurrent.model import StatefulModel
from textmill.models.recurrent.scan import linear_scan
from textmill.models.state_space import Mamba, StateSpaceConfig

TORCH = {"rnn": (Rnn, nn.RNN), "gru": (Gru, nn.GRU), "lstm": (Lstm, nn.LSTM)}
SMALL: dict[str, Any] = {"vocabulary": 64, "width": 24, "layers": 2, "context": 16}


def random_weights(model: StatefulModel, std: float = 0.3) -> StatefulModel:
    torch.manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std)
    return model


def small(family: str, **changes) -> StatefulModel:
    """A small model with weights large enough that every part shows."""
    shape = SMALL | changes
    if family == "mingru":
        return random_weights(MinGru(MinGruConfig(**shape))).eval()
    if family == "mamba":
        return random_weights(Mamba(StateSpaceConfig(**shape, head=16, state=8, chunk=4))).eval()
    return random_weights(TORCH[family][0](RecurrentConfig(kind=family, **shape))).eval()


@pytest.fixture(autouse=True)
def _one_thread():
    """Tensors of this size are no work for two threads: waking the second one costs more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


FAMILIES = ["rnn", "gru", "lstm", "mingru", "mamba"]


# ---- against torch.nn ------------------------------------------------------------------------------------------------


def in_torch(model: StatefulModel, kind: str) -> nn.Module:
    """The same weights in torch's module; both of its biases are in use, which ours keeps as one."""
    sizes = model.config.sizes
    theirs = TORCH[kind][1](sizes[0][0], sizes[0][1], len(sizes), batch_first=True)
    for index, layer in enumerate(model.layers):
        theirs.get_parameter(f"weight_ih_l{index}").data.copy_(layer.input)
        theirs.get_parameter(f"weight_hh_l{index}").data.copy_(layer.hidden)
        first, second = (theirs.get_parameter(f"bias_{part}_l{index}").data for part in ("ih", "hh"))
        first.copy_(layer.bias)
        if kind == "gru":
            first[: -layer.hidden_size] -= second[: -layer.hidden_size]
            second[-layer.hidden_size :] = layer.reset_bias
        else:
            first -= second
    return theirs


@pytest.mark.parametrize("kind", list(TORCH))
def test_values_and_gradients_are_those_of_torch(kind):
    model = small(kind)
    theirs = in_torch(model, kind)
    tokens = torch.randint(0, 64, (3, 11))
    state = [torch.randn(3, 24) for _ in model.start(3)]
    hidden, after = model.hidden(tokens, state)
    stacked = [torch.stack(state[i :: len(state) // 2]) for i in range(len(state) // 2)]
    wanted, their_after = theirs(model.embedding(tokens), tuple(stacked) if kind == "lstm" else stacked[0])
    assert torch.allclose(hidden, wanted, atol=1e-5)
    for i, part in enumerate(their_after if kind == "lstm" else (their_after,)):
        assert torch.allclose(torch.stack(after[i :: len(state) // 2]), part, atol=1e-5)

    weight = torch.randn(3, 11, 24)
    (hidden * weight).sum().backward()
    table = model.embedding.weight.grad.clone()
    model.embedding.weight.grad = None
    (wanted * weight).sum().backward()
    assert torch.allclose(table, model.embedding.weight.grad, atol=2e-5)
    for index, layer in enumerate(model.layers):
        for ours, name in ((layer.input, "weight_ih"), (layer.hidden, "weight_hh"), (layer.bias, "bias_ih")):
            assert torch.allclose(ours.grad, theirs.get_parameter(f"{name}_l{index}").grad, atol=1e-4), name
        if kind == "gru":
            assert torch.allclose(
                layer.reset_bias.grad, theirs.get_parameter(f"bias_hh_l{index}").grad[-24:], atol=1e-4
            )


@pytest.mark.parametrize("kind", list(TORCH))
def test_the_loop_and_the_library_agree(kind):
    layer = small(kind).layers[0]
    x = torch.randn(2, 7, 24)
    state = [torch.randn(2, 24) for _ in range(2 if kind == "lstm" else 1)]
    ours, ours_after = layer(x, state, layer.hidden)
    theirs, their_after = layer.library(x, state, layer.hidden)
    assert torch.allclose(ours, theirs, atol=1e-5)
    for a, b in zip(ours_after, their_after, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("kind", list(TORCH))
def test_the_states_between_rows_have_gradients(kind):
    """Through the outputs and through the last state, as autograd finds them in torch's own kernel."""
    layer = small(kind, layers=1).layers[0]
    x = torch.randn(2, 5, 24)
    state = [torch.randn(2, 24, requires_grad=True) for _ in range(2 if kind == "lstm" else 1)]
    found = []
    for run in (layer.forward, layer.library):
        outputs, after = run(x, state, layer.hidden)
        total = outputs.square().sum() + sum((part * torch.arange(24.0)).sum() for part in after)
        found.append(torch.autograd.grad(total, state))
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_bf16_stays_near_fp32():
    for kind in TORCH:
        model = small(kind)
        tokens = torch.randint(0, 64, (4, 16))
        exact = model(tokens).log_softmax(-1)
        model.compute_dtype = torch.bfloat16
        assert (model(tokens).log_softmax(-1) - exact).abs().max() < 0.15, kind


# ---- minGRU ----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(length=st.integers(1, 70), seed=st.integers(0, 2**20))
def test_the_parallel_scan_is_the_loop(length, seed):
    draw = torch.Generator().manual_seed(seed)
    parts = [torch.rand(2, length, 3, generator=draw), torch.randn(2, length, 3, generator=draw)]
    parts.append(torch.randn(2, 3, generator=draw))
    weight = torch.randn(2, length, 3, generator=draw)
    found = []
    for parallel in (False, True):
        inputs = [part.clone().requires_grad_() for part in parts]
        states = linear_scan(*inputs, parallel)
        found.append([states, *torch.autograd.grad((states * weight).sum(), inputs)])
    for loop, scan in zip(*found, strict=True):
        assert torch.allclose(loop, scan, atol=1e-4)
    a, b, h = parts
    for t in range(length):
        h = a[:, t] * h + b[:, t]
        assert torch.allclose(found[0][0][:, t], h, atol=1e-4)


def test_the_scan_s_gradients_are_those_of_autograd():
    a, b, h = (torch.rand(*shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 9, 3), (2, 9, 3), (2, 3)))
    for parallel in (False, True):
        assert torch.autograd.gradcheck(lambda a, b, h, p=parallel: linear_scan(a, b, h, p), (a, b, h))


def test_mingru_is_its_equations():
    """Appendix B of Feng et al. (2024), token by token, with one layer and nothing around it."""
    config = MinGruConfig(vocabulary=64, width=24, layers=1, convolution=0, feed_forward=0, expansion=1.0)
    model = random_weights(MinGru(config)).eval()
    block = model.blocks[0]
    tokens = torch.randint(0, 64, (2, 12))

    def norm(x):
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    x = norm(model.embedding.weight[tokens])
    h, outputs = torch.zeros(2, 24), []
    for t in range(12):
        gate, candidate = (norm(x[:, t]) @ block.gates.T).chunk(2, -1)
        z = (gate + block.gate_bias).sigmoid()
        h = (1 - z) * h + z * torch.where(candidate >= 0, candidate + 0.5, candidate.sigmoid())
        outputs.append(norm(x[:, t] + h @ block.out.T))
    wanted = torch.stack(outputs, 1)
    for parallel in (False, True):
        assert torch.allclose(model.hidden(tokens, model.start(2), parallel)[0], wanted, atol=1e-4)


# ---- the protocol ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_reading_piece_by_piece_equals_whole_rows(family):
    model = small(family)
    assert isinstance(model, LanguageModel)
    assert model.context is None
    tokens = torch.randint(0, 64, (2, 32))
    whole = model(tokens).log_softmax(-1)
    state, pieces = model.start(2), []
    for part in (tokens[:, :5], tokens[:, 5:6], tokens[:, 6:7], tokens[:, 7:20], tokens[:, 20:]):
        log_probs, state = model.read(part, state)
        pieces.append(log_probs)
    assert torch.allclose(torch.cat(pieces, 1), whole, atol=1e-4)
    assert torch.allclose(whole.exp().sum(-1), torch.ones(2, 32), atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_token_sees_what_follows_it(family):
    model = small(family)
    first = torch.randint(0, 64, (1, 32))
    second = first.clone()
    second[:, 17:] = torch.randint(0, 64, (1, 15))
    assert torch.allclose(model(first)[:, :17], model(second)[:, :17], atol=1e-5)
    assert not torch.allclose(model(first)[:, 17:], model(second)[:, 17:], atol=1e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_documents_side_by_side_score_as_one_by_one(family):
    model = small(family)
    model.document_end = 5
    draw = np.random.default_rng(0)
    documents = []
    for length in (1, 300, 2, 40, 1, 7, 130):
        words = draw.integers(6, 64, length - 1)
        documents.append(np.append(words, 5))
    documents.append(draw.integers(6, 64, 20))  # cut: no document end
    found = model.score(np.concatenate(documents))
    wanted = []
    for ids in documents:
        inputs = torch.from_numpy(np.concatenate(([5], ids[:-1])))[None]
        log_probs, _ = model.read(inputs, model.start(1))
        wanted.append(log_probs[0].gather(1, torch.from_numpy(ids)[:, None])[:, 0].detach().numpy())
    assert np.allclose(found, np.concatenate(wanted), atol=2e-4)
    assert len(model.score(np.zeros(0, dtype=np.int64))) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_targets_score_as_by_reading(family):
    model = small(family)
    tokens, targets = torch.randint(0, 64, (3, 10)), torch.randint(0, 64, (3, 10))
    targets[1, 4:] = -1
    found = model.target_log_probs(tokens, targets)
    log_probs, _ = model.read(tokens, model.start(3))
    wanted = log_probs.gather(2, targets.clamp_min(0)[..., None])[..., 0] * (targets >= 0)
    assert torch.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_and_opened_it_is_the_same(family, tmp_path):
    model = small(family, tied_head=family != "mamba")
    model.save(tmp_path, document_end=7)
    opened = type(model).load(tmp_path, "cpu", "fp32")
    tokens = torch.randint(0, 64, (2, 9))
    assert opened.config == model.config
    assert opened.document_end == 7
    assert torch.equal(opened(tokens), model(tokens))


@pytest.mark.parametrize("family", FAMILIES)
def test_each_parameter_has_one_role(family):
    for tied in (True, False):
        model = small(family, tied_head=tied)
        listed = [parameter for role in model.parameter_roles().values() for parameter in role]
        assert len(listed) == len({id(p) for p in listed})
        assert {id(p) for p in listed} == {id(p) for p in model.parameters()}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_ladder_grows(family):
    classes = {"rnn": Rnn, "gru": Gru, "lstm": Lstm, "mingru": MinGru, "mamba": Mamba}
    configs = classes[family].ladder(2048, 128, 10**6)
    sizes = [config.matmul_parameters for config in configs]
    assert sizes == sorted(sizes)
    assert all(config.vocabulary == 2048 for config in configs)
    model = classes[family](configs[0])
    matrices = sum(p.numel() for p in model.parameters() if p.ndim == 2 and p is not model.embedding.weight)
    assert configs[0].matmul_parameters == matrices + (2048 * configs[0].width if configs[0].tied_head else 0)


# ---- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_the_sum_of_nats_and_the_state_goes_on(family):
    model = small(family)
    tokens, targets = torch.randint(0, 64, (3, 12)), torch.randint(0, 64, (3, 12))
    targets[0, :5] = -1
    loss, state = model.training_loss({"tokens": tokens, "targets": targets}, 0.5)
    log_probs = model(tokens).log_softmax(-1)
    wanted = -0.5 * (log_probs.gather(2, targets.clamp_min(0)[..., None])[..., 0] * (targets >= 0)).sum()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-4)
    assert not any(part.requires_grad for part in state)
    assert all(part.untyped_storage().nbytes() == 4 * part.numel() for part in state)  # no view of whole rows
    model.config = dataclasses.replace(model.config, restart=0.0)
    halves, state = model.training_loss({"tokens": tokens[:, :6], "targets": targets[:, :6]}, 0.5)
    second, _ = model.training_loss({"tokens": tokens[:, 6:], "targets": targets[:, 6:]}, 0.5, state)
    assert (halves + second).item() == pytest.approx(wanted.item(), rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_learns_a_rule_that_needs_memory(family):
    """After three random tokens the first one is asked for: a guess costs ln 4 = 1.39 nats."""
    torch.manual_seed(0)
    if family == "mingru":
        model: StatefulModel = MinGru(MinGruConfig(vocabulary=8, width=32, layers=2))
    elif family == "mamba":
        model = Mamba(StateSpaceConfig(vocabulary=8, width=32, head=16, state=16, layers=2))
    else:
        model = TORCH[family][0](RecurrentConfig(kind=family, vocabulary=8, width=32, layers=1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    losses = []
    for _ in range(120):
        tokens = torch.randint(0, 4, (32, 4))
        tokens[:, -1] = 4
        targets = torch.full((32, 4), -1)
        targets[:, -1] = tokens[:, 0]
        loss, _ = model.training_loss({"tokens": tokens, "targets": targets}, 1 / 32)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < 0.7


@pytest.mark.parametrize("cap", [0.0, 5.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_eager_loss_of_a_chunk_is_the_compiled_one_s(cap, dtype):
    logits, targets = torch.randn(20, 50).mul(3).to(dtype), torch.randint(-1, 50, (20,))
    loss, gradient = eager_chunk_loss(logits, targets, cap, 0.3)
    wanted, wanted_gradient = chunk_loss(logits, targets, cap, 0.3)
    assert torch.allclose(loss, wanted, rtol=1e-5)
    assert gradient.dtype == dtype
    assert torch.allclose(gradient.float(), wanted_gradient.float(), atol=1e-6 if dtype == torch.float32 else 1e-3)


def test_restarted_rows_begin_empty():
    model = small("lstm", restart=0.5)
    state = [torch.ones(400, 24) for _ in range(4)]
    after = model.restarted(state)
    empty = (after[0] == 0).all(1)
    assert 120 < int(empty.sum()) < 280
    for part in after:
        assert torch.equal((part == 0).all(1), empty)
        assert torch.equal((part == 1).all(1), ~empty)


# ---- the regularization of AWD-LSTM ----------------------------------------------------------------------------------


def test_locked_dropout_keeps_one_mask_for_all_positions():
    model = small("lstm", dropout_input=0.5)
    model.train()
    dropped = model.embed(torch.full((6, 9), 3)) == 0
    assert 0.2 < dropped.float().mean() < 0.8
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert not torch.equal(dropped[0], dropped[1])
    model.eval()
    assert not (model.embed(torch.full((6, 9), 3)) == 0).any()


def test_embedding_dropout_drops_words_everywhere():
    model = small("lstm", dropout_embedding=0.5)
    model.train()
    gone = (model.embed(torch.arange(64).repeat(3, 2)) == 0).all(-1)
    assert 10 < int(gone[0, :64].sum()) < 54
    assert torch.equal(gone[0, :64], gone[2, 64:])


@pytest.mark.parametrize("name", ["dropout_hidden", "dropout_weight"])
def test_dropout_between_and_inside_layers_acts_in_training_alone(name):
    plain, dropped = small("lstm"), small("lstm", **{name: 0.4})
    tokens = torch.randint(0, 64, (2, 8))
    assert torch.equal(plain(tokens), dropped(tokens))
    dropped.train()
    assert not torch.allclose(plain(tokens), dropped(tokens), atol=1e-2)


def test_dropped_weights_get_no_gradient():
    model = small("lstm", layers=1, dropout_weight=0.5)
    model.train()
    loss, _ = model.training_loss({"tokens": torch.randint(0, 64, (4, 8)), "targets": torch.randint(0, 64, (4, 8))}, 1)
    loss.backward()
    share = float((model.layers[0].hidden.grad == 0).float().mean())
    assert 0.45 < share < 0.55


def test_the_penalties_are_means_of_squares():
    batch = {"tokens": torch.randint(0, 64, (4, 8)), "targets": torch.randint(0, 64, (4, 8))}
    plain, _ = small("lstm").training_loss(batch, 1 / 32)
    hidden, _ = small("lstm").hidden(batch["tokens"], small("lstm").start(4))
    for name, wanted in (
        ("activation_penalty", hidden.square().mean()),
        ("slowness_penalty", (hidden[:, 1:] - hidden[:, :-1]).square().mean()),
    ):
        loss, _ = small("lstm", **{name: 3.0}).training_loss(batch, 1 / 32)
        assert (loss - plain).item() == pytest.approx(3.0 * wanted.item(), rel=1e-3), name


def test_a_random_cut_changes_gradients_and_not_values():
    batch = {"tokens": torch.randint(0, 64, (4, 8)), "targets": torch.randint(0, 64, (4, 8))}
    found = []
    for cut in (False, True):
        model = small("lstm", random_cut=cut)
        loss, _ = model.training_loss(batch, 1 / 32)
        loss.backward()
        found.append((float(loss.detach()), model.layers[0].hidden.grad))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert not torch.allclose(found[0][1], found[1][1], rtol=1e-3, atol=1e-7)


def test_the_awd_lstm_has_the_published_number_of_parameters():
    assert awd_lstm(10_000).sizes == [(400, 1150), (1150, 1150), (1150, 400)]
    # 24 million in the paper; torch counts every bias twice, ours once.
    assert Lstm(awd_lstm(10_000)).size == 24_221_600 - 4 * (1150 + 1150 + 400)


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "lsmt"}, {"width": 0}, {"layers": 0}, {"dropout_hidden": 1.0}, {"restart": -0.1}, {"embedding": -3}],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UsageError):
        RecurrentConfig(**wrong)


def test_a_configuration_of_another_cell_is_refused():
    with pytest.raises(UsageError, match="gru"):
        Lstm(RecurrentConfig(kind="gru"))
