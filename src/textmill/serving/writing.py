"""Prompts to answers in OpenAI's shapes, whole or as a stream. Touches no files."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from textmill.base.errors import UsageError
from textmill.generation.config import SamplingConfig
from textmill.generation.constraints import compile_constraint
from textmill.generation.engine.request import Event, Ticket, arrivals
from textmill.generation.sampling import Generation, PromptToken
from textmill.serving.config import ServeConfig
from textmill.serving.errors import ApiError, from_exception
from textmill.serving.keys import Key
from textmill.serving.library import Served
from textmill.serving.parameters import ChatRequest, CompletionRequest, constraint_spec, sampling_config

REASONS = {"end": "stop", "stop": "stop", "length": "length", "cancelled": "length"}


@dataclass
class Work:
    """A request under way: its prompts' tickets, and what it has cost."""

    served: Served
    config: SamplingConfig
    chat: bool
    prompts: list[list[int]]
    texts: list[bool]
    """For each prompt, whether it came as text (its first token was then put there by us)."""
    tickets: list[Ticket]
    stream: bool
    include_usage: bool
    show_logprobs: bool
    show_ids: bool
    """Token ids beside tokens, as vLLM's `return_token_ids` asks for."""
    deadline: float
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))
    completion_tokens: int = 0
    answers: list[str] = field(default_factory=list)
    ended: str = ""

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts."""
        return sum(map(len, self.prompts))

    @property
    def usage(self) -> dict[str, int]:
        """OpenAI's usage object."""
        read, wrote = self.prompt_tokens, self.completion_tokens
        return {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote}

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        for ticket in self.tickets:
            if not ticket.done:
                ticket.cancel()


def prompts_of(asked: Any, served: Served, chat: bool) -> tuple[list[list[int]], list[bool]]:
    """Token ids of each prompt, and whether each came as text."""
    tokenizer = served.tokenizer
    if chat:
        if not asked.messages:
            raise ApiError(400, "messages is empty.", "messages")
        turns = [
            {"role": "system" if one.role == "developer" else one.role, "content": one.text} for one in asked.messages
        ]
        assert served.opened is not None, "only models that write are asked to"
        if served.opened.chat:
            return [tokenizer.chat(turns)], [True]
        text = "\n".join(turn["content"] for turn in turns)
        return [[tokenizer.document_begin, *encode(tokenizer, text)]], [True]
    prompt: Any = asked.prompt
    if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)):
        prompt = [prompt]
    if not prompt:
        raise ApiError(400, "prompt is empty.", "prompt")
    ids, texts = [], []
    for one in prompt:
        texts.append(isinstance(one, str))
        ids.append([tokenizer.document_begin, *encode(tokenizer, one)] if isinstance(one, str) else list(one))
        if not ids[-1]:
            raise ApiError(400, "A prompt holds no token.", "prompt")
    return ids, texts


def encode(tokenizer: Any, text: str) -> list[int]:
    """Tokens of a text; special tokens that it spells stay text, half surrogates become U+FFFD."""
    return list(tokenizer.encode(text.encode("utf-8", "replace").decode()))


async def begin(asked: CompletionRequest | ChatRequest, served: Served, key: Key, left: int | None, limits: ServeConfig) -> Work:  # fmt: skip  # noqa: E501
    """Check a request and hand it to the engine.

    Raises:
        ApiError: with the right status.
    """
    chat = isinstance(asked, ChatRequest)
    if served.engine is None or served.opened is None:
        raise ApiError(
            400, f"The model {served.name} is an encoder and writes nothing; ask it for /v1/embeddings.", "model"
        )
    config = sampling_config(asked, limits, chat)
    stream = bool(asked.stream)  # type: ignore[attr-defined]
    options = asked.stream_options  # type: ignore[attr-defined]
    if options is not None and not stream:
        raise ApiError(400, "stream_options needs stream: true.", "stream_options")
    prompts, texts = await asyncio.to_thread(prompts_of, asked, served, chat)
    if len(prompts) * config.n > limits.max_samples:
        raise ApiError(400, f"{len(prompts)} prompts of {config.n} samples are more than {limits.max_samples}.", "n")
    for ids in prompts:
        if served.context is not None and len(ids) > served.context:
            raise ApiError(
                400,
                f"The prompt has {len(ids)} tokens; this model reads {served.context} at most.",
                "messages" if chat else "prompt",
                "context_length_exceeded",
            )
        wrong = [token for token in ids if not 0 <= token < served.tokenizer.vocabulary]
        if wrong:
            raise ApiError(
                400, f"There is no token {wrong[0]}; ids end at {served.tokenizer.vocabulary - 1}.", "prompt"
            )
    needed = sum(map(len, prompts)) + len(prompts) * config.n * config.max_tokens
    if left is not None and needed > left:
        wait = 86400 - int(time.time()) % 86400
        raise ApiError(
            429,
            f"This request may take {needed} tokens; your key has {max(0, left)} left today (until midnight UTC).",
            code="tokens_per_day",
            headers={"Retry-After": str(wait)},
        )
    spec = constraint_spec(asked)
    ends = served.tokenizer.turn_ends if chat and served.opened.chat else []
    constraint = None
    if spec is not None:
        try:
            constraint = await asyncio.to_thread(
                compile_constraint, spec, served.tokenizer, served.opened.model.vocabulary, ends
            )
        except UsageError as error:
            raise ApiError(400, f"{error.what} {error.why}", "response_format", "constraint_refused") from None
    tickets: list[Ticket] = []
    try:
        for ids in prompts:
            tickets.append(
                served.engine.submit(
                    ids, config, salt=key.salt, end_tokens=ends, constraint=constraint, owner=str(key.id)
                )
            )
    except Exception:
        for ticket in tickets:
            ticket.cancel()
        raise
    return Work(
        served, config, chat, prompts, texts, tickets, stream,
        include_usage=bool(options and options.include_usage),
        show_logprobs=config.logprobs is not None,
        show_ids=bool(asked.return_token_ids),  # type: ignore[attr-defined]
        deadline=time.monotonic() + limits.max_seconds,
        id=("chatcmpl-" if chat else "cmpl-") + uuid.uuid4().hex,
    )  # fmt: skip


async def events(work: Work) -> AsyncIterator[list[tuple[int, Event]]]:
    """Events of all samples, each with its prompt's number: each time all that have come since."""
    timer = asyncio.get_running_loop().call_later(max(0.0, work.deadline - time.monotonic()), work.cancel)
    arriving = arrivals(work.tickets)
    try:
        async for found in arriving:
            for _, event in found:
                if event.generation is not None:
                    work.completion_tokens += len(event.generation.ids)
            yield found
    finally:
        timer.cancel()
        await arriving.aclose()


# ---- shapes --------------------------------------------------------------------------------------------------------


def token_text(tokenizer: Any, token: int) -> str:
    """A token's text; bytes that are no characters by themselves are spelt out."""
    piece: bytes = tokenizer.decode_bytes([token])
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def chat_logprob(
    tokenizer: Any, token: int, logprob: float | None, top: Sequence[tuple[int, float]], ids: bool
) -> dict[str, Any]:
    """One entry of a chat's `logprobs.content`; with `ids`, each token's id as well."""

    def one(token: int, logprob: float | None) -> dict[str, Any]:
        return {
            "token": token_text(tokenizer, token),
            "logprob": None if logprob is None else max(logprob, -9999.0),
            "bytes": list(tokenizer.decode_bytes([token])),
            **({"id": token} if ids else {}),
        }

    return {**one(token, logprob), "top_logprobs": [one(*pair) for pair in top]}


def completion_logprobs(
    tokenizer: Any,
    tokens: Sequence[tuple[int, float | None, Sequence[tuple[int, float]]]],
    offset: int,
    show: int,
    ids: bool,
) -> dict[str, Any]:
    """The `logprobs` of a completion; with `ids`, a chat's `content` beside them, which has every token's id."""
    offsets, found = [], []
    for token, _, _ in tokens:
        offsets.append(offset)
        text = token_text(tokenizer, token)
        found.append(text)
        offset += 0 if text.startswith("bytes:") else len(text)
    tops: list[dict[str, float] | None] = []
    for token, logprob, top in tokens:
        if logprob is None:
            tops.append(None)
            continue
        table = {token_text(tokenizer, other): max(value, -9999.0) for other, value in top}
        if show:
            table.setdefault(token_text(tokenizer, token), max(logprob, -9999.0))
        tops.append(table)
    values = [None if logprob is None else max(logprob, -9999.0) for _, logprob, _ in tokens]
    content = {"content": [chat_logprob(tokenizer, *one, ids) for one in tokens]} if ids else {}
    return {"tokens": found, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets, **content}


def _envelope(work: Work, chunk: bool) -> dict[str, Any]:
    kind = ("chat.completion.chunk" if chunk else "chat.completion") if work.chat else "text_completion"
    return {
        "id": work.id,
        "object": kind,
        "created": work.created,
        "model": work.served.name,
        "system_fingerprint": None,
    }


def _shown_prompt(work: Work, place: int, scores: Sequence[PromptToken]) -> list[Any]:
    """The prompt's tokens that the caller sent (not the one that we put before a text)."""
    return [(one.token, one.logprob, one.top) for one in (scores[1:] if work.texts[place] else scores)]


def _choice(work: Work, place: int, made: Generation) -> dict[str, Any]:
    """A finished sample."""
    tokenizer, config = work.served.tokenizer, work.config
    tops = made.top_logprobs or ((),) * len(made.ids)
    written = list(zip(made.ids, made.logprobs, tops, strict=True))
    choice: dict[str, Any] = {"index": place * config.n + made.row, "finish_reason": REASONS[made.finish_reason]}
    if work.chat:
        choice["message"] = {"role": "assistant", "content": made.text, "refusal": None}
        choice["logprobs"] = None
        if work.show_logprobs:
            choice["logprobs"] = {
                "content": [chat_logprob(tokenizer, *one, work.show_ids) for one in written],
                "refusal": None,
            }
    else:
        choice["text"] = made.text
        choice["logprobs"] = None
        if work.show_logprobs:
            before = _shown_prompt(work, place, made.prompt_logprobs or ()) if config.echo else []
            choice["logprobs"] = completion_logprobs(
                tokenizer, [*before, *written], 0, config.logprobs or 0, work.show_ids
            )
    if work.show_ids:
        choice["token_ids"] = list(made.ids)
        if not work.chat:
            choice["prompt_token_ids"] = work.prompts[place]
    if config.prompt_logprobs is not None and (work.chat or not config.echo):
        choice["prompt_logprobs"] = [
            None if one.logprob is None else {
                str(token): {"logprob": value, "decoded_token": token_text(tokenizer, token)}
                for token, value in ((one.token, one.logprob), *one.top)
            }
            for one in made.prompt_logprobs or ()
        ]  # fmt: skip
    return choice


async def whole(work: Work) -> dict[str, Any]:
    """The answer in one piece."""
    choices = []
    async for found in events(work):
        for place, event in found:
            if event.generation is not None:
                choices.append(_choice(work, place, event.generation))
                work.answers.append(event.generation.text)
    choices.sort(key=lambda choice: int(choice["index"]))
    work.ended = ",".join(choice["finish_reason"] for choice in choices)
    prompt = {"prompt_token_ids": work.prompts[0]} if work.chat and work.show_ids else {}
    return {**_envelope(work, False), "choices": choices, "usage": work.usage, **prompt}


async def pieces(work: Work) -> AsyncIterator[bytes]:
    """The answer as server-sent events, those that have come together in one piece; an error in the middle is one."""
    head = _envelope(work, True)
    extra: dict[str, Any] = {"usage": None} if work.include_usage else {}
    lengths: dict[int, int] = {}
    try:
        if work.chat:
            for index in range(len(work.tickets) * work.config.n):
                delta = {"role": "assistant", "content": ""}
                prompt = {"prompt_token_ids": work.prompts[0]} if work.show_ids and index == 0 else {}
                yield _sse({**head, "choices": [_piece(index, delta, None)], **prompt, **extra})
        async for found in events(work):
            shown = (_shown(work, place, event, lengths) for place, event in found)
            if joined := b"".join(_sse({**head, "choices": [choice], **extra}) for choice in shown if choice):
                yield joined
        if work.include_usage:
            yield _sse({**head, "choices": [], "usage": work.usage})
    except asyncio.CancelledError:
        work.ended = work.ended or "disconnected"
        raise
    except Exception as error:
        work.ended = "error"
        yield _sse(from_exception(error).body)
    yield b"data: [DONE]\n\n"


def _shown(work: Work, place: int, event: Event, lengths: dict[int, int]) -> dict[str, Any] | None:
    """What a stream says of an event; None if that is nothing. `lengths` counts each sample's letters."""
    tokenizer, config = work.served.tokenizer, work.config
    index = place * config.n + event.row
    choice: dict[str, Any]
    reason = None if event.generation is None else REASONS[event.generation.finish_reason]
    if event.generation is not None:
        work.answers.append(event.generation.text)
        work.ended = reason or ""
    if work.chat:
        choice = _piece(index, {"content": event.text} if event.text or reason is None else {}, reason)
        if work.show_logprobs and event.token is not None:
            entry = chat_logprob(tokenizer, event.token, event.logprob, event.top, work.show_ids)
            choice["logprobs"] = {"content": [entry], "refusal": None}
    else:
        choice = {"index": index, "text": event.text, "logprobs": None, "finish_reason": reason}
        if work.show_logprobs:
            shown: list[Any] = []
            if event.prompt is not None and config.echo:
                shown = _shown_prompt(work, place, event.prompt)
            elif event.token is not None:
                shown = [(event.token, event.logprob, event.top)]
            if shown:
                at = lengths.get(index, 0)
                choice["logprobs"] = completion_logprobs(tokenizer, shown, at, config.logprobs or 0, work.show_ids)
    if work.show_ids:
        choice["token_ids"] = [] if event.token is None else [event.token]
        if not work.chat and index not in lengths:
            choice["prompt_token_ids"] = work.prompts[place]
    lengths[index] = lengths.get(index, 0) + len(event.text)
    if event.text or reason is not None or choice.get("logprobs") or work.show_ids:
        return choice
    return None


def _piece(index: int, delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}


_to_json = json.JSONEncoder(ensure_ascii=False).encode


def _sse(data: dict[str, Any]) -> bytes:
    return f"data: {_to_json(data)}\n\n".encode("utf-8", "replace")
