"""One sample's choice of its next token: what it has said so far, its own random numbers, its constraint. No files."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch

# Imported here, at the start: during this first import numpy loses a Ctrl-C or SIGTERM that arrives.
from numpy.random import default_rng
from torch import Tensor

from textmill.base.errors import Failure, UsageError
from textmill.generation import processors
from textmill.generation.config import SamplingConfig
from textmill.generation.repeats import BadWords, DontRepeat, breakers_of
from textmill.tokens.tokenizer import Tokenizer

Alternatives = tuple[tuple[int, float], ...]
"""(token, log-probability in nats), the likeliest first."""


class Matcher(Protocol):
    """What a text that has to follow a grammar may go on with."""

    def mask(self) -> Tensor:
        """Tokens that may come next, bool [V]; an end only where the text may end."""
        ...

    def accept(self, token: int) -> None:
        """The token was taken."""
        ...

    def fork(self) -> Matcher:
        """A copy that goes on by itself."""
        ...


@dataclass(frozen=True)
class Choice:
    """A token, chosen."""

    token: int
    logprob: float
    """The model's own log-probability in nats, before penalties, temperature and truncation."""
    top: Alternatives = ()
    """The likeliest tokens by the model's own log-probabilities; as many as `logprobs` asks for."""


class Sampler:
    """Chooses the tokens of one sample.

    The i-th choice depends on the log-probabilities, the text so far, and the i-th random number of (seed, row): on
    nothing else, so that a token that was guessed ahead can be checked against the very choice that would be made.

    Args:
        config: the settings.
        tokenizer: of the model.
        vocabulary: the model's, V.
        prompt: the tokens read before the sample.
        end_tokens: special tokens that end the sample besides the tokenizer's own ends.
        seed: of the random numbers.
        row: which of the samples with this seed it is.
        constraint: what the text has to follow.

    Raises:
        UsageError: a setting names a token that does not exist.
    """

    def __init__(
        self,
        config: SamplingConfig,
        tokenizer: Tokenizer,
        vocabulary: int,
        prompt: Sequence[int],
        *,
        end_tokens: Collection[int] = (),
        seed: int = 0,
        row: int = 0,
        constraint: Matcher | None = None,
    ) -> None:
        self.config, self.tokenizer, self.constraint = config, tokenizer, constraint
        self.ends = frozenset() if config.ignore_eos else frozenset({*tokenizer.ends, *end_tokens})
        self.stops = frozenset(config.stop_token_ids)
        _check_ids(config, tokenizer.vocabulary)
        self.forbidden = forbidden_tokens(
            tokenizer, vocabulary, self.ends, config.stop_token_ids, config.allowed_token_ids
        )
        self.written = 0
        self._draws, self._exclusions = _Numbers(seed, row, 0), _Numbers(seed, row, 1)
        special = set(tokenizer.special.values())
        self._seen: Tensor | None = None
        if config.repetition_penalty != 1:
            self._seen = torch.zeros(vocabulary, dtype=torch.bool)
            self._seen[[token for token in prompt if token not in special]] = True  # an end is no repetition
        counting = bool(config.presence_penalty or config.frequency_penalty)
        self._counts: dict[int, int] | None = {} if counting else None
        self._dry: DontRepeat | None = None
        if config.dry_multiplier:
            self._dry = DontRepeat(
                config.dry_multiplier,
                config.dry_base,
                config.dry_allowed_length,
                config.dry_range,
                breakers_of(tokenizer, config.dry_breakers),
            )
            self._dry.add(list(prompt))
        self._bad = BadWords(tokenizer, config.bad_words) if config.bad_words else None
        self._tail = tokenizer.decode_bytes(list(prompt)[-self._bad.longest :]) if self._bad else b""
        self._limit = 2 * config.mirostat_tau
        self._surprise = 0.0
        self._bias: tuple[Tensor, Tensor] | None = None
        if config.logit_bias:
            tokens, values = zip(*config.biases.items(), strict=True)
            self._bias = torch.tensor(tokens), torch.tensor(values, dtype=torch.float32)
        self._adjusts = (
            any(part is not None for part in (self._counts, self._dry, self._bad, self._bias, constraint))
            or config.min_tokens > 0
        )
        self.plain = (
            config.temperature == 0 and config.repetition_penalty == 1 and not config.logprobs and not self._adjusts
        )
        """Whether the choice is the likeliest token that is not forbidden, and no more is asked."""

    def accept(self, token: int) -> None:
        """The token was taken: it belongs to the text now."""
        self.written += 1
        if self._seen is not None and token not in self.ends:
            self._seen[token] = True
        if self._counts is not None:
            self._counts[token] = self._counts.get(token, 0) + 1
        if self._dry is not None:
            self._dry.add([token])
        if self._bad is not None:
            self._tail = (self._tail + self.tokenizer.decode_bytes([token]))[-self._bad.longest :]
        if self.constraint is not None:
            self.constraint.accept(token)
        if self.config.mirostat:
            self._limit -= self.config.mirostat_eta * (self._surprise - self.config.mirostat_tau)

    def _adjust(self, scores_V: Tensor) -> None:
        """Change the scores in place by what this sample has said."""
        config = self.config
        if self._counts:
            tokens = torch.tensor(list(self._counts))
            counts = torch.tensor(list(self._counts.values()), dtype=torch.float32)
            scores_V[tokens] -= config.presence_penalty + config.frequency_penalty * counts
        if self._dry is not None:
            found, penalties = self._dry.penalties()
            scores_V[torch.from_numpy(found)] -= torch.from_numpy(penalties)
        if self._bias is not None:
            scores_V[self._bias[0]] += self._bias[1]
        if self._bad is not None:
            scores_V[torch.from_numpy(self._bad.banned(self._tail))] = processors.OUT
        if self.written < config.min_tokens:
            scores_V[[*self.ends, *self.stops]] = processors.OUT
        if self.constraint is not None:
            scores_V.masked_fill_(~self.constraint.mask(), processors.OUT)

    def _draw(self, scores_V: Tensor) -> int:
        """Draw from the softmax of the scores, truncations of one row's own included."""
        if self.config.xtc_probability and self._exclusions.at(self.written) < self.config.xtc_probability:
            scores_V = processors.exclude_top_choices(scores_V, self.config.xtc_threshold)
        if self.config.mirostat:
            scores_V = processors.surprise_below(scores_V, self._limit)
        sums = scores_V.softmax(-1).numpy().cumsum(dtype=np.float64)
        token = int(np.searchsorted(sums, self._draws.at(self.written) * sums[-1], side="right"))
        if self.config.mirostat:
            probability = (sums[token] - (sums[token - 1] if token else 0.0)) / sums[-1]
            self._surprise = float(-np.log2(max(probability, 1e-300)))
        return token


class _Numbers:
    """Random numbers in [0, 1), of which the i-th depends on the seed alone."""

    def __init__(self, *seed: int) -> None:
        self._random, self._known = default_rng(list(seed)), np.zeros(0)

    def at(self, place: int) -> float:
        """The number of this place, from 0."""
        while place >= len(self._known):
            self._known = np.append(self._known, self._random.random(64))
        return float(self._known[place])


def choose(samplers: Sequence[Sampler], log_probs: Tensor | Sequence[Tensor]) -> list[Choice]:
    """The next token of each sample; those with the same settings are worked on together.

    Args:
        samplers: one for each row. They do not move on before `accept`.
        log_probs: what the model says, [B, V] in nats, or a sequence of B rows [V].

    Raises:
        Failure: a row's probabilities are not numbers, or nothing may come next.
    """
    if isinstance(log_probs, Tensor):
        log_probs = log_probs.detach().float().cpu()  # at once: a device is waited for one time
    rows = [row.detach().float().cpu() for row in log_probs]
    found = _likeliest(samplers, rows)
    groups: dict[int, list[int]] = {}
    for place, sampler in enumerate(samplers):
        if place not in found:
            groups.setdefault(id(sampler.config), []).append(place)
    for places in groups.values():
        scores_BV = torch.stack([rows[place] for place in places])
        found.update(zip(places, _choose([samplers[place] for place in places], scores_BV), strict=True))
    return [found[place] for place in range(len(samplers))]


def _likeliest(samplers: Sequence[Sampler], rows: Sequence[Tensor]) -> dict[int, Choice]:
    """The choices, by row, that are the likeliest tokens as they stand; nothing is copied.

    A row is left out if its sampler changes scores, or if its likeliest token is forbidden or no number.
    """
    found = {}
    for place, (sampler, row_V) in enumerate(zip(samplers, rows, strict=True)):
        if sampler.plain:
            values = row_V.numpy()
            token = int(values.argmax())  # several times as fast as torch's on one row
            best = float(values[token])
            if np.isfinite(best) and not sampler.forbidden[token]:
                found[place] = Choice(token, best, ())
    return found


def _choose(samplers: Sequence[Sampler], log_probs_BV: Tensor) -> list[Choice]:
    config = samplers[0].config
    scores = log_probs_BV
    if config.repetition_penalty != 1:
        seen = torch.stack([sampler._seen for sampler in samplers if sampler._seen is not None])
        scores = processors.repetition_penalty(processors.center(scores), seen, config.repetition_penalty)
    if all(sampler.forbidden is samplers[0].forbidden for sampler in samplers):
        scores = processors.forbid(scores, samplers[0].forbidden)
    else:
        scores = processors.forbid(scores, torch.stack([sampler.forbidden for sampler in samplers]))
    for row, sampler in enumerate(samplers):
        if sampler._adjusts:
            sampler._adjust(scores[row])  # `forbid` made them our own
    best_B, tokens_B = scores.max(-1)
    for row, best in enumerate(best_B.tolist()):
        if not np.isfinite(best):
            raise _nothing(log_probs_BV[row])
    if config.temperature > 0:
        kept = processors.truncate(scores, config)
        tokens = [sampler._draw(kept[row]) for row, sampler in enumerate(samplers)]
    else:
        tokens = tokens_B.tolist()
    own = log_probs_BV[torch.arange(len(tokens)), torch.tensor(tokens)].tolist()
    if config.logprobs:
        values_BK, ids_BK = log_probs_BV.topk(min(config.logprobs, log_probs_BV.shape[-1]))
        tops: list[Alternatives] = [_pairs(*row) for row in zip(ids_BK.tolist(), values_BK.tolist(), strict=True)]
    else:
        tops = [()] * len(tokens)
    return [Choice(*one) for one in zip(tokens, own, tops, strict=True)]


def _pairs(ids: list[int], values: list[float]) -> Alternatives:
    return tuple(zip(ids, values, strict=True))


def _nothing(log_probs_V: Tensor) -> Failure:
    if not torch.isfinite(log_probs_V.max()):
        return Failure(
            "The model cannot say what comes next.",
            "Its probabilities are not numbers: its weights are damaged, or its training diverged.",
            "Train it again, or take an earlier checkpoint.",
        )
    return Failure(
        "No token may come next.",
        "The settings and constraints together rule out every one.",
        "Loosen bad_words, allowed_token_ids, logit_bias, min_tokens or the constraint.",
    )


def _check_ids(config: SamplingConfig, vocabulary: int) -> None:
    for name in ("stop_token_ids", "allowed_token_ids", "biases"):
        wrong = [token for token in getattr(config, name) if not 0 <= token < vocabulary]
        if wrong:
            raise UsageError(f"{name} names token {wrong[0]}.", f"Tokens go from 0 to {vocabulary - 1}.")


@lru_cache(maxsize=64)
def forbidden_tokens(
    tokenizer: Tokenizer,
    vocabulary: int,
    ends: frozenset[int],
    stops: tuple[int, ...] = (),
    allowed: tuple[int, ...] = (),
) -> Tensor:
    """Tokens never drawn, bool [V]: special ones but for the ends, ids beyond the tokenizer's, what is not allowed."""
    forbidden = torch.zeros(vocabulary, dtype=torch.bool)
    if allowed:
        forbidden[:] = True
        forbidden[list(allowed)] = False
    forbidden[tokenizer.vocabulary :] = True
    forbidden[list(tokenizer.special.values())] = True
    forbidden[list({*ends, *stops})] = False
    return forbidden
