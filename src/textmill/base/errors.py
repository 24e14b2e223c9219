"""Errors that a person can act on: what happened, why, and what to type next. Touches nothing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TextmillError(Exception):
    """An expected failure, shown without a traceback.

    Args:
        what: what did not work, one sentence.
        why: the reason, as far as it is known.
        fix: what to type or change next.
    """

    exit_code = 1

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what, self.why, self.fix = what, why, fix

    def __str__(self) -> str:
        return "\n".join(part for part in (self.what, self.why, self.fix) if part)


class UsageError(TextmillError):
    """The command cannot be carried out as it was typed (exit code 2)."""

    exit_code = 2


class Failure(TextmillError):
    """The command was right, the work failed (exit code 1)."""


class Interrupted(TextmillError):
    """Ctrl-C or SIGTERM: the work is saved and can go on (exit code 130)."""

    exit_code = 130


def nearest(name: str, known: Iterable[str]) -> str:
    """` Did you mean "X"?` for the known name closest to `name`, or an empty string."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f' Did you mean "{match[0]}"?' if match else ""
