"""What is asked of the engine and what it tells: requests, events, tickets. Touches no model."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from textmill.base.errors import Failure
from textmill.generation.config import SamplingConfig
from textmill.generation.sampler import Alternatives, Matcher
from textmill.generation.sampling import Generation, PromptToken


class Busy(Failure):
    """Too many requests wait already; another one may be made later."""


@dataclass(frozen=True)
class Event:
    """One step of one sample. The texts of a sample's events, joined, are its whole text."""

    row: int
    """Which of the request's n samples."""
    text: str = ""
    """What may be shown now, maybe "" (half a character, or what may become a stop text)."""
    token: int | None = None
    """The token just written; None in events without one."""
    logprob: float | None = None
    """The token's, by the model's own probabilities, in nats."""
    top: Alternatives = ()
    """Alternatives to the token, if they were asked for."""
    prompt: tuple[PromptToken, ...] | None = None
    """The prompt's own tokens, in the first event of a sample, if `prompt_logprobs` asked for them."""
    generation: Generation | None = None
    """The finished sample, in its last event only."""


@dataclass(frozen=True)
class Request:
    """A prompt to go on with."""

    prompt: tuple[int, ...]
    config: SamplingConfig
    salt: str = ""
    """Prompts share cached states only within one salt, so that nobody can tell by the time what others have asked."""
    end_tokens: tuple[int, ...] = ()
    constraint: Matcher | None = None
    owner: str = ""
    """Owners take turns, however many requests each has."""
    seed: int = 0
    arrived: float = field(default_factory=time.monotonic)


class Ticket:
    """A request on its way: iterate over it (or `async for` over `events()`) for its events; `cancel` ends it.

    Args:
        request: what was asked.
        limit: unread events from which on the request is paused.
    """

    def __init__(self, request: Request, limit: int) -> None:
        self.request, self.limit = request, limit
        self.cancelled = False
        self.done = False
        self.open_rows = request.config.n
        """Samples that have not ended; the engine counts them down."""
        self._events: deque[Event] = deque()
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._wake: Callable[[], None] | None = None
        self._resumed: Callable[[], None] = lambda: None

    # ---- the engine's side -----------------------------------------------------------------------------------------

    def put(self, event: Event) -> None:
        """Add an event for the reader."""
        with self._changed:
            self._events.append(event)
            self._notify()

    def close(self, error: BaseException | None = None) -> None:
        """No event comes any more."""
        with self._changed:
            self.done, self._error = True, error
            self._notify()

    @property
    def full(self) -> bool:
        """Whether the reader is so far behind that writing has to pause."""
        return len(self._events) >= self.limit

    def _notify(self) -> None:
        self._changed.notify_all()
        if self._wake is not None:
            self._wake()

    # ---- the reader's side -----------------------------------------------------------------------------------------

    def cancel(self) -> None:
        """End the request as soon as may be; what was written so far comes as its last events."""
        self.cancelled = True
        self._resumed()

    def _taken(self) -> list[Event]:
        """All events that are there, for the reader alone; lets the engine go on if they were too many."""
        with self._changed:
            was_full = self.full
            found = list(self._events)
            self._events.clear()
        if was_full:
            self._resumed()
        return found

    def __iter__(self) -> Iterator[Event]:
        """Events as they come; blocks while there is none."""
        while True:
            with self._changed:
                while not self._events and not self.done:
                    self._changed.wait()
                done = self.done  # what is there now is then all
            yield from self._taken()
            if done:
                if self._error is not None:
                    raise self._error
                return

    async def events(self) -> AsyncIterator[Event]:
        """Events as they come, for an asyncio loop; leaving the loop early cancels the request."""
        arriving = arrivals([self])
        try:
            async for found in arriving:
                for _, event in found:
                    yield event
        finally:
            await arriving.aclose()

    def results(self) -> list[Generation]:
        """Wait for the end; the finished samples in their order."""
        found = {event.row: event.generation for event in self if event.generation is not None}
        return [found[row] for row in sorted(found)]


async def arrivals(tickets: Sequence[Ticket]) -> AsyncGenerator[list[tuple[int, Event]], None]:
    """Events of several requests, for an asyncio loop: each time all that have come since, with their request's place.

    Taken together because waking the loop costs more than an event does. Leaving early cancels what is not done; the
    error of a request is raised after what came before it.
    """
    loop, ready, woken = asyncio.get_running_loop(), asyncio.Event(), False

    def wake() -> None:
        nonlocal woken
        if woken:
            return
        woken = True
        try:
            loop.call_soon_threadsafe(ready.set)
        except RuntimeError:  # the loop has ended: nobody reads any more
            for ticket in tickets:
                ticket.cancelled = True

    for ticket in tickets:
        with ticket._changed:
            ticket._wake = wake
    left = dict(enumerate(tickets))
    try:
        while left:
            ready.clear()
            woken = False  # before looking: whoever comes after the look wakes again
            found: list[tuple[int, Event]] = []
            error: BaseException | None = None
            for place, ticket in list(left.items()):
                done = ticket.done  # before taking: what is there then is all
                found += [(place, event) for event in ticket._taken()]
                if done:
                    del left[place]
                    error = error or ticket._error
            if found:
                yield found
            if error is not None:
                raise error
            if not found and left:
                await ready.wait()
    finally:
        for ticket in tickets:
            ticket._wake = None
            if not ticket.done:
                ticket.cancel()


def make_request(
    prompt: Sequence[int],
    config: SamplingConfig,
    seed: int,
    *,
    salt: str = "",
    end_tokens: Collection[int] = (),
    constraint: Matcher | None = None,
    owner: str = "",
) -> Request:
    """A request whose parts cannot change any more."""
    return Request(tuple(prompt), config, salt, tuple(end_tokens), constraint, owner, seed)
