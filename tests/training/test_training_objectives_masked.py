"""Masked tokens: the right share, whole words, the same for the same seed and step."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from textmill.base.errors import Failure
from textmill.models.bert.config import BertConfig
from textmill.models.bert.words import Words
from textmill.tokens.tokenizer import Tokenizer, train_tokenizer
from textmill.training.objective_masked import MaskedToken

TEXTS = (
    "The unbelievable reconstruction of unquestionable institutions, he said; it wasn't naïve or überraschend at all. ",
    "天下大势，分久必合，合久必分。中华人民共和国的科学技术发展很快。",
    "GPT-4 costs 3,000.50 dollars\nПривет мир! สวัสดีชาวโลก こんにちは世界",
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Small, so that words fall into several tokens and rare characters into bytes."""
    return train_tokenizer([text * 3 for text in TEXTS], 384)


def _words(tokenizer: Tokenizer, text: str) -> list[str]:
    """The words that the tokens of a text make."""
    ids = np.array(tokenizer.encode(text))
    numbers = Words(tokenizer).number(ids)
    return [
        tokenizer.decode_bytes(ids[numbers == word].tolist()).decode("utf-8", "replace")
        for word in range(int(numbers[-1]) + 1)
    ]


def test_words_end_at_spaces_and_punctuation(tokenizer):
    found = [word.strip() for word in _words(tokenizer, TEXTS[0]) if word.strip()]
    assert {"unbelievable", "reconstruction", "unquestionable", "institutions", "überraschend", "naïve"} <= set(found)
    assert "," in found
    assert ";" in found
    assert not any(" " in word for word in found)
    assert {"Привет", "мир"} <= {word.strip() for word in _words(tokenizer, TEXTS[2])}


def test_chinese_is_cut_into_words():
    rjieba = pytest.importorskip("rjieba")
    text = TEXTS[1] * 2
    by_bytes = train_tokenizer(["abc " * 50], 320)  # every Chinese character is spelled out in three tokens
    assert _words(by_bytes, text) == rjieba.cut(text)
    merged = train_tokenizer([text * 3 for text in TEXTS], 384)  # some tokens hold several characters
    assert set(np.cumsum([len(word) for word in _words(merged, text)])) <= set(
        np.cumsum([len(word) for word in rjieba.cut(text)])
    )


@pytest.fixture(scope="module")
def words(tokenizer) -> Words:
    """The words of that tokenizer."""
    return Words(tokenizer)


@given(text=st.text(max_size=80), ends=st.integers(0, 3))
def test_a_word_never_splits_a_character_and_numbers_never_fall(tokenizer, words, text, ends):
    ids = np.array([*tokenizer.encode(text), *[tokenizer.document_end] * ends], dtype=np.int64)
    numbers = words.number(ids)
    assert numbers.shape == ids.shape
    if len(ids):
        assert numbers[0] == 0
        assert set(np.diff(numbers)) <= {0, 1}
        assert len(set(numbers[len(ids) - ends :].tolist())) == ends
    pieces = [tokenizer.decode_bytes(ids[numbers == n].tolist()) for n in range(int(numbers.max(initial=-1)) + 1)]
    assert all(piece[:1] < b"\x80" or piece[0] >= 0xC0 for piece in pieces if piece)


def _rows(tokenizer: Tokenizer, rows: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    ids = np.array([i for text in TEXTS * 40 for i in (*tokenizer.encode(text), tokenizer.document_end)])
    window = np.stack([ids[row * 17 : row * 17 + length + 1] for row in range(rows)])
    return window[:, :-1].copy(), window[:, 1:].copy()


def test_shares_are_those_of_bert(tokenizer):
    config = BertConfig(vocabulary=tokenizer.vocabulary, context=256)
    objective = MaskedToken(config, tokenizer.special, 1, tokenizer)
    tokens, targets = _rows(tokenizer, 64, 256)
    asked = shown = kept = other = 0
    for step in range(8):
        batch = {name: value.numpy() for name, value in objective.batch(tokens, targets, step).items()}
        where = batch["targets"] >= 0
        assert (batch["tokens"][~where] == tokens[~where]).all()
        assert (batch["targets"][where] == tokens[where]).all()
        asked += where.sum()
        shown += (batch["tokens"][where] == config.mask).sum()
        kept += (batch["tokens"][where] == tokens[where]).sum()
        other += ((batch["tokens"][where] != tokens[where]) & (batch["tokens"][where] != config.mask)).sum()
        replaced = batch["tokens"][where & (batch["tokens"] != config.mask) & (batch["tokens"] != tokens)]
        assert not set(replaced.tolist()) & set(tokenizer.special.values())
    assert asked / (8 * tokens.size) == pytest.approx(0.15, abs=0.01)
    assert shown / asked == pytest.approx(0.8, abs=0.02)
    assert kept / asked == pytest.approx(0.1, abs=0.02)
    assert other / asked == pytest.approx(0.1, abs=0.02)


def test_words_are_asked_whole_or_not_at_all(tokenizer):
    config = BertConfig(vocabulary=tokenizer.vocabulary, context=256)
    tokens, targets = _rows(tokenizer, 16, 256)
    words = Words(tokenizer).number(tokens)
    asked = MaskedToken(config, tokenizer.special, 1, tokenizer).batch(tokens, targets, 0)["targets"].numpy() >= 0
    torn = 0
    for row in range(16):
        for word in range(words[row].max() + 1):
            torn += len(set(asked[row][words[row] == word].tolist())) > 1
    assert torn == 0
    single = BertConfig(vocabulary=tokenizer.vocabulary, context=256, whole_words=False)
    alone = MaskedToken(single, tokenizer.special, 1, tokenizer).batch(tokens, targets, 0)["targets"].numpy() >= 0
    assert any(len(set(alone[0][words[0] == word].tolist())) > 1 for word in range(words[0].max() + 1))


def test_a_batch_is_a_pure_function_of_seed_and_step(tokenizer):
    config = BertConfig(vocabulary=tokenizer.vocabulary)
    tokens, targets = _rows(tokenizer, 4, 64)
    first = MaskedToken(config, tokenizer.special, 5, tokenizer)
    first.batch(tokens, targets, 0)
    again = MaskedToken(config, tokenizer.special, 5, tokenizer).batch(tokens, targets, 7)
    assert all(torch.equal(value, again[name]) for name, value in first.batch(tokens, targets, 7).items())
    for other in (first.batch(tokens, targets, 8), MaskedToken(config, tokenizer.special, 6).batch(tokens, targets, 7)):
        assert not torch.equal(other["tokens"], again["tokens"])


def test_what_does_not_count_is_not_asked_and_every_row_asks_something(tokenizer):
    config = BertConfig(vocabulary=tokenizer.vocabulary, masked_share=0.001)
    objective = MaskedToken(config, tokenizer.special, 5)
    tokens, targets = _rows(tokenizer, 8, 32)
    targets[:, :20] = -1
    asked = objective.batch(tokens, targets, 0)["targets"].numpy() >= 0
    assert (asked.sum(1) >= 1).all()
    assert not asked[:, 1:21].any()


def test_a_mask_that_may_occur_in_text_is_refused(tokenizer):
    config = BertConfig(vocabulary=tokenizer.vocabulary, mask=300)
    with pytest.raises(Failure, match="cannot play"):
        MaskedToken(config, tokenizer.special, 0)
