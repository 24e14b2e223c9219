"""Cleaning: mojibake, control characters, NFC; cutting loses no text."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textmill.corpus.cleaning.text import boundary, clean, cut, pieces

CHINESE = "今天天气很好，我们一起去公园散步，看见许多人在湖边唱歌、跳舞、下棋。" * 3


@pytest.mark.parametrize(
    "text", ["café d’été", "中国人民，你好。", "Österreich über alles", "привет, мир", "naïve — “x”"]
)
@pytest.mark.parametrize("wrong", ["latin-1", "sloppy-windows-1252"])
def test_mojibake_is_repaired(text: str, wrong: str) -> None:
    import ftfy.bad_codecs  # noqa: F401  (gives the sloppy codec)

    cleaned = clean("An untouched line.\n" + text.encode().decode(wrong))
    assert cleaned.text == "An untouched line.\n" + text
    assert cleaned.repaired
    assert clean(text.encode().decode("latin-1"), repair=False).repaired is False


@pytest.mark.parametrize(
    "text",
    ["The café’s “naïve” crème — déjà vu…", "«Ça coûte 5 €», dit-il à Noël.", "SÃO PAULO É GRANDE", "ÂGE", CHINESE],
)
def test_correct_text_is_left_alone(text: str) -> None:
    assert clean(text) == (text, text.encode(), False, 0.0)


def test_controls_go_and_lines_stay() -> None:
    cleaned = clean("\ufeff\n\na\0b\x1b[31mred\x1b[0m\r\nnext\x0cpage\u2028line e\u0301\r \n")
    assert cleaned.text == "abred\nnext\npage\nline é"
    assert clean("    indented\n\tcode  \nend").text == "    indented\n\tcode  \nend"


def test_surrogates_become_characters() -> None:
    assert clean("x\ud83d\ude00y\ud800z").text == "x😀y\ufffdz"


@given(st.text())
def test_cleaning_gives_nfc_without_controls_and_is_stable(text: str) -> None:
    once = clean(text, repair=False)
    assert once.utf8 == once.text.encode()
    assert unicodedata.is_normalized("NFC", once.text)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", once.text)
    assert clean(once.text, repair=False).text == once.text


@given(st.text(alphabet="ab \n。", min_size=1, max_size=400), st.integers(5, 50))
def test_cutting_loses_nothing_and_keeps_to_the_size(text: str, size: int) -> None:
    parts = list(cut(text, size))
    assert "".join(parts) == text
    assert all(len(part) <= size for part in parts)
    if len(text) > size:
        assert all(parts)


@given(st.lists(st.text(alphabet="ab \n", max_size=40)), st.integers(5, 30))
def test_pieces_do_not_depend_on_the_chunks(chunks: list[str], size: int) -> None:
    whole = "".join(chunks)
    parts = list(pieces(chunks, size))
    assert "".join(text for _, text in parts) == whole
    assert parts == list(pieces(list(whole), size))
    if len(whole) <= 2 * size:
        assert parts == [(0, whole)]
    else:
        assert [number for number, _ in parts] == list(range(1, len(parts) + 1))
        assert all(len(text) <= 2 * size for _, text in parts)


def test_cuts_prefer_blank_lines_then_lines_then_sentences_then_spaces() -> None:
    assert boundary("aaaa bb\n\ncc dd\nee ff", 14) == 9
    assert boundary("aaaaaa. bb\ncc dd ee ff", 16) == 11
    assert boundary("aaaa bbbb. cc dd ee ff", 16) == 11
    assert boundary("中文句子到这里。后面还有许多字没有标点", 12) == 8
    assert boundary("aaaabbbbccccdddd", 10) == 10
    assert boundary("aaaabbbbe\u0301\u0301ccc", 10) == 8
