"""Long work reports itself: plain lines without a terminal, nothing when quiet, never on standard output."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from textmill.base import progress as module
from textmill.base.progress import Progress


def test_lines_have_amount_rate_share_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINE_EVERY_SECONDS", 0.0)
    with Progress("lines").task("Reading", total=2_000_000, unit="B") as task:
        task.advance(1_000_000, note="3 files")
        task.advance(1_000_000)
    out, err = capsys.readouterr()
    assert out == ""
    first, *_, last = err.splitlines()
    assert first.startswith("Reading: 50% 1.0 MB, ")
    assert "/s, " in first
    assert " left · 3 files" in first
    assert last.startswith("Reading: 2.0 MB in ")


def test_lines_come_at_most_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("lines").task("Training", total=1000, unit="steps") as task:
        for _ in range(1000):
            task.advance()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("Training: 1,000 steps in ")


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("quiet")
    with progress.task("Reading", total=1) as task:
        task.advance()
        progress.say("hello")
    assert capsys.readouterr() == ("", "")


def test_work_without_a_known_total_is_reported_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINE_EVERY_SECONDS", 0.0)
    with Progress("lines").task("Reading", unit="documents") as task:
        task.advance(12)
    assert "12 documents" in capsys.readouterr().err


SCRIPT = """
from textmill.base.progress import Progress
progress = Progress()
with progress.task("Reading", total=3, unit="files") as task:
    for _ in range(3):
        task.advance(note="going")
    progress.say("a word in between [not markup]")
print(progress.mode)
"""


def test_without_a_terminal_lines_are_chosen() -> None:
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert ended.stdout == "lines\n"
    assert "\x1b" not in ended.stderr
    assert "a word in between [not markup]" in ended.stderr


def test_on_a_terminal_bars_are_chosen() -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert process.wait() == 0
    assert process.stdout is not None
    assert process.stdout.read() == b"bar\n"
    assert b"\x1b[" in shown
    assert b"a word in between [not markup]" in shown
