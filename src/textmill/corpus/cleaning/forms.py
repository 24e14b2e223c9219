"""Other forms of the same text, on request: compatibility characters made plain, Chinese made simplified or
traditional. Touches nothing."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from textmill.base.errors import UsageError
from textmill.corpus.judging.characters import HAN, HANGUL, KANA, count
from textmill.corpus.texts import Texts

_CONFIGURATIONS = {"simplified": "t2s", "traditional": "s2t"}


def compatibility(texts: Texts) -> Texts:
    """Unicode NFKC of each of n texts, without blank ends: full-width letters, ligatures and the like become plain."""
    changed: dict[int, bytes] = {}
    for row in range(len(texts)):
        text = texts.string(row)
        if not text.isascii() and not unicodedata.is_normalized("NFKC", text):
            changed[row] = unicodedata.normalize("NFKC", text).lstrip("\n").rstrip().encode()
    return texts.replace(changed)


def chinese_rows(texts: Texts) -> np.ndarray:
    """Which of n texts hold Chinese characters and are neither Japanese nor Korean, bool [n].

    Japanese and Korean write some of the same characters, which a conversion would misspell.
    """
    kinds = count(texts).classes
    han, kana, hangul = kinds[:, HAN], kinds[:, KANA], kinds[:, HANGUL]
    return (han > 0) & (kana <= 0.1 * (han + kana)) & (hangul <= han)  # type: ignore[no-any-return]


@lru_cache(maxsize=2)
def _converter(target: str) -> Any:
    try:
        import opencc
    except ImportError as error:
        raise UsageError(
            f"--chinese {target} needs OpenCC.", "It is not installed here.", 'Type: pip install "textmill[chinese]"'
        ) from error
    return opencc.OpenCC(_CONFIGURATIONS[target])


def convert_chinese(texts: Texts, target: Literal["simplified", "traditional"]) -> Texts:
    """Turn the Chinese among n texts into simplified or traditional characters, by words where they decide.

    Raises:
        UsageError: OpenCC is not installed.
    """
    converter = _converter(target)
    changed: dict[int, bytes] = {}
    for row in np.flatnonzero(chinese_rows(texts)).tolist():
        text = texts.string(row)
        converted = converter.convert(text)
        if converted != text:
            changed[row] = converted.encode()
    return texts.replace(changed)
