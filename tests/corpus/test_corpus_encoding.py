"""Encodings are detected from real sentences, and binary junk is told from text."""

from __future__ import annotations

import random

import pytest

from textmill.corpus.encoding import Decoded, binary_kind

ENGLISH = "It’s the “best” café in town — naïve visitors pay £5 for a crème brûlée."
FRENCH = "Le gouvernement a annoncé de nouvelles mesures. L’été dernier, à Paris, on a « déjà » vu ça."
GERMAN = "Die Straße führt über die Brücke nach München. Größe ist nicht alles."
SPANISH = "El niño comió una manzana en la montaña. ¿Qué pasó?"
SWEDISH = "Vår hund är på ön och äter smörgås med ål."
CHINESE = "中华人民共和国成立以来，经济建设取得了巨大的成就，人民的生活水平不断提高。"
SHORT_CHINESE = "今天天气很好，我们去公园玩吧。"
TRADITIONAL = "自由時報記者專訪臺北市長，談及捷運建設與環境保護的問題。"
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。"
KOREAN = "오늘은 날씨가 매우 좋습니다. 우리는 공원에 갑니다."
RUSSIAN = "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему."
CZECH = "Příliš žluťoučký kůň úpěl ďábelské ódy."
POLISH = "Zażółć gęślą jaźń. Rząd ogłosił nowe środki dla rodzin w trudnej sytuacji."
HUNGARIAN = "Magyarország fővárosa Budapest, a Duna két partján fekszik, őrült szép."
TURKISH = "Türkiye'nin başkenti Ankara'dır. İstanbul ise en kalabalık şehridir."
GREEK = "Η Ελλάδα είναι μια χώρα στη νοτιοανατολική Ευρώπη."
MIXED = "Hello 世界, this is a mixed text 混合文本 about 中文 and English."

TABLE = [
    *[(text, "utf-8") for text in (ENGLISH, CHINESE, JAPANESE, RUSSIAN, "plain")],
    *[(text, "utf-8-sig") for text in (ENGLISH, CHINESE)],
    *[(text, "utf-16") for text in (ENGLISH, CHINESE)],
    *[(text, "utf-32") for text in (ENGLISH, CHINESE)],
    *[("This text has no byte order mark.", name) for name in ("utf-16-le", "utf-16-be", "utf-32-le")],
    *[(text, "gb18030") for text in (CHINESE, SHORT_CHINESE, MIXED)],
    (TRADITIONAL, "big5"),
    *[(JAPANESE, name) for name in ("cp932", "euc_jp", "iso2022_jp")],
    (KOREAN, "euc_kr"),
    *[(text, "cp1252") for text in (ENGLISH, FRENCH, GERMAN, SPANISH, SWEDISH, "café")],
    *[(text, "latin-1") for text in (GERMAN, SPANISH, SWEDISH)],
    *[(text, "cp1250") for text in (CZECH, POLISH, HUNGARIAN)],
    (TURKISH, "cp1254"),
    (GREEK, "cp1253"),
    *[(RUSSIAN, name) for name in ("cp1251", "koi8_r")],
]


@pytest.mark.parametrize(("text", "encoding"), TABLE, ids=[f"{name}-{text[:12]}" for text, name in TABLE])
def test_text_comes_back_from_its_encoding(text: str, encoding: str) -> None:
    assert "".join(Decoded([text.encode(encoding)])) == text
    assert binary_kind(text.encode(encoding)) == ""


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig"])
def test_characters_cut_by_chunk_bounds_are_whole(size: int, encoding: str) -> None:
    text = (CHINESE + "\r\n" + ENGLISH + "\r") * 3 + "end"
    data = text.encode(encoding)
    head = len(CHINESE.encode(encoding))
    chunks = [data[:head], *[data[at : at + size] for at in range(head, len(data), size)]]
    decoded = Decoded(chunks)
    assert "".join(decoded) == text.replace("\r\n", "\n").replace("\r", "\n")
    assert decoded.damaged == 0


def test_legacy_bytes_after_a_long_ascii_beginning_are_still_told() -> None:
    decoded = Decoded([b"plain ascii " * 1000, FRENCH.encode("cp1252"), GERMAN.encode("cp1252")])
    assert "".join(decoded).endswith(FRENCH + GERMAN)
    assert decoded.encoding == "cp1252"


def test_utf8_with_a_few_damaged_bytes_stays_utf8() -> None:
    data = (CHINESE * 20).encode()
    decoded = Decoded([data[:301] + b"\xff" + data[301:]])
    text = "".join(decoded)
    assert decoded.encoding == "utf-8"
    assert decoded.damaged >= 1
    assert text.count(CHINESE) == 19


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n" + b"x" * 100, "PNG image"),
        (b"%PDF-1.7\nplain looking text", "PDF"),
        (b"PK\x03\x04rest", "ZIP"),
        (random.Random(1).randbytes(10_000), "control bytes"),
        (bytes(10_000), "control bytes"),
    ],
)
def test_binary_files_are_recognised(data: bytes, kind: str) -> None:
    assert kind in binary_kind(data)


def test_a_text_with_some_nul_bytes_is_text() -> None:
    assert binary_kind(b"One sentence.\0 Another sentence.\0\0 A third one that goes on.") == ""
