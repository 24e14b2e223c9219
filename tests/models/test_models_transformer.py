"""The Transformer: causal, the same by cache as by whole rows, and the same inside `transformers`."""

import dataclasses
import itertools

import pytest
import torch

from textmill.base.errors import Failure, UsageError
from textmill.models.config import TransformerConfig, gpt2_arrangement
from textmill.models.load import is_gpt2, load_model, save_model
from textmill.models.protocol import LanguageModel
from textmill.models.transformer import Transformer

SHAPE = {"vocabulary": 512, "context": 32, "layers": 3, "width": 64, "heads": 2}


def random_model(config: TransformerConfig) -> Transformer:
    """Weights large enough that every part shows in the logits (some start at zero)."""
    torch.manual_seed(1)
    model = Transformer(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


SWITCHES = {
    "modern": {},
    "bigram": {"bigram_buckets": 997},
    "smear": {"smear": True, "bigram_buckets": 997},
    "bare": {
        "qk_norm": False, "embedding_norm": False, "logit_softcap": 0.0, "residual_lambdas": False,
        "value_embeddings": False,
    },
    "tied": {"tied_head": True, "activation": "gelu", "norm": "layer", "bias": True},
    "learned": {"position": "learned"},
}  # fmt: skip


@pytest.mark.parametrize("name", [*SWITCHES, "gpt2"])
def test_reading_piece_by_piece_equals_whole_rows(name):
    config = gpt2_arrangement(**SHAPE) if name == "gpt2" else TransformerConfig(**SHAPE, **SWITCHES[name])
    model = random_model(config)
    assert isinstance(model, LanguageModel)
    tokens = torch.randint(0, 512, (2, 32))
    whole = model(tokens).log_softmax(-1)
    state, pieces = model.start(2), []
    for part in (tokens[:, :5], tokens[:, 5:6], tokens[:, 6:7], tokens[:, 7:20], tokens[:, 20:]):
        log_probs, state = model.read(part, state)
        pieces.append(log_probs)
    assert torch.allclose(torch.cat(pieces, 1), whole, atol=2e-5)
    assert torch.allclose(whole.exp().sum(-1), torch.ones(2, 32), atol=1e-4)


@pytest.mark.parametrize("name", list(SWITCHES))
def test_no_token_sees_what_follows_it(name):
    model = random_model(TransformerConfig(**SHAPE, **SWITCHES[name]))
    first = torch.randint(0, 512, (1, 32))
    second = first.clone()
    second[:, 17:] = torch.randint(0, 512, (1, 15))
    assert torch.equal(model(first)[:, :17], model(second)[:, :17])


def test_each_switch_changes_the_function():
    base = TransformerConfig(**SHAPE)
    tokens = torch.randint(0, 512, (1, 16))
    for name, value in {
        "position": "learned", "norm": "layer", "activation": "gelu", "qk_norm": False, "embedding_norm": False,
        "logit_softcap": 0.0, "residual_lambdas": False, "value_embeddings": False, "bigram_buckets": 64, "smear": True,
    }.items():  # fmt: skip
        changed = dataclasses.replace(base, **{name: value})
        assert not torch.allclose(random_model(base)(tokens), random_model(changed)(tokens), atol=1e-3), name


@pytest.mark.parametrize("position", ["rotary", "learned"])
def test_reading_goes_on_past_the_context(position):
    model = random_model(TransformerConfig(**SHAPE, position=position))
    tokens = torch.randint(0, 512, (2, 200))
    log_probs, state = model.read(tokens, model.start(2))
    assert log_probs.shape == (2, 200, 512)
    assert torch.isfinite(log_probs).all()
    step, _ = model.read(tokens[:, :1], state)
    assert torch.isfinite(step).all()


def test_the_window_slides_the_same_whatever_the_pieces():
    model = random_model(TransformerConfig(**SHAPE, bigram_buckets=97))
    tokens = torch.randint(0, 512, (1, 150))
    results = []
    for size in (1, 7, 32):
        state, pieces = model.start(1), []
        for part in tokens.split(size, 1):
            log_probs, state = model.read(part, state)
            pieces.append(log_probs)
        results.append(torch.cat(pieces, 1))
    for left, right in itertools.pairwise(results):
        assert torch.allclose(left, right, atol=1e-4)


def test_target_log_probs_equal_the_forward_pass():
    model = random_model(TransformerConfig(**SHAPE))
    tokens, targets = torch.randint(0, 512, (3, 32)), torch.randint(0, 512, (3, 32))
    targets[0, :9] = -1
    expected = model(tokens).log_softmax(-1).gather(-1, targets.clamp_min(0)[..., None])[..., 0]
    expected[0, :9] = 0
    assert torch.allclose(model.target_log_probs(tokens, targets), expected, atol=1e-5)


@pytest.mark.parametrize("name", [*SWITCHES, "gpt2"])
def test_transformers_opens_the_folder_with_equal_logits(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = gpt2_arrangement(**SHAPE) if name == "gpt2" else TransformerConfig(**SHAPE, **SWITCHES[name])
    model = random_model(config)
    save_model(model, tmp_path / "model", document_end=0)
    tokens = torch.randint(0, 512, (2, 32))
    opened = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", trust_remote_code=not is_gpt2(config), dtype=torch.float32
    ).eval()
    if name == "gpt2":
        assert type(opened).__name__ == "GPT2LMHeadModel"
    with torch.no_grad():
        assert (opened(tokens).logits - model(tokens)).abs().max() < 1e-4
    ours = load_model(tmp_path / "model", device="cpu")
    assert torch.equal(ours(tokens), model(tokens))
    length = 28 if config.position == "learned" else 40  # past the context of 32 where the window slides
    written = opened.generate(tokens[:1, :4], max_new_tokens=length, do_sample=False, eos_token_id=None)
    assert written.shape == (1, 4 + length)


def test_a_damaged_model_is_a_clear_failure(tmp_path):
    save_model(random_model(TransformerConfig(**SHAPE)), tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Failure, match="cannot be read"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(Failure, match="no whole model"):
        load_model(tmp_path)


@pytest.mark.parametrize("bad", [{"width": 100, "heads": 3}, {"width": 66, "heads": 2}, {"layers": 0}])
def test_impossible_shapes_are_refused(bad):
    with pytest.raises(UsageError):
        TransformerConfig(**{**SHAPE, **bad})
