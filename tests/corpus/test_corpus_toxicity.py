"""Toxic and sexual words are counted as a slow search would; innocent words around them are left."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textmill.base.errors import UsageError
from textmill.corpus.judging import lists, toxicity
from textmill.corpus.texts import Texts


def counts(text: str, words: Path | None = None) -> tuple[int, int]:
    measured = toxicity.measure(Texts.from_strings([text]), words)
    return int(measured["toxic_words"][0]), int(measured["sexual_words"][0])


def test_lists_are_well_formed() -> None:
    for name in (
        "TOXIC_ENGLISH",
        "SEXUAL_ENGLISH",
        "ALLOWED_ENGLISH",
        "TOXIC_CHINESE",
        "SEXUAL_CHINESE",
        "ALLOWED_CHINESE",
    ):
        words = lists.words(getattr(lists, name))
        assert len(words) == len(set(words)) > 50
        assert all(word == word.strip().lower() and word for word in words)
        assert lists.words(lists.encode(words)) == words
    for chinese in ("TOXIC_CHINESE", "SEXUAL_CHINESE"):
        assert all(len(word) > 1 for word in lists.words(getattr(lists, chinese)) if word not in ("屄", "肏"))


@pytest.mark.parametrize("name", ["TOXIC_ENGLISH", "SEXUAL_ENGLISH", "TOXIC_CHINESE", "SEXUAL_CHINESE"])
def test_every_listed_word_counts_once_among_others(name: str) -> None:
    place = 0 if name.startswith("TOXIC") else 1
    for word in lists.words(getattr(lists, name)):
        for text in (word, word.upper(), f"well, {word}. yes", f"他说：{word}。", f"a {word}\n"):
            assert counts(text)[place] == 1, text


@pytest.mark.parametrize(
    "text",
    [
        "Scunthorpe, Essex, Sussex and Middlesex; classic assessment of the cockpit, a cocktail, Dickens and Hancock",
        "Moby Dick, magna cum laude; cum_weights and analysis; a shiitake, Matsushita, grape, therapist, Titian, title",
        "the circumference of a document; Uranus; peacock; the pussy willow; tit for tat; blue tits",
        "过程中出现了问题，出口交通便利，人妻子女，特色情怀，打飞机票，女性交往，中出版社，没有码头，各自慰问。",
        "杂种优势和杂种细胞；岩石裸露在外，乳房炎，复杂种类；性能、性别、个性、性质都不是坏词。",
        "進出口交易，角色情緒，男女優秀，足交通，國內射線。",
        "",
    ],
)
def test_innocent_text_counts_nothing(text: str) -> None:
    assert counts(text) == (0, 0)


def test_shares_are_of_letters() -> None:
    word = lists.words(lists.TOXIC_ENGLISH)[0]
    texts = Texts.from_strings([f"{word} " + "a" * (99 * len(word)) + " ... \n\n", "", "!!!"])
    measured = toxicity.measure(texts)
    assert set(measured) == set(toxicity.COLUMNS)
    assert measured["toxic_share"][0] == pytest.approx(0.01)
    assert measured["toxic_share"][1:].tolist() == [0.0, 0.0]
    assert {rule.column for rule in toxicity.RULES} <= set(toxicity.COLUMNS)


def test_own_words_are_added(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("# mine\nGrumpkin\n坏蛋\nzut alors\n\n", encoding="utf-8")
    assert counts("A grumpkin! 大坏蛋, Zut alors; grumpkins.", path) == (3, 0)
    assert counts("A grumpkin! 大坏蛋") == (0, 0)
    with pytest.raises(UsageError, match="cannot be read"):
        counts("a", tmp_path / "none.txt")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read"):
        counts("a", tmp_path / "bad.txt")


WORDS = ["ab", "abc", "bc", "b", "中文", "文字", "文", "a b"]
SEXUAL = ["cab", "中"]
ALLOWED = ["xabcx", "中文字", "b b"]


def slow(text: str) -> list[int]:
    """Every occurrence by regular expressions; then those inside an allowed phrase or a longer one go."""

    def spans(words: list[str]) -> set[tuple[int, int]]:
        found = set()
        for word in words:
            left = r"(?<![a-z0-9_])" if word[0].isascii() else ""
            right = r"(?![a-z0-9_])" if word[-1].isascii() else ""
            found |= {
                (m.start(), m.start() + len(word)) for m in re.finditer(f"(?={left}{re.escape(word)}{right})", text)
            }
        return found

    allowed = spans(ALLOWED)
    result = []
    for words in (WORDS, SEXUAL):
        own = spans(words)
        result.append(
            sum(
                not any(a <= one[0] and one[1] <= b for a, b in allowed)
                and not any(a <= one[0] and one[1] <= b and (a, b) != one for a, b in own)
                for one in own
            )
        )
    return result


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="abcx 中文字,", max_size=40))
def test_the_automaton_agrees_with_a_slow_search(text: str) -> None:
    automaton = toxicity.build([*((w, 0) for w in WORDS), *((w, 1) for w in SEXUAL), *((w, 2) for w in ALLOWED)])
    texts = Texts.from_strings([text])
    found, covered, letters = np.zeros((1, 2), np.int64), np.zeros((1, 2), np.int64), np.zeros(1, np.int64)
    toxicity._count(texts.data, texts.offsets, *automaton, found, covered, letters)
    assert found[0].tolist() == slow(text)


def test_a_row_depends_on_nothing_but_itself() -> None:
    words = lists.words(lists.TOXIC_ENGLISH) + lists.words(lists.SEXUAL_CHINESE) + ["hello", "世界", "\n", "x_", "é"]
    generator = random.Random(3)
    texts = ["".join(generator.choices([*words, " "], k=generator.randrange(40))) for _ in range(80)]
    whole = toxicity.measure(Texts.from_strings(texts))
    for row, text in enumerate(texts):
        alone = toxicity.measure(Texts.from_strings([text]))
        assert {name: column[row] for name, column in whole.items()} == {
            name: column[0] for name, column in alone.items()
        }
