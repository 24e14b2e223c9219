"""Prompts to text, on the `LanguageModel` protocol alone: the prompt once, then token by token. No files."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

# Imported here, at the start: during this first import numpy loses a Ctrl-C or SIGTERM that arrives.
from numpy.random import SeedSequence, default_rng
from torch import Tensor

from textmill.base.errors import Failure, UsageError
from textmill.generation.config import SamplingConfig
from textmill.generation.processors import process
from textmill.generation.text import TextStream
from textmill.models.protocol import LanguageModel
from textmill.tokens.tokenizer import Tokenizer

FinishReason = Literal["end", "stop", "length"]

ROWS_AT_ONCE = 64
"""Samples made side by side; more are made in turns, so that memory does not grow with n."""
READ_ELEMENTS = 1 << 24
"""Log-probabilities that reading a prompt may hold at once (64 MB): a long prompt is read in pieces."""


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
    """"end": the model ended the document; "stop": a stop text came; "length": max_tokens were written."""
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


@dataclass(frozen=True)
class StreamEvent:
    """One step of a stream. The texts of all events, joined, are the text of the last one's `generation`."""

    text: str
    """What may be shown now, maybe "" (half a character, or what may become a stop text)."""
    token: int | None
    """The token just drawn; None in the last event."""
    generation: Generation | None = None
    """The finished sample, in the last event only."""


def generate(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[str] | Sequence[Sequence[int]],
    config: SamplingConfig | None = None,
    *,
    end_tokens: Collection[int] = (),
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

    Returns:
        The samples, n for each prompt, prompt by prompt.
    """
    config = config or SamplingConfig()
    ready = [_prepare(model, tokenizer, prompt) for prompt in _as_list(prompts)]
    seed = _seed(config)
    # Rows read together have to be of one length: the protocol knows no padding.
    waiting: dict[int, list[tuple[int, int]]] = {}
    for index, (read, _, _) in enumerate(ready):
        waiting.setdefault(len(read), []).extend((index, row) for row in range(config.n))
    results: dict[tuple[int, int], Generation] = {}
    with _inference(model):
        for keys in waiting.values():
            for start in range(0, len(keys), ROWS_AT_ONCE):
                part = keys[start : start + ROWS_AT_ONCE]
                rows = [_Row(tokenizer, config, *ready[index], seed, row) for index, row in part]
                for place, event in _steps(model, tokenizer, rows, config, end_tokens):
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
) -> Iterator[StreamEvent]:
    """Write one sample and give its text as it comes; the same text as `generate` gives.

    Args:
        model, tokenizer, end_tokens: as for `generate`.
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
    row = _Row(tokenizer, config, *_prepare(model, tokenizer, prompt), _seed(config), 0)
    return _stream(model, tokenizer, row, config, end_tokens)


def _stream(
    model: LanguageModel,
    tokenizer: Tokenizer,
    row: _Row,
    config: SamplingConfig,
    end_tokens: Collection[int],
) -> Iterator[StreamEvent]:
    with _inference(model):
        for _, event in _steps(model, tokenizer, [row], config, end_tokens):
            yield event


class _Row:
    """One sample in the making: its text, its tokens, its own random numbers."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: SamplingConfig,
        read: list[int],
        whole: list[int],
        dropped: int,
        seed: int,
        row: int,
    ) -> None:
        self.read, self.whole, self.dropped = read, whole, dropped
        self.seed, self.row = seed, row
        self.random = default_rng([seed, row])
        self.text = TextStream(config.stop)
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.finished = False
        self._tokenizer, self._began = tokenizer, time.monotonic()

    def noise(self, size: int) -> np.ndarray:
        """Gumbel noise, float32 [size]: the argmax of scores + noise is a draw from their softmax."""
        return self.random.gumbel(size=size).astype(np.float32)

    def take(self, token: int, logprob: float) -> str:
        """Add a token; return the text that may be shown."""
        self.ids.append(token)
        self.logprobs.append(logprob)
        return self.text.add(self._tokenizer.decode_bytes([token]))

    def finish(self, reason: FinishReason) -> StreamEvent:
        """The last event."""
        self.finished = True
        rest = self.text.close()
        seconds = time.monotonic() - self._began
        return StreamEvent(
            rest,
            None,
            Generation(
                text=self.text.text,
                ids=tuple(self.ids),
                logprobs=tuple(self.logprobs),
                finish_reason=reason,
                seconds=seconds,
                tokens_per_second=len(self.ids) / max(seconds, 1e-9),
                prompt_tokens=len(self.read),
                prompt_dropped=self.dropped,
                seed=self.seed,
                row=self.row,
            ),
        )


def _steps(
    model: LanguageModel,
    tokenizer: Tokenizer,
    rows: list[_Row],
    config: SamplingConfig,
    end_tokens: Collection[int],
) -> Iterator[tuple[int, StreamEvent]]:
    """Events of all rows (prompts of one length) step by step, each with its row's place."""
    device = _device(model)
    ends = {*tokenizer.ends, *end_tokens}
    forbidden_V = _forbidden(model, tokenizer, ends).to(device)
    seen_BV = _seen(model, tokenizer, rows).to(device) if config.repetition_penalty != 1 else None
    log_probs_BV, state = _read_prompt(model, torch.tensor([row.read for row in rows], device=device))
    for step in range(config.max_tokens):
        scores_BV = process(log_probs_BV, config, forbidden_V, seen_BV)
        if config.temperature > 0:
            noise_BV = np.stack([row.noise(model.vocabulary) for row in rows])
            scores_BV = scores_BV + torch.from_numpy(noise_BV).to(device)
        best_B, choice_B = scores_BV.max(-1)
        logprob_B = log_probs_BV.gather(-1, choice_B[:, None])[:, 0]
        drawn = zip(choice_B.tolist(), best_B.tolist(), logprob_B.tolist(), strict=True)
        for place, (row, (token, score, logprob)) in enumerate(zip(rows, drawn, strict=True)):
            if row.finished:
                continue
            if not math.isfinite(score):
                raise Failure(
                    "The model cannot say what comes next.",
                    "Its probabilities are not numbers: its weights are damaged, or its training diverged.",
                    "Train it again, or take an earlier checkpoint.",
                )
            if token in ends:
                yield place, row.finish("end")
                continue
            shown = row.take(token, logprob)
            yield place, StreamEvent(shown, token)
            if row.text.stopped:
                yield place, row.finish("stop")
            elif step + 1 == config.max_tokens:
                yield place, row.finish("length")
        if all(row.finished for row in rows):
            return
        if seen_BV is not None:
            seen_BV[torch.arange(len(rows), device=device), choice_B] = True
        log_probs_BTV, state = _read(model, choice_B[:, None], state)
        log_probs_BV = log_probs_BTV[:, -1]


def _read(model: LanguageModel, tokens_BT: Tensor, state: object) -> tuple[Tensor, object]:
    # The block is closed before anything is yielded: left open, it would switch gradients off for the caller.
    with torch.no_grad():
        return model.read(tokens_BT, state)


def _read_prompt(model: LanguageModel, tokens_BT: Tensor) -> tuple[Tensor, object]:
    """Read whole prompts; log-probabilities [B, V] after their last token, and the state."""
    rows, length = tokens_BT.shape
    size = max(16, READ_ELEMENTS // (rows * model.vocabulary))
    state: object = model.start(rows)
    for start in range(0, length, size):
        log_probs_BTV, state = _read(model, tokens_BT[:, start : start + size], state)
    return log_probs_BTV[:, -1], state


def _forbidden(model: LanguageModel, tokenizer: Tokenizer, ends: Collection[int]) -> Tensor:
    """Tokens never drawn, bool [V]: special ones but for the ends, and ids beyond the tokenizer's."""
    forbidden = torch.zeros(model.vocabulary, dtype=torch.bool)
    forbidden[tokenizer.vocabulary :] = True
    forbidden[list(tokenizer.special.values())] = True
    forbidden[list(ends)] = False
    return forbidden


def _seen(model: LanguageModel, tokenizer: Tokenizer, rows: list[_Row]) -> Tensor:
    """Tokens of the prompts, bool [B, V]. Special tokens do not count: an end is no repetition."""
    seen = torch.zeros(len(rows), model.vocabulary, dtype=torch.bool)
    special = set(tokenizer.special.values())
    for place, row in enumerate(rows):
        seen[place, [token for token in row.whole if token not in special]] = True
    return seen


def _prepare(
    model: LanguageModel, tokenizer: Tokenizer, prompt: str | Sequence[int]
) -> tuple[list[int], list[int], int]:
    """The tokens to read (at most the model's context), the whole prompt, and how many were left out."""
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
    return whole[dropped:], whole, dropped


def _as_list(prompts: Sequence[str] | Sequence[Sequence[int]]) -> list[str | Sequence[int]]:
    if isinstance(prompts, str):
        raise UsageError("The prompts are one text.", "A list of prompts is needed.", "Write [prompt].")
    return list(prompts)


def _seed(config: SamplingConfig) -> int:
    """The seed of the settings, or a fresh one (short, so that a person can type it)."""
    return int(SeedSequence().generate_state(1)[0]) if config.seed is None else config.seed


def _device(model: LanguageModel) -> torch.device:
    parameter = next(model.parameters(), None) if isinstance(model, torch.nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device


@contextmanager
def _inference(model: LanguageModel) -> Iterator[None]:
    """Without dropout; a model in training goes back to training afterwards."""
    training = isinstance(model, torch.nn.Module) and model.training
    if isinstance(model, torch.nn.Module) and training:
        model.eval()
    try:
        yield
    finally:
        if isinstance(model, torch.nn.Module) and training:
            model.train()
