"""Which tokens make one word: by spaces and punctuation, in Chinese by rjieba. Touches nothing.

Whole-word masking and scoring by words both need it. A word here is a run of letters and digits; every other
character, a space with what follows it, and a special token begin something new.
"""

from __future__ import annotations

import numpy as np

from textmill.tokens.tokenizer import Tokenizer

OTHER, LETTER, HAN, INSIDE = range(4)
"""What a token begins or ends with: something that stands alone; a letter or digit of a script that has spaces; a
Chinese character; the middle of a character that began in a token before."""


class Words:
    """Finds the words of token sequences.

    Args:
        tokenizer: whose ids they are; any kind.

    Attributes:
        segments: whether Chinese is cut into words (`rjieba` is installed); else each character is a word.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.pieces = [tokenizer.decode_bytes([token]) for token in range(tokenizer.vocabulary)]
        self.begins = np.array([_class(piece, first=True) for piece in self.pieces], dtype=np.int8)
        self.ends = np.array([_class(piece, first=False) for piece in self.pieces], dtype=np.int8)
        self._special = np.zeros(tokenizer.vocabulary, dtype=bool)
        self._special[list(tokenizer.special.values())] = True
        try:
            import rjieba
        except ImportError:
            self._cut = None
        else:
            self._cut = rjieba.cut
        self.segments = self._cut is not None

    def number(self, ids: np.ndarray) -> np.ndarray:
        """The number of each token's word, from 0 in reading order.

        Args:
            ids: int64 [T], or [B, T] of independent rows.

        Returns:
            int64 of the same shape.
        """
        if ids.ndim == 2:
            return np.stack([self.number(row) for row in ids]) if len(ids) else ids.copy()
        if len(ids) == 0:
            return ids.copy()
        ends, after = self.ends[ids], self.begins[ids[1:]]
        known = np.maximum.accumulate(np.where(ends == INSIDE, 0, np.arange(len(ids))))
        before = ends[known][:-1]  # the middle of a character is of its first byte's kind
        joined = ((before == LETTER) & (after == LETTER)) | (after == INSIDE)
        joined &= ~(self._special[ids[:-1]] | self._special[ids[1:]])
        if self._cut is not None and ((before == HAN) & (after == HAN)).any():
            joined |= (before == HAN) & (after == HAN) & ~self._chinese_borders(ids)
        return np.concatenate(([0], np.cumsum(~joined)))

    def _chinese_borders(self, ids: np.ndarray) -> np.ndarray:
        """Whether a Chinese word begins with each token but the first, bool [T - 1]."""
        assert self._cut is not None
        pieces = [self.pieces[token] for token in ids.tolist()]
        text = b"".join(pieces).decode("utf-8", "surrogateescape")  # what is no character keeps its one byte
        widths = np.array([1 if "\ud800" <= c <= "\udfff" else len(c.encode()) for c in text], dtype=np.int64)
        clean = "".join(" " if "\ud800" <= c <= "\udfff" else c for c in text)
        ends = np.cumsum(widths)
        borders = np.zeros(int(ends[-1]) + 1 if len(ends) else 1, dtype=bool)
        place = 0
        for word in self._cut(clean):
            borders[ends[place - 1] if place else 0] = True
            place += len(word)
        return borders[np.cumsum([len(piece) for piece in pieces])[:-1]]


def _class(piece: bytes, *, first: bool) -> int:
    """The class of the first or the last character of a token's bytes."""
    if not piece:
        return OTHER
    text = piece.decode("utf-8", "surrogateescape")
    character = text[0] if first else text[-1]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a character that is spelled out over several tokens
        bytes_back = piece[:1] if first else piece[:-5:-1]
        lead = next((byte for byte in bytes_back if byte >= 0xC0), None)
        if lead is None:
            return INSIDE
        if 0xE4 <= lead <= 0xE9:
            return HAN
        return LETTER if lead < 0xE0 else OTHER  # two-byte characters are mostly letters of scripts with spaces
    if _is_han(code):
        return HAN
    return LETTER if character.isalnum() and not _is_unspaced(code) else OTHER


def _is_han(code: int) -> bool:
    """Chinese characters."""
    return 0x3400 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF or 0x20000 <= code <= 0x3FFFF


def _is_unspaced(code: int) -> bool:
    """Letters of scripts written without spaces: Thai, Lao, Tibetan, Burmese, Khmer, kana, bopomofo."""
    return 0x0E00 <= code <= 0x109F or 0x1780 <= code <= 0x17FF or 0x3040 <= code <= 0x31FF or 0xFF66 <= code <= 0xFF9D
