"""Guessing the next tokens from the text so far, to be checked all at once. Touches nothing.

A guess is only ever kept where it is the very token that would have been chosen: the text is the same with and without
guessing (sampler.py draws the i-th token with the i-th random number, whoever proposed what). What is won is time:
reading five tokens takes hardly longer than reading one, because memory decides the speed.
"""

from __future__ import annotations

from collections.abc import Sequence

from textmill.generation.engine.runner import Line, NoRoomError, Reading, Runner

LONGEST_MATCH = 4
"""Last tokens of the text that are looked for earlier in it."""
MEMORY = 0.9
"""Weight of the past in the share of guesses that were right."""


class Draft:
    """Guesses, fewer of them when they have not paid lately.

    Args:
        most: tokens guessed at once, at most.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._share = 0.5

    def guess(self, text: Sequence[int]) -> list[int]:
        """What may come next; nothing when it has not paid lately (it is tried again now and then)."""
        if self._share < 0.1 and len(text) % 8:
            return []
        return self._guess(text, min(self.most, 1 + int(self._share * self.most)))

    def checked(self, guessed: int, right: int) -> None:
        """So many of the tokens guessed were right."""
        if guessed:
            self._share = MEMORY * self._share + (1 - MEMORY) * right / guessed

    def close(self) -> None:
        """Nothing more is asked."""

    def _guess(self, text: Sequence[int], size: int) -> list[int]:
        raise NotImplementedError


class PromptLookup(Draft):
    """Guesses that the text goes on as it did the last time that its last tokens came (prompt lookup, Saxena 2023)."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self._places: dict[tuple[int, ...], int] = {}
        self._known = 0

    def guess(self, text: Sequence[int]) -> list[int]:
        """What may come next."""
        for end in range(max(1, self._known), len(text)):
            for length in range(1, min(LONGEST_MATCH, end) + 1):
                self._places[tuple(text[end - length : end])] = end
        self._known = len(text)
        return super().guess(text)

    def _guess(self, text: Sequence[int], size: int) -> list[int]:
        for length in range(min(LONGEST_MATCH, len(text)), 1, -1):
            place = self._places.get(tuple(text[-length:]))
            if place is not None:
                return list(text[place : place + size])
        return []


class ModelDraft(Draft):
    """Guesses what a quicker model finds likeliest (Leviathan et al. 2023; here only exact agreement counts).

    Args:
        most: tokens guessed at once, at most.
        runner: reads for the quicker model.
    """

    def __init__(self, most: int, runner: Runner) -> None:
        super().__init__(most)
        self._runner = runner
        self._line: Line | None = None

    def _guess(self, text: Sequence[int], size: int) -> list[int]:
        runner = self._runner
        if runner.together and runner.context and len(text) + size >= runner.context:
            self.close()
            return []  # its window would move, and what was read there cannot be taken back
        if self._line is None:
            self._line = runner.begin(text, "", False)
        guesses: list[int] = []
        try:
            (log_probs,) = runner.read([Reading(self._line, list(text[len(self._line.tokens) :]))])
            guesses.append(int(log_probs[-1].argmax()))
            line = self._line if runner.together or size == 1 else runner.fork(self._line)
            while len(guesses) < size:
                (log_probs,) = runner.read([Reading(line, guesses[-1:])])
                guesses.append(int(log_probs[-1].argmax()))
            if runner.together:
                runner.unread(line, size - 1)
            elif line is not self._line:
                runner.drop(line)
        except NoRoomError:
            self.close()
            return []
        return guesses

    def close(self) -> None:
        """Give back the memory of what was read."""
        if self._line is not None:
            self._runner.drop(self._line)
            self._line = None


class Drafts:
    """Several ways to guess, asked in their order."""

    def __init__(self, *ways: Draft) -> None:
        self._ways = ways
        self._asked = ways[0]

    def guess(self, text: Sequence[int]) -> list[int]:
        """The guess of the first that has one."""
        for way in self._ways:
            found = way.guess(text)
            if found:
                self._asked = way
                return found
        return []

    def checked(self, guessed: int, right: int) -> None:
        """So many of the tokens of the last guess were right."""
        self._asked.checked(guessed, right)

    def close(self) -> None:
        """Nothing more is asked."""
        for way in self._ways:
            way.close()
