"""Where this machine's workers come from: a process that loads once what all of them need and is then copied (Python's
fork server). It can be started before anything else, and loads while the inputs are looked through. Starts a process.

Only on Linux; elsewhere workers start from nothing and load for themselves.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from textmill.base.settings import to_mapping

if TYPE_CHECKING:
    from textmill.corpus.config import CorpusConfig

SETTINGS = "TEXTMILL_FOUNDRY"
"""Environment variable in which the process finds the settings that its workers will have, JSON."""
LOADING = "textmill.corpus.loading"
"""The module that it imports, and that loads."""
COPIES = sys.platform == "linux"
"""Elsewhere a copied process may not use the system's libraries."""

_counting = threading.Lock()
_users = 0


@contextmanager
def undisturbed() -> Iterator[None]:
    """Processes started within it do not see Ctrl-C until they say that they are ready for signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start(config: CorpusConfig) -> None:
    """Start loading what the chunks of these settings need; does nothing where that goes on already."""
    if not COPIES:
        return
    from multiprocessing import forkserver

    forkserver.set_forkserver_preload([LOADING])
    os.environ[SETTINGS] = json.dumps(to_mapping(config))
    try:
        with undisturbed():
            forkserver.ensure_running()
    finally:
        del os.environ[SETTINGS]


@contextmanager
def in_use() -> Iterator[Any]:
    """How worker processes are to be made, for `concurrent.futures`. The loaded process stays as long as anyone is
    within, and `stop` does nothing: a pool that ends in its own thread must not take from the next one what it starts
    from.
    """
    global _users
    with _counting:
        _users += 1
    try:
        yield multiprocessing.get_context("forkserver" if COPIES else "spawn")
    finally:
        with _counting:
            _users -= 1


def stop() -> None:
    """End the loaded process when its workers have ended; it would keep its memory as long as this one lives."""
    with _counting:
        if _users or "multiprocessing.forkserver" not in sys.modules:
            return
        from multiprocessing import forkserver

        with suppress(AttributeError, OSError):  # Python has it for its own tests; without it the process stays
            forkserver._forkserver._stop()  # type: ignore[attr-defined]
