"""Text as words with single spaces between, and without stop words. Touches nothing.

For models that want words. Words are those of Unicode Standard Annex #29 in a simple form: letters, digits and marks
hold together, with an apostrophe or a dot inside a word and a dot or comma inside a number; a Chinese character or a
hiragana is a word of its own, and so is every other character. Chinese words come from a dictionary.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Any

import numpy as np

from textmill.base.errors import UsageError
from textmill.corpus.cleaning.spaces import is_space
from textmill.corpus.kernels import FNV_BASIS, code_at, kernel, mix, width_of
from textmill.corpus.tables import stored
from textmill.corpus.texts import Texts

ENGLISH = (
    "a about after all also am an and any are as at be because been before being but by can could did do does for from"
    " had has have he her here hers him his how i if in into is it its just me more most my no nor not of on one only"
    " or other our ours out over own same she should so some such than that the their theirs them then there these they"
    " this those through to too under until up us very was we were what when where which while who whom why will with"
    " would you your yours don't doesn't didn't isn't aren't wasn't can't couldn't won't wouldn't it's that's i'm"
)
"""English words that carry grammar rather than meaning."""

CHINESE = (
    "的 了 和 是 就 都 而 及 与 着 或 在 也 还 又 但 并 把 被 让 给 向 从 对 于 以 为 之 其 所 者 吗 呢 吧 啊"
    " 呀 哦 嘛 我 你 他 她 它 我们 你们 他们 她们 它们 这 那 这个 那个 这些 那些 这样 那样 什么 怎么 因为"
    " 所以 如果 虽然 但是 而且 或者 以及 一个 一些 没有 不 很 更 最 要 会 能 可以 上 下 中 里 个 们 地 得 過"
    " 过 與 為 對 於 後 後來 这里 那里 個 們 這 還 從 會 沒有 嗎"
)
"""The same of Chinese."""

_HAN = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_HAN_RUN = re.compile(f"[{_HAN}]+(?: [{_HAN}]+)*")
_PRIME = np.uint64(0x100000001B3)
_SINGLE, _LETTER, _DIGIT, _JOINS, _MARK = range(5)
_TABLE_SIZE = 0x20000


@stored()
def _table() -> np.ndarray:
    """Kind of each code point, uint8 [0x20001]: on its own, letter, digit, joins (_), mark."""
    table = np.zeros(_TABLE_SIZE + 1, dtype=np.uint8)
    by_first = {"L": _LETTER, "N": _DIGIT, "M": _MARK}
    for code in range(_TABLE_SIZE):
        table[code] = by_first.get(unicodedata.category(chr(code))[0], _SINGLE)
    table[[0x200C, 0x200D]] = _MARK
    table[ord("_")] = _JOINS
    for first, last in ((0x3005, 0x3007), (0x3041, 0x3096), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF)):
        table[first : last + 1] = _SINGLE
    return table


@kernel
def _split(data: np.ndarray, offsets: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    out, places = np.empty(2 * len(data) + 1, np.uint8), np.zeros(len(offsets), np.int64)
    to, last = 0, len(table) - 1
    for row in range(len(offsets) - 1):
        at, stop = offsets[row], offsets[row + 1]
        line, before = True, _SINGLE  # at a line's start; the kind of the character before
        glued = False  # whether what comes next belongs to the word
        while at < stop:
            byte = data[at]
            width = width_of(byte)
            code = code_at(data, at, width)
            if code == 10:
                out[to] = 10
                to += 1
                line, glued = True, False
                at += 1
                continue
            if is_space(code):
                glued = False
                at += width
                continue
            kind = table[min(code, last)]
            joins = kind == _MARK or (glued and kind != _SINGLE and before != _SINGLE)
            if kind == _SINGLE and glued and before in (_LETTER, _DIGIT):
                inside = code == 46 or (before == _LETTER and (code == 39 or code == 0x2019))
                inside = inside or (before == _DIGIT and code == 44)
                if inside and at + width < stop:
                    after = table[min(code_at(data, at + width, width_of(data[at + width])), last)]
                    if after == before:
                        joins, kind = True, before
            if not line and not (glued and joins):
                out[to] = 32
                to += 1
            for place in range(at, at + width):
                out[to] = data[place]
                to += 1
            line, glued = False, True
            if kind != _MARK:
                before = kind
            at += width
        places[row + 1] = to
    return out[:to], places


@kernel
def _without(data: np.ndarray, offsets: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop the words whose hash is among `stops` (sorted); words are what stands between spaces and line ends."""
    out, places = np.empty(len(data) + 1, np.uint8), np.zeros(len(offsets), np.int64)
    to = 0
    for row in range(len(offsets) - 1):
        at, stop = offsets[row], offsets[row + 1]
        line = True
        while at < stop:
            if data[at] == 10 or data[at] == 32:
                if data[at] == 10:
                    if to > places[row]:
                        out[to] = 10
                        to += 1
                    line = True
                at += 1
                continue
            begin, value = at, FNV_BASIS
            while at < stop and data[at] != 10 and data[at] != 32:
                byte = data[at]
                value = (value ^ np.uint64(byte + 32 if byte >= 65 and byte <= 90 else byte)) * _PRIME
                at += 1
            value = mix(value)
            found = np.searchsorted(stops, value)
            if found < len(stops) and stops[found] == value:
                continue
            if not line:
                out[to] = 32
                to += 1
            out[to : to + at - begin] = data[begin:at]
            to += at - begin
            line = False
        while to > places[row] and out[to - 1] == 10:
            to -= 1
        places[row + 1] = to
    return out[:to], places


@kernel
def _hash_all(data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    values = np.empty(len(offsets) - 1, np.uint64)
    for row in range(len(values)):
        value = FNV_BASIS
        for at in range(offsets[row], offsets[row + 1]):
            value = (value ^ np.uint64(data[at])) * _PRIME
        values[row] = mix(value)
    return np.sort(values)


@lru_cache(maxsize=1)
def _stops() -> np.ndarray:
    words = Texts.from_strings([*ENGLISH.split(), *CHINESE.split()])
    return _hash_all(words.data, words.offsets)  # type: ignore[no-any-return]


def chinese_cutter(why: str) -> Any:
    """rjieba's `cut(text) -> list[str]`.

    Raises:
        UsageError: it is not installed; `why` says what needs it.
    """
    try:
        import rjieba
    except ImportError as error:
        raise UsageError(
            f"{why} needs rjieba.", "It is not installed here.", 'Type: pip install "textmill[chinese]"'
        ) from error
    return rjieba.cut


def segment(texts: Texts, languages: np.ndarray) -> Texts:
    """Put single spaces between the words of n texts; lines stay.

    Args:
        texts: n texts.
        languages: code of each, str [n]; in all but Japanese ones, Chinese characters are cut by the dictionary.

    Raises:
        UsageError: there is Chinese text and the `chinese` extra is not installed.
    """
    split = Texts(*_split(texts.data, texts.offsets, _table()))
    changed: dict[int, bytes] = {}
    for row in np.flatnonzero(np.asarray(languages) != "ja").tolist():
        if not np.any(texts.data[texts.offsets[row] : texts.offsets[row + 1]] >= 0xE3):
            continue
        text = split.string(row)
        cut_text = _HAN_RUN.sub(_cut_run, text)
        if cut_text != text:
            changed[row] = cut_text.encode()
    return split.replace(changed)


def _cut_run(found: re.Match[str]) -> str:
    run = found[0]
    return " ".join(chinese_cutter("--segment")(run.replace(" ", ""))) if len(run) > 1 else run


def drop_stop_words(texts: Texts) -> Texts:
    """Drop English and Chinese stop words from n segmented texts; letter case does not matter."""
    return Texts(*_without(texts.data, texts.offsets, _stops()))


_JOINABLE = re.compile(f"(?<=[{_HAN}。，、；：？！]) (?=[{_HAN}。，、；：？！])")


def to_words(texts: Texts, languages: np.ndarray, config: Any) -> Texts:
    """Segment n texts and drop their stop words, as a `CorpusConfig` asks.

    With `stop_words` and without `segment`, words stay separated by spaces, as they must be to be told apart, but
    Chinese characters are put together again.

    Raises:
        UsageError: there is Chinese text and the `chinese` extra is not installed.
    """
    words = segment(texts, languages)
    if config.stop_words:
        words = drop_stop_words(words)
    if config.segment:
        return words
    changed = {}
    for row in np.flatnonzero(np.asarray(languages) == "zh").tolist():
        changed[row] = _JOINABLE.sub("", words.string(row)).encode()
    return words.replace(changed)
