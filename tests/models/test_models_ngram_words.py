"""N-grams over words equal KenLM's lmplz in every figure, in memory and through files; other smoothings their
formulas."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lmplz import FIXTURES, Values, lmplz, parse, train

from textmill.base.errors import Failure, UsageError
from textmill.models.ngram.arpa import arpa_blocks
from textmill.models.ngram.config import FALLBACK_DISCOUNTS, TrainingConfig
from textmill.models.ngram.estimation import DiscountError, estimate_discounts
from textmill.models.ngram.query import WordModel
from textmill.models.ngram.train import Trained, train_words
from textmill.models.ngram.units import unit_named

CASES = {
    "o3": ("train.txt", TrainingConfig(3)),
    "o5-prune001": ("train.txt", TrainingConfig(5, prune=(0, 0, 1))),
    "odd-o1": ("odd.txt", TrainingConfig(1, discount_fallback=FALLBACK_DISCOUNTS)),
    "odd-o2-prune1": ("odd.txt", TrainingConfig(2, prune=(1,), discount_fallback=FALLBACK_DISCOUNTS)),
    "odd-o6-prune012": ("odd.txt", TrainingConfig(6, prune=(0, 1, 2), discount_fallback=(0.4, 0.9))),
}


def arpa(trained: Trained) -> bytes:
    return b"".join(bytes(block) for block in arpa_blocks(trained.words, trained.grams))


def assert_same(found: list[Values], wanted: list[Values], tolerance: float = 1e-6) -> None:
    assert [list(order) for order in found] == [list(order) for order in wanted]
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(list(mine.values()), list(theirs.values()), rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_every_probability_and_weight_is_lmplzs_and_in_its_order(name: str) -> None:
    text, config = CASES[name]
    assert_same(parse(arpa(train(text, config))), parse(lmplz(name)))


@pytest.mark.parametrize("name", ["o3", "o5-prune001"])
def test_what_goes_through_files_is_the_same_to_the_byte(name: str) -> None:
    text, config = CASES[name]
    whole, cut = train(text, config), train(text, config, memory=200_000, block=10_000)
    assert (whole.on_disk, cut.on_disk) == (False, True)
    assert arpa(cut) == arpa(whole)


def test_the_smallest_texts_tell_why_they_are_refused_and_a_fallback_takes_them() -> None:
    lines = b"a b\nc\n"
    with pytest.raises(Failure, match=r"--discount-fallback 0\.5 1 1\.5") as error:
        train_words([lines], TrainingConfig(2))
    assert "order 1" in error.value.what
    model = WordModel.of(*pair(train_words([lines], TrainingConfig(2, discount_fallback=FALLBACK_DISCOUNTS))))
    assert np.isfinite(model.score(["a b", "never seen", ""])).all()


def pair(trained: Trained):
    return trained.words, trained.grams


def test_discounts_follow_the_formula_and_refuse_what_leaves_their_range() -> None:
    y = 50 / 90
    expected = [0, 1 - 2 * y * 20 / 50, 2 - 3 * y * 10 / 20, 3 - 4 * y * 6 / 10]
    np.testing.assert_allclose(estimate_discounts(np.array([9, 50, 20, 10, 6])), expected, rtol=1e-6)
    with pytest.raises(DiscountError, match="adjusted count 2"):
        estimate_discounts(np.array([0, 5, 0, 3, 2]))
    with pytest.raises(DiscountError, match="count 2 would be"):
        estimate_discounts(np.array([0, 90, 2, 50, 6]))


def test_special_words_are_refused_with_their_line_or_skipped() -> None:
    text = b"a b\n\nb <s> c\n"
    with pytest.raises(Failure, match=r"<s> is in the text, on line 3"):
        train_words([text], TrainingConfig(1, smoothing="witten-bell"))
    config = TrainingConfig(2, smoothing="witten-bell")
    skipped = train_words([text], config, skip_special=True)
    assert arpa(skipped) == arpa(train_words([b"a b\n\nb c\n"], config))


@pytest.mark.parametrize("text", [b"", b"\0"])
def test_a_text_without_lines_has_nothing_to_count(text: bytes) -> None:
    with pytest.raises(Failure, match="nothing to count"):
        train_words([text] if text else [], TrainingConfig(2))


def test_a_last_line_without_newline_has_no_end_and_the_model_still_sums_to_one() -> None:
    config = TrainingConfig(2, discount_fallback=FALLBACK_DISCOUNTS)
    trained = train_words([b"a b c a b\na b d\nb c x"], config)
    orders = parse(arpa(trained))
    assert trained.unfinished
    assert (b"x", b"</s>") not in orders[1]
    # lmplz 4cb443e on the same text; no n-gram comes after `x`, the last one, so its weights are in their places.
    assert orders[0][b"b",] == pytest.approx((-0.7386427, -0.24033217), abs=1e-6)
    assert orders[1][b"c", b"x"][0] == pytest.approx(-0.5587914, abs=1e-6)


def test_settings_that_cannot_be_are_refused() -> None:
    for wrong in (
        {"order": 0},
        {"order": 7},
        {"order": 2, "prune": (0, 0, 1)},
        {"order": 3, "prune": (2, 1)},
        {"k": 0.0},
        {"discount_fallback": (0.5, 2.5)},
    ):
        with pytest.raises(UsageError):
            TrainingConfig(**wrong)


sentences = st.lists(st.lists(st.sampled_from("abc"), max_size=6), min_size=1, max_size=8)
smoothed = st.sampled_from(["kneser-ney", "witten-bell", "add-k", "maximum-likelihood"])


def probability(orders: list[Values], context: tuple[bytes, ...], word: bytes) -> float:
    """p(word | context) by back-off, from the ARPA file."""
    gram = (*context, word)
    if gram in orders[len(gram) - 1]:
        return 10 ** orders[len(gram) - 1][gram][0]
    if not context:
        return 10 ** orders[0][b"<unk>",][0]
    weight = orders[len(context) - 1].get(context, (0.0, 0.0))[1]
    return 10**weight * probability(orders, context[1:], word)


@settings(max_examples=120, deadline=None)
@given(sentences, smoothed, st.integers(1, 5), st.lists(st.integers(0, 2), max_size=3))
def test_what_follows_any_context_sums_to_one(text, smoothing, order, prune) -> None:
    prune = tuple(sorted(prune[:order])) if smoothing != "maximum-likelihood" else ()
    config = TrainingConfig(order, smoothing, 0.3, prune, discount_fallback=FALLBACK_DISCOUNTS)
    data = "".join(" ".join(line) + "\n" for line in text).encode()
    orders = parse(arpa(train_words([data], config)))
    words = [word for (word,) in orders[0] if word != b"<s>"]
    contexts = {(b"<s>",), (b"a", b"b"), (b"c",), ()} | {gram for order in orders[:-1] for gram in order}
    for context in contexts:
        context = context[max(0, len(context) - order + 1) :]
        if b"</s>" in context or b"<unk>" in context:
            continue
        total = sum(probability(orders, context, word) for word in words)
        assert total == pytest.approx(1, abs=1e-4), context


def counts_of(text: list[list[str]], order: int) -> Counter:
    found: Counter = Counter()
    for line in text:
        padded = ["<s>"] * (order - 1) + line + ["</s>"]
        found.update(tuple(padded[at : at + order]) for at in range(len(line) + 1))
    return found


@settings(max_examples=60, deadline=None)
@given(sentences, st.integers(1, 4), st.sampled_from([0.1, 1.0, 2.5]))
def test_add_k_and_maximum_likelihood_are_their_formulas(text, order, k) -> None:
    data = "".join(" ".join(line) + "\n" for line in text).encode()
    grams, contexts = counts_of(text, order), Counter()
    for gram, count in grams.items():
        contexts[gram[:-1]] += count
    vocabulary = {word for line in text for word in line} | {"</s>", "<unk>"}
    for smoothing in ("add-k", "maximum-likelihood"):
        model = WordModel.of(*pair(train_words([data], TrainingConfig(order, smoothing, k))))
        for line in [*text, ["b", "a"]]:
            padded = ["<s>"] * (order - 1) + line + ["</s>"]
            for at, (word, log10, _, unknown) in enumerate(model.word_scores(" ".join(line))):
                gram = tuple(padded[at : at + order])
                if smoothing == "add-k" and not unknown:
                    wanted = (grams[gram] + k) / (contexts[gram[:-1]] + k * len(vocabulary))
                    assert log10 == pytest.approx(math.log10(wanted), abs=1e-5), word
                elif smoothing != "add-k" and grams[gram]:
                    assert log10 == pytest.approx(math.log10(grams[gram] / contexts[gram[:-1]]), abs=1e-5)
                elif smoothing != "add-k" and contexts[gram[:-1]]:
                    assert log10 == -math.inf


def test_witten_bell_is_its_formula() -> None:
    text = [line.split() for line in (FIXTURES / "train.txt").read_text().splitlines()[:60]]
    data = "".join(" ".join(line) + "\n" for line in text).encode()
    orders = parse(arpa(train_words([data], TrainingConfig(2, "witten-bell"))))
    unigrams, bigrams = counts_of(text, 1), counts_of(text, 2)
    total, types = sum(unigrams.values()), len(unigrams)
    after = Counter(gram[0] for gram in bigrams for _ in range(1))
    seen = Counter()
    for gram, count in bigrams.items():
        seen[gram[0]] += count
    for gram, count in bigrams.items():
        lower = (unigrams[gram[1:]] + types / (types + 1)) / (total + types)
        wanted = (count + after[gram[0]] * lower) / (seen[gram[0]] + after[gram[0]])
        assert orders[1][tuple(word.encode() for word in gram)][0] == pytest.approx(math.log10(wanted), abs=1e-5)


@pytest.mark.parametrize(
    ("name", "text", "units"),
    [
        ("characters", "床前 明月光\nab c\n", ["床", "前", "▁", "明", "月", "光", "a", "b", "c"]),
        ("rjieba", "我来到北京清华大学\n", ["我", "来到", "北京", "清华大学"]),
    ],
)
def test_units_other_than_words_are_counted_and_queried(name: str, text: str, units: list[str]) -> None:
    trained = train_words([text.encode()], TrainingConfig(2, "witten-bell"), units=unit_named(name))
    assert {trained.words.text(at) for at in range(3, len(trained.words))} == set(units)
    model = WordModel.of(*pair(trained), unit_named(name))
    found = model.score_block(text.encode())
    assert found.unknown.sum() == 0
    assert found.tokens.sum() == len([c for c in text if c != "\n"] if name == "characters" else units) + text.count(
        "\n"
    )
    with pytest.raises(UsageError, match="characters"):
        unit_named("syllables")
