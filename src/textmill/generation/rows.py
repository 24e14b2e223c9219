"""The model's state of many texts side by side, whose rows can be chosen, repeated and put into order. No files."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from textmill.base.errors import UsageError
from textmill.generation.sampling import READ_ELEMENTS, as_list
from textmill.models.protocol import LanguageModel
from textmill.tokens.tokenizer import Tokenizer


class Rows:
    """Texts of one length and the model's state after them, for every family.

    The protocol says nothing of a state's inside. Where its tensors have their rows is found by comparing a state of
    two rows with one of three: the dimension that differs. A state that holds its rows otherwise is made anew by
    reading the whole text again.

    Args:
        model: any family that writes.
        text: prompts of one length, [P, T].
        copies: rows of each prompt, next to one another; a prompt is read once.
        sources: for an encoder-decoder the tokens that each prompt's rows read first.

    Attributes:
        text: what each of the R = P * copies rows has read, [R, T].
        log_probs: what follows, [R, V] in nats.
    """

    def __init__(self, model: Any, text: Tensor, copies: int = 1, sources: list[list[int]] | None = None) -> None:
        self.model, self.text = model, text
        self.source: dict[str, Tensor] = {}
        if sources is not None:
            lengths = torch.tensor([len(source) for source in sources], device=text.device)
            padded = torch.zeros((len(sources), int(lengths.max())), dtype=torch.int64, device=text.device)
            for row, source in enumerate(sources):
                padded[row, : len(source)] = torch.tensor(source)
            self.source = {"source": padded, "lengths": lengths}
        two, three = self._example(2), self._example(3)
        try:
            _reorder(two, two, three, torch.arange(2, device=text.device), 2)
        except _UnknownStateError:
            self.examples = None
        else:
            self.examples = two, three
        self.state: Any = None
        self.log_probs = self._read_all()
        if copies > 1:
            self._choose(torch.arange(len(text), device=text.device).repeat_interleave(copies))

    def _example(self, rows: int) -> Any:
        """A state of so many rows, after two tokens (after one, a flat tensor of all tokens would look like rows)."""
        source = {name: value[:1].expand(rows, *value.shape[1:]) for name, value in self.source.items()}
        with torch.no_grad():
            return self.model.read(self.text[:1, :1].expand(rows, 2), self.model.start(rows, **source))[1]

    def _read_all(self) -> Tensor:
        """Read the whole texts in pieces; log-probabilities [R, V] after their last token."""
        size = max(16, READ_ELEMENTS // (len(self.text) * self.model.vocabulary))
        with torch.no_grad():
            state = self.model.start(len(self.text), **self.source)
            for part in self.text.split(size, 1):
                log_probs, state = self.model.read(part, state)
        self.state = state
        return log_probs[:, -1]

    def _choose(self, parents: Tensor) -> None:
        """Row r becomes a copy of row `parents[r]`, in all that is known of the texts."""
        before = len(self.text)
        if len(parents) == before and torch.equal(parents, torch.arange(before, device=parents.device)):
            return
        if self.examples is not None:
            self.state = _reorder(self.state, *self.examples, parents, before)
        self.text, self.log_probs = self.text[parents], self.log_probs[parents]
        self.source = {name: value[parents] for name, value in self.source.items()}

    def step(self, parents: Tensor, tokens: Tensor) -> Tensor:
        """There are `len(parents)` rows now, each going on from row `parents[r]` with `tokens[r]`; `log_probs` then."""
        self._choose(parents)
        self.text = torch.cat((self.text, tokens[:, None]), 1)
        if self.examples is None:
            self.log_probs = self._read_all()
        else:
            with torch.no_grad():
                log_probs, self.state = self.model.read(tokens[:, None], self.state)
            self.log_probs = log_probs[:, -1]
        return self.log_probs


class _UnknownStateError(Exception):
    """The rows of a state cannot be told from its shapes."""


def _reorder(state: Any, two: Any, three: Any, rows: Tensor, count: int) -> Any:
    """A copy of `state`, which has `count` rows, whose row r is its row `rows[r]`; `two` and `three` are such states of
    two and three rows."""
    if type(state) is not type(two) or type(two) is not type(three):
        raise _UnknownStateError
    if isinstance(state, Tensor | np.ndarray):
        if not state.ndim == two.ndim == three.ndim:
            raise _UnknownStateError
        unlike = [d for d in range(state.ndim) if two.shape[d] != three.shape[d]]
        if not unlike:
            return state
        sizes = [part.shape[unlike[0]] for part in (two, three, state)]
        if len(unlike) > 1 or sizes != [2, 3, count]:
            raise _UnknownStateError
        if isinstance(state, Tensor):
            return state.index_select(unlike[0], rows.to(state.device))
        return state.take(rows.cpu().numpy(), axis=unlike[0])
    if isinstance(state, list | tuple):
        if len(two) != len(three):
            if (len(two), len(three), len(state)) != (2, 3, count):
                raise _UnknownStateError
            parts = [copy.deepcopy(state[row]) for row in rows.tolist()]
        elif len(state) != len(two):
            raise _UnknownStateError
        else:
            parts = [_reorder(*each, rows, count) for each in zip(state, two, three, strict=True)]
        return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
    if isinstance(state, dict):
        if not state.keys() == two.keys() == three.keys():
            raise _UnknownStateError
        return {key: _reorder(state[key], two[key], three[key], rows, count) for key in state}
    if hasattr(state, "__dict__"):
        fresh = copy.copy(state)
        for name, value in vars(state).items():
            object.__setattr__(fresh, name, _reorder(value, getattr(two, name), getattr(three, name), rows, count))
        return fresh
    if isinstance(state, int) and two != three:  # a number of rows
        if (two, three, state) != (2, 3, count):
            raise _UnknownStateError
        return len(rows)
    return state


def sources_of(
    model: LanguageModel, tokenizer: Tokenizer, sources: Sequence[str] | Sequence[Sequence[int]] | None, prompts: int
) -> list[list[int]] | None:
    """The tokens of each source, one for each prompt; None where there are none.

    Raises:
        UsageError: the family takes no source, or there are more or fewer than prompts.
    """
    if sources is None:
        return None
    if "source" not in inspect.signature(model.start).parameters:
        family = getattr(model, "family", type(model).__name__)
        raise UsageError(
            f"The family {family} takes no source.",
            "It reads one text and goes on; it does not read one and write another.",
            "Leave the source out, or build an encoder-decoder: textmill build TEXTS --family encoder-decoder",
        )
    given = as_list(sources)
    if len(given) != prompts:
        raise UsageError(f"{len(given)} sources do not fit {prompts} prompts.", fix="Give one source for each prompt.")
    return [
        [*tokenizer.encode(one), tokenizer.document_end] if isinstance(one, str) else [int(token) for token in one]
        for one in given
    ]
