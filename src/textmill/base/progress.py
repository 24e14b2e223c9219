"""Progress that a person can read: bars on a terminal, plain lines elsewhere, nothing when quiet. Writes to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from textmill.base.settings import show_bytes, show_count, show_duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress

Mode = Literal["bar", "lines", "quiet"]

LINE_EVERY_SECONDS = 10.0


class Task:
    """One piece of long work. `advance` it by units done; `note` shows a short live figure."""

    def __init__(self, owner: Progress, name: str, total: float | None, unit: str) -> None:
        self.owner, self.name, self.total, self.unit = owner, name, total, unit
        self.done, self.text = 0.0, ""
        self.began = self.last_line = time.monotonic()
        self.bar: Any = None

    def advance(self, amount: float = 1.0, note: str | None = None) -> None:
        """Add `amount` units of finished work."""
        self.update(self.done + amount, note)

    def update(self, done: float, note: str | None = None, total: float | None = None) -> None:
        """Set the units of finished work, and optionally a new total."""
        self.done = done
        if total is not None:
            self.total = total
        if note is not None:
            self.text = note
        self.owner._show(self)

    def seconds(self) -> float:
        """Seconds since the task began."""
        return time.monotonic() - self.began

    def amount(self, value: float) -> str:
        """A quantity of this task's unit, for people."""
        if self.unit == "B":
            return show_bytes(value)
        shown = f"{value:,.0f}" if value == round(value) and value < 100_000 else show_count(value)
        return f"{shown} {self.unit}".rstrip()


def rate_text(task: Task, rate: float) -> str:
    """A speed for people: slow work by the piece is given as seconds for each."""
    if 0 < rate < 1 and task.unit not in ("", "B"):
        return f"{1 / rate:.1f} s each"
    return f"{task.amount(rate)}/s"


class Progress:
    """Where long work reports. One is made by the CLI and handed down.

    Args:
        mode: "bar" (live bars), "lines" (one plain line every ten seconds and at the end), "quiet" (nothing);
            None chooses bars on a terminal and lines elsewhere.
    """

    def __init__(self, mode: Mode | None = None) -> None:
        self.mode: Mode = mode or ("bar" if sys.stderr.isatty() else "lines")
        self._live: RichProgress | None = None
        self._console: Console | None = None

    def say(self, text: str) -> None:
        """One line for the reader, above any running bar."""
        if self.mode == "quiet":
            return
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    @contextmanager
    def task(self, name: str, total: float | None = None, unit: str = "") -> Iterator[Task]:
        """Report one piece of long work, e.g. `with progress.task("Reading", total, "B") as task`."""
        task = Task(self, name, total, unit)
        owns_live = False
        if self.mode == "bar":
            owns_live = self._open_live()
            assert self._live is not None
            task.bar = self._live.add_task(name, total=total, text="")
        try:
            yield task
            self._finish(task)
        finally:
            if task.bar is not None and self._live is not None:
                self._live.remove_task(task.bar)
            if owns_live and self._live is not None:
                self._live.stop()
                self._live = None

    def _open_live(self) -> bool:
        if self._live is not None:
            return False
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._console = Console(stderr=True)
        self._live = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
            transient=True,
        )
        self._live.start()
        return True

    def _show(self, task: Task) -> None:
        rate = task.done / max(task.seconds(), 1e-9)
        if self.mode == "bar" and self._live is not None and task.bar is not None:
            text = rate_text(task, rate) + (f" · {task.text}" if task.text else "")
            self._live.update(task.bar, completed=task.done, total=task.total, text=text)
        elif self.mode == "lines" and time.monotonic() - task.last_line >= LINE_EVERY_SECONDS:
            task.last_line = time.monotonic()
            share = f" {100 * task.done / task.total:.0f}%" if task.total else ""
            left = ""
            if task.total and task.done:
                left = f", {show_duration(task.seconds() * (task.total / task.done - 1))} left"
            extra = f" · {task.text}" if task.text else ""
            self.say(f"{task.name}:{share} {task.amount(task.done)}, {rate_text(task, rate)}{left}{extra}")

    def _finish(self, task: Task) -> None:
        if self.mode == "quiet":
            return
        extra = f" · {task.text}" if task.text else ""
        amount = f"{task.amount(task.done)} in " if task.done else ""
        self.say(f"{task.name}: {amount}{show_duration(task.seconds())}{extra}")
