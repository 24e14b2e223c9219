"""What a command costs: CPU seconds, wall seconds and peak memory of its whole process tree. Starts processes.

Linux only: the measuring process adopts every orphan of the command (PR_SET_CHILD_SUBREAPER), so that the time of
daemons and of workers that nobody waited for is counted too. Memory is read twenty times a second, in two ways. The
sum of the resident sets of all processes of the tree counts pages that processes share once for each. The sum of the
proportional sets (PSS) counts every page once, so it is what the command needs of the machine; since reading it holds
the processes up for milliseconds, it is read twice a second at most, where the first sum is near its peak.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

PR_SET_CHILD_SUBREAPER = 36
"""From linux/prctl.h."""
INTERVAL = 0.05
"""Seconds between two readings of memory."""
PSS_INTERVAL = 0.5
"""Seconds at least between two readings of proportional sets."""
NEAR = 0.9
"""Share of the highest sum of resident sets from which on the proportional sets are read too."""
GRACE = 10.0
"""Seconds that processes left over by a command may go on before they are ended."""
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """What one run of a command cost.

    Attributes:
        code: exit status.
        wall: seconds from start to exit of the command itself.
        cpu: user and system seconds of all its processes.
        peak_rss: bytes, shared pages once for each process.
        peak_pss: bytes, every page once.
        output: what it wrote to standard output.
        errors: the last 4,000 characters of standard error.
    """

    code: int
    wall: float
    cpu: float
    peak_rss: int
    peak_pss: int
    output: str
    errors: str

    def checked(self) -> Usage:
        """Itself, if the command succeeded.

        Raises:
            RuntimeError: it did not; with what it said.
        """
        if self.code:
            raise RuntimeError(f"the command ended with status {self.code}:\n{self.errors}")
        return self

    def then(self, later: Usage) -> Usage:
        """This command and another after it, as one; the output is that of both, a line between them."""
        return Usage(
            self.code or later.code,
            self.wall + later.wall,
            self.cpu + later.cpu,
            max(self.peak_rss, later.peak_rss),
            max(self.peak_pss, later.peak_pss),
            f"{self.output.rstrip()}\n{later.output}",
            self.errors + later.errors,
        )


def descendants(root: int) -> set[int]:
    """Process ids of all that run below `root`, itself not among them."""
    found: set[int] = set()
    waiting = [root]
    while waiting:
        children: set[int] = set()
        try:
            for thread in os.scandir(f"/proc/{waiting.pop()}/task"):
                children.update(map(int, Path(thread.path, "children").read_text().split()))
        except OSError:  # the process or one of its threads has just ended
            pass
        waiting.extend(children - found)
        found |= children
    return found


def resident(processes: Iterable[int]) -> int:
    """Bytes of main memory that the processes hold."""
    total = 0
    for process in processes:
        try:
            total += int(Path(f"/proc/{process}/statm").read_bytes().split()[1]) * PAGE
        except (OSError, IndexError):
            continue
    return total


def proportional(processes: Iterable[int]) -> int:
    """Bytes of main memory that the processes hold, a page that k of them share counting 1/k for each."""
    total = 0
    for process in processes:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            total += next(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):
            continue
    return total


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _reap(processes: set[int], deadline: float) -> None:
    """Wait for what the command left behind; after the deadline, end it."""
    while processes:
        for process in list(processes):
            try:
                done, _ = os.waitpid(process, os.WNOHANG)
            except ChildProcessError:
                done = process if not Path(f"/proc/{process}").exists() else 0
            if done:
                processes.discard(process)
        if processes and time.monotonic() > deadline:
            for process in processes:
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            deadline = time.monotonic() + 1
        time.sleep(0.02)


def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    while_running: Callable[[int], None] | None = None,
    memory: bool = True,
) -> Usage:
    """Run a command to its end.

    Args:
        command: program and arguments.
        cwd: its folder.
        env: environment variables to set beside those there are.
        while_running: called with the process id once, in a thread, as soon as the command runs.
        memory: read it. Reading disturbs a command that keeps every core busy, so the speed of one is measured without.
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    others = descendants(os.getpid())
    before = _children_cpu()
    peak = peak_pss = 0
    next_pss = 0.0
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        process = subprocess.Popen(
            [os.fspath(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            cwd=cwd,
            env={**os.environ, **(env or {})},
        )
        if while_running:
            threading.Thread(target=while_running, args=(process.pid,), daemon=True).start()
        while True:
            try:
                process.wait(INTERVAL if memory else None)
                break
            except subprocess.TimeoutExpired:
                tree = descendants(os.getpid()) - others
                now = resident(tree)
                if now > NEAR * peak and time.perf_counter() >= next_pss:
                    peak_pss = max(peak_pss, proportional(tree))
                    next_pss = time.perf_counter() + PSS_INTERVAL
                peak = max(peak, now)
        wall = time.perf_counter() - began
        left = descendants(os.getpid()) - others
        _reap(left, time.monotonic() + GRACE)
        cpu = _children_cpu() - before
        output.seek(0)
        errors.seek(0)
        said = output.read().decode(errors="replace")
        complained = errors.read().decode(errors="replace")[-4000:]
    return Usage(process.returncode, wall, cpu, peak, peak_pss, said, complained)


@dataclass(frozen=True)
class Spread:
    """Median, least and most of repeated measurements."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def show(self, form: str = ".2f") -> str:
        """`median (least to most)`."""
        return f"{self.median:{form}} ({self.least:{form}} to {self.most:{form}})"

    def to_json(self) -> dict[str, float]:
        """As a mapping."""
        return dataclasses.asdict(self)


def interleaved(
    contestants: Mapping[str, Callable[[int], Usage]], repeats: int, say: Callable[[str], None] = print
) -> dict[str, list[Usage]]:
    """Run all contestants in turn, `repeats` times, so that a busy moment of the machine meets them all alike."""
    runs: dict[str, list[Usage]] = {name: [] for name in contestants}
    for repeat in range(repeats):
        for name, start in contestants.items():
            usage = start(repeat).checked()
            runs[name].append(usage)
            say(
                f"repeat {repeat + 1}, {name}: {usage.cpu:.1f} CPU s, {usage.wall:.1f} s wall"
                + (f", {usage.peak_rss / 1e6:.0f} MB" if usage.peak_rss else "")
            )
    return runs


def ratios(ours: Sequence[Usage], theirs: Sequence[Usage], of: str = "cpu") -> Spread:
    """How many times as much the peer used as we did, repeat by repeat."""
    return Spread.of([getattr(b, of) / getattr(a, of) for a, b in zip(ours, theirs, strict=True)])


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table, columns padded so that it reads as plain text too."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
             for row in cells]  # fmt: skip
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """The computer and what else ran on it, for the raw figures."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "platform": platform.platform(),
        "processor": names[0].partition(":")[2].strip() if names else platform.processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "textmill": version("textmill"),
    }


def version_in(python: Path, package: str) -> str:
    """The version of a package in another interpreter's environment, or "absent"."""
    code = (
        "import sys\nfrom importlib.metadata import PackageNotFoundError, version\n"
        "try: print(version(sys.argv[1]))\nexcept PackageNotFoundError: print('absent')"
    )
    asked = subprocess.run([python, "-c", code, package], capture_output=True, text=True)
    return asked.stdout.strip() if asked.returncode == 0 else "absent"


def slice_lines(source: Path, out: Path, size: int) -> int:
    """Copy the first whole lines of `source` up to `size` bytes to `out`; returns the bytes copied."""
    written = 0
    with source.open("rb") as lines, out.open("wb") as copy:
        for line in lines:
            if written + len(line) > size and written:
                break
            copy.write(line)
            written += len(line)
    return written


TEXTMILL = (sys.executable, "-m", "textmill")
"""The command as this interpreter runs it."""
