"""The `textmill` command: one file a command, no logic of its own beyond calling the stages in order."""

import atexit
import os
import sys
import threading
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line in `sys.argv`; exit code 0 done, 1 failed, 2 misused, 130 stopped."""
    try:
        from textmill.cli.app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # pressed before the command had even begun
        code = 130
    _leave(code)


def _leave(code: int) -> NoReturn:
    """End the process as Python does, but without taking its libraries apart, which takes numba and Arrow a third of
    a second."""
    # Python's own order: pools of threads are told to end (their hooks live in `threading`), then threads are waited
    # for, then come the exit handlers. Waiting first would wait for idle pools for ever.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):  # nobody reads any more
        raise SystemExit(code) from None
    os._exit(code)
