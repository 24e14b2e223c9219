"""The expectation step of hidden Markov models: documents in groups, groups on all cores. No files.

Every figure is the same to the last bit whatever the number of cores: groups depend on the documents alone, and their
results are added in order.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from textmill.base.hardware import hardware
from textmill.models.hmm import kernels

ROWS = 16
"""Documents of a group at most."""
GROUPS = 8
"""Groups that a small number of documents is divided into at least, so that several cores have work."""
GROUP_BYTES = 32 << 20
"""Memory for the beliefs of a group; longer documents are worked through in segments, forward twice."""
LEAST_TRANSITION = 1e-280
"""With transitions below this, log space: scaled probabilities could lose what matters (below 1e-28 of a count)."""


@dataclass
class Parameters:
    """The three distributions of a hidden Markov model, float64, each row summing to 1."""

    start: np.ndarray
    """[K]: state of a document's first token."""
    transitions: np.ndarray
    """[K, K]: from a state (row) to the next token's (column)."""
    emissions: np.ndarray
    """[K, V]: token that a state emits."""


@dataclass
class Statistics:
    """Expected counts, float64, and what they were made from."""

    start: np.ndarray
    """[K]: documents that begin in the state."""
    transitions: np.ndarray
    """[K, K]: transitions from one state (row) to another (column)."""
    emissions: np.ndarray
    """[V, K]: tokens emitted by each state."""
    log_likelihood: float = 0.0
    """Nats, of all documents together, under the parameters that the counts were made with."""
    tokens: int = 0
    """Tokens read."""

    @classmethod
    def zero(cls, states: int, vocabulary: int) -> Statistics:
        """Nothing counted."""
        return cls(np.zeros(states), np.zeros((states, states)), np.zeros((vocabulary, states)))


class Group(NamedTuple):
    """Documents that are worked through in step, longest first."""

    places: np.ndarray
    """int64 [n]: position of each packed token in the flat array."""
    offsets: np.ndarray
    """int64 [times + 1]."""
    begins: np.ndarray
    """int64 [rows], of each document in the flat array."""
    lengths: np.ndarray
    """int64 [rows]."""


def document_bounds(tokens: np.ndarray, document_end: int) -> np.ndarray:
    """Where documents of a flat array end, int64 [documents]; an unclosed last one counts."""
    ends = np.flatnonzero(tokens == document_end) + 1
    return ends if len(tokens) == 0 or (len(ends) and ends[-1] == len(tokens)) else np.append(ends, len(tokens))


def group_documents(ends: np.ndarray, begin: int = 0) -> Iterator[Group]:
    """Groups of the documents that end at `ends` (the first begins at `begin`), of like length, longest first."""
    begins = np.concatenate(([begin], ends[:-1])).astype(np.int64)
    lengths = ends - begins
    order = np.argsort(-lengths, kind="stable")
    order = order[lengths[order] > 0]
    rows = max(1, min(ROWS, -(-len(order) // GROUPS)))
    for at in range(0, len(order), rows):
        chosen = order[at : at + rows]
        group_begins, group_lengths = begins[chosen], lengths[chosen]
        places, offsets = kernels.pack(ends, group_begins, group_lengths)
        yield Group(places, offsets, group_begins, group_lengths)


class Expectation:
    """Forward-backward with fixed parameters.

    Args:
        parameters: the model.
        arithmetic: "scaled", "log", or "auto": scaled where that loses nothing.
    """

    def __init__(self, parameters: Parameters, arithmetic: str = "auto") -> None:
        states = len(parameters.start)
        self.states, self.vocabulary = parameters.emissions.shape
        least = float(parameters.transitions.min()) if states > 1 else 1.0
        self.log = arithmetic == "log" or (arithmetic == "auto" and least < LEAST_TRANSITION)
        if self.log:
            with np.errstate(divide="ignore"):
                self.start = np.log(parameters.start)
                self.transitions = np.log(parameters.transitions)
                self.emissions = np.log(np.ascontiguousarray(parameters.emissions.T))
            return
        padded = -(-states // kernels.EIGHT) * kernels.EIGHT
        self.start = np.zeros(padded)
        self.start[:states] = parameters.start
        self.transitions = np.zeros((padded, padded))
        self.transitions[:states, :states] = parameters.transitions
        self.transposed = np.ascontiguousarray(self.transitions.T)
        self.emissions = np.zeros((self.vocabulary, padded))
        self.emissions[:, :states] = parameters.emissions.T

    def count(self, tokens: np.ndarray, ends: np.ndarray, into: Statistics) -> None:
        """Add the expected counts of documents to `into`.

        Args:
            tokens: int64 [n].
            ends: int64 [documents], just after each document in `tokens`.
            into: where counts, log-likelihood and tokens are added.
        """
        states = self.states
        pairs = np.zeros((len(self.start), len(self.start)))
        for group, posteriors, first, found, likelihood in self._run(tokens, ends):
            if posteriors is None:
                pairs += found
                into.log_likelihood += likelihood
                into.tokens += len(group)
                continue
            kernels.add_emissions(tokens[group], posteriors[:, :states], into.emissions)
            into.start += first[:states]
        into.transitions += (
            pairs[:states, :states] if self.log else pairs[:states, :states] * self.transitions[:states, :states]
        )

    def _run(
        self, tokens: np.ndarray, ends: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray, float]]:
        """Results of all groups in order, worked out on all cores, few of them in memory at a time."""
        cores = hardware().cores
        waiting: deque[Future[list]] = deque()
        with ThreadPoolExecutor(cores) as pool:
            for group in group_documents(ends):
                waiting.append(pool.submit(self._log_group if self.log else self._group, tokens, group))
                if len(waiting) > cores:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()

    def _group(self, tokens: np.ndarray, group: Group) -> list:
        ids, offsets, size = tokens[group.places], group.offsets, len(self.start)
        cuts = self._segments(offsets)
        carried = np.zeros((len(cuts) - 1, len(group.lengths), size))
        scales = np.empty(len(ids))
        beliefs = np.zeros((0, size))
        fixed = self.start, self.transitions, self.emissions
        for number, (first, last) in enumerate(itertools.pairwise(cuts)):
            beliefs = np.empty((offsets[last] - offsets[first], size))
            kernels.forward(ids, offsets, first, last, carried[number], *fixed, beliefs, scales)
            if number + 2 < len(cuts):
                ending = beliefs[offsets[last - 1] - offsets[first] :]
                carried[number + 1, : len(ending)] = ending
        with np.errstate(divide="ignore"):
            likelihood = float(np.log(scales).sum())
        pairs = np.zeros((size, size))
        results: list = []
        after = np.zeros((len(group.lengths), size))
        for number in range(len(cuts) - 2, -1, -1):
            first, last = cuts[number], cuts[number + 1]
            if number + 2 < len(cuts):
                beliefs = np.empty((offsets[last] - offsets[first], size))
                kernels.forward(ids, offsets, first, last, carried[number], *fixed, beliefs, scales)
            kernels.backward(ids, offsets, first, last, after, self.transposed, self.emissions, beliefs, pairs)
            opening = beliefs[: offsets[1]].sum(axis=0) if first == 0 else np.zeros(size)
            results.append((group.places[offsets[first] : offsets[last]], beliefs, opening, pairs, 0.0))
        results.append((group.places, None, pairs, pairs, likelihood))
        return results

    def _log_group(self, tokens: np.ndarray, group: Group) -> list:
        results: list = []
        pairs, likelihood = np.zeros((self.states, self.states)), 0.0
        for begin, length in zip(group.begins, group.lengths, strict=True):
            posteriors = np.zeros((length, self.states))
            likelihood += kernels.log_expectation(
                tokens[begin : begin + length], self.start, self.transitions, self.emissions, posteriors, pairs
            )
            results.append((np.arange(begin, begin + length), posteriors, posteriors[0], pairs, 0.0))
        results.append((group.places, None, pairs, pairs, likelihood))
        return results

    def _segments(self, offsets: np.ndarray) -> list[int]:
        """Times at which a group is cut, so that the beliefs between fit into memory: 0, …, times."""
        limit = max(ROWS, GROUP_BYTES // (8 * len(self.start)))
        cuts = [0]
        while cuts[-1] < len(offsets) - 1:
            reached = int(np.searchsorted(offsets, offsets[cuts[-1]] + limit, side="right")) - 1
            cuts.append(max(reached, cuts[-1] + 1))
        return cuts

    def score(self, tokens: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Log-probability (nats) of each token given those before it in its document, float64 [n]."""
        result = np.empty(len(tokens))
        with ThreadPoolExecutor(hardware().cores) as pool:
            one = self._score_log_group if self.log else self._score_group
            for places, scores in pool.map(lambda group: one(tokens, group), group_documents(ends)):
                result[places] = scores
        return result

    def _score_group(self, tokens: np.ndarray, group: Group) -> tuple[np.ndarray, np.ndarray]:
        ids, offsets, size = tokens[group.places], group.offsets, len(self.start)
        fixed = self.start, self.transitions, self.emissions
        cuts = self._segments(offsets)
        before, scales = np.zeros((len(group.lengths), size)), np.empty(len(ids))
        for first, last in itertools.pairwise(cuts):
            beliefs = np.empty((offsets[last] - offsets[first], size))
            kernels.forward(ids, offsets, first, last, before, *fixed, beliefs, scales)
            ending = beliefs[offsets[last - 1] - offsets[first] :]
            before[: len(ending)] = ending
        with np.errstate(divide="ignore"):
            return group.places, np.log(scales)

    def _score_log_group(self, tokens: np.ndarray, group: Group) -> tuple[np.ndarray, np.ndarray]:
        places, found = [], []
        for begin, length in zip(group.begins, group.lengths, strict=True):
            scores, ahead = np.empty(length), np.empty((length, self.states))
            part = tokens[begin : begin + length]
            kernels.log_forward(part, self.start, self.transitions, self.emissions, ahead, scores)
            places.append(np.arange(begin, begin + length))
            found.append(scores)
        return np.concatenate(places), np.concatenate(found)
