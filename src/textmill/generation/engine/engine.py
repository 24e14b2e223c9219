"""The engine: one thread that reads prompts and writes samples for all requests together. No files.

What comes out is the same to the last bit whether a request is alone or among others, whether its prompt was read at
once, in parts, or partly before, whether it was put off in between or not: see the two runners.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import torch

from textmill.base.errors import Failure, Interrupted, UsageError
from textmill.generation.config import SamplingConfig
from textmill.generation.engine.config import EngineConfig
from textmill.generation.engine.drafts import Drafts, ModelDraft, PromptLookup
from textmill.generation.engine.paged_runner import PagedRunner
from textmill.generation.engine.request import Busy, Event, Ticket, make_request
from textmill.generation.engine.runner import Line, NoRoomError, Reading, Runner
from textmill.generation.engine.state_runner import StateRunner
from textmill.generation.engine.stats import EngineStats, Observer
from textmill.generation.native import NativeModel, best_weights, why_not
from textmill.generation.sampler import Choice, Matcher, Sampler, choose
from textmill.generation.sampling import FinishReason, Prompt, Written, forked, prepare, seed_of
from textmill.models.protocol import LanguageModel
from textmill.tokens.tokenizer import Tokenizer


class _Sample:
    """One of a request's n samples."""

    def __init__(self, ticket: Ticket, prompt: Prompt, row: int, sampler: Sampler, tokenizer: Tokenizer) -> None:
        self.ticket, self.prompt, self.row, self.sampler = ticket, prompt, row, sampler
        self.written = Written(tokenizer, ticket.request.config, sampler)
        self.text = list(prompt.read)
        """Prompt and tokens written: what has to be read before the next token can be chosen."""
        self.line: Line | None = None
        self.log_probs: torch.Tensor | None = None
        """After all of the text, [1, V]; None while some of it has not been read."""
        self.began = self.last = ticket.request.arrived
        self.reading_since = time.monotonic()
        self.opened = False
        self.draft: Drafts | None = None


class Engine:
    """Serves many requests with one model.

    Args:
        model: any family that writes; nobody else may use it meanwhile.
        tokenizer: the one that it was trained with.
        config: how many requests, how much memory.
        observe: told of durations, for metrics.
        draft: a quicker model over the same tokens that guesses ahead, used by nobody else.
        base: the engine of a model that this one shares layers with, whose packed matrices it then uses too.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        config: EngineConfig | None = None,
        observe: Observer | None = None,
        draft: LanguageModel | None = None,
        base: Engine | None = None,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.config = config or EngineConfig()
        self._observe = observe or (lambda _name, _seconds: None)
        if isinstance(model, torch.nn.Module):
            model.eval()
        self._runner: Runner = make_runner(model, self.config, None if base is None else base._runner)
        self._draft_runner: Runner | None = None
        if draft is not None:
            self._draft_runner = _draft_runner(draft, model, self._runner, self.config)
        self._waiting: OrderedDict[str, deque[Ticket]] = OrderedDict()
        self._samples: list[_Sample] = []  # in the order in which they were begun
        self._stats = EngineStats(runner=self._runner.name, cache_limit=self._runner.cache_limit)
        self._changed = threading.Condition()
        self._closing = self._draining = False
        self._thread = threading.Thread(target=self._run, name="textmill-engine", daemon=True)
        self._thread.start()

    # ---- from other threads ----------------------------------------------------------------------------------------

    def submit(
        self,
        prompt: str | Sequence[int],
        config: SamplingConfig,
        *,
        salt: str = "",
        end_tokens: Collection[int] = (),
        constraint: Matcher | None = None,
        owner: str = "",
    ) -> Ticket:
        """Ask for `config.n` samples after a prompt.

        Args:
            prompt: a text, read after the token that begins documents; or token ids, read as they are.
            config: the settings.
            salt: cached states are shared only within one salt.
            end_tokens: special tokens that end a sample like the document end does.
            constraint: what every sample has to follow.
            owner: who asks; owners take turns.

        Raises:
            Busy: too many requests wait.
            UsageError: the prompt or a setting names a token that does not exist.
            Failure: the engine is closed.
        """
        ready = prepare(self.model, self.tokenizer, prompt)
        Sampler(config, self.tokenizer, self.model.vocabulary, ready.whole[-1:])  # refuses wrong settings at once
        request = make_request(ready.whole, config, seed_of(config), salt=salt, end_tokens=end_tokens,
                               constraint=constraint, owner=owner)  # fmt: skip
        ticket = Ticket(request, self.config.buffer_events)
        with self._changed:
            if self._closing:
                raise Failure("The engine is closed.", "It was told to end.", "Start it again.")
            if sum(map(len, self._waiting.values())) >= self.config.max_waiting and self.config.max_waiting:
                raise Busy("Too many requests wait already.", f"{self.config.max_waiting} are the most.", "Try later.")
            ticket._resumed = self._wake
            self._waiting.setdefault(owner, deque()).append(ticket)
            self._changed.notify_all()
        return ticket

    def stats(self) -> EngineStats:
        """The counts of this moment."""
        with self._changed:
            waiting = sum(map(len, self._waiting.values()))
            return replace(
                self._stats,
                waiting=waiting,
                running=len(self._samples),
                cache_bytes=self._runner.cache_bytes,
                finished=self._stats.finished.copy(),
            )

    @property
    def weights(self) -> str:
        """What the model's matrices are made of, for people; "" if they are as they were loaded."""
        return self._runner.weights

    @property
    def alive(self) -> bool:
        """Whether requests are worked on."""
        return self._thread.is_alive()

    def close(self, *, drain: bool = True, timeout: float | None = None) -> None:
        """End the engine.

        Args:
            drain: finish what was asked; otherwise every sample ends where it is, as "cancelled".
            timeout: seconds to drain at most; what is left then is cancelled.
        """
        with self._changed:
            self._closing, self._draining = True, drain
            self._changed.notify_all()
        self._thread.join(timeout if drain else None)
        if self._thread.is_alive():
            with self._changed:
                self._draining = False
                self._changed.notify_all()
            self._thread.join()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    # ---- the engine's own thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        with torch.inference_mode():
            while True:
                with self._changed:
                    while not self._has_work():
                        if self._closing:
                            return
                        self._changed.wait(1.0)
                    if self._closing and not self._draining:
                        break
                    admitted = self._admit()
                for ticket in admitted:
                    self._guarded(ticket, self._begin, ticket)
                self._step()
        self._cancel_all()

    def _has_work(self) -> bool:
        if any(self._waiting.values()):
            return True
        return any(not sample.ticket.full or sample.ticket.cancelled for sample in self._samples)

    def _admit(self) -> list[Ticket]:
        """Requests to begin now, owner by owner in turn."""
        found: list[Ticket] = []
        room = self.config.max_running - len(self._samples)
        while self._waiting and room > 0:
            owner, queue = next(iter(self._waiting.items()))
            ticket = queue[0]
            n = ticket.request.config.n
            if n > room and (found or self._samples):
                break  # it begins when there is room for all of its samples
            queue.popleft()
            self._waiting.move_to_end(owner)
            if not queue:
                del self._waiting[owner]
            if ticket.cancelled:
                ticket.close(Interrupted("The request was cancelled."))
                continue
            room -= n
            found.append(ticket)
        return found

    def _guarded(self, ticket: Ticket, work: Callable[..., Any], *arguments: Any) -> Any:
        """Do something for one request; a fault in it ends that request alone. None if it failed."""
        try:
            return work(*arguments)
        except Exception as error:
            for sample in [one for one in self._samples if one.ticket is ticket]:
                self._remove(sample)
            ticket.close(error)
            with self._changed:
                self._stats.finished["error"] += 1
            return None

    def _begin(self, ticket: Ticket) -> None:
        request, tokenizer = ticket.request, self.tokenizer
        self._observe("queue", time.monotonic() - request.arrived)
        prompt = prepare(self.model, tokenizer, request.prompt)
        for row in range(request.config.n):
            sampler = Sampler(
                request.config,
                tokenizer,
                self.model.vocabulary,
                prompt.whole,
                end_tokens=request.end_tokens,
                seed=request.seed,
                row=row,
                constraint=forked(request.constraint),
            )
            self._samples.append(_Sample(ticket, prompt, row, sampler, tokenizer))
            if self.config.draft_tokens and self._runner.together:
                most, quick = self.config.draft_tokens, self._draft_runner
                models = [] if quick is None else [ModelDraft(most, quick)]
                self._samples[-1].draft = Drafts(PromptLookup(most), *models)
        with self._changed:
            self._stats.prompt_tokens += len(prompt.read)

    # ---- one step: a token for every sample whose text is read, and some more of the texts that are not ------------

    def _step(self) -> None:
        for sample in [one for one in self._samples if one.ticket.cancelled]:
            self._end(sample, "cancelled")
        ready = [one for one in self._samples if one.log_probs is not None and not one.ticket.full]
        for sample, choice in zip(ready, self._choices(ready), strict=True):
            if choice is not None and not sample.ticket.done:
                self._guarded(sample.ticket, self._take, sample, choice)
        self._read(self._readings())

    def _choices(self, ready: list[_Sample]) -> list[Choice | None]:
        """The next token of each; of those for which none can be chosen, None, and their requests end."""
        if not ready:
            return []
        try:
            rows = [one.log_probs[0] for one in ready if one.log_probs is not None]
            return list(choose([one.sampler for one in ready], rows))
        except Exception:  # one of them is at fault: find out which
            return [self._guarded(one.ticket, lambda one=one: choose([one.sampler], one.log_probs)[0]) for one in ready]

    def _take(self, sample: _Sample, choice: Choice) -> None:
        now = time.monotonic()
        first = not sample.written.ids
        self._observe("time_to_first_token" if first else "inter_token", now - (sample.began if first else sample.last))
        sample.last, sample.log_probs = now, None
        shown, reason = sample.written.take(choice)
        if reason == "end" or (reason == "stop" and choice.token in sample.sampler.stops):
            self._end(sample, reason)
            return
        with self._changed:
            self._stats.generation_tokens += 1
        sample.ticket.put(Event(sample.row, shown, choice.token, choice.logprob, choice.top))
        sample.text.append(choice.token)
        if reason is not None:
            self._end(sample, reason)

    def _readings(self) -> list[tuple[_Sample, Reading]]:
        """What to read in this step: all tokens just written, and pieces of texts as far as the step goes."""
        found: list[tuple[_Sample, Reading]] = []
        left = self.config.prefill_tokens
        for sample in list(self._samples):
            if sample.log_probs is not None:
                continue
            if sample.line is None and not self._guarded(sample.ticket, self._open, sample):
                continue
            assert sample.line is not None
            missing = len(sample.text) - len(sample.line.tokens)
            if missing > 1 and left <= 0:
                continue
            size = min(missing, self._runner.piece(sample.line, sample.text))
            if missing > 1 and isinstance(self._runner, PagedRunner):
                size = min(size, left)
            left -= size if missing > 1 else 0
            tokens = sample.text[len(sample.line.tokens) : len(sample.line.tokens) + size]
            scored = sample.ticket.request.config.prompt_logprobs is not None and not sample.opened
            guessed = self._guess(sample) if size == missing and sample.opened else []
            reading = Reading(
                sample.line,
                tokens + guessed,
                every=scored or bool(guessed),
                quiet=size < missing and not scored,
                guessed=len(guessed),
            )
            found.append((sample, reading))
        # A different text comes first in the next step, so that long ones share the reading.
        unread = [one for one, reading in found if reading.quiet]
        if unread:
            self._samples.sort(key=lambda one: one in unread)
        return found

    def _guess(self, sample: _Sample) -> list[int]:
        """Tokens that may come next, to be read with those that have."""
        if sample.draft is None:
            return []
        room = sample.ticket.request.config.max_tokens - len(sample.written.ids) - 1
        if self._runner.context:
            room = min(room, self._runner.context - len(sample.text) - 1)  # beyond it the window moves
        return sample.draft.guess(sample.text)[: max(0, room)]

    def _open(self, sample: _Sample) -> bool:
        """Give the sample a line, unless it waits for its request's first sample to read the prompt for all."""
        first = min((one for one in self._samples if one.ticket is sample.ticket), key=lambda one: one.row)
        if sample is not first and not sample.opened and not first.opened:
            return False
        config = sample.ticket.request.config
        share = self.config.prefix_sharing and (config.prompt_logprobs is None or sample.opened)
        sample.line = self._runner.begin(sample.text, sample.ticket.request.salt, share)
        if not sample.opened and share:
            with self._changed:
                self._stats.prefix_queries += len(sample.text)
                self._stats.prefix_hits += len(sample.line.tokens)
        return True

    def _read(self, wanted: list[tuple[_Sample, Reading]]) -> None:
        if not self._runner.together:
            for sample, reading in wanted:
                self._guarded(sample.ticket, self._read_one, sample, reading)
            return
        while wanted:
            try:
                found = self._runner.read([reading for _, reading in wanted])
            except NoRoomError:
                wanted = self._make_room(wanted)
                continue
            for (sample, reading), log_probs in zip(wanted, found, strict=True):
                self._guarded(sample.ticket, self._was_read, sample, reading, log_probs)
            return

    def _read_one(self, sample: _Sample, reading: Reading) -> None:
        if sample in self._samples:  # its request may have failed by another of its samples
            self._was_read(sample, reading, self._runner.read([reading])[0])

    def _make_room(self, wanted: list[tuple[_Sample, Reading]]) -> list[tuple[_Sample, Reading]]:
        """Give up guesses, or put off the youngest sample: its text will be read anew. What is left to read."""
        if any(reading.guessed for _, reading in wanted):
            return [
                (sample, replace(reading, tokens=reading.tokens[: -reading.guessed], every=False, guessed=0))
                if reading.guessed
                else (sample, reading)
                for sample, reading in wanted
            ]
        holding = [one for one in self._samples if one.line is not None and one.line.tokens]
        victim = max(holding, key=lambda one: one.ticket.request.arrived, default=wanted[-1][0])
        if len(wanted) == 1 and all(one is victim for one in holding):
            error = Failure(
                "There is no memory for so long a text.",
                "One sequence alone fills the cache.",
                "Start the server with a larger --engine.cache-bytes.",
            )
            ticket = victim.ticket
            self._guarded(ticket, _raise, error)
            return []
        assert victim.line is not None or victim is wanted[-1][0], "somebody holds the room"
        if victim.line is not None:
            self._runner.drop(victim.line)
        victim.line, victim.log_probs = None, None
        with self._changed:
            self._stats.preemptions += 1
        return [one for one in wanted if one[0] is not victim]

    def _was_read(self, sample: _Sample, reading: Reading, log_probs: torch.Tensor) -> None:
        assert sample.line is not None
        if reading.guessed:
            self._check_guesses(sample, reading, log_probs)
            return
        if reading.every:
            wanted = sample.ticket.request.config.prompt_logprobs
            sample.prompt.score(log_probs, len(sample.line.tokens) - len(reading.tokens), wanted or 0)
        if len(sample.line.tokens) < len(sample.text):
            return
        sample.log_probs = log_probs[-1:]
        if sample.opened:
            return
        self._observe("prefill", time.monotonic() - sample.reading_since)
        self._first_event(sample)
        for other in [
            one for one in self._samples if one.ticket is sample.ticket and one is not sample and not one.opened
        ]:
            self._first_event(other)
            try:
                other.line = self._runner.fork(sample.line)
                other.log_probs = sample.log_probs
            except NoRoomError:
                other.line = None  # it reads the prompt itself when there is room

    def _check_guesses(self, sample: _Sample, reading: Reading, log_probs: torch.Tensor) -> None:
        """Write on as long as the guesses are what would have been chosen; unread the others."""
        assert sample.line is not None
        assert sample.draft is not None
        line, count = sample.line, reading.guessed
        after = log_probs[len(reading.tokens) - count - 1 :]  # the token before each guess, and the last guess
        right = 0
        while right < count:
            sample.log_probs = after[right : right + 1]
            (choice,) = choose([sample.sampler], sample.log_probs)
            self._take(sample, choice)
            if sample not in self._samples:
                break  # it has ended
            if sample.text[-1] != reading.tokens[len(reading.tokens) - count + right]:
                break
            right += 1
        sample.draft.checked(count, right)
        with self._changed:
            self._stats.guessed += count
            self._stats.guessed_right += right
        if sample not in self._samples:
            return
        if right == count:
            sample.log_probs = after[count : count + 1]
        else:
            self._runner.unread(line, count - right)
            sample.log_probs = None

    def _first_event(self, sample: _Sample) -> None:
        sample.opened = True
        config = sample.ticket.request.config
        if config.echo or config.prompt_logprobs is not None:
            text = self.tokenizer.decode(sample.prompt.whole) if config.echo else ""
            sample.ticket.put(Event(sample.row, text, prompt=sample.prompt.scores))

    # ---- endings ---------------------------------------------------------------------------------------------------

    def _remove(self, sample: _Sample) -> None:
        self._samples.remove(sample)
        if sample.draft is not None:
            sample.draft.close()
        if sample.line is not None:
            self._runner.drop(sample.line)
            sample.line = None

    def _end(self, sample: _Sample, reason: FinishReason) -> None:
        self._remove(sample)
        seconds = time.monotonic() - sample.began
        rest = sample.written.text.close()
        made = sample.written.generation(reason, sample.prompt, sample.ticket.request.seed, sample.row, seconds)
        self._observe("e2e", seconds)
        with self._changed:
            self._stats.finished[reason] += 1
        sample.ticket.put(Event(sample.row, rest, generation=made))
        sample.ticket.open_rows -= 1
        if not sample.ticket.open_rows:
            sample.ticket.close()

    def _cancel_all(self) -> None:
        for sample in list(self._samples):
            self._end(sample, "cancelled")
        with self._changed:
            waiting = [ticket for queue in self._waiting.values() for ticket in queue]
            self._waiting.clear()
        for ticket in waiting:
            ticket.close(Interrupted("The engine was closed."))


def _raise(error: Exception) -> None:
    raise error


def _draft_runner(draft: LanguageModel, model: LanguageModel, runner: Runner, config: EngineConfig) -> Runner:
    """What reads for the model that guesses.

    Raises:
        UsageError: guesses of this model would not help.
    """
    if draft.vocabulary != model.vocabulary:
        raise UsageError(
            f"The draft model knows {draft.vocabulary} tokens, the model {model.vocabulary}.",
            "It has to be trained with the same tokenizer.",
            "Train one so: textmill build TEXTS --family ngram --tokenizer.tokenizer RUN/model --out runs/draft",
        )
    if not runner.together or not config.draft_tokens:
        reason = "draft_tokens is 0" if runner.together else "only the compiled pass of a Transformer checks guesses"
        raise UsageError("A draft model would have no effect.", f"Here {reason}.", "Leave it out.")
    if isinstance(draft, torch.nn.Module):
        draft.eval()
    return make_runner(draft, replace(config, weights="auto"))


def make_runner(model: LanguageModel, config: EngineConfig, base: Runner | None = None) -> Runner:
    """The faster way to read this model, with what is packed already for `base`."""
    if config.compiled and not why_not(model):
        weights = best_weights(model, config.weights)
        native = NativeModel(
            model,  # type: ignore[arg-type]
            weights,
            threads=config.threads or None,
            cache=config.cache,
            shares=base.native if isinstance(base, PagedRunner) else None,
        )
        return PagedRunner(native, config.cache_bytes)
    if config.cache != "float32":
        reason = why_not(model) or "--engine.no-compiled was given"
        raise UsageError(
            f"This model cannot be served with a cache in {config.cache}.",
            f"Only the compiled pass has one, and {reason}.",
            "Leave --engine.cache out.",
        )
    if config.weights not in ("auto", "float32"):
        reason = why_not(model) or "--engine.no-compiled was given"
        raise UsageError(
            f"This model cannot be served with {config.weights} weights.",
            f"Only the compiled pass has them, and {reason}.",
            "Leave --engine.weights out.",
        )
    return StateRunner(model, config.cache_bytes)
