"""Expectation maximization of hidden Markov models: over the whole text, or a batch at a time. Reads token shards."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from textmill.base.errors import Failure
from textmill.base.progress import Progress, Task
from textmill.models.hmm.clusters import CLUSTER_TOKENS, clustered, scattered
from textmill.models.hmm.config import HiddenMarkovConfig
from textmill.models.hmm.expectation import Expectation, Parameters, Statistics, document_bounds

if TYPE_CHECKING:
    from textmill.tokens.shards import Shards

BLOCK_TOKENS = 1 << 20
"""Tokens of whole documents that are in memory at a time."""
STEPWISE_PASSES = 2
"""Passes of learning "auto" that go batch by batch."""
FIRST_STEPS = 8
"""Stepwise updates that the start counts as, so that the first batch does not wipe it out."""


class Documents:
    """The documents of an array or of shards, read when needed.

    Args:
        source: token ids [N], each document followed by its end token; or shards of such ids.
        document_end: that token, for an array.
    """

    def __init__(self, source: np.ndarray | Shards, document_end: int) -> None:
        self.source = source
        if isinstance(source, np.ndarray):
            self.ends, self.tokens = document_bounds(source, document_end), len(source)
        else:
            self.ends, self.tokens = np.asarray(source.ends, dtype=np.int64), source.tokens
        self.begins = np.concatenate(([0], self.ends[:-1])).astype(np.int64)

    def _read(self, begin: int, end: int) -> np.ndarray:
        if isinstance(self.source, np.ndarray):
            return np.asarray(self.source[begin:end], dtype=np.int64)
        return self.source.read(begin, end)

    def beginning(self, limit: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of the first documents, at most `limit`, and where the documents in them end."""
        tokens = self._read(0, min(limit, self.tokens))
        return tokens, self.ends[self.ends <= len(tokens)]

    def counts(self, vocabulary: int) -> np.ndarray:
        """How often each token occurs, int64 [V]."""
        total = np.zeros(vocabulary, dtype=np.int64)
        for begin in range(0, self.tokens, BLOCK_TOKENS):
            part = self._read(begin, min(begin + BLOCK_TOKENS, self.tokens))
            if len(part) and (int(part.min()) < 0 or int(part.max()) >= vocabulary):
                raise Failure(
                    "The hidden Markov model cannot read these tokens.",
                    f"They hold ids outside 0 to {vocabulary - 1}: the shards are of another tokenizer.",
                    "Make them again with: textmill tokenize RUN",
                )
            total += np.bincount(part, minlength=vocabulary)
        return total

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All documents in stored order, about `BLOCK_TOKENS` at a time: tokens, and where documents end in them."""
        first = 0
        while first < len(self.ends):
            begin = int(self.begins[first])
            last = max(first + 1, int(np.searchsorted(self.ends, begin + BLOCK_TOKENS, side="right")))
            yield self._read(begin, int(self.ends[last - 1])), self.ends[first:last] - begin
            first = last

    def batches(self, size: int, generator: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All documents in random order, at least `size` tokens at a time: tokens, and where documents end in them."""
        chosen: list[np.ndarray] = []
        held = 0
        for i in generator.permutation(len(self.ends)):
            chosen.append(self._read(int(self.begins[i]), int(self.ends[i])))
            held += len(chosen[-1])
            if held >= size:
                yield np.concatenate(chosen), np.cumsum([len(part) for part in chosen])
                chosen, held = [], 0
        if held:
            yield np.concatenate(chosen), np.cumsum([len(part) for part in chosen])


@dataclasses.dataclass(frozen=True)
class Prior:
    """Pseudo-counts of a Dirichlet prior; maximizing gives its mode, as hmmlearn's priors of 1 + these do."""

    start: float
    """Added for every state."""
    transitions: float
    """Added for every transition."""
    emissions: np.ndarray | float
    """Added for every token [V, 1] of every state."""

    @classmethod
    def of(cls, config: HiddenMarkovConfig, counts: np.ndarray) -> Prior:
        """What the settings ask for; `counts` [V] says how the smoothing is spread over the tokens."""
        spread = (counts + 1.0) / (counts.sum() + config.vocabulary)
        return cls(
            config.transition_smoothing, config.transition_smoothing, config.emission_smoothing * spread[:, None]
        )


def _rows(counts: np.ndarray, before: np.ndarray | None) -> np.ndarray:
    """Rows divided by their sums; a row of nothing stays as it was before, or becomes uniform."""
    sums = counts.sum(axis=-1, keepdims=True)
    kept = before if before is not None else np.full_like(counts, 1.0 / counts.shape[-1])
    return np.divide(counts, sums, out=kept.copy(), where=sums > 0)


def maximize(counts: Statistics, prior: Prior, before: Parameters | None = None) -> Parameters:
    """The parameters that make the expected counts likeliest (Rabiner 1989, equations 40; with `prior`, their mode).

    A state that nothing was expected of keeps what it had in `before`: no division by zero, no NaN.
    """
    emissions = np.ascontiguousarray((counts.emissions + prior.emissions).T)
    return Parameters(
        _rows(counts.start + prior.start, before.start if before else None),
        _rows(counts.transitions + prior.transitions, before.transitions if before else None),
        _rows(emissions, before.emissions if before else None),
    )


def em_step(
    parameters: Parameters, tokens: np.ndarray, ends: np.ndarray, prior: Prior, arithmetic: str = "auto"
) -> tuple[Parameters, float]:
    """One step of Baum-Welch over documents in memory.

    Args:
        parameters: where the step starts.
        tokens: int64 [N].
        ends: int64 [documents], just after each document.
        prior: pseudo-counts; zeros for maximum likelihood.
        arithmetic: "scaled", "log" or "auto".

    Returns:
        the new parameters, and the log-likelihood (nats) of the documents under the old.
    """
    states, vocabulary = parameters.emissions.shape
    counts = Statistics.zero(states, vocabulary)
    Expectation(parameters, arithmetic).count(tokens, ends, counts)
    if not np.isfinite(counts.log_likelihood):
        raise Failure(
            "Expectation maximization cannot go on.",
            "A document has no probability at all under the parameters that it started from.",
            "Start from parameters without zeros, or with smoothing above 0.",
        )
    return maximize(counts, prior, parameters), counts.log_likelihood


class Learner:
    """Learns a hidden Markov model from a text, within a limit of time.

    Args:
        config: shape and settings.
        documents: the text.
        seed: of the start and of the order of the batches.
        seconds: longest time; None for none.
        progress: where to report.

    Attributes:
        parameters: the best so far.
        counts: expected counts of the last whole pass, or the running mean of the batches, scaled to the text.
        history: one mapping a pass: "kind" ("stepwise" | "batch"), "tokens", "nats_per_token" (of the text as it was
            read, under the parameters of that moment), "seconds" since the start.
    """

    def __init__(
        self,
        config: HiddenMarkovConfig,
        documents: Documents,
        seed: int = 0,
        seconds: float | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.config, self.documents, self.seconds = config, documents, seconds
        self.progress = progress or Progress("quiet")
        self.began = time.monotonic()
        self.generator = np.random.default_rng(seed)
        if documents.tokens == 0:
            raise Failure("The hidden Markov model has nothing to learn from.", "The training split holds no token.")
        counts = documents.counts(config.vocabulary)
        self.prior = Prior.of(config, counts)
        begin = clustered if config.initialization == "clusters" else scattered
        tokens, ends = documents.beginning(CLUSTER_TOKENS)
        self.counts = begin(tokens, ends, config.vocabulary, config.states, seed)
        self._scale(self.counts, documents.tokens / max(1, self.counts.tokens))
        self.parameters = maximize(self.counts, self.prior)
        self.history: list[dict[str, Any]] = []
        self.updates = 0
        self.rate = 0.0
        """Tokens a second, as last measured."""

    @staticmethod
    def _scale(counts: Statistics, factor: float) -> None:
        counts.start *= factor
        counts.transitions *= factor
        counts.emissions *= factor

    def _spent(self) -> float:
        return time.monotonic() - self.began

    def _fits(self, tokens: int) -> bool:
        """Whether there is time to read so many tokens."""
        if self.seconds is None:
            return True
        return self._spent() + (tokens / self.rate if self.rate else 0.0) < self.seconds

    def _record(self, kind: str, tokens: int, likelihood: float, began: float) -> None:
        seconds = self._spent()
        self.rate = tokens / max(seconds - began, 1e-9)
        self.history.append(
            {
                "kind": kind,
                "tokens": tokens,
                "nats_per_token": -likelihood / max(1, tokens),
                "seconds": round(seconds, 3),
            }
        )

    def run(self) -> Learner:
        """All passes that the settings and the time allow."""
        passes, total = self.config.iterations, self.documents.tokens
        with self.progress.task("Learning the hidden states", passes * total, "tokens") as task:
            for number in range(passes):
                batch_fits = self._fits(total)
                first = number == 0
                if not first and not self._fits(self.config.batch_tokens):
                    break
                stepwise = self.config.learning == "stepwise" or (
                    self.config.learning == "auto" and (number < STEPWISE_PASSES or not batch_fits)
                )
                if not stepwise and not first and not batch_fits:
                    break
                whole = self.stepwise_pass(task) if stepwise else self.batch_pass(task)
                last = self.history[-2:]
                task.update(task.done, f"{last[-1]['nats_per_token']:.4f} nats a token")
                if not whole:
                    break
                gained = last[0]["nats_per_token"] - last[-1]["nats_per_token"]
                if len(last) == 2 and last[0]["kind"] == last[1]["kind"] and gained < self.config.tolerance:
                    break
        return self

    def batch_pass(self, task: Task | None = None) -> bool:
        """One step of EM over the whole text; over its first part where time runs out. Whether all was read."""
        began, whole = self._spent(), True
        counts = Statistics.zero(self.config.states, self.config.vocabulary)
        expectation = Expectation(self.parameters)
        for tokens, ends in self.documents.blocks():
            if counts.tokens and self.seconds is not None and self._spent() > self.seconds:
                whole = False
                break
            expectation.count(tokens, ends, counts)
            if task:
                task.advance(len(tokens))
        self._record("batch", counts.tokens, counts.log_likelihood, began)
        if not whole:
            self._scale(counts, self.documents.tokens / max(1, counts.tokens))
        self.counts, self.parameters = counts, maximize(counts, self.prior, self.parameters)
        return whole

    def stepwise_pass(self, task: Task | None = None) -> bool:
        """One pass of stepwise EM (Cappé and Moulines 2009; Liang and Klein 2009): after each batch, the running mean
        of the expected counts moves towards that batch's, by (k + 2)^-a at update k. Whether all was read."""
        began, read, likelihood = self._spent(), 0, 0.0
        mean, total = self.counts, self.documents.tokens
        for tokens, ends in self.documents.batches(self.config.batch_tokens, self.generator):
            if read and self.seconds is not None and self._spent() > self.seconds:
                break
            counts = Statistics.zero(self.config.states, self.config.vocabulary)
            Expectation(self.parameters).count(tokens, ends, counts)
            step = (self.updates + FIRST_STEPS + 2) ** -self.config.step_power
            self.updates += 1
            for new, old in (
                (counts.start, mean.start),
                (counts.transitions, mean.transitions),
                (counts.emissions, mean.emissions),
            ):
                old *= 1 - step
                new *= step * total / len(tokens)
                old += new
            self.parameters = maximize(mean, self.prior, self.parameters)
            read += len(tokens)
            likelihood += counts.log_likelihood
            if task:
                task.advance(len(tokens), f"{-likelihood / read:.4f} nats a token")
        self._record("stepwise", read, likelihood, began)
        return read == total
