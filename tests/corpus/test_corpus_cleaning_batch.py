"""Cleaning in batches equals cleaning one by one; the optional forms, spaces and words."""

from __future__ import annotations

import random
import unicodedata
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textmill.base.errors import UsageError
from textmill.corpus.cleaning import forms, words
from textmill.corpus.cleaning.batch import _TABLE_SIZE, clean_batch, clean_texts
from textmill.corpus.cleaning.forms import chinese_rows, compatibility, convert_chinese
from textmill.corpus.cleaning.spaces import collapse_spaces
from textmill.corpus.cleaning.text import clean
from textmill.corpus.cleaning.words import drop_stop_words, segment, to_words
from textmill.corpus.texts import Texts

PIECES = [
    *(
        "\r",
        "\n",
        "\r\n",
        " ",
        "\t",
        "\u3000",
        "\xa0",
        "\u2003",
        "\u205f",
        "\u1680",
        "\u2028",
        "a",
        "bc",
        "é",
        "e\u0301",
    ),
    *(
        "Ã©",
        "â€™",
        "Ã",
        "Â",
        "à",
        "\u0301",
        "\u0323",
        "中",
        "国",
        "한",
        "\u1100",
        "\u1161",
        "\u11a8",
        "\ufeff",
        "\ufffd",
    ),
    *("\x1b[31m", "\0", "\x0c", "\x85", "\x7f", "😀", "क", "\u093c", "É’", "Ã‰", "ï¿½", "x" * 63, "y" * 64, "z" * 130),
    *("\u0958", "\u212b", "가", "\U0001d15e", "\U0002f800", "\U000e0100", "\U0010ffff"),
]


def same(strings: list[str], repair: bool = True) -> None:
    found = clean_batch(Texts.from_strings(strings), repair)
    for row, string in enumerate(strings):
        one = clean(string, repair)
        assert found.texts[row] == one.utf8, repr(string)
        assert (found.repaired[row], found.damage[row]) == (one.repaired, one.damage), repr(string)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=8).map("".join), max_size=8), st.booleans())
def test_a_batch_equals_one_by_one_on_adversarial_text(strings: list[str], repair: bool) -> None:
    same(strings, repair)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=6))
def test_a_batch_equals_one_by_one_on_any_text(strings: list[str]) -> None:
    same(strings)


def test_a_batch_equals_one_by_one_on_every_character() -> None:
    points = [chr(code) for code in [*range(0xD800), *range(0xE000, 0x30000)]]
    random.Random(0).shuffle(points)
    for start in range(0, len(points), 40):
        same([f"a{''.join(points[start : start + 40])}b"])
    plain = [*range(0x300), *range(0x1E00, 0x3100)]
    same([form for code in plain for form in (chr(code), f"a{chr(code)}b", f"\n{chr(code)}x{chr(code)}")])


def test_no_character_above_the_table_decomposes_or_combines() -> None:
    for code in [*range(_TABLE_SIZE, 0x32400), *range(0xE0000, 0xE0200)]:
        assert not unicodedata.combining(chr(code))
        assert not unicodedata.decomposition(chr(code))


def test_clean_texts_share_memory_and_others_are_independent_of_their_neighbours() -> None:
    tidy = Texts.from_strings(["one\ntwo", "中文", "été"])
    assert clean_batch(tidy).texts is tidy
    strings = ["a\r\nb \n", "tidy", "\x00x", "e\u0301", "\r", ""]
    whole = clean_batch(Texts.from_strings(strings)).texts.strings()
    assert whole == ["a\nb", "tidy", "x", "é", "", ""]
    assert whole == [clean_batch(Texts.from_strings([string])).texts.string(0) for string in strings]


def config(**settings: object) -> SimpleNamespace:
    return SimpleNamespace(
        **{"repair": True, "normalize": "nfc", "chinese": "keep", "collapse_spaces": False, **settings}
    )


def test_steps_on_request() -> None:
    texts = Texts.from_strings(["ＡＢＣ　ﬁ", "漢語 與  国", "a  b\n\n\n\n  c\t d ", "日本語の漢字は國である"])
    assert clean_texts(texts, config()).texts.strings() == [
        "ＡＢＣ　ﬁ",
        "漢語 與  国",
        "a  b\n\n\n\n  c\t d",
        texts.string(3),
    ]
    assert clean_texts(texts, config(normalize="nfkc")).texts.string(0) == "ABC fi"
    simple = clean_texts(texts, config(chinese="simplified", collapse_spaces=True)).texts.strings()
    assert simple == ["ＡＢＣ ﬁ", "汉语 与 国", "a b\n\nc d", "日本語の漢字は國である"]


def test_conversion_goes_there_and_back_and_spares_japanese_and_korean() -> None:
    chinese = "今天天气很好，我们一起去公园散步，看见许多人在湖边唱歌。"
    texts = Texts.from_strings([chinese, "吾輩は猫である。國", "한국어 문장 입니다 漢字", "plain"])
    assert chinese_rows(texts).tolist() == [True, False, False, False]
    traditional = convert_chinese(texts, "traditional")
    assert traditional.string(0) == "今天天氣很好，我們一起去公園散步，看見許多人在湖邊唱歌。"
    assert traditional.strings()[1:] == texts.strings()[1:]
    assert convert_chinese(traditional, "simplified").strings() == texts.strings()


@given(st.lists(st.text(alphabet="ab\u3000\xa0 \t\n中", max_size=30), max_size=5))
def test_collapsed_spaces(strings: list[str]) -> None:
    found = collapse_spaces(Texts.from_strings(strings)).strings()
    for before, after in zip(strings, found, strict=True):
        assert "".join(before.split()) == "".join(after.split())
        assert "\n\n\n" not in after
        assert "  " not in after
        assert all(line == line.strip() for line in after.split("\n"))
        assert after == after.strip()
    assert compatibility(Texts.from_strings(strings)) is not None


def test_segmentation() -> None:
    texts = Texts.from_strings(
        [
            "Don't stop: 3.14, 1,000 foo_bar e.g. «déjà» x-y",
            "今天天气很好，我们一起去公园散步。Hello 世界\n第二行",
            "吾輩は猫",
            "हिन्दी भाषा",
            "",
        ]
    )
    found = segment(texts, np.array(["en", "zh", "ja", "hi", ""])).strings()
    assert found[0] == "Don't stop : 3.14 , 1,000 foo_bar e.g . « déjà » x - y"
    assert found[1].startswith("今天天气 很 好 ， 我们 一起 去 公园 散步 。 Hello 世界\n")
    assert found[2:] == ["吾 輩 は 猫", "हिन्दी भाषा", ""]
    for before, after in zip(texts.strings(), found, strict=True):
        assert "".join(before.split()) == "".join(after.split())


def test_stop_words() -> None:
    texts = Texts.from_strings(["The cat is on the mat\nof", "我们的猫和狗都很好。"])
    languages = np.array(["en", "zh"])
    both = SimpleNamespace(segment=True, stop_words=True)
    assert to_words(texts, languages, both).strings() == ["cat mat", "猫 狗 好 。"]
    assert to_words(texts, languages, SimpleNamespace(segment=False, stop_words=True)).string(1) == "猫狗好。"
    assert drop_stop_words(Texts.from_strings(["THE the thesis"])).strings() == ["thesis"]


def test_a_missing_extra_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opencc", None)
    monkeypatch.setitem(__import__("sys").modules, "rjieba", None)
    forms._converter.cache_clear()
    with pytest.raises(UsageError, match=r'pip install "textmill\[chinese\]"'):
        convert_chinese(Texts.from_strings(["中文"]), "simplified")
    with pytest.raises(UsageError, match=r'pip install "textmill\[chinese\]"'):
        segment(Texts.from_strings(["中文"]), np.array(["zh"]))
    assert segment(Texts.from_strings(["no Chinese."]), np.array(["en"])).strings() == ["no Chinese ."]
    forms._converter.cache_clear()
    assert words.CHINESE
