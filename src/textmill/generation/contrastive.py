"""Contrastive search: likely tokens that do not say again what the text has said, for families with hidden vectors. No
files."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from textmill.base.errors import Failure, UsageError
from textmill.generation.config import SamplingConfig
from textmill.generation.rows import Rows, sources_of
from textmill.generation.sampler import Choice, Matcher, Sampler
from textmill.generation.sampling import (
    Generation,
    Prompt,
    StreamEvent,
    Written,
    device_of,
    forked,
    inference,
    prepare,
)
from textmill.models.families import FAMILIES
from textmill.models.protocol import LanguageModel
from textmill.tokens.tokenizer import Tokenizer

SETTINGS = frozenset(
    """top_k stop stop_token_ids include_stop_str_in_output ignore_eos min_tokens max_tokens allowed_token_ids logprobs
    echo""".split()  # noqa: SIM905
)
"""Settings of a draw that contrastive search has too."""


class ContrastiveSearch:
    """Writes by contrastive search (Su et al. 2022): of the `top_k` likeliest tokens the one with the largest

        (1 - penalty_alpha) * probability - penalty_alpha * (largest cosine of its hidden vector with those before)

    where a token's hidden vector is the one that enters the output matrix after it was read. It is what `transformers`
    did with `generate(penalty_alpha=…, top_k=…)`. Nothing is drawn: the same prompt gives the same text.

    Args:
        model: a Transformer, an encoder-decoder, or of a recurrent family.
        tokenizer: the one that the model was trained with.
        penalty_alpha: above 0, at most 1; 0.6 is usual.
        source: for an encoder-decoder the text that it reads first, or its tokens closed by the document end.

    Raises:
        UsageError: the family gives no hidden vectors or takes no source, or penalty_alpha is out of range.
    """

    note = "contrastive search"
    """How it was written, for people."""

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        penalty_alpha: float,
        source: str | Sequence[int] | None = None,
    ) -> None:
        if not 0 < penalty_alpha <= 1:
            raise UsageError(
                f"penalty_alpha is {penalty_alpha:g}.",
                "It has to be above 0 and at most 1.",
                "Try --penalty-alpha 0.6; for the likeliest token each time: --temperature 0.",
            )
        family = FAMILIES.get(getattr(model, "family", ""))
        if not (isinstance(model, torch.nn.Module) and hasattr(model, "logits")):
            raise UsageError(
                f"This model ({family.label if family else type(model).__name__}) gives no hidden vectors.",
                "Contrastive search compares the vector of each candidate with those of the text before.",
                "Against repetition try --dry-multiplier 0.8, or --beams 4 --beam-groups 2; or take a Transformer or a "
                "recurrent model.",
            )
        self.model, self.tokenizer, self.penalty_alpha = model, tokenizer, penalty_alpha
        given: Any = None if source is None else [source]
        self._sources = sources_of(model, tokenizer, given, 1)

    def generate(
        self,
        prompt: str | Sequence[int],
        config: SamplingConfig,
        *,
        end_tokens: Collection[int] = (),
        constraint: Matcher | None = None,
    ) -> list[Generation]:
        """The one text after a prompt; arguments and errors as of `stream`."""
        events = self.stream(prompt, config, end_tokens=end_tokens, constraint=constraint)
        return [event.generation for event in events if event.generation is not None]

    def stream(
        self,
        prompt: str | Sequence[int],
        config: SamplingConfig,
        *,
        end_tokens: Collection[int] = (),
        constraint: Matcher | None = None,
    ) -> Iterator[StreamEvent]:
        """Write and give the text as it comes; the last event holds the whole (its seed and row mean nothing).

        Args:
            prompt: a text, read after a document-end token; or token ids, read as they are.
            config: `top_k`, and what else of SETTINGS is wanted.
            end_tokens: special tokens that end the text like the document end does.
            constraint: what the text has to follow.

        Raises:
            UsageError: `top_k` is less than 2, or a setting would have no effect.
            Failure: the model gives no probabilities, or no token may come next.
        """
        _check(config)
        ready = prepare(self.model, self.tokenizer, prompt)
        return self._events(ready, config, end_tokens, forked(constraint))

    def _events(
        self, prompt: Prompt, config: SamplingConfig, end_tokens: Collection[int], constraint: Matcher | None
    ) -> Iterator[StreamEvent]:
        began = time.monotonic()
        sampler = Sampler(
            config, self.tokenizer, self.model.vocabulary, prompt.whole, end_tokens=end_tokens, constraint=constraint
        )
        written = Written(self.tokenizer, config, sampler)
        device, reason = device_of(self.model), None
        with inference(self.model):
            reader = _Reader(self.model)
            rows = Rows(reader, torch.tensor([prompt.read], device=device), sources=self._sources)
            context_TD = F.normalize(reader.taken()[0], dim=-1)
            if config.echo:
                yield StreamEvent(self.tokenizer.decode(prompt.whole), None)
            row = 0
            while reason is None:
                log_probs_V = rows.log_probs[row].cpu()
                tokens, probabilities = _candidates(log_probs_V, sampler, config)
                rows.step(torch.tensor([row] * len(tokens), device=device), torch.tensor(tokens, device=device))
                hidden_KD = F.normalize(reader.taken()[:, -1], dim=-1)
                alike_K = (hidden_KD @ context_TD.T).amax(-1).cpu()
                scores_K = (1 - self.penalty_alpha) * torch.tensor(probabilities) - self.penalty_alpha * alike_K
                row = int(scores_K.argmax())
                context_TD = torch.cat((context_TD, hidden_KD[row : row + 1]))
                choice = _choice(tokens[row], log_probs_V, config)
                shown, reason = written.take(choice)
                if reason != "end" and not (reason == "stop" and choice.token in sampler.stops):
                    yield StreamEvent(shown, choice.token, logprob=choice.logprob, top=choice.top)
        rest = written.text.close()
        yield StreamEvent(rest, None, written.generation(reason, prompt, 0, 0, time.monotonic() - began))


def _check(config: SamplingConfig) -> None:
    if config.n > 1:
        raise UsageError(
            f"{config.n} samples are not possible.", "Contrastive search finds one text.", "Leave -n out, or draw."
        )
    fields = [field for field in dataclasses.fields(SamplingConfig) if field.name not in SETTINGS]
    default = SamplingConfig()
    changed = [field.name for field in fields if getattr(config, field.name) != getattr(default, field.name)]
    if changed:
        raise UsageError(
            f"{changed[0]} would have no effect.",
            "Contrastive search draws nothing, and its only penalty is penalty_alpha.",
            f"Leave {changed[0]} out, or penalty_alpha.",
        )
    if config.top_k < 2:
        raise UsageError(
            f"top_k is {config.top_k}.",
            "Contrastive search chooses among the top_k likeliest tokens and reads each of them.",
            "Give 2 or more: --top-k 4",
        )


def _candidates(log_probs_V: Tensor, sampler: Sampler, config: SamplingConfig) -> tuple[list[int], list[float]]:
    """The likeliest tokens that may come next, and their probabilities among all that may."""
    if not torch.isfinite(log_probs_V.max()):
        raise Failure(
            "The model cannot say what comes next.",
            "Its probabilities are not numbers: its weights are damaged, or its training diverged.",
            "Train it again, or take an earlier checkpoint.",
        )
    barred_V = sampler.forbidden.clone()
    if sampler.written < config.min_tokens:
        barred_V[[*sampler.ends, *sampler.stops]] = True
    if sampler.constraint is not None:
        barred_V |= ~sampler.constraint.mask()
    top = log_probs_V.masked_fill(barred_V, -torch.inf).softmax(-1).topk(min(config.top_k, len(log_probs_V)))
    found = [
        (token, value)
        for token, value in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        if not barred_V[token] and value > 0
    ]
    if not found:
        raise Failure(
            "No token may come next.",
            "The settings and constraints together rule out every one.",
            "Loosen allowed_token_ids, min_tokens or the constraint.",
        )
    return [token for token, _ in found], [value for _, value in found]


def _choice(token: int, log_probs_V: Tensor, config: SamplingConfig) -> Choice:
    alternatives = log_probs_V.topk(min(config.logprobs or 0, len(log_probs_V)))
    pairs = zip(alternatives.indices.tolist(), alternatives.values.tolist(), strict=True)
    return Choice(token, float(log_probs_V[token]), tuple(pairs))


class _Reader:
    """A model that shows the hidden vectors which enter its output matrix.

    The protocol does not give them. Every family that has them makes its logits by `logits(hidden)`; here a copy of the
    model, with the same weights, keeps what passes there. The model itself is left alone.
    """

    def __init__(self, model: Any) -> None:
        self.vocabulary: int = model.vocabulary
        self._model = copy.copy(model)
        self._model.logits = self._logits
        self._make = model.logits
        self._seen: list[Tensor] = []

    def _logits(self, hidden_BTD: Tensor) -> Tensor:
        self._seen.append(hidden_BTD.float())
        made: Tensor = self._make(hidden_BTD)
        return made

    def taken(self) -> Tensor:
        """Hidden vectors [B, T, D] of all that was read since `start` or the last call."""
        seen, self._seen = torch.cat(self._seen, 1), []
        return seen

    def start(self, batch: int, **source: Tensor) -> Any:
        """As the model's."""
        self._seen = []
        return self._model.start(batch, **source)

    def read(self, tokens_BT: Tensor, state: Any) -> tuple[Tensor, Any]:
        """As the model's."""
        log_probs, state = self._model.read(tokens_BT, state)
        return log_probs, state
