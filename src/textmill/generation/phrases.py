"""Texts that must appear in what is written, whichever way they are cut into tokens. Touches nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from textmill.base.errors import UsageError
from textmill.tokens.tokenizer import Tokenizer

Progress = tuple[int, ...]
"""For each phrase how many of its bytes the text ends with; all of them once it has appeared."""


class Phrases:
    """How far a text has come with each of several phrases, and which tokens bring it nearer.

    A phrase has appeared when its bytes have, inside or across tokens. How far it is away is counted in the fewest
    tokens that complete it, so that a text which happens to end with its first letter is not taken for one on its way.

    Args:
        tokenizer: of the model; it has to spell every text.
        vocabulary: the model's, V.
        phrases: what must appear, in any order; they may overlap.

    Raises:
        UsageError: a phrase is empty, or the tokenizer cannot spell every text.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: int, phrases: Sequence[str]) -> None:
        if isinstance(phrases, str):
            raise UsageError("The phrases are one text.", "A list of phrases is needed.", "Write [phrase].")
        if not all(phrases):
            raise UsageError("A phrase that must appear is empty.", "Every text contains it.", "Leave it out.")
        if phrases and not tokenizer.lossless:
            raise UsageError(
                "This model's tokenizer cannot spell every text.",
                "A phrase that must appear may hold characters that it lacks.",
                "Use a model with a byte-level tokenizer, as textmill build makes them.",
            )
        pieces = [tokenizer.decode_bytes([token]) for token in range(tokenizer.vocabulary)] if phrases else []
        self._each = [_Phrase(pieces, vocabulary, one) for one in dict.fromkeys(phrases)]
        self._span = max((one.distance[0] for one in self._each), default=0)
        self.start: Progress = (0,) * len(self._each)
        """Nothing written yet."""
        self.last = self._span * len(self._each)
        """The bank of texts with all phrases."""
        self.fewest = self._span
        """A text of fewer tokens cannot hold them all."""

    def after(self, progress: Progress, token: int) -> Progress:
        """The progress with one token more."""
        return tuple(int(one.moves[at, token]) for one, at in zip(self._each, progress, strict=True))

    def bank(self, progress: Progress) -> int:
        """Texts that have come equally far: by phrases met, then by the tokens done of the one that is furthest.

        It grows with every token of `nearer` for that phrase, whatever the token does to the others.
        """
        met = sum(one.distance[at] == 0 for one, at in zip(self._each, progress, strict=True))
        begun = [one.distance[0] - one.distance[at] for one, at in zip(self._each, progress, strict=True)
                 if one.distance[at]]  # fmt: skip
        return met * self._span + max(begun, default=0)

    def nearer(self, progress: Progress) -> list[Tensor]:
        """For each phrase that is still to come, the tokens that bring it nearer, bool [V]."""
        return [one.nearer(at) for one, at in zip(self._each, progress, strict=True) if one.distance[at]]


class _Phrase:
    """One phrase as an automaton over tokens (Knuth, Morris and Pratt 1977, over their bytes)."""

    def __init__(self, pieces: list[bytes], vocabulary: int, phrase: str) -> None:
        text = phrase.encode("utf-8", "surrogatepass")
        size = len(text)
        byte_moves = np.zeros((size + 1, 256), np.int16 if size < 2**15 else np.int32)
        byte_moves[size] = size  # what has appeared stays there
        byte_moves[0, text[0]] = 1
        fallback = 0
        for at in range(1, size):
            byte_moves[at] = byte_moves[fallback]
            byte_moves[at, text[at]] = at + 1
            fallback = int(byte_moves[fallback, text[at]])
        order = np.array(sorted(range(len(pieces)), key=lambda token: -len(pieces[token])), np.int64)
        lengths = np.array([len(pieces[token]) for token in order])
        moves = np.tile(np.arange(size + 1, dtype=byte_moves.dtype)[:, None], (1, vocabulary))
        for column in range(int(lengths[0])):
            tokens = order[: int((lengths > column).sum())]
            moves[:, tokens] = byte_moves[moves[:, tokens], [pieces[token][column] for token in tokens]]
        self.moves = moves
        """Where each token leads from each number of bytes, [bytes + 1, V]."""
        self.distance = _distances(moves)
        """Fewest tokens from each number of bytes to the whole phrase."""
        self._nearer: dict[int, Tensor] = {}

    def nearer(self, at: int) -> Tensor:
        """Tokens that bring the phrase nearer, bool [V]."""
        if at not in self._nearer:
            distance = np.array(self.distance)
            self._nearer[at] = torch.from_numpy(distance[self.moves[at]] < distance[at])
        return self._nearer[at]


def _distances(moves: np.ndarray) -> list[int]:
    """Fewest steps from each row to the last one."""
    last = len(moves) - 1
    follows = [np.unique(row) for row in moves]
    distance = np.full(last + 1, last + 1)
    distance[last] = 0
    while True:
        found = np.array([*(1 + distance[row].min() for row in follows[:-1]), 0])
        if (found >= distance).all():
            return [int(one) for one in distance]
        distance = np.minimum(found, distance)
