"""Beam search on the `LanguageModel` protocol alone: the likeliest texts, for every family. No files."""

from __future__ import annotations

import copy
import inspect
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from textmill.base.errors import Failure, UsageError
from textmill.generation.sampling import READ_ELEMENTS, _as_list, _device, _forbidden, _inference, _prepare
from textmill.models.protocol import LanguageModel
from textmill.tokens.tokenizer import Tokenizer

NEVER = -1e9
"""Score of what cannot be chosen (finite, as in `transformers`: minus infinity times 0 is no number)."""
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
    """log_prob / tokens ** length_penalty: what it was chosen by; the end counts as a token."""
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
    sources: Sequence[str] | Sequence[Sequence[int]] | None = None,
    end_tokens: Collection[int] = (),
) -> list[list[Beam]]:
    """Find likely texts after each prompt, keeping the `beams` best beginnings at each step.

    It finds what `transformers` finds with `generate(num_beams=beams, length_penalty=length_penalty,
    early_stopping=early, max_new_tokens=max_tokens, num_return_sequences=best)`. The search for a prompt ends when
    `beams` texts are finished and the best beginning, were it finished now, would not beat the worst of them.

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
        sources: for an encoder-decoder what it reads first, one for each prompt; texts, or token ids to be closed by
            the document end.
        end_tokens: special tokens that end a text like the document end does.

    Returns:
        for each prompt its `best` texts, best first (fewer only where the vocabulary allows no more).

    Raises:
        UsageError: a number is out of range, or the family takes no source.
        Failure: the model gives no probabilities, or does not fit the tokenizer.
    """
    _check(beams, best, max_tokens, length_penalty)
    ready = [_prepare(model, tokenizer, prompt)[0] for prompt in _as_list(prompts)]
    given = _sources(model, tokenizer, sources, len(ready))
    ends = sorted({*tokenizer.ends, *end_tokens})
    search = _Search(model, tokenizer, beams, length_penalty, max_tokens, early, ends)
    waiting: dict[int, list[int]] = {}  # rows read together have to be of one length: the protocol knows no padding
    for i, ids in enumerate(ready):
        waiting.setdefault(len(ids), []).append(i)
    results: list[list[Beam]] = [[] for _ in ready]
    with _inference(model):
        for places in waiting.values():
            size = max(1, ROWS_AT_ONCE // beams)
            for start in range(0, len(places), size):
                part = places[start : start + size]
                found = search.run([ready[i] for i in part], None if given is None else [given[i] for i in part])
                for i, texts in zip(part, found, strict=True):
                    results[i] = texts[:best]
    return results


@dataclass
class _Hypotheses:
    """What one prompt has come to: finished texts, best first, and the beginnings still open."""

    finished: list[tuple[float, float, list[int], bool]] = field(default_factory=list)
    """(score, log-probability, tokens with their end, ended by the model)."""
    open: list[list[int]] = field(default_factory=list)
    done: bool = False


@dataclass(frozen=True)
class _Search:
    """A search's settings; `run` does it for prompts of one length."""

    model: Any
    tokenizer: Tokenizer
    beams: int
    length_penalty: float
    max_tokens: int
    early: bool
    ends: list[int]

    def run(self, prompts: list[list[int]], sources: list[list[int]] | None) -> list[list[Beam]]:
        """Finished texts of each prompt, best first."""
        began = time.monotonic()
        model, beams, device = self.model, self.beams, _device(self.model)
        forbidden_V = _forbidden(model, self.tokenizer, self.ends).to(device)
        read = torch.tensor([prompt for prompt in prompts for _ in range(beams)], device=device)
        rows = _Rows(model, read, sources, beams)
        log_probs_RV = rows.log_probs
        texts = [_Hypotheses(open=[[] for _ in range(beams)]) for _ in prompts]
        totals_PB = torch.full((len(prompts), beams), NEVER, device=device)
        totals_PB[:, 0] = 0.0  # all beams are alike at first: only one of them counts
        # So many candidates that `beams` are left whatever number of them ends.
        wanted = min(max(2, 1 + len(self.ends)) * beams, beams * model.vocabulary)
        for step in range(1, self.max_tokens + 1):
            if log_probs_RV.isnan().any():
                raise Failure(
                    "The model cannot say what comes next.",
                    "Its probabilities are not numbers: its weights are damaged, or its training diverged.",
                    "Train it again, or take an earlier checkpoint.",
                )
            scores_PBV = log_probs_RV.masked_fill(forbidden_V, -torch.inf).view(len(prompts), beams, -1)
            scores_PN = (scores_PBV + totals_PB[..., None]).flatten(1)
            top, index = scores_PN.topk(wanted)
            chosen_rows: list[int] = []
            chosen_tokens: list[int] = []
            for place, (text, values, where) in enumerate(zip(texts, top.tolist(), index.tolist(), strict=True)):
                parents, tokens, totals = self._advance(text, values, where, step)
                chosen_rows += [place * beams + parent for parent in parents]
                chosen_tokens += tokens
                totals_PB[place] = torch.tensor(totals, device=device)
            if all(text.done for text in texts) or step == self.max_tokens:
                break
            log_probs_RV = rows.step(
                torch.tensor(chosen_rows, device=device), torch.tensor(chosen_tokens, device=device)
            )
        seconds = time.monotonic() - began
        return [[self._beam(found, seconds) for found in text.finished] for text in texts]

    def _advance(
        self, text: _Hypotheses, values: list[float], where: list[int], step: int
    ) -> tuple[list[int], list[int], list[float]]:
        """Sort a prompt's candidates into finished texts and the next open beginnings: (parents, tokens, totals)."""
        size, last = self.model.vocabulary, step == self.max_tokens
        going: list[tuple[int, int, float]] = []
        for rank, (value, place) in enumerate(zip(values, where, strict=True)):
            parent, token = divmod(place, size)
            ended = token in self.ends
            if not ended and not last:
                going.append((parent, token, value))
            elif rank < self.beams and not text.done and value > NEVER / 2:
                score = value / step**self.length_penalty
                text.finished.append((score, value, [*text.open[parent], token], ended))
        text.finished.sort(key=lambda found: -found[0])
        del text.finished[self.beams :]
        going = going[: self.beams]
        while len(going) < self.beams:  # a vocabulary that small, or the last step
            going.append((0, self.ends[0], NEVER))
        text.open = [[*text.open[parent], token] for parent, token, _ in going]
        if len(text.finished) == self.beams:
            possible = going[0][2] / step**self.length_penalty
            text.done |= self.early or possible <= text.finished[-1][0]
        return [parent for parent, _, _ in going], [token for _, token, _ in going], [total for _, _, total in going]

    def _beam(self, found: tuple[float, float, list[int], bool], seconds: float) -> Beam:
        score, log_prob, tokens, ended = found
        ids = tokens[:-1] if ended else tokens
        return Beam(
            text=self.tokenizer.decode(ids),
            ids=tuple(ids),
            log_prob=log_prob,
            score=score,
            finish_reason="end" if ended else "length",
            seconds=seconds,
        )


class _Rows:
    """The model's state for all beams, which can be put into another order.

    The protocol says nothing of a state's inside. Where its tensors have their rows is found by comparing a state of
    two rows with one of three: the dimension that differs. A state that holds its rows otherwise is made anew by
    reading the whole text again.
    """

    def __init__(self, model: Any, read_RT: Tensor, sources: list[list[int]] | None, beams: int) -> None:
        self.model, self.text = model, read_RT
        self.source: dict[str, Tensor] = {}
        if sources is not None:
            given = [source for source in sources for _ in range(beams)]
            lengths = torch.tensor([len(source) for source in given], device=read_RT.device)
            padded = torch.zeros((len(given), int(lengths.max())), dtype=torch.int64, device=read_RT.device)
            for row, source in enumerate(given):
                padded[row, : len(source)] = torch.tensor(source)
            self.source = {"source": padded, "lengths": lengths}
        two, three = self._example(2), self._example(3)
        try:
            _reorder(two, two, three, torch.arange(2, device=read_RT.device))
        except _UnknownStateError:
            self.examples = None
        else:
            self.examples = two, three
        self.log_probs = self._read_all()

    def _example(self, rows: int) -> Any:
        """A state of so many rows, after two tokens (after one, a flat tensor of all tokens would look like rows)."""
        source = {name: value[:1].expand(rows, *value.shape[1:]) for name, value in self.source.items()}
        with torch.no_grad():
            return self.model.read(self.text[:1, :1].expand(rows, 2), self.model.start(rows, **source))[1]

    def _read_all(self) -> Tensor:
        log_probs, self.state = _read_prompt(self.model, self.text, **self.source)
        return log_probs

    def step(self, parents: Tensor, tokens: Tensor) -> Tensor:
        """Each row goes on from row `parents[r]` with `tokens[r]`; log-probabilities [R, V] of what follows."""
        self.text = torch.cat((self.text[parents], tokens[:, None]), 1)
        if self.examples is None:
            return self._read_all()
        if not torch.equal(parents, torch.arange(len(parents), device=parents.device)):
            self.state = _reorder(self.state, *self.examples, parents)
        with torch.no_grad():
            log_probs, self.state = self.model.read(tokens[:, None], self.state)
        return log_probs[:, -1]


def _read_prompt(model: Any, text_RT: Tensor, **source: Tensor) -> tuple[Tensor, Any]:
    """Read whole texts in pieces; log-probabilities [R, V] after their last token, and the state."""
    size = max(16, READ_ELEMENTS // (len(text_RT) * model.vocabulary))
    with torch.no_grad():
        state = model.start(len(text_RT), **source)
        for part in text_RT.split(size, 1):
            log_probs, state = model.read(part, state)
    return log_probs[:, -1], state


class _UnknownStateError(Exception):
    """The rows of a state cannot be told from its shapes."""


def _reorder(state: Any, two: Any, three: Any, rows: Tensor) -> Any:
    """A copy of `state` whose row r is its row `rows[r]`; `two` and `three` are such states of two and three rows."""
    if type(state) is not type(two) or type(two) is not type(three):
        raise _UnknownStateError
    if isinstance(state, Tensor | np.ndarray):
        if not state.ndim == two.ndim == three.ndim:
            raise _UnknownStateError
        unlike = [d for d in range(state.ndim) if two.shape[d] != three.shape[d]]
        if not unlike:
            return state
        sizes = [part.shape[unlike[0]] for part in (two, three, state)]
        if len(unlike) > 1 or sizes[:2] != [2, 3] or sizes[2] != len(rows):
            raise _UnknownStateError
        if isinstance(state, Tensor):
            return state.index_select(unlike[0], rows.to(state.device))
        return state.take(rows.cpu().numpy(), axis=unlike[0])
    if isinstance(state, list | tuple):
        if len(two) != len(three):
            if (len(two), len(three), len(state)) != (2, 3, len(rows)):
                raise _UnknownStateError
            parts = [copy.deepcopy(state[row]) for row in rows.tolist()]
        elif len(state) != len(two):
            raise _UnknownStateError
        else:
            parts = [_reorder(*each, rows) for each in zip(state, two, three, strict=True)]
        return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
    if isinstance(state, dict):
        if not state.keys() == two.keys() == three.keys():
            raise _UnknownStateError
        return {key: _reorder(state[key], two[key], three[key], rows) for key in state}
    if hasattr(state, "__dict__"):
        fresh = copy.copy(state)
        for name, value in vars(state).items():
            object.__setattr__(fresh, name, _reorder(value, getattr(two, name), getattr(three, name), rows))
        return fresh
    return state


def _sources(
    model: LanguageModel, tokenizer: Tokenizer, sources: Sequence[str] | Sequence[Sequence[int]] | None, prompts: int
) -> list[list[int]] | None:
    """The tokens of each source; None where there are none."""
    if sources is None:
        return None
    if "source" not in inspect.signature(model.start).parameters:
        family = getattr(model, "family", type(model).__name__)
        raise UsageError(
            f"The family {family} takes no source.",
            "It reads one text and goes on; it does not read one and write another.",
            "Leave the source out, or build an encoder-decoder: textmill build TEXTS --family encoder-decoder",
        )
    given = _as_list(sources)
    if len(given) != prompts:
        raise UsageError(f"{len(given)} sources do not fit {prompts} prompts.", fix="Give one source for each prompt.")
    return [
        [*tokenizer.encode(one), tokenizer.document_end] if isinstance(one, str) else [int(token) for token in one]
        for one in given
    ]


def _check(beams: int, best: int, max_tokens: int, length_penalty: float) -> None:
    if beams < 1:
        raise UsageError(f"{beams} beams are too few.", fix="Give at least 1; 4 is usual.")
    if not 1 <= best <= beams:
        raise UsageError(f"{best} texts from {beams} beams are not possible.", fix=f"Ask for 1 to {beams}.")
    if max_tokens < 1:
        raise UsageError(f"Texts of {max_tokens} tokens are not possible.", fix="Give at least 1.")
    if not np.isfinite(length_penalty):
        raise UsageError(f"A length penalty of {length_penalty} is not possible.", fix="Give a number; 1 is usual.")
