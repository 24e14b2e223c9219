"""Killed at any moment and started again, a training gives the very same losses and weights."""

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from textmill.base.files import read_json

OFTEN = ("--checkpoint-seconds", "0.3")
SMALL = ["--width", "64", "--layers", "2", "--context", "64", "--batch-tokens", "1024", "--allow-small"]


def command(run: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "textmill", "train", str(run), *SMALL, "--quiet", "--json", *more,
    ]  # fmt: skip


def curve(run: Path) -> list[tuple]:
    """The figures of the log that do not come from a clock."""
    lines = [json.loads(line) for line in (run / "model" / "training.jsonl").read_text().splitlines()]
    return [
        (line["kind"], line["step"], line.get("loss"), line.get("gradient_norm"), line.get("bits_per_byte"))
        for line in lines
        if line["kind"] != "event"
    ]


def weights(run: Path) -> str:
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


def train(run: Path, *more: str) -> None:
    done = subprocess.run(command(run, *more), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def train_with_kills(run: Path, kills: list[float], *more: str) -> int:
    """Start, kill -9 at each of the moments (seconds after the first checkpoint), start again to the end."""
    happened = 0
    for wait in kills:
        process = subprocess.Popen(command(run, *more), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = set((run / "checkpoints").glob("step-*.json"))
        while process.poll() is None and set((run / "checkpoints").glob("step-*.json")) <= before:
            time.sleep(0.02)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        happened += not (run / "model").exists()
    train(run, *more)
    return happened


@pytest.mark.slow
@pytest.mark.parametrize("compile", [False, True])
def test_kill_and_resume_is_bit_identical(tokenized, tmp_path, compile):
    import shutil

    if compile and not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("no C++ compiler")
    more = ("--steps", "240", "--compile" if compile else "--no-compile", *OFTEN)
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    for place in (straight, killed):
        shutil.copytree(tokenized, place)
    train(straight, *more)
    random.seed(0)
    happened = train_with_kills(killed, [random.random() for _ in range(1 if compile else 3)], *more)
    assert happened >= 1
    assert curve(killed) == curve(straight)
    assert weights(killed) == weights(straight)
    assert any(
        "went on from the checkpoint" in line for line in (killed / "model" / "training.jsonl").read_text().splitlines()
    )


@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_command_goes_on(tokenized, tmp_path):
    import shutil

    run = tmp_path / "run"
    shutil.copytree(tokenized, run)
    more = ("--steps", "2000", "--no-compile", "--checkpoint-seconds", "100")
    process = subprocess.Popen(command(run, *more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 60
    while not (run / "checkpoints" / "best.safetensors").exists() and time.time() < deadline:
        time.sleep(0.05)  # the first validation: well inside the training
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "saved" in err
    assert "same command again" in err
    assert "Traceback" not in err
    step = int(next((run / "checkpoints").glob("step-*.json")).stem.split("-")[1])
    assert 0 < step < 2000
    assert not (run / "model").exists()


def test_a_finished_training_is_not_done_again(run):
    train(run.path, "--steps", "30", "--no-compile")
    before = (run / "model" / "stage.json").stat().st_mtime_ns
    train(run.path, "--steps", "30", "--no-compile")
    assert (run / "model" / "stage.json").stat().st_mtime_ns == before
    train(run.path, "--steps", "31", "--no-compile")
    assert read_json(run / "model" / "stage.json")["counts"]["steps"] == 31
