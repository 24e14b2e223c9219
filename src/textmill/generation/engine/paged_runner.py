"""Transformers: all sequences in one compiled pass, their keys and values in pages that beginnings share. No files."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from textmill.generation.engine.runner import Line, NoRoomError, Reading
from textmill.generation.native.model import PAGE, NativeModel


@dataclass
class _Pages:
    """A line's pages."""

    table: list[int] = field(default_factory=list)
    """Page of the cache for each 32 positions; 0 for those that lie too far back to be seen, which were given back."""
    freed: int = 0
    """How many of them were."""
    keys: list[bytes] = field(default_factory=list)
    """Of each full page: a hash of all tokens up to its end, and the salt."""
    skipped: int = 0
    """Tokens read before the line began anew (models whose positions end)."""


class PagePool:
    """The pages of a cache: who uses them, and which full ones hold known beginnings.

    Args:
        pages: how many there are; page 0 is never given out.
    """

    def __init__(self, pages: int) -> None:
        self._free = list(range(pages - 1, 0, -1))
        self._users = [0] * pages
        self._known: dict[bytes, int] = {}
        self._key_of: dict[int, bytes] = {}
        self._unused: OrderedDict[int, None] = OrderedDict()  # known pages without users, the longest unused first
        self.pages = pages - 1

    @property
    def in_use(self) -> int:
        """Pages that lines use."""
        return self.pages - len(self._free) - len(self._unused)

    @property
    def available(self) -> int:
        """Pages that may be given out."""
        return len(self._free) + len(self._unused)

    def take(self) -> int:
        """A fresh page; a known one that nobody uses is forgotten if it must be.

        Raises:
            NoRoomError: all are in use.
        """
        if self._free:
            page = self._free.pop()
        elif self._unused:
            page, _ = self._unused.popitem(last=False)
            del self._known[self._key_of.pop(page)]
        else:
            raise NoRoomError
        self._users[page] = 1
        return page

    def find(self, key: bytes) -> int | None:
        """The page of this beginning, with one user more."""
        page = self._known.get(key)
        if page is not None:
            self.use(page)
        return page

    def use(self, page: int) -> None:
        """One user more."""
        self._users[page] += 1
        self._unused.pop(page, None)

    def single(self, pages: Sequence[int]) -> int:
        """How many of these pages have one user alone."""
        return sum(self._users[page] == 1 for page in pages)

    def know(self, key: bytes, page: int) -> None:
        """The page is full, and holds this beginning."""
        if key not in self._known and page not in self._key_of:
            self._known[key] = page
            self._key_of[page] = key

    def give_back(self, page: int) -> None:
        """One user less."""
        self._users[page] -= 1
        if self._users[page] == 0:
            if page in self._key_of:
                self._unused[page] = None
            else:
                self._free.append(page)


def chain(before: bytes, tokens: Sequence[int]) -> bytes:
    """The key of a page: what came before, and its tokens."""
    return hashlib.blake2b(np.asarray(tokens, np.int64).tobytes(), key=before, digest_size=16).digest()


class PagedRunner:
    """Reads a `NativeModel`.

    Args:
        native: the model.
        cache_bytes: memory for keys and values.
    """

    together = True

    def __init__(self, native: NativeModel, cache_bytes: int) -> None:
        self.native = native
        self.context = native.context or 0
        page_bytes = native.page_bytes
        least = -(-self.context // PAGE) + 2  # one sequence has to fit
        self.pool = PagePool(max(least, cache_bytes // page_bytes) + 1)
        self._page_bytes = page_bytes
        self._cache = native.new_cache(self.pool.pages + 1)
        self.cache_limit = self.pool.pages * page_bytes
        self.weights = native.about
        cache = "" if native.cache_type == "float32" else f", {native.cache_type} cache"
        self.name = f"all at once, compiled{cache}, {self.weights}"

    @property
    def cache_bytes(self) -> int:
        """Memory of the pages in use."""
        return self.pool.in_use * self._page_bytes

    def begin(self, prompt: Sequence[int], salt: str, share: bool) -> Line:
        """A line, with the known pages of the prompt's beginning."""
        line = Line(salt, share, state=_Pages())
        key = self._root(salt)
        while share and len(line.tokens) + PAGE < len(prompt):
            tokens = prompt[len(line.tokens) : len(line.tokens) + PAGE]
            key = chain(key, tokens)
            page = self.pool.find(key)
            if page is None:
                break
            line.state.table.append(page)
            line.state.keys.append(key)
            line.tokens += tokens
        return line

    @staticmethod
    def _root(salt: str) -> bytes:
        return hashlib.blake2b(salt.encode("utf-8", "surrogatepass"), digest_size=16).digest()

    def piece(self, line: Line, prompt: Sequence[int]) -> int:
        """As much as there is: pieces change nothing here."""
        return len(prompt) - len(line.tokens)

    def read(self, readings: Sequence[Reading]) -> list[Tensor]:
        """All sequences in one pass."""
        for reading in readings:
            self._begin_anew(reading)
        needed = sum(self._missing(reading) for reading in readings)
        if needed > self.pool.available:
            raise NoRoomError
        tokens: list[int] = []
        rows: list[int] = []
        positions: list[int] = []
        previous: list[int] = []
        wanted: list[int] = []
        counts: list[int] = []
        for row, reading in enumerate(readings):
            line, pages = reading.line, reading.line.state
            for _ in range(self._missing(reading)):
                pages.table.append(self.pool.take())
            at = len(line.tokens) - pages.skipped
            before = line.tokens[-1] if at else -1
            for place, token in enumerate(reading.tokens):
                tokens.append(token)
                rows.append(row)
                positions.append(at + place)
                previous.append(before)
                before = token
            last = len(tokens)
            chosen = (
                range(last - len(reading.tokens), last) if reading.every else range(last - (not reading.quiet), last)
            )
            wanted += chosen
            counts.append(len(chosen))
        longest = max(len(reading.line.state.table) for reading in readings)
        tables = np.zeros((len(readings), longest), np.int32)
        for row, reading in enumerate(readings):
            tables[row, : len(reading.line.state.table)] = reading.line.state.table
        log_probs = self.native.forward(self._cache, tokens, rows, positions, previous, tables, wanted, log_probs=True)
        for reading in readings:
            reading.line.tokens += reading.tokens
            self._settle(reading.line, reading.guessed)
        return list(torch.from_numpy(log_probs).split(counts))

    def _missing(self, reading: Reading) -> int:
        """Pages that the reading needs beyond those that its line has."""
        pages = reading.line.state
        end = len(reading.line.tokens) - pages.skipped + len(reading.tokens)
        return -(-end // PAGE) - len(pages.table)

    def _settle(self, line: Line, guessed: int) -> None:
        """Make full pages known, and give back those that no token can see any more; guesses do not count yet."""
        pages = line.state
        length = len(line.tokens) - pages.skipped - guessed
        while line.share and not pages.skipped and (len(pages.keys) + 1) * PAGE <= length:
            place = len(pages.keys)
            before = pages.keys[-1] if pages.keys else self._root(line.salt)
            pages.keys.append(chain(before, line.tokens[place * PAGE : (place + 1) * PAGE]))
            if place >= pages.freed:
                self.pool.know(pages.keys[-1], pages.table[place])
        while self.native.slides and (pages.freed + 1) * PAGE <= length + 1 - self.context:
            self.pool.give_back(pages.table[pages.freed])
            pages.table[pages.freed] = 0
            pages.freed += 1

    def _begin_anew(self, reading: Reading) -> None:
        """A model whose table of positions has ended goes on from the last half of its context (`Transformer.read`)."""
        line, pages = reading.line, reading.line.state
        if self.native.slides or len(line.tokens) - pages.skipped < self.context:
            return
        assert len(reading.tokens) == 1, "prompts are cut to the context"
        half = self.context // 2
        if self.pool.available + self.pool.single(pages.table[pages.freed :]) < -(-half // PAGE):
            raise NoRoomError
        for page in pages.table[pages.freed :]:
            self.pool.give_back(page)
        again = line.tokens[len(line.tokens) - half :]
        line.tokens = line.tokens[: len(line.tokens) - half]
        line.state = _Pages(skipped=len(line.tokens))
        self.read([Reading(line, again, quiet=True)])

    def fork(self, line: Line) -> Line:
        """A line that shares the full pages; the page being filled is copied."""
        pages = line.state
        copied = _Pages(list(pages.table), pages.freed, list(pages.keys), pages.skipped)
        length = len(line.tokens) - pages.skipped
        if length % PAGE:
            fresh = self.pool.take()
            self._cache.copy(copied.table[-1], fresh)
            copied.table[-1] = fresh
        for page in copied.table[copied.freed : len(copied.table) - bool(length % PAGE)]:
            self.pool.use(page)
        return Line(line.salt, line.share, list(line.tokens), copied)

    def unread(self, line: Line, count: int) -> None:
        """Forget the last tokens, and the pages that only they filled."""
        pages = line.state
        del line.tokens[len(line.tokens) - count :]
        length = len(line.tokens) - pages.skipped
        while len(pages.table) > -(-length // PAGE):
            self.pool.give_back(pages.table.pop())

    def drop(self, line: Line) -> None:
        """Give its pages back; known ones stay for others until their room is needed."""
        for page in line.state.table[line.state.freed :]:
            self.pool.give_back(page)
        line.state = _Pages()
