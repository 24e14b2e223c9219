"""Prompts to text, on the `LanguageModel` protocol alone: the prompt once, then token by token. No files."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Literal

import torch

# Imported here, at the start: during this first import numpy loses a Ctrl-C or SIGTERM that arrives.
from numpy.random import SeedSequence
from torch import Tensor

from textmill.base.errors import Failure, UsageError
from textmill.generation.config import SamplingConfig
from textmill.generation.sampler import Alternatives, Choice, Matcher, Sampler, choose
from textmill.generation.text import TextStream
from textmill.models.protocol import LanguageModel
from textmill.tokens.tokenizer import Tokenizer

FinishReason = Literal["end", "stop", "length", "cancelled"]

ROWS_AT_ONCE = 64
"""Samples made side by side; more are made in turns, so that memory does not grow with n."""
READ_ELEMENTS = 1 << 24
"""Log-probabilities that reading a prompt may hold at once (64 MB): a long prompt is read in pieces."""


@dataclass(frozen=True)
class PromptToken:
    """A token of the prompt, as the model sees it."""

    token: int
    logprob: float | None
    """In nats; None for the first, which nothing predicts."""
    top: Alternatives
    """The likeliest tokens in its place."""


@dataclass(frozen=True)
class Generation:
    """One finished sample."""

    text: str
    """What was written after the prompt, without the stop text or an unfinished last character."""
    ids: tuple[int, ...]
    """The tokens drawn, the one that ended the text left out; a stop text's own tokens are among them."""
    logprobs: tuple[float, ...]
    """The model's own log-probability of each of `ids` in nats, before temperature and truncation."""
    finish_reason: FinishReason
    """"end": the model ended the document; "stop": a stop text came; "length": max_tokens were written;
    "cancelled": whoever asked does not wait for it any more."""
    seconds: float
    """From beginning to read the prompt to this sample's last token."""
    tokens_per_second: float
    """`ids` by `seconds`, for this sample alone (others may have been made beside it)."""
    prompt_tokens: int
    """Tokens of the prompt that the model read, the document-end token before it included."""
    prompt_dropped: int
    """Tokens left out from the front of the prompt because it exceeds the model's context."""
    seed: int
    """The seed; together with `row` it gives this text again."""
    row: int
    """Which of the n samples of its prompt this is, from 0."""
    top_logprobs: tuple[Alternatives, ...] | None = None
    """For each of `ids` the likeliest tokens, if `logprobs` asked for them."""
    prompt_logprobs: tuple[PromptToken, ...] | None = None
    """Each token of the prompt that was read, if `prompt_logprobs` asked for them."""


@dataclass(frozen=True)
class StreamEvent:
    """One step of a stream. The texts of all events, joined, are the text of the last one's `generation`."""

    text: str
    """What may be shown now, maybe "" (half a character, or what may become a stop text)."""
    token: int | None
    """The token just drawn; None in the last event."""
    generation: Generation | None = None
    """The finished sample, in the last event only."""
    logprob: float | None = None
    """The token's, as in `Generation.logprobs`."""
    top: Alternatives = ()
    """Alternatives to the token, if they are asked for."""


def generate(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[str] | Sequence[Sequence[int]],
    config: SamplingConfig | None = None,
    *,
    end_tokens: Collection[int] = (),
    constraint: Matcher | None = None,
) -> list[Generation]:
    """Write `config.n` samples after each prompt.

    A sample depends on its prompt, the settings, the seed and its row: neither on n nor on the other prompts
    (as far as the model's own arithmetic does not depend on how many rows are computed together).

    Args:
        model: any family.
        tokenizer: the one that the model was trained with.
        prompts: texts, each read after a document-end token; or token ids, read as they are. An empty prompt
            is the beginning of a document.
        config: the settings; the defaults when left out.
        end_tokens: special tokens that end a sample like the document end does (a chat model's end of turn).
        constraint: what every sample has to follow.

    Returns:
        The samples, n for each prompt, prompt by prompt.
    """
    config = config or SamplingConfig()
    ready = [prepare(model, tokenizer, prompt) for prompt in as_list(prompts)]
    seed = seed_of(config)
    # Rows read together have to be of one length: the protocol knows no padding.
    waiting: dict[int, list[tuple[int, int]]] = {}
    for index, prompt in enumerate(ready):
        waiting.setdefault(len(prompt.read), []).extend((index, row) for row in range(config.n))
    results: dict[tuple[int, int], Generation] = {}
    with inference(model):
        for keys in waiting.values():
            for start in range(0, len(keys), ROWS_AT_ONCE):
                part = keys[start : start + ROWS_AT_ONCE]
                rows = [
                    _Row(model, tokenizer, config, copy(ready[index]), seed, row, end_tokens, forked(constraint))
                    for index, row in part
                ]
                for place, event in _steps(model, rows, config):
                    if event.generation is not None:
                        results[part[place]] = event.generation
    return [results[index, row] for index in range(len(ready)) for row in range(config.n)]


def stream(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    config: SamplingConfig | None = None,
    *,
    end_tokens: Collection[int] = (),
    constraint: Matcher | None = None,
) -> Iterator[StreamEvent]:
    """Write one sample and give its text as it comes; the same text as `generate` gives.

    Args:
        model, tokenizer, end_tokens, constraint: as for `generate`.
        prompt: a text, or token ids.
        config: the settings, with n = 1.
    """
    config = config or SamplingConfig()
    if config.n != 1:
        raise UsageError(
            f"{config.n} samples cannot be streamed.",
            "They would be written into one another.",
            "Leave out -n, or --stream.",
        )
    ready = prepare(model, tokenizer, prompt)
    row = _Row(model, tokenizer, config, ready, seed_of(config), 0, end_tokens, forked(constraint))
    return _stream(model, row, config)


def _stream(model: LanguageModel, row: _Row, config: SamplingConfig) -> Iterator[StreamEvent]:
    with inference(model):
        for _, event in _steps(model, [row], config):
            yield event


def forked(constraint: Matcher | None) -> Matcher | None:
    """A matcher of one sample's own."""
    return None if constraint is None else constraint.fork()


class _Row:
    """One sample in the making: its text, its tokens, its choices."""

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        config: SamplingConfig,
        prompt: Prompt,
        seed: int,
        row: int,
        end_tokens: Collection[int],
        constraint: Matcher | None,
    ) -> None:
        self.prompt, self.config, self.seed, self.row = prompt, config, seed, row
        self.sampler = Sampler(
            config,
            tokenizer,
            model.vocabulary,
            prompt.whole,
            end_tokens=end_tokens,
            seed=seed,
            row=row,
            constraint=constraint,
        )
        self.written = Written(tokenizer, config, self.sampler)
        self.finished = False
        self._began = time.monotonic()

    def finish(self, reason: FinishReason) -> StreamEvent:
        """The last event."""
        self.finished = True
        rest = self.written.text.close()
        return StreamEvent(
            rest,
            None,
            self.written.generation(reason, self.prompt, self.seed, self.row, time.monotonic() - self._began),
        )


class Written:
    """What a sample has written so far.

    Args:
        tokenizer: of the model.
        config: the settings.
        sampler: told of every token taken.
    """

    def __init__(self, tokenizer: Tokenizer, config: SamplingConfig, sampler: Sampler) -> None:
        self.tokenizer, self.config, self.sampler = tokenizer, config, sampler
        self.text = TextStream(config.stop, config.include_stop_str_in_output)
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.tops: list[Alternatives] = []

    def take(self, choice: Choice) -> tuple[str, FinishReason | None]:
        """Add a token; the text that may be shown now, and why the sample ends, if it does."""
        if choice.token in self.sampler.ends:
            return "", "end"
        self.sampler.accept(choice.token)
        if choice.token in self.sampler.stops:
            return "", "stop"
        self.ids.append(choice.token)
        self.logprobs.append(choice.logprob)
        self.tops.append(choice.top)
        enough = len(self.ids) > self.config.min_tokens
        shown = self.text.add(self.tokenizer.decode_bytes([choice.token]), enough)
        if self.text.stopped:
            return shown, "stop"
        return shown, "length" if len(self.ids) == self.config.max_tokens else None

    def generation(self, reason: FinishReason, prompt: Prompt, seed: int, row: int, seconds: float) -> Generation:
        """The finished sample."""
        return Generation(
            text=(self.tokenizer.decode(prompt.whole) if self.config.echo else "") + self.text.text,
            ids=tuple(self.ids),
            logprobs=tuple(self.logprobs),
            finish_reason=reason,
            seconds=seconds,
            tokens_per_second=len(self.ids) / max(seconds, 1e-9),
            prompt_tokens=len(prompt.read),
            prompt_dropped=prompt.dropped,
            seed=seed,
            row=row,
            top_logprobs=tuple(self.tops) if self.config.logprobs else None,
            prompt_logprobs=prompt.scores,
        )


def _steps(
    model: LanguageModel, rows: list[_Row], config: SamplingConfig
) -> Iterator[tuple[int, StreamEvent]]:  # fmt: skip
    """Events of all rows (prompts of one length) step by step, each with its row's place."""
    device = device_of(model)
    log_probs_BV, state = _read_prompt(model, rows, device)
    if config.echo:
        for place, row in enumerate(rows):
            yield place, StreamEvent(row.written.tokenizer.decode(row.prompt.whole), None)
    while True:
        active = [place for place, row in enumerate(rows) if not row.finished]
        chosen = [0] * len(rows)  # an ended row reads on whatever it likes, and is not looked at
        choices = choose([rows[place].sampler for place in active], log_probs_BV[active])
        for place, choice in zip(active, choices, strict=True):
            row, chosen[place] = rows[place], choice.token
            shown, reason = row.written.take(choice)
            if reason != "end" and not (reason == "stop" and choice.token in row.sampler.stops):
                yield place, StreamEvent(shown, choice.token, logprob=choice.logprob, top=choice.top)
            if reason is not None:
                yield place, row.finish(reason)
        if all(row.finished for row in rows):
            return
        log_probs_BTV, state = _read(model, torch.tensor(chosen, device=device)[:, None], state)
        log_probs_BV = log_probs_BTV[:, -1]


def _read(model: LanguageModel, tokens_BT: Tensor, state: object) -> tuple[Tensor, object]:
    # The block is closed before anything is yielded: left open, it would switch gradients off for the caller.
    with torch.no_grad():
        return model.read(tokens_BT, state)


def _read_prompt(model: LanguageModel, rows: list[_Row], device: torch.device) -> tuple[Tensor, object]:
    """Read whole prompts; log-probabilities [B, V] after their last token, and the state."""
    tokens_BT = torch.tensor([row.prompt.read for row in rows], device=device)
    count, length = tokens_BT.shape
    size = max(16, READ_ELEMENTS // (count * model.vocabulary))
    wanted = rows[0].config.prompt_logprobs
    state: object = model.start(count)
    for start in range(0, length, size):
        log_probs_BTV, state = _read(model, tokens_BT[:, start : start + size], state)
        if wanted is not None:
            for row, log_probs_TV in zip(rows, log_probs_BTV, strict=True):
                row.prompt.score(log_probs_TV, start, wanted)
    return log_probs_BTV[:, -1], state


@dataclass
class Prompt:
    """A prompt in tokens."""

    read: list[int]
    """What the model reads: at most its context."""
    whole: list[int]
    """All of it."""
    dropped: int
    """Tokens left out at the front."""
    scores: tuple[PromptToken, ...] | None = None
    """Its tokens' log-probabilities, where they are asked for and as far as they are read."""

    def score(self, log_probs_TV: Tensor, start: int, alternatives: int) -> None:
        """Note the log-probabilities of the tokens after the places `start`, `start` + 1…"""
        found = list(self.scores or [PromptToken(self.read[0], None, ())])
        after = self.read[start + 1 : start + 1 + len(log_probs_TV)]
        log_probs_TV = log_probs_TV[: len(after)].float().cpu()
        if after:
            own = log_probs_TV[torch.arange(len(after)), torch.tensor(after)].tolist()
            values, ids = log_probs_TV.topk(min(alternatives, log_probs_TV.shape[-1]))
            for token, logprob, top, value in zip(after, own, ids.tolist(), values.tolist(), strict=True):
                found.append(PromptToken(token, logprob, tuple(zip(top, value, strict=True))))
        self.scores = tuple(found)


def prepare(model: LanguageModel, tokenizer: Tokenizer, prompt: str | Sequence[int]) -> Prompt:
    """A prompt's tokens: a text's after the token that begins documents.

    Raises:
        Failure: the tokenizer is not the model's.
        UsageError: a token does not exist.
    """
    if tokenizer.vocabulary > model.vocabulary:
        raise Failure(
            "The model and the tokenizer do not belong together.",
            f"The tokenizer has {tokenizer.vocabulary} tokens, the model knows {model.vocabulary}.",
            "Take both from the same model folder.",
        )
    if isinstance(prompt, str):
        whole = [tokenizer.document_begin, *tokenizer.encode(prompt)]
    else:
        whole = [int(token) for token in prompt] or [tokenizer.document_begin]
    wrong = [token for token in whole if not 0 <= token < tokenizer.vocabulary]
    if wrong:
        raise UsageError(f"The prompt holds token {wrong[0]}.", f"Tokens go from 0 to {tokenizer.vocabulary - 1}.")
    dropped = max(0, len(whole) - model.context) if model.context else 0
    return Prompt(whole[dropped:], whole, dropped)


def as_list(prompts: Sequence[str] | Sequence[Sequence[int]]) -> list[str | Sequence[int]]:
    if isinstance(prompts, str):
        raise UsageError("The prompts are one text.", "A list of prompts is needed.", "Write [prompt].")
    return list(prompts)


def seed_of(config: SamplingConfig) -> int:
    """The seed of the settings, or a fresh one (short, so that a person can type it)."""
    return int(SeedSequence().generate_state(1)[0]) if config.seed is None else config.seed


def device_of(model: LanguageModel) -> torch.device:
    """Where the model computes."""
    parameter = next(model.parameters(), None) if isinstance(model, torch.nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device


@contextmanager
def inference(model: LanguageModel) -> Iterator[None]:
    """Without dropout; a model in training goes back to training afterwards."""
    training = isinstance(model, torch.nn.Module) and model.training
    if isinstance(model, torch.nn.Module) and training:
        model.eval()
    try:
        yield
    finally:
        if isinstance(model, torch.nn.Module) and training:
            model.train()
