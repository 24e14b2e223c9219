"""What a beam search keeps of a text: beginnings that go on, candidates for the next token, finished ones. No files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor

from textmill.generation.phrases import Phrases, Progress
from textmill.generation.sampler import Matcher
from textmill.generation.sampling import forked

NEVER = -1e9
"""Score of what cannot be chosen (finite, as in `transformers`: minus infinity times 0 is no number)."""


@dataclass(frozen=True)
class Rules:
    """What holds for every group of a search."""

    size: int
    """Beams of a group."""
    length_penalty: float
    max_tokens: int
    early: bool
    """Stop as soon as `size` texts are finished."""
    ends: list[int]
    """Tokens that end a text."""
    constraint: Matcher | None
    phrases: Phrases


@dataclass(frozen=True)
class Candidate:
    """A token that may come next."""

    value: float
    """Log-probability of the text with it, penalties taken off."""
    parent: int
    """The beam of the group that it follows."""
    token: int
    progress: Progress
    bank: int
    """Of the text with it, as `Phrases.bank` counts."""


@dataclass(frozen=True)
class Beginning:
    """A text that goes on: one row of the model's state."""

    tokens: tuple[int, ...] = ()
    value: float = NEVER
    """As of a candidate; `NEVER`: it is only there because every row has to hold something."""
    paid: float = 0.0
    """The penalties that were taken off."""
    matcher: Matcher | None = None
    progress: Progress = ()

    @property
    def alive(self) -> bool:
        """Whether it is a text at all."""
        return self.value > NEVER / 2


@dataclass(frozen=True)
class Finished:
    """A text that is done."""

    score: float
    log_prob: float
    tokens: tuple[int, ...]
    """With the one that ended it."""
    ended: bool
    """By the model, not by `max_tokens`."""


class Group:
    """One prompt's beams, or one group of them.

    Args:
        rules: of the search.

    Attributes:
        open: the beginnings, always `rules.size` of them.
        finished: the best finished texts, best first, at most `rules.size`.
        done: whether no better text can be expected.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        # The beams are all alike at first: only one of them counts.
        self.open = [Beginning(value=0.0, matcher=forked(rules.constraint), progress=rules.phrases.start)]
        self.open += [Beginning()] * (rules.size - 1)
        self.finished: list[Finished] = []
        self.done = False

    def barred(self, forbidden_V: Tensor) -> Tensor:
        """What may not follow each beginning, bool [V] or [S, V]: `forbidden_V`, what the constraint rules out, and
        an end before every phrase is there."""
        rules = self.rules
        if rules.constraint is None and not rules.phrases.last:
            return forbidden_V
        barred_SV = forbidden_V.repeat(rules.size, 1)
        for row, one in enumerate(self.open):
            if one.matcher is not None:
                barred_SV[row] |= ~one.matcher.mask().to(barred_SV.device)
            if one.alive and rules.phrases.bank(one.progress) < rules.phrases.last:
                barred_SV[row, rules.ends] = True
        return barred_SV

    def candidates(self, scores_SV: Tensor, wanted: int) -> list[Candidate]:
        """The likeliest next tokens, best first.

        Where phrases are asked for, these are among them as well: the likeliest of the beginnings with all phrases, as
        of a search of their own (or none would ever end beside likelier texts without the phrases); for every other
        beginning its likeliest token and, for each phrase, the likeliest that brings it nearer.

        Args:
            scores_SV: values of each beginning with each token; minus infinity where it may not come.
            wanted: how many of the likeliest.
        """
        phrases = self.rules.phrases
        found = _likeliest(scores_SV, list(range(len(scores_SV))), wanted)
        if phrases.last:
            alive = [row for row, one in enumerate(self.open) if one.alive]
            whole = [row for row in alive if phrases.bank(self.open[row].progress) == phrases.last]
            found |= _likeliest(scores_SV, whole, wanted)
            for row in alive:
                found |= _likeliest(scores_SV, [row], 1)
                for nearer_V in phrases.nearer(self.open[row].progress):
                    scores_V = scores_SV[row].masked_fill(~nearer_V.to(scores_SV.device), -torch.inf)
                    value, token = scores_V.max(0)
                    found[row, int(token)] = float(value)
        candidates = []
        for (parent, token), value in sorted(found.items(), key=lambda one: -one[1]):
            if value > NEVER / 2:
                progress = phrases.after(self.open[parent].progress, token)
                candidates.append(Candidate(value, parent, token, progress, phrases.bank(progress)))
        return candidates

    def advance(self, candidates: list[Candidate], step: int, penalties: Mapping[int, float]) -> list[Candidate]:
        """Sort the candidates into finished texts and the next beginnings.

        Args:
            candidates: best first.
            step: tokens of the texts with them.
            penalties: what was taken off tokens at this step.

        Returns:
            what each of the next beginnings was made of.
        """
        rules = self.rules
        going: list[Candidate] = []
        ranks: Counter[int] = Counter()
        for one in [] if self.done else candidates:
            rank, ended = ranks[one.bank], one.token in rules.ends
            ranks[one.bank] += 1
            if not ended and step < rules.max_tokens:
                going.append(one)
            elif rank < rules.size and self._whole(one, ended):
                parent = self.open[one.parent]
                log_prob = one.value + parent.paid + penalties.get(one.token, 0.0)
                score = one.value / step**rules.length_penalty
                self.finished.append(Finished(score, log_prob, (*parent.tokens, one.token), ended))
        self.finished.sort(key=lambda text: -text.score)
        del self.finished[rules.size :]
        if not going:
            self.done = True
        elif len(self.finished) == rules.size:
            self.done = rules.early or going[0].value / step**rules.length_penalty <= self.finished[-1].score
        chosen = [] if self.done else _shared_out(going, rules.size)
        self.open = [self._beginning(one, penalties) for one in chosen]
        missing = rules.size - len(chosen)
        self.open += [Beginning()] * missing
        return chosen + [Candidate(NEVER, 0, rules.ends[0], (), 0)] * missing

    def _whole(self, one: Candidate, ended: bool) -> bool:
        """Whether a text may stop with this token: all phrases are there, and the constraint lets it end."""
        if one.bank < self.rules.phrases.last:
            return False
        matcher = self.open[one.parent].matcher
        if ended or matcher is None:
            return True
        after = matcher.fork()
        after.accept(one.token)
        return bool(after.mask()[self.rules.ends].any())

    def _beginning(self, one: Candidate, penalties: Mapping[int, float]) -> Beginning:
        parent = self.open[one.parent]
        matcher = forked(parent.matcher)
        if matcher is not None:
            matcher.accept(one.token)
        paid = parent.paid + penalties.get(one.token, 0.0)
        return Beginning((*parent.tokens, one.token), one.value, paid, matcher, one.progress)


def _likeliest(scores_SV: Tensor, rows: list[int], wanted: int) -> dict[tuple[int, int], float]:
    """The best (row, token) of some rows, with their scores, best first."""
    if not rows:
        return {}
    scores = scores_SV if len(rows) == len(scores_SV) else scores_SV[rows]
    top = scores.flatten().topk(min(wanted, scores.numel()))
    places = [divmod(place, scores_SV.shape[-1]) for place in top.indices.tolist()]
    return {(rows[row], token): value for (row, token), value in zip(places, top.values.tolist(), strict=True)}


def _shared_out(candidates: list[Candidate], size: int) -> list[Candidate]:
    """The best of each bank in turn, the furthest bank first, until there are `size` (Post and Vilar 2018)."""
    banks: dict[int, list[Candidate]] = {}
    for one in candidates:
        banks.setdefault(one.bank, []).append(one)
    turns = zip_longest(*(banks[bank] for bank in sorted(banks, reverse=True)))
    return [one for turn in turns for one in turn if one is not None][:size]


def best_of(groups: list[Group]) -> list[Finished]:
    """The finished texts of all groups, best first, each once."""
    best: dict[tuple[int, ...], Finished] = {}
    for text in sorted((text for group in groups for text in group.finished), key=lambda text: -text.score):
        best.setdefault(text.tokens, text)
    return list(best.values())
