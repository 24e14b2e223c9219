"""How a command ends badly: every exception becomes what, why and what to type next. Writes to stderr."""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from cyclopts import CycloptsError, UnknownCommandError

from textmill import __version__
from textmill.base.errors import Failure, Interrupted, TextmillError, UsageError, nearest
from textmill.base.hardware import disk_free, hardware
from textmill.base.settings import show_bytes
from textmill.cli.app import COMMANDS

DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
# The machine's refusals, which are no fault of the program.
SYSTEM = {errno.EFBIG, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENAMETOOLONG}
PLENTY = 100_000_000
# Libraries that write files in Rust or C++ pass the system's words on, without its number.
DISK_FULL_WORDS = (
    "no space left on device",
    "os error 28",
    "disk quota exceeded",
    "pytorchstreamwriter failed",
)
MEMORY_WORDS = ("can't allocate memory", "out of memory", "cannot allocate memory", "bad_alloc")


def option_value(tokens: Sequence[str], name: str) -> str | None:
    """The value of `--name value` or `--name=value` on the command line, if it is there."""
    for position, token in enumerate(tokens):
        if token == "--":
            break
        if token == name:
            return tokens[position + 1] if position + 1 < len(tokens) else None
        if token.startswith(f"{name}="):
            return token.partition("=")[2]
    return None


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and those that it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def says(error: BaseException, words: Sequence[str]) -> bool:
    """Whether the exception, or one that it came from, has one of `words` in its text."""
    return any(word in str(cause).lower() for cause in causes(error) for word in words)


def is_disk_full(error: BaseException) -> bool:
    """Whether the disk (or the quota) is the reason."""
    numbers = {cause.errno for cause in causes(error) if isinstance(cause, OSError)}
    return bool(numbers & DISK_FULL) or says(error, DISK_FULL_WORDS)


def disk_full(error: BaseException, tokens: Sequence[str]) -> Failure:
    """The error for a full disk: which one, how much it has left, what to do."""
    named = (cause.filename for cause in causes(error) if isinstance(cause, OSError) and cause.filename)
    place = Path(next(named, None) or option_value(tokens, "--out") or ".")
    free = disk_free(place)
    why = f"{show_bytes(free)} are left where {place} lies; nothing is half-written under a final name."
    if free > PLENTY:  # then it is a quota, or where standard output goes
        here = f"{show_bytes(free)} are free in {place.absolute()}"
        why = f"The system says so ({str(error) or type(error).__name__}), though {here}."
    return Failure(
        "The disk is full.",
        why,
        f"Free some space (df -h {place}) or give --out another place, then type the same command again.",
    )


def internal_error(error: BaseException, tokens: Sequence[str]) -> Failure:
    """An error nobody foresaw: the traceback goes to a file, its path to the reader."""
    text = "".join(traceback.format_exception(error))
    name = type(error).__name__
    try:
        handle, log = tempfile.mkstemp(prefix="textmill-error-", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(f"textmill {__version__}, Python {sys.version}\n{sys.platform}, {hardware().cpu}\n")
            stream.write(f"command: textmill {' '.join(tokens)}\n\n{text}")
        fix = f"The details are in {log}; TEXTMILL_DEBUG=1 shows them here. Please report it with that file."
    except OSError:
        fix = "Type the same command with TEXTMILL_DEBUG=1 before it to see the details."
    first = next(iter(str(error).splitlines()), "")
    return Failure("Internal error: this is a fault of Textmill.", f"{name}: {first}" if first else name, fix)


def explain(error: BaseException, tokens: Sequence[str]) -> TextmillError:
    """The error that a person can act on for any exception that ended the command `tokens`."""
    if isinstance(error, TextmillError):
        return error
    command = next((token for token in tokens if not token.startswith("-")), "")
    again = "Type the same command again to go on."
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("Stopped.", "Finished stages are kept; nothing is half-written.", again)
    if isinstance(error, UnknownCommandError):  # cyclopts would import every command to list them
        typed = (error.unused_tokens or [command])[0]
        known = [name for name, _, _ in COMMANDS]
        if typed.startswith("-"):
            return UsageError(
                f'Unknown option "{typed}".{nearest(typed, ("--help", "--recipe", "--version"))}',
                "Options of a command come after its name.",
                "Type: textmill --help",
            )
        return UsageError(
            f'Unknown command "{typed}".{nearest(typed, known)}',
            f"Commands: {', '.join(known)}.",
            "Type: textmill --help",
        )
    if isinstance(error, CycloptsError):
        return UsageError(str(error), fix=f"Type: textmill {command} --help".replace("  ", " "))
    if is_disk_full(error):
        return disk_full(error, tokens)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and says(error, MEMORY_WORDS)):
        return Failure(
            "There is not enough memory.",
            f"This machine lets Textmill use {show_bytes(hardware().memory_bytes)} altogether.",
            "Close other programs, or give it less at a time (a smaller model or corpus), then try again.",
        )
    lacking = next((cause for cause in causes(error) if isinstance(cause, ModuleNotFoundError)), None)
    if lacking is not None and not (lacking.name or "").startswith("textmill"):
        return Failure(
            f'The package "{lacking.name}" is missing.',
            "Textmill was installed without it, or it was removed since.",
            "Type: textmill doctor    It names the command that installs what is missing.",
        )
    if isinstance(error, PermissionError):
        return Failure(
            f"{error.filename or 'A file'} cannot be opened.",
            "The system does not permit it." + (f" ({error.strerror})" if error.strerror else ""),
            f"Look at its owner and rights with: ls -ld {error.filename or '.'}",
        )
    refused = next((cause for cause in causes(error) if getattr(cause, "errno", None) in SYSTEM), None)
    if isinstance(refused, OSError):
        return Failure(
            "The system did not let a file be read or written.",
            f"{os.strerror(refused.errno or 0)}" + (f": {refused.filename}." if refused.filename else "."),
            "Look at the disk (df -h .) and at the limits (ulimit -a), or choose another place with --out.",
        )
    return internal_error(error, tokens)


def paint(text: str, code: str, on: bool) -> str:
    """`text` in an ANSI colour, when `on`."""
    return f"\x1b[{code}m{text}\x1b[0m" if on else text


def show(error: TextmillError, *, as_json: bool) -> None:
    """Print an error for a person on stderr, and for a script on stdout."""
    if as_json:
        record = {"error": {"what": error.what, "why": error.why, "fix": error.fix}}
        print(json.dumps(record, ensure_ascii=False), flush=True)
    colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    stopped = isinstance(error, Interrupted)
    head = paint("Stopped:" if stopped else "Error:", "1;33" if stopped else "1;31", colour)
    what = error.what.removeprefix("Stopped.").strip() if stopped else error.what
    lines = [f"{head} {what}".rstrip(": ") if stopped and not what else f"{head} {what}"]
    for label, text in (("Why: ", error.why), ("Next:", error.fix)):
        if text:
            lines.append(f"  {paint(label, '1', colour)} " + text.replace("\n", "\n        "))
    print("\n".join(lines), file=sys.stderr, flush=True)
