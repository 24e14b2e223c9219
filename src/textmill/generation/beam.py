"""Beam search on the `LanguageModel` protocol alone: likely texts, for every family; in groups that differ, under a
constraint, with phrases that must appear. No files."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from textmill.base.errors import Failure, UsageError
from textmill.generation.hypotheses import Candidate, Finished, Group, Rules, best_of
from textmill.generation.phrases import Phrases
from textmill.generation.rows import Rows, sources_of
from textmill.generation.sampler import Matcher, forbidden_tokens
from textmill.generation.sampling import as_list, device_of, inference, prepare
from textmill.models.protocol import LanguageModel
from textmill.tokens.tokenizer import Tokenizer

ROWS_AT_ONCE = 64
"""Prompts times beams read side by side."""


@dataclass(frozen=True)
class Beam:
    """One finished text of a beam search."""

    text: str
    """What was written after the prompt."""
    ids: tuple[int, ...]
    """Its tokens, the one that ended it left out."""
    log_prob: float
    """Log-probability of all its tokens in nats, the end's counted."""
    score: float
    """log_prob / tokens ** length_penalty: what it was chosen by; the end counts as a token. In a group after the first
    the diversity penalties of its tokens are taken off log_prob before."""
    finish_reason: Literal["end", "length"]
    """"end": the model ended it; "length": max_tokens were written."""
    seconds: float
    """Of the whole search that it came from."""


def beam_search(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[str] | Sequence[Sequence[int]],
    beams: int = 4,
    *,
    length_penalty: float = 1.0,
    max_tokens: int = 128,
    best: int = 1,
    early: bool = False,
    groups: int = 1,
    diversity_penalty: float = 0.0,
    constraint: Matcher | None = None,
    must_contain: Sequence[str] = (),
    sources: Sequence[str] | Sequence[Sequence[int]] | None = None,
    end_tokens: Collection[int] = (),
) -> list[list[Beam]]:
    """Find likely texts after each prompt, keeping the `beams` best beginnings at each step.

    It finds what `transformers` finds with `generate(num_beams=beams, length_penalty=length_penalty,
    early_stopping=early, max_new_tokens=max_tokens, num_return_sequences=best)`. The search for a prompt ends when
    `beams` texts are finished and the best beginning, were it finished now, would not beat the worst of them.

    With `groups` it is diverse beam search (Vijayakumar et al. 2016, Hamming diversity): the groups take their step one
    after another, and a token loses `diversity_penalty` for each beam of the groups before that took it at this step.

    With `must_contain` the beginnings kept are shared out over banks of those that have come equally far with the
    phrases (Post and Vilar 2018), and tokens that bring a phrase nearer are always among the candidates. The text that
    is furthest comes nearer at each step, so every phrase appears where `max_tokens` has room for all of them.

    Args:
        model: any family that writes.
        tokenizer: the one that the model was trained with.
        prompts: texts, each read after a document-end token; or token ids, read as they are.
        beams: beginnings kept; 1 takes the likeliest token each time.
        length_penalty: power of the length by which the log-probability is divided (Wu et al. 2016 in its simple
            form): 0 favours short texts, 1 compares nats a token, more favours long ones.
        max_tokens: longest text, the end counted.
        best: how many texts to give for each prompt, at most `beams`.
        early: stop as soon as `beams` texts are finished.
        groups: how many groups the beams are divided into.
        diversity_penalty: in nats; with groups only.
        constraint: what every text has to follow; each beginning has a fork of it.
        must_contain: texts that must be written, in any order, however they are cut into tokens.
        sources: for an encoder-decoder what it reads first, one for each prompt; texts, or token ids to be closed by
            the document end.
        end_tokens: special tokens that end a text like the document end does.

    Returns:
        for each prompt its `best` texts, best first. Fewer only where the vocabulary allows no more, where groups found
        the same text, or where no more were found that follow the constraint and hold the phrases: one that
        `max_tokens` cut off before is left out.

    Raises:
        UsageError: a number is out of range, a setting would have no effect, or the family takes no source.
        Failure: the model gives no probabilities, or does not fit the tokenizer.
    """
    _check(beams, best, max_tokens, length_penalty)
    _check_groups(beams, groups, diversity_penalty)
    phrases = Phrases(tokenizer, model.vocabulary, must_contain)
    if phrases.fewest > max_tokens:
        raise UsageError(
            f"No text of {max_tokens} tokens holds the phrases that must appear.",
            f"One of them takes {phrases.fewest} tokens.",
            f"Allow more: --max-tokens {4 * phrases.fewest}",
        )
    ready = [prepare(model, tokenizer, prompt).read for prompt in as_list(prompts)]
    given = sources_of(model, tokenizer, sources, len(ready))
    ends = sorted({*tokenizer.ends, *end_tokens})
    rules = Rules(beams // groups, length_penalty, max_tokens, early, ends, constraint, phrases)
    search = _Search(model, tokenizer, groups, diversity_penalty, rules)
    waiting: dict[int, list[int]] = {}  # rows read together have to be of one length: the protocol knows no padding
    for i, ids in enumerate(ready):
        waiting.setdefault(len(ids), []).append(i)
    results: list[list[Beam]] = [[] for _ in ready]
    with inference(model):
        for places in waiting.values():
            size = max(1, ROWS_AT_ONCE // beams)
            for start in range(0, len(places), size):
                part = places[start : start + size]
                found = search.run([ready[i] for i in part], None if given is None else [given[i] for i in part])
                for i, texts in zip(part, found, strict=True):
                    results[i] = texts[:best]
    return results


@dataclass(frozen=True)
class _Search:
    """A search's settings; `run` does it for prompts of one length.

    Shape legend: P prompts, G groups, S beams of a group, R = P G S rows, V vocabulary.
    """

    model: Any
    tokenizer: Tokenizer
    groups: int
    diversity_penalty: float
    rules: Rules

    def run(self, prompts: list[list[int]], sources: list[list[int]] | None) -> list[list[Beam]]:
        """Finished texts of each prompt, best first."""
        began = time.monotonic()
        rules, device = self.rules, device_of(self.model)
        forbidden_V = forbidden_tokens(self.tokenizer, self.model.vocabulary, frozenset(rules.ends)).to(device)
        rows = Rows(self.model, torch.tensor(prompts, device=device), self.groups * rules.size, sources)
        found = [[Group(rules) for _ in range(self.groups)] for _ in prompts]
        for step in range(1, rules.max_tokens + 1):
            if rows.log_probs.isnan().any():
                raise Failure(
                    "The model cannot say what comes next.",
                    "Its probabilities are not numbers: its weights are damaged, or its training diverged.",
                    "Train it again, or take an earlier checkpoint.",
                )
            log_probs = rows.log_probs.view(len(prompts), self.groups, rules.size, -1)
            parents: list[int] = []
            tokens: list[int] = []
            for p, groups in enumerate(found):
                taken: Counter[int] = Counter()  # by the groups before, at this step
                for g, group in enumerate(groups):
                    for one in self._step(group, log_probs[p, g], forbidden_V, taken, step):
                        parents.append((p * self.groups + g) * rules.size + one.parent)
                        tokens.append(one.token)
                    taken.update(one.tokens[-1] for one in group.open if one.alive)
            if all(group.done for groups in found for group in groups):
                break
            rows.step(torch.tensor(parents, device=device), torch.tensor(tokens, device=device))
        seconds = time.monotonic() - began
        return [[self._beam(one, seconds) for one in best_of(groups)] for groups in found]

    def _step(
        self, group: Group, log_probs_SV: Tensor, forbidden_V: Tensor, taken: Counter[int], step: int
    ) -> list[Candidate]:
        """One group's next token; which of its beams the new ones go on from."""
        # So many candidates that there are beams enough whatever number of them ends.
        wanted = max(2, 1 + len(self.rules.ends)) * self.rules.size
        scores_SV = log_probs_SV.masked_fill(group.barred(forbidden_V), -torch.inf)
        scores_SV += torch.tensor([one.value for one in group.open], device=scores_SV.device)[:, None]
        penalties = {token: self.diversity_penalty * times for token, times in taken.items()}
        if penalties:
            places = torch.tensor(list(penalties), device=scores_SV.device)
            scores_SV[:, places] -= torch.tensor(list(penalties.values()), device=scores_SV.device)
        return group.advance([] if group.done else group.candidates(scores_SV, wanted), step, penalties)

    def _beam(self, found: Finished, seconds: float) -> Beam:
        ids = found.tokens[:-1] if found.ended else found.tokens
        return Beam(
            text=self.tokenizer.decode(ids),
            ids=ids,
            log_prob=found.log_prob,
            score=found.score,
            finish_reason="end" if found.ended else "length",
            seconds=seconds,
        )


def _check(beams: int, best: int, max_tokens: int, length_penalty: float) -> None:
    if beams < 1:
        raise UsageError(f"{beams} beams are too few.", fix="Give at least 1; 4 is usual.")
    if not 1 <= best <= beams:
        raise UsageError(f"{best} texts from {beams} beams are not possible.", fix=f"Ask for 1 to {beams}.")
    if max_tokens < 1:
        raise UsageError(f"Texts of {max_tokens} tokens are not possible.", fix="Give at least 1.")
    if not np.isfinite(length_penalty):
        raise UsageError(f"A length penalty of {length_penalty} is not possible.", fix="Give a number; 1 is usual.")


def _check_groups(beams: int, groups: int, diversity_penalty: float) -> None:
    if groups < 1:
        raise UsageError(f"{groups} groups of beams are too few.", fix="Give at least 2, or leave them out.")
    if beams % groups:
        raise UsageError(
            f"{beams} beams cannot be divided into {groups} groups.",
            "All groups are of one size.",
            f"Give a multiple of {groups} beams, such as {groups * max(1, round(beams / groups))}.",
        )
    if not (np.isfinite(diversity_penalty) and diversity_penalty >= 0):
        raise UsageError(
            f"A diversity penalty of {diversity_penalty} is not possible.",
            "It is taken off what other groups have chosen.",
            "Give a number of at least 0; 0.5 is usual.",
        )
    if groups > 1 and not diversity_penalty:
        raise UsageError(
            f"{groups} groups of beams would have no effect.",
            "Without a diversity penalty all of them find the same texts.",
            "Give one; 0.5 is usual.",
        )
    if groups == 1 and diversity_penalty:
        raise UsageError(
            "The diversity penalty would have no effect.",
            "It is what one group of beams pays for the tokens of another.",
            "Divide the beams into groups: 2, or as many as there are beams.",
        )
