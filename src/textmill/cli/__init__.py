"""The `textmill` command: one file a command, no logic of its own beyond calling the stages in order."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line in `sys.argv`; exit code 0 done, 1 failed, 2 misused, 130 stopped."""
    try:
        from textmill.cli.app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # pressed before the command had even begun
        code = 130
    raise SystemExit(code)
