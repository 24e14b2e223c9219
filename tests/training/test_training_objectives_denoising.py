"""Denoising: what is taken out can be put back, in the right shares, the same for the same seed and step."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from textmill.base.errors import UsageError
from textmill.models.encoder_decoder.config import EncoderDecoderConfig
from textmill.tokens.tokenizer import Tokenizer, train_tokenizer
from textmill.training.objective_denoising import INFILL_SHARE, Denoising

END = {"<|end|>": 0}
CONFIG = EncoderDecoderConfig(vocabulary=512, context=128)


def _text(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(16, 512, length)


def _put_back(given: np.ndarray, answer: np.ndarray, first: int) -> list[int]:
    """The text of a source with sentinels, and what was written for each."""
    spans: dict[int, list[int]] = {}
    for token in answer[:-1].tolist():
        if token >= first:
            current = spans.setdefault(token, [])
        else:
            current.append(token)
    return [one for token in given.tolist() for one in (spans[token] if token >= first else [token])]


@given(st.integers(8, 400), st.integers(0, 2**32 - 1))
def test_span_corruption_loses_nothing(length, seed):
    text, random = _text(length, seed), np.random.default_rng(seed)
    given, answer = Denoising(CONFIG, END, 0).corrupt_spans(text, random)
    assert _put_back(given, answer, 512) == text.tolist()
    sentinels = given[given >= 512].tolist()
    assert sentinels == list(range(512, 512 + len(sentinels)))  # in their order, each once
    noise = len(text) - (given < 512).sum()
    assert noise == min(max(1, round(length * 0.15)), length - 1)
    assert len(sentinels) == min(max(1, round(noise / 3)), 63)
    assert answer[-1] == 0


def test_spans_are_as_long_as_those_of_t5_on_average():
    objective, lengths = Denoising(CONFIG, END, 0), []
    for seed in range(200):
        _, answer = objective.corrupt_spans(_text(128), np.random.default_rng(seed))
        lengths += np.diff(np.flatnonzero(np.append(answer[:-1] >= 512, True))).tolist()
    assert np.mean(lengths) - 1 == pytest.approx(19 / 6)  # 15% of 128 tokens in six spans
    assert 1 <= min(lengths) - 1 <= 1
    assert max(lengths) - 1 > 8


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """English and Chinese sentences."""
    return train_tokenizer(["One two three. Four five! Six, seven? 天下大势。分久必合。 " * 20], 384)


def test_infilling_takes_out_spans_and_shuffles_sentences(tokenizer):
    config = EncoderDecoderConfig(vocabulary=tokenizer.vocabulary, context=256)
    objective = Denoising(config, tokenizer.special, 0, tokenizer)
    sentences = ["One two three.", " Four five!", " Six, seven?", " 天下大势。", "分久必合。"] * 4
    text = np.array(tokenizer.encode("".join(sentences)))
    shares, moved = [], 0
    for seed in range(100):
        given, answer = objective.infill(text, np.random.default_rng(seed))
        assert answer.tolist() == [*text.tolist(), tokenizer.document_end]
        mark = config.rows - 1
        kept = given[given != mark]
        assert not set(given.tolist()) - set(text.tolist()) - {mark}
        shares.append(1 - len(kept) / len(text))
        counts = np.bincount(text, minlength=config.rows) - np.bincount(kept, minlength=config.rows)
        assert (counts >= 0).all()  # nothing is there that was not
        in_order = iter(text.tolist())
        moved += not all(token in in_order for token in kept.tolist())
    assert 0.2 < np.mean(shares) <= INFILL_SHARE
    assert moved > 90
    unshuffled = Denoising(config, tokenizer.special, 0)  # knows no sentences
    given, _ = unshuffled.infill(text, np.random.default_rng(0))
    in_order = iter(text.tolist())
    assert all(token in in_order for token in given[given < tokenizer.vocabulary].tolist())


def test_each_kind_of_row_has_its_share_and_shape():
    config = EncoderDecoderConfig(vocabulary=512, context=64, span_share=0.4, infill_share=0.2, prefix_share=0.3)
    window = _text(65 * 1000).reshape(1000, 65)
    made = Denoising(config, END, 3).batch(window[:, :-1], window[:, 1:], 0)
    batch = {name: value.numpy() for name, value in made.items()}
    kinds = {"span": 0, "infill": 0, "prefix": 0, "plain": 0}
    for row in range(1000):
        length = batch["source_length"][row]
        source, text = batch["source"][row, : length - 1], window[row, 1:]
        assert (batch["source"][row, length - 1 :] == 0).all()  # closed by the document end, padded with it
        written = batch["targets"][row][batch["targets"][row] >= 0]
        read = batch["tokens"][row, : len(written)]
        if length == 1:
            kinds["plain"] += 1
            assert (read == window[row, :-1]).all()
            assert (written == text).all()
            continue
        assert read[0] == 0
        assert (read[1:] == written[:-1]).all()
        if config.rows - 1 in source:
            kinds["infill"] += 1
            assert written.tolist() == [*text[:63].tolist(), 0]
        elif (source >= 512).any():
            kinds["span"] += 1
            assert _put_back(source, written, 512) == text[:63].tolist()
        else:
            kinds["prefix"] += 1
            assert [*source.tolist(), *written.tolist()] == text[:63].tolist()
    expected = {"span": 400, "infill": 200, "prefix": 300, "plain": 100}
    assert all(abs(kinds[name] - count) < 60 for name, count in expected.items()), kinds


def test_what_does_not_count_is_neither_read_nor_written():
    config = EncoderDecoderConfig(vocabulary=512, context=64, span_share=1.0, infill_share=0, prefix_share=0)
    window = _text(65 * 8).reshape(8, 65)
    targets = window[:, 1:].copy()
    targets[0, :30] = -1
    targets[1, :60] = -1  # hardly anything left: plain text
    batch = Denoising(config, END, 3).batch(window[:, :-1], targets, 0)
    source, written = batch["source"][0, : int(batch["source_length"][0]) - 1], batch["targets"][0]
    assert _put_back(source.numpy(), written[written >= 0].numpy(), 512) == targets[0, 30:].tolist()
    assert batch["source_length"][1] == 1
    assert batch["targets"][1].tolist() == targets[1].tolist()


def test_a_batch_is_a_pure_function_of_seed_and_step():
    window = _text(65 * 8).reshape(8, 65)
    first = Denoising(CONFIG, END, 3)
    first.batch(window[:, :-1], window[:, 1:], 0)
    again = Denoising(CONFIG, END, 3).batch(window[:, :-1], window[:, 1:], 9)
    assert all(torch.equal(value, again[name]) for name, value in first.batch(window[:, :-1], window[:, 1:], 9).items())
    for other in (
        first.batch(window[:, :-1], window[:, 1:], 8),
        Denoising(CONFIG, END, 4).batch(window[:, :-1], window[:, 1:], 9),
    ):
        assert not torch.equal(other["source"], again["source"])


def test_sentinels_of_a_tokenizer_are_used_where_it_has_them():
    special = {"<|end|>": 1, **{f"<extra_id_{i}>": 511 - i for i in range(4)}}
    config = EncoderDecoderConfig(vocabulary=512, context=64).with_special(special)
    assert (config.document_end, config.rows) == (1, 512)
    given, answer = Denoising(config, special, 0).corrupt_spans(_text(64) % 400, np.random.default_rng(0))
    assert [token for token in given.tolist() if token > 500] == [511, 510, 509]
    assert answer[-1] == 1
    with pytest.raises(UsageError, match="no sentinels"):
        Denoising(EncoderDecoderConfig(sentinels=0), END, 0)
    with pytest.raises(UsageError, match="two sentinels"):
        Denoising(EncoderDecoderConfig(sentinels=1), END, 0)
