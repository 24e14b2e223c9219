"""Mamba-2: the same as `transformers`' model, and the same chunk by chunk as token by token."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from textmill.base.errors import UsageError
from textmill.models.recurrent.config import StateSpaceConfig
from textmill.models.state_space import Mamba, state_space_dual, state_space_steps

CONFIG = StateSpaceConfig(vocabulary=96, context=32, layers=3, width=32, head=16, state=8, chunk=8)


@pytest.fixture(autouse=True)
def _one_thread():
    """Tensors of this size are no work for two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_model(config: StateSpaceConfig = CONFIG) -> Mamba:
    torch.manual_seed(1)
    model = Mamba(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("length", [5, 32, 45])
def test_the_same_as_transformers(length):
    transformers = pytest.importorskip("transformers")
    ours = random_model()
    theirs = transformers.Mamba2ForCausalLM(
        transformers.Mamba2Config(
            vocab_size=96,
            hidden_size=32,
            num_hidden_layers=3,
            num_heads=4,
            head_dim=16,
            state_size=8,
            n_groups=1,
            conv_kernel=4,
            chunk_size=16,
            use_cache=False,
            tie_word_embeddings=False,
            pad_token_id=0,
        )
    ).eval()
    weights = {"backbone.embeddings.weight": ours.embedding.weight, "lm_head.weight": ours.head.weight}
    weights["backbone.norm_f.weight"] = ours.final_norm
    for i, block in enumerate(ours.blocks):
        at = f"backbone.layers.{i}."
        weights |= {
            at + "norm.weight": block.norm,
            at + "mixer.in_proj.weight": block.entrance,
            at + "mixer.conv1d.weight": block.convolution.T[:, None],
            at + "mixer.conv1d.bias": block.convolution_bias,
            at + "mixer.dt_bias": block.step_bias,
            at + "mixer.A_log": block.log_rate,
            at + "mixer.D": block.skip,
            at + "mixer.norm.weight": block.gate_norm,
            at + "mixer.out_proj.weight": block.out,
        }
    theirs.load_state_dict({name: value.detach() for name, value in weights.items()})
    tokens = torch.randint(0, 96, (2, length))
    with torch.no_grad():
        wanted = theirs(tokens).logits
        found = ours(tokens)
    assert wanted.std() > 0.5
    assert torch.allclose(found, wanted, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(length=st.integers(1, 40), chunk=st.integers(1, 17), seed=st.integers(0, 2**20))
def test_chunks_are_the_recurrence(length, chunk, seed):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(2, length, 3, 4, generator=draw)
    decay = -torch.rand(2, length, 3, generator=draw) * 8
    b, c = torch.randn(2, length, 5, generator=draw), torch.randn(2, length, 5, generator=draw)
    state = torch.randn(2, 3, 4, 5, generator=draw)
    for ours, wanted in zip(
        state_space_dual(x, decay, b, c, state, chunk), state_space_steps(x, decay, b, c, state), strict=True
    ):
        assert torch.allclose(ours, wanted, atol=1e-4)


def test_strong_decay_gives_no_nan():
    x = torch.ones(1, 64, 2, 4, requires_grad=True)
    y, state = state_space_dual(
        x, torch.full((1, 64, 2), -300.0), torch.ones(1, 64, 5), torch.ones(1, 64, 5), torch.ones(1, 2, 4, 5), 16
    )
    y.sum().backward()
    assert y.isfinite().all()
    assert state.isfinite().all()
    assert x.grad.isfinite().all()


def test_reading_piece_by_piece_equals_whole_rows():
    model = random_model()
    tokens = torch.randint(0, 96, (2, 32))
    whole = model(tokens).log_softmax(-1)
    state, pieces = model.start(2), []
    for part in (tokens[:, :1], tokens[:, 1:2], tokens[:, 2:13], tokens[:, 13:30], tokens[:, 30:]):
        log_probs, state = model.read(part, state)
        pieces.append(log_probs)
    assert torch.allclose(torch.cat(pieces, 1), whole, atol=1e-4)


def test_saved_and_opened_it_is_the_same(tmp_path):
    model = random_model()
    model.save(tmp_path, document_end=3)
    opened = Mamba.load(tmp_path, "cpu", "fp32")
    tokens = torch.randint(0, 96, (2, 9))
    assert torch.equal(opened(tokens), model(tokens))
    assert opened.document_end == 3


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(UsageError, match="cannot be divided into heads of 48"):
        StateSpaceConfig(width=64, head=48)
