"""Shingles and signatures: normalization, unbiased estimates, agreement with datasketch."""

from __future__ import annotations

import itertools
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textmill.corpus.deduplication.minhash import (
    BANDS,
    PERMUTATIONS,
    ROWS,
    estimated_jaccard,
    matches_beyond,
    recall_at,
    sign,
)
from textmill.corpus.deduplication.shingles import jaccards, shingle, shingle_sets
from textmill.corpus.texts import Texts

HAN = "\u3400-\u4dbf\u4e00-\u9fff"


def words_of(text: str) -> list[str]:
    """The same words in plain Python, for Latin and Han text."""
    letters = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    return re.findall(rf"[{HAN}]|[^\W_{HAN}]+", re.sub(r"\d+", "0", letters))


def sets_of(*texts: str) -> list[set[int]]:
    values, offsets = shingle_sets(Texts.from_strings(texts))
    return [set(values[a:b].tolist()) for a, b in itertools.pairwise(offsets)]


def numbered(count: int, start: int = 0) -> str:
    """A text of words that occur once; words of letters, as numbers count alike."""
    letters = "abcdefghij"
    return " ".join("".join(letters[int(d)] for d in str(number)) for number in range(start, start + count))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The quick brown fox jumps over", "the  QUICK, brown\n(fox) -- jumps: over!"),
        ("Él comió piñas y después café", "el comio pinas y despues cafe"),
        ("on page 12 of 340 pages in all", "on PAGE 12, of 340 pages -- in all"),
        ("the ﬁrst soft\u00adhyphen and ｆｕｌｌ width words", "the ﬁrst softhyphen and full width words"),
        ("我们在北京学习汉语。", "我们 在北京 学习，汉语"),
        ("ЁЛКА стоит в лесу одна зимой", "елка стоит в лесу одна зимой"),
        ("ΟΔΟΣ ένα δύο τρία τέσσερα πέντε", "οδος ενα δυο τρια τεσσερα πεντε"),
    ],
)
def test_case_accents_punctuation_and_spacing_do_not_count(one: str, other: str) -> None:
    left, right = sets_of(one, other)
    assert left == right
    assert left


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        (" \n .,;!? — … 。，", 0),
        ("word", 1),
        ("four words are here", 1),
        ("five words are now here", 1),
        ("six words are now here too", 2),
        ("我们在北京学习", 3),
        ("a" * 1_000_000, 1),
        ("spam " * 100_000, 1),
    ],
)
def test_number_of_shingles(text: str, count: int) -> None:
    assert len(sets_of(text)[0]) == count


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(alphabet="ab é.1中文 \n", max_size=60), min_size=1, max_size=8))
def test_sets_are_those_of_plain_python(texts: list[str]) -> None:
    plain = []
    for text in texts:
        words = words_of(text)
        runs = {tuple(words[at : at + 5]) for at in range(max(len(words) - 4, 1))} if words else set()
        plain.append(runs)
    found = sets_of(*texts)
    assert [len(one) for one in found] == [len(one) for one in plain]
    for a in range(len(texts)):
        for b in range(a):
            assert len(found[a] & found[b]) == len(plain[a] & plain[b])


def test_places_point_at_the_words() -> None:
    texts = Texts.from_strings(["ignored", "One two, three 四五 six. Seven"])
    _, offsets, places = shingle(texts, 1, 2, located=True)
    found = [texts.data[begin:end].tobytes().decode() for begin, end in places]
    assert found == ["One two, three 四五", "two, three 四五 six", "three 四五 six. Seven"]
    assert offsets.tolist() == [0, 3]


def test_a_signature_depends_on_its_text_alone() -> None:
    texts = [numbered(50 + at, at) for at in range(200)] + ["", "x", numbered(30_000)]
    whole = sign(Texts.from_strings(texts))
    for first, last in ((0, 1), (17, 60), (199, 203)):
        part = sign(Texts.from_strings(texts[first:last]))
        assert np.array_equal(part.keys, whole.keys[first:last])
        assert np.array_equal(part.digest, whole.digest[first:last])


def test_texts_without_words_have_no_key() -> None:
    keys = sign(Texts.from_strings(["", "!?", "word"])).keys
    assert not keys[:2].any()
    assert keys[2].all()


def pairs_at(similarity: float, pairs: int, size: int, seed: int) -> tuple[Texts, float]:
    """Texts 2i and 2i + 1 have about `size` shingles each and this Jaccard similarity; also the exact value."""
    chance = np.random.default_rng(seed)
    shared = round(size * similarity)
    texts = []
    for _ in range(pairs):
        start = int(chance.integers(1 << 40))
        common = numbered(shared + 4, start)
        for side in (1, 2):
            texts.append(f"{common} {numbered((size - shared) // 2, start + side * 10_000_000)}")
    found = Texts.from_strings(texts)
    even = np.arange(0, 2 * pairs, 2)
    exact = jaccards(*shingle_sets(found), even, even + 1)
    assert np.ptp(exact) == 0
    return found, float(exact[0])


@pytest.mark.parametrize(
    ("similarity", "size"), [(0.0, 300), (0.3, 60), (0.5, 300), (0.7, 300), (0.7, 3000), (0.9, 300)]
)
def test_the_estimate_is_unbiased_with_the_error_of_theory(similarity: float, size: int) -> None:
    pairs = 600 if size < 1000 else 100
    texts, exact = pairs_at(similarity, pairs, size, 1)
    digest = sign(texts).digest
    error = estimated_jaccard((digest[::2] == digest[1::2]).sum(axis=1)) - exact
    p = exact + (1 - exact) / 256
    theory = np.sqrt(p * (1 - p) / PERMUTATIONS) / (1 - 1 / 256)
    assert abs(error.mean()) < 4 * theory / np.sqrt(pairs)
    assert np.sqrt((error**2).mean()) == pytest.approx(theory, rel=0.12 if size < 1000 else 0.25)


def test_error_is_that_of_datasketch() -> None:
    from datasketch import MinHash

    pairs = 150
    texts, exact = pairs_at(0.6, pairs, 200, 2)
    values, offsets = shingle_sets(texts)
    theirs = []
    for row in range(0, 2 * pairs, 2):
        made = [MinHash(num_perm=PERMUTATIONS) for _ in range(2)]
        for side, one in enumerate(made):
            one.update_batch([v.tobytes() for v in values[offsets[row + side] : offsets[row + side + 1]]])
        theirs.append(made[0].jaccard(made[1]) - exact)
    digest = sign(texts).digest
    ours = estimated_jaccard((digest[::2] == digest[1::2]).sum(axis=1)) - exact
    assert np.sqrt((ours**2).mean()) < 1.25 * np.sqrt(np.mean(np.square(theirs)))


def test_candidates_are_as_many_as_the_curve_predicts() -> None:
    for similarity in (0.3, 0.5, 0.7):
        texts, exact = pairs_at(similarity, 800, 200, 3)
        keys = sign(texts).keys
        share = (keys[::2] == keys[1::2]).any(axis=1).mean()
        expected = recall_at(exact)
        assert share == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 800) + 0.002)


def test_the_curve() -> None:
    assert (BANDS, ROWS) == (28, 4)
    assert recall_at(0.7) > 0.9995 > recall_at(0.69, 14, 8)
    assert recall_at(0.8, 14, 8) == pytest.approx(0.924, abs=0.001)  # the figure that datatrove's source states


def test_bounds_of_matches() -> None:
    low, high = matches_beyond(0.7, 1e-4)
    drawn = np.random.default_rng(0).binomial(PERMUTATIONS, 0.7 + 0.3 / 256, 1_000_000)
    assert (drawn < low).mean() < 1.5e-4
    assert (drawn < low + 2).mean() > 1e-4
    assert (drawn >= high).mean() < 1.5e-4
    assert matches_beyond(1.0, 1e-4) == (PERMUTATIONS, PERMUTATIONS + 1)
