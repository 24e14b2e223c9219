"""A page read as a browser reads it: by a parser, and by a browser itself."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from html.parser import HTMLParser
from pathlib import Path

import pytest

from textmill.base.run import Run
from textmill.report.build import build_report

VOID = {"meta", "link", "br", "input", "img"}


class Page(HTMLParser):
    """What a browser would find: the tags, their attributes, balanced or not, and the numbers."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.faults: list[str] = []
        self.text = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1] != tag:
            self.faults.append(f"</{tag}> closes {self.open[-1:]}")
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text += data

    def attributes(self, name: str) -> list[str]:
        return [str(attrs[name]) for _, attrs in self.tags if name in attrs]


def page_of(run: Run) -> Page:
    return Page(build_report(run).read_text(encoding="utf-8"))


def opened(page: Path, profile: Path) -> str:
    """The document as Chromium has it after the page's scripts ran; a message on the console fails the test."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        warnings.warn("No Chromium here: THE REPORT WAS NOT OPENED IN A BROWSER.", stacklevel=1)
        pytest.skip("no Chromium to open the report in (apt-get install chromium)")
    done = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--no-first-run",
            f"--user-data-dir={profile}",
            "--enable-logging=stderr",
            "--virtual-time-budget=10000",
            "--window-size=1000,1400",
            "--dump-dom",
            page.resolve().as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert complaints == []
    return done.stdout
