"""Cleaning: mojibake, control characters, NFC; cutting loses no text; symbols and languages are judged fairly."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textmill.corpus.clean import boundary, clean, cut, pieces
from textmill.corpus.config import CorpusConfig
from textmill.corpus.judge import judge

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


def judged(text: str, **settings: object) -> tuple[str, str]:
    found = judge(clean(text), CorpusConfig(**settings))  # type: ignore[arg-type]
    return found.language, found.rule


CODE = "def f(self, x):\n    return {k: v[0] for k, v in x.items() if k != '_'}  # note\n" * 5
HINDI = "भारत दक्षिण एशिया में स्थित भारतीय उपमहाद्वीप का सबसे बड़ा देश है और इसकी राजधानी नई दिल्ली है।" * 2
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。" * 3
KOREAN = "오늘은 날씨가 매우 좋습니다. 우리는 공원에 갑니다. 서울은 큰 도시입니다." * 3
ENGLISH = "The quick brown fox jumps over the lazy dog and then walks home to sleep for the whole day. " * 3
FRENCH = "Le gouvernement a annoncé hier de nouvelles mesures pour aider les familles les plus pauvres. " * 3


@pytest.mark.parametrize(
    ("text", "language"),
    [(CHINESE, "zh"), (JAPANESE, "ja"), (KOREAN, "ko"), (ENGLISH, "en"), (FRENCH, "fr")],
)
def test_languages_are_told_and_the_text_is_kept(text: str, language: str) -> None:
    assert judged(text) == (language, "")


def test_code_a_quatrain_and_combining_scripts_are_kept() -> None:
    assert judged(HINDI)[1] == ""
    assert judged(CODE)[1] == ""
    assert judged("床前明月光，疑是地上霜。举头望明月，低头思故乡。") == ("zh", "")


def test_the_head_does_not_decide_the_language() -> None:
    assert judged("Home | Contact | About us, and the terms of use.\n" * 30 + FRENCH * 30)[0] == "fr"


def test_rules_reject() -> None:
    assert judged("Too short.")[1] == "too_short"
    assert judged("Too short.", min_characters=5)[1] == ""
    assert judged("-- == ++ || ** // ## %% && ~~ << >> word " * 5)[1] == "symbols"
    assert judged("\0\x01\x02abc" * 50)[1] == "binary"
    assert judged("")[1] == "too_short"
