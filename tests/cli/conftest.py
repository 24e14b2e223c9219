"""Runs the `textmill` command the way a shell does, and gives back its code, output and errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from running import Ended, Textmill


@pytest.fixture
def textmill(tmp_path: Path) -> Textmill:
    """`textmill("doctor", "--json")` runs in an empty folder; `stdout=` and `env=` as in subprocess."""
    home = tmp_path / "cwd"
    home.mkdir()

    def run(*words: str, env: dict[str, str] | None = None, **more: Any) -> Ended:
        more.setdefault("stdout", subprocess.PIPE)
        return subprocess.run(
            [sys.executable, "-m", "textmill", *words],
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            cwd=home,
            env={**os.environ, "COLUMNS": "100", **(env or {})},
            text=True,
            timeout=300,
            **more,
        )

    return run
