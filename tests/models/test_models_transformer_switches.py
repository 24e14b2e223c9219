"""Every switch of the Transformer against a plain statement of what it does, or against `transformers`."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from importing import one_thread

from textmill.base.errors import UsageError
from textmill.models import transformer_shape as shape
from textmill.models.config import Switches, TransformerConfig
from textmill.models.presets import ARRANGEMENTS, PLAIN, arrange
from textmill.models.transformer import Transformer
from textmill.models.transformer_parts import Experts, attend, rotary_frequencies, rotate, sinusoids, visible
from textmill.training.config import PlanConfig, TrainingConfig
from textmill.training.optimizers import make_optimizers
from textmill.training.plan import choose_shape, model_parameters

__all__ = ["one_thread"]  # a fixture
SHAPE = {"vocabulary": 320, "context": 48, "layers": 3, "width": 64, "heads": 4}


def random_model(config: TransformerConfig) -> Transformer:
    """Weights large enough that every part shows in the logits (some start at zero)."""
    torch.manual_seed(1)
    model = Transformer(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


SWITCHES = {
    "grouped": {"kv_heads": 2},
    "one key-value head": {"kv_heads": 1, "bias": True},
    "head size": {"head_dim": 24, "kv_heads": 2},
    "window": {"window": 7},
    "some local": {"window": 9, "window_pattern": "LG", "rotary_base_local": 100.0},
    "window and grouped": {"window": 5, "kv_heads": 2, "window_pattern": "GL"},
    "sinusoidal": {"position": "sinusoidal"},
    "partly rotated": {"rotary_share": 0.5},
    "slowed": {"rotary_scaling": "llama3", "rotary_factor": 8.0, "rotary_original": 32, "rotary_base": 500.0},
    "caps": {"attention_softcap": 2.0, "attention_scale": 0.3},
    "caps and window": {"attention_softcap": 2.0, "window": 6, "kv_heads": 2},
    "post norm": {"post_norm": True},
    "weighted": {"norm": "rms-weight", "qk_norm_weight": True, "norm_epsilon": 1e-3},
    "offset": {"norm": "rms-offset", "qk_norm_weight": True},
    "gated": {"gated": True, "activation": "silu", "feed_forward_size": 100},
    "exact gelu": {"gated": True, "activation": "gelu-exact"},
    "scaled embedding": {"embedding_scale": True, "embedding_norm": False},
    "experts": {"experts": 5, "expert_size": 48},
    "shared expert": {"experts": 4, "shared_expert_size": 64, "expert_renormalize": False, "gated": True},
    "experts every second": {"experts": 4, "expert_every": 2},
}


@pytest.mark.parametrize("name", [*SWITCHES, *ARRANGEMENTS])
def test_cached_decoding_equals_whole_rows_and_nothing_sees_ahead(name):
    config = arrange(name, **SHAPE) if name in ARRANGEMENTS else TransformerConfig(**SHAPE, **SWITCHES[name])
    model = random_model(config)
    tokens = torch.randint(0, 320, (2, 48))
    whole = model(tokens).log_softmax(-1)
    state, pieces = model.start(2), []
    for part in (tokens[:, :5], tokens[:, 5:6], tokens[:, 6:7], tokens[:, 7:30], tokens[:, 30:31], tokens[:, 31:]):
        log_probs, state = model.read(part, state)
        pieces.append(log_probs)
    assert torch.allclose(torch.cat(pieces, 1), whole, atol=5e-5)
    changed = tokens.clone()
    changed[:, 20:] = (changed[:, 20:] + 1) % 320
    assert torch.allclose(model(changed)[:, :20], model(tokens)[:, :20], atol=1e-5)
    assert not torch.allclose(model(changed)[:, 20:], model(tokens)[:, 20:], atol=1e-3)


@pytest.mark.parametrize("name", list(SWITCHES))
def test_each_switch_changes_the_function(name):
    tokens = torch.randint(0, 320, (1, 48))
    plain = {"embedding_norm": False} if name == "scaled embedding" else {}
    default = random_model(TransformerConfig(**SHAPE, **plain))
    assert not torch.allclose(
        random_model(TransformerConfig(**SHAPE, **SWITCHES[name]))(tokens), default(tokens), atol=1e-3
    )


def test_a_long_text_slides_the_same_whatever_the_pieces():
    """Past the context, past the first size of the cache, with local layers."""
    config = TransformerConfig(**{**SHAPE, "context": 150, "layers": 2}, window=20, window_pattern="LG", kv_heads=2)
    model = random_model(config)
    tokens = torch.randint(0, 320, (1, 330))
    results = []
    for size in (1, 33, 150):
        state, pieces = model.start(1), []
        for part in tokens.split(size, 1):
            log_probs, state = model.read(part, state)
            pieces.append(log_probs)
        results.append(torch.cat(pieces, 1))
    assert torch.allclose(results[0], results[1], atol=1e-4)
    assert torch.allclose(results[0], results[2], atol=1e-4)


def test_a_window_hides_what_lies_before_it():
    """One layer: a token sees itself and window - 1 others; in two layers the reach adds up."""
    tokens = torch.randint(0, 320, (1, 40))
    other = tokens.clone()
    other[0, 10] = (other[0, 10] + 1) % 320
    for layers, pattern, reach in ((1, "L", 8), (2, "L", 15), (2, "LG", 48)):
        config = TransformerConfig(
            **{**SHAPE, "layers": layers}, window=8, window_pattern=pattern, value_embeddings=False, smear=False
        )
        model = random_model(config)
        differs = (model(tokens) - model(other)).abs().amax(-1)[0] > 1e-6
        assert differs.nonzero()[:, 0].tolist() == list(range(10, min(40, 10 + reach)))


def test_grouped_queries_equal_full_attention_with_repeated_heads():
    grouped = random_model(TransformerConfig(**SHAPE, **PLAIN, kv_heads=2))
    full = random_model(TransformerConfig(**SHAPE, **PLAIN))
    weights = {name: value for name, value in grouped.state_dict().items() if name in full.state_dict()}
    for layer in range(3):
        parts = grouped.blocks[layer].attention
        k, v = (
            each.weight.view(2, 1, 16, 64).expand(2, 2, 16, 64).reshape(64, 64) for each in (parts.key, parts.value)
        )
        weights[f"blocks.{layer}.attention.qkv.weight"] = torch.cat((parts.query.weight, k, v))
    full.load_state_dict(weights)
    tokens = torch.randint(0, 320, (2, 48))
    assert torch.allclose(full(tokens), grouped(tokens), atol=1e-5)


def test_capped_attention_is_what_its_formula_says_in_pieces_too():
    q, k, v = (torch.randn(1, heads, 1100, 8) for heads in (4, 2, 2))
    mask = visible(1100, 1100, 300, q.device)
    scores = q @ k.repeat_interleave(2, 1).mT * 0.5
    expected = (3 * torch.tanh(scores / 3)).masked_fill(~mask, -math.inf).softmax(-1) @ v.repeat_interleave(2, 1)
    assert torch.allclose(attend(q, k, v, mask, 0.5, 3.0), expected, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 8192},
        {"rope_type": "linear", "factor": 4.0},
    ],
)  # fmt: skip
def test_slowed_rotations_equal_those_of_transformers(settings):
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    theirs = transformers.LlamaConfig(
        hidden_size=256, num_attention_heads=2, rope_parameters={**settings, "rope_theta": 500_000.0}
    )
    expected, _ = ROPE_INIT_FUNCTIONS[settings["rope_type"]](theirs, "cpu")
    ours = TransformerConfig(
        width=256, heads=2, rotary_base=500_000.0, rotary_scaling=settings["rope_type"],
        rotary_factor=settings["factor"], rotary_original=8192,
    )  # fmt: skip
    found = rotary_frequencies(ours, False, torch.device("cpu"))
    assert torch.allclose(found, expected, rtol=1e-6, atol=0)


def test_a_partly_rotated_head_keeps_its_rest():
    x = torch.randn(2, 3, 5, 16)
    angle = torch.randn(5, 4)
    turned = rotate(x, angle.cos(), angle.sin())
    assert torch.equal(turned[..., 8:], x[..., 8:])
    assert torch.allclose(turned[..., :8], rotate(x[..., :8], angle.cos(), angle.sin()))
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1), atol=1e-5)


def test_sinusoids_are_those_of_the_paper():
    table = sinusoids(3, 2, 6, torch.device("cpu"))
    for row, place in enumerate((3, 4)):
        for column in range(6):
            angle = place / 10000 ** (2 * (column // 2) / 6)
            assert table[row, column] == pytest.approx(math.cos(angle) if column % 2 else math.sin(angle), abs=1e-6)


def test_experts_compute_what_the_router_chose_and_no_more():
    config = TransformerConfig(**SHAPE, experts=4, experts_used=2, gated=True, activation="silu")
    torch.manual_seed(0)
    experts = Experts(config).eval()
    x = torch.randn(2, 5, 64)
    probabilities = (x @ experts.router.weight.T).softmax(-1)
    best = probabilities.topk(2, -1)
    weights = torch.zeros_like(probabilities).scatter(-1, best.indices, best.values / best.values.sum(-1, keepdim=True))
    expected = sum(weights[..., i : i + 1] * expert(x) for i, expert in enumerate(experts.experts))
    assert torch.allclose(experts(x), expected, atol=1e-6)
    assert experts.balance is None
    experts.train()(x).sum().backward()
    unused = (weights.flatten(0, 1).sum(0) == 0).nonzero()[:, 0].tolist()
    for index, expert in enumerate(experts.experts):
        assert (expert.up.weight.grad is None) == (index in unused)


def test_the_balancing_term_is_that_of_transformers_and_reaches_the_router():
    pytest.importorskip("transformers")
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    config = TransformerConfig(**{**SHAPE, "layers": 1}, experts=6, experts_used=2)
    torch.manual_seed(0)
    experts = Experts(config).train()
    x = torch.randn(4, 25, 64)
    experts(x)
    theirs = load_balancing_loss_func(((x @ experts.router.weight.T).flatten(0, 1),), 6, 2)
    assert experts.balance.item() == pytest.approx(theirs.item() / 2, rel=1e-5)  # theirs counts each choice
    experts.router.weight.data.zero_()
    experts(x)
    assert experts.balance.item() == pytest.approx(1.0, abs=1e-5)

    model = Transformer(config)
    batch = {"tokens": torch.randint(0, 320, (2, 48)), "targets": torch.randint(0, 320, (2, 48))}
    batch["targets"][0, :40] = -1
    with_term, _ = model.train().training_loss(batch, 1 / 56)
    without = Transformer(dataclasses.replace(config, balance_loss=0.0))
    without.load_state_dict(model.state_dict())
    plain, _ = without.train().training_loss(batch, 1 / 56)
    assert (with_term - plain).item() == pytest.approx(0.01 * model.blocks[0].feed_forward.balance.item(), abs=1e-4)


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_every_arrangement_learns_with_our_optimizers(name):
    """A text of one repeated line: the loss falls by a third at least."""
    torch.manual_seed(0)
    config = choose_shape(PlanConfig(arrangement=name, heads=4), 1, 64, 320, 16)
    model = Transformer(config).train()
    optimizers = make_optimizers(model, TrainingConfig()).values()
    line = torch.randint(0, 320, (17,)).repeat(2, 1)
    batch = {"tokens": line[:, :-1], "targets": line[:, 1:]}
    losses = []
    for _ in range(12):
        loss, _ = model.training_loss(batch, 1 / 32)
        loss.backward()
        losses.append(float(loss.detach()))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert losses[-1] < 0.67 * losses[0], losses


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_sizes_are_counted_as_they_are(name):
    config = choose_shape(PlanConfig(arrangement=name, heads=4), 3, 64, 320, 48)
    model = Transformer(config)
    matrices = sum(p.numel() for p in model.blocks.parameters() if p.ndim == 2)
    per_layer = [shape.feed_forward_matrices(config, layer, False) for layer in range(3)]
    assert matrices == 3 * shape.attention_matrices(config) + sum(per_layer)
    assert config.matmul_parameters + config.idle_parameters == matrices + 320 * 64
    other = sum(p.numel() for p in model.parameters() if p.ndim == 1)
    positions = 48 * 64 if config.position == "learned" else 0
    assert model_parameters(config) == model.size - other - positions
    roles = model.parameter_roles()
    assert sorted(id(p) for group in roles.values() for p in group) == sorted(id(p) for p in model.parameters())


def test_windows_and_experts_cost_what_is_computed():
    plain = arrange("llama3", **SHAPE)
    local = dataclasses.replace(plain, window=12)
    assert plain.flops_per_token() - local.flops_per_token() == 12 * 3 * 64 * (48 - 12)
    experts = dataclasses.replace(plain, experts=8, experts_used=2)
    hidden = shape.hidden_size(plain)
    assert experts.matmul_parameters - plain.matmul_parameters == 3 * (3 * 64 * hidden + 8 * 64)
    assert experts.idle_parameters == 3 * 6 * 3 * 64 * hidden


def test_switches_have_the_names_and_kinds_of_the_configuration():
    known = {field.name for field in dataclasses.fields(TransformerConfig)}
    assert {field.name for field in dataclasses.fields(Switches)} <= known


@pytest.mark.parametrize(
    "bad",
    [{"kv_heads": 3}, {"window_pattern": "LX"}, {"window_pattern": ""}, {"experts": 2, "experts_used": 3},
     {"rotary_share": 0.0}, {"rotary_share": 1.5}, {"head_dim": 15}, {"window": -1}, {"expert_every": 0},
     {"rotary_base": 0.0}, {"rotary_scaling": "llama3", "rotary_low": 4.0, "rotary_high": 1.0}],
)  # fmt: skip
def test_impossible_settings_are_refused(bad):
    with pytest.raises(UsageError):
        TransformerConfig(**{**SHAPE, **bad})


def test_an_unknown_arrangement_names_the_known_ones():
    with pytest.raises(UsageError, match="llama3"):
        arrange("lama3", **SHAPE)


def test_the_default_arrangement_keeps_its_weights_names():
    """Models trained before the switches came still open."""
    names = set(Transformer(TransformerConfig(**SHAPE)).state_dict())
    inside = (
        "attention.qkv.weight",
        "attention.out.weight",
        "feed_forward.up.weight",
        "feed_forward.down.weight",
        "mix",
    )
    wanted = {f"blocks.{layer}.{name}" for layer in range(3) for name in inside}
    wanted |= {"embedding.weight", "head.weight", "value_tables.0.weight", "value_tables.2.weight"}
    assert names == wanted | {"blocks.0.attention.value_gate", "blocks.2.attention.value_gate"}


def test_a_compiled_block_gives_the_same():
    """Experts inside a compiled block, whose tokens are found only at run time."""
    config = arrange("mixtral", **{**SHAPE, "layers": 1})
    model = random_model(config)
    tokens = torch.randint(0, 320, (2, 48))
    block = torch.compile(type(model.blocks[0]).forward, dynamic=False, backend="eager")
    assert torch.allclose(model.hidden(tokens, block), model.hidden(tokens), atol=1e-5)
    assert F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).isfinite()
