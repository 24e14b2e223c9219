"""What a text repeats: DRY's penalty, and texts that must never be written. Touches nothing."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from textmill.tokens.tokenizer import Tokenizer


class DontRepeat:
    """DRY: the longer the repetition that a token would lengthen, the less likely it becomes.

    `lengths[i]` is the number of tokens up to place i that equal the last ones of the text. It is brought up to date
    with each token by one shift, so a step costs time linear in the text's length, whatever the repetitions.

    Args:
        multiplier, base, allowed: the penalty of lengthening a repetition of L tokens is
            multiplier * base ** (L - allowed), from L = allowed on.
        window: tokens back that are looked at; 0: all.
        breakers: tokens that end a repetition.
    """

    def __init__(self, multiplier: float, base: float, allowed: int, window: int, breakers: frozenset[int]) -> None:
        self.multiplier, self.base, self.allowed = multiplier, base, allowed
        self.window, self.breakers = window, breakers
        self.text = np.zeros(0, np.int64)
        self.lengths = np.zeros(0, np.int32)

    def add(self, tokens: Sequence[int]) -> None:
        """Append tokens to the text."""
        for token in tokens:
            lengths = np.zeros(len(self.text) + 1, np.int32)
            if token not in self.breakers:
                lengths[0] = len(self.text) > 0 and self.text[0] == token
                lengths[1:-1] = np.where(self.text[1:] == token, self.lengths[:-1] + 1, 0) if len(self.text) > 1 else 0
            self.text = np.append(self.text, token)
            self.lengths = lengths
            if self.window and len(self.text) > self.window:
                self.text, self.lengths = self.text[-self.window :], self.lengths[-self.window :]

    def penalties(self) -> tuple[np.ndarray, np.ndarray]:
        """Tokens that would lengthen a repetition, and what each loses."""
        places = np.flatnonzero(self.lengths[:-1] >= self.allowed)
        if not len(places):
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        tokens, which = np.unique(self.text[places + 1], return_inverse=True)
        longest = np.zeros(len(tokens), np.int64)
        np.maximum.at(longest, which, self.lengths[places])
        power = np.minimum((longest - self.allowed) * np.log(self.base), 80.0)  # finite in float32
        return tokens, (self.multiplier * np.exp(power)).astype(np.float32)


class BadWords:
    """Which tokens would complete a text that must not be written, whichever way it is cut into tokens.

    A word is completed by a token that holds it whole, or by one that begins with the word's rest while the text so
    far ends with its beginning. Both are found by the bytes of the tokens.

    Args:
        tokenizer: whose tokens are written.
        words: the texts.
    """

    def __init__(self, tokenizer: Tokenizer, words: Sequence[str]) -> None:
        ids, pieces = _sorted_tokens(tokenizer)
        self.words = [word.encode("utf-8", "surrogatepass") for word in words]
        whole: set[int] = set()
        self.rests: list[tuple[bytes, np.ndarray]] = []
        for word in self.words:
            whole |= {int(token) for token, piece in zip(ids, pieces, strict=True) if word in piece}
            for cut in range(1, len(word)):
                rest = word[cut:]
                first, last = bisect_left(pieces, rest), bisect_left(pieces, rest + b"\xff" * 8)
                if last > first:
                    self.rests.append((word[:cut], ids[first:last]))
        self.always = np.array(sorted(whole), np.int64)
        self.longest = max(map(len, self.words), default=0)

    def banned(self, tail: bytes) -> np.ndarray:
        """Tokens that may not come after a text that ends with `tail` (its last `longest` bytes are enough)."""
        found = [self.always, *(tokens for beginning, tokens in self.rests if tail.endswith(beginning))]
        return np.concatenate(found)


@lru_cache(maxsize=8)
def _sorted_tokens(tokenizer: Tokenizer) -> tuple[np.ndarray, list[bytes]]:
    """All tokens that stand for bytes, in the order of these."""
    special = set(tokenizer.special.values())
    pieces = [(tokenizer.decode_bytes([token]), token) for token in range(tokenizer.vocabulary) if token not in special]
    pieces = sorted((piece, token) for piece, token in pieces if piece)
    return np.array([token for _, token in pieces], np.int64), [piece for piece, _ in pieces]


@lru_cache(maxsize=32)
def breakers_of(tokenizer: Tokenizer, texts: tuple[str, ...]) -> frozenset[int]:
    """Tokens that contain one of these texts, and all special ones."""
    ids, pieces = _sorted_tokens(tokenizer)
    wanted = [text.encode() for text in texts]
    found = {int(token) for token, piece in zip(ids, pieces, strict=True) if any(text in piece for text in wanted)}
    return frozenset(found | set(tokenizer.special.values()))
