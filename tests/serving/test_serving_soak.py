"""The soak of `make bench-serve` for a few seconds: every kind of request, no reply lost or wrong, nothing left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KINDS = {"stream", "dropped", "whole", "drawn", "chat", "embeddings", "tokens", "refused", "metrics"}


def soak(out: Path, *words: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "bench.soak", "--interval", "1", "--out", str(out), *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_a_quarter_of_a_minute_of_everything_loses_no_reply_and_leaves_nothing(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    ended = soak(tmp_path / "out.json", "--minutes", 0.25, "--bound", 64, "--folder", *runs.values())
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads((tmp_path / "out.json").read_text())["found"]
    asked = {name: times for name, times, *_ in found["requests"]}
    assert asked.keys() >= KINDS
    assert asked["all"] >= 40
    assert found["lost"] == found["wrong"] == 0
    assert f"| all        | {asked['all']}" in ended.stdout


@pytest.mark.slow
def test_what_grows_beyond_the_bound_is_told_and_fails(runs: dict[str, Path], tmp_path: Path) -> None:
    ended = soak(tmp_path / "out.json", "--minutes", 0.05, "--bound", -1000, "--folder", runs["small"])
    assert ended.returncode == 1, ended.stderr
    assert "memory rose by" in ended.stdout
