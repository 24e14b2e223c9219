"""Where text is cut before tokens are found in it: the patterns of words, and safe places in long texts."""

from __future__ import annotations

import re

import numpy as np

from textmill.corpus.texts import Texts

_TAIL = r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"

SPLIT_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + _CONTRACTION + "?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + _CONTRACTION + "?|" + _TAIL
)
"""Tokens never cross the pieces that this pattern (o200k's) finds. Fast encoders and GGUF engines know it by heart,
and it keeps words whole in scripts that write vowels as marks. Among gpt2's, qwen2's, qwen3.5's, cl100k's, o200k's and
a pattern made for small vocabularies, bits per byte differed by at most 1% (5-grams over 2,048 and 8,192 tokens,
on English speeches, English documentation and Chinese documentation); o200k's and cl100k's need the fewest tokens."""

FIRST_PATTERN = "|".join(
    (
        r"['’](?i:s|t|re|ve|m|ll|d)(?![\p{L}\p{M}])",
        r" ?[\p{L}\p{M}]{1,64}",
        r"\p{N}{1,2}",
        r" ?[^\s\p{L}\p{M}\p{N}]{1,64}[\r\n]{0,8}",
        r"\s{0,64}[\r\n]{1,64}",
        r"\s{1,64}(?!\S)",
        r"\s{1,64}",
    )
)
"""The pattern of tokenizers that version 0.1 made; they go on working, with a slower encoder."""

PATTERNS: dict[str, str] = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "cl100k": _CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "o200k": SPLIT_PATTERN,
    "qwen2": _CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
"""Patterns of published tokenizers, for rank files that do not carry their own."""

CHARACTER_PATTERN = r"[\s\S]"
"""Cuts text into single characters."""

WORDPIECE_WORD = 64
"""Characters in the longest piece that WordPiece sees: its search takes time quadratic in the length."""

CHUNK_BYTES = 1 << 16
"""Longer texts are encoded in chunks of about this size: bounded memory, and one document keeps all cores busy."""
_SEARCH_BYTES = CHUNK_BYTES // 4
"""How far a safe place is looked for before a text is cut in the middle of whatever stands there."""

_SAFE = re.compile(
    rb"(?<=[!-~])(?= )"  # before a space that follows something visible, in ASCII…
    rb"|(?<=[\xd0-\xdf][\x80-\xbf])(?= )"  # …and in Cyrillic, Hebrew, Arabic
    rb"|(?<=[\xe5-\xe9][\x80-\xbf][\x80-\xbf])(?=\xef\xbc[\x81\x8c\x9a\x9b\x9f]|\xe3\x80[\x81\x82])"  # 汉|，
    rb"|(?<=\n)(?=[0-9A-Za-z\xe5-\xe9])"
)
"""Places where SPLIT_PATTERN and FIRST_PATTERN cut whatever stands around them, in UTF-8."""


def cut(texts: Texts) -> tuple[Texts, np.ndarray]:
    """The same bytes with texts longer than 1.25 chunks cut where the tokens stay the same.

    A text without any safe place for 16 KB (binary rubbish, one endless word) is cut hard, between characters.

    Returns:
        the chunks, and int64 [n + 1]: text i is the chunks `places[i]` to `places[i + 1]`.
    """
    inner: list[int] = []
    for row in np.flatnonzero(texts.sizes > CHUNK_BYTES + _SEARCH_BYTES).tolist():
        start, stop = int(texts.offsets[row]), int(texts.offsets[row + 1])
        while stop - start > CHUNK_BYTES + _SEARCH_BYTES:
            start = _place(texts.data, start + CHUNK_BYTES)
            inner.append(start)
    if not inner:
        return texts, np.arange(len(texts) + 1, dtype=np.int64)
    extra = np.array(inner, dtype=np.int64)
    places = np.arange(len(texts) + 1, dtype=np.int64) + np.searchsorted(extra, texts.offsets)
    offsets = np.insert(texts.offsets, np.searchsorted(texts.offsets, extra), extra)
    return Texts(texts.data, offsets), places


def _place(data: np.ndarray, middle: int) -> int:
    """The first safe place from `middle` on, or the first place between characters."""
    window = data[middle - 3 : middle + _SEARCH_BYTES].tobytes()  # a place looks up to three bytes back
    found = _SAFE.search(window, 3)
    if found:
        return middle - 3 + found.start()
    while data[middle] & 0xC0 == 0x80:
        middle += 1
    return middle
