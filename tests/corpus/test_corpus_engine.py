"""Engines and workers change nothing in the result; a kill loses at most one chunk a worker."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from textmill.base.progress import Progress
from textmill.base.run import Run
from textmill.corpus import measure
from textmill.corpus.build import Workforce, build_corpus
from textmill.corpus.config import CorpusConfig

WORDS = ["river", "stone", "bridge", "market", "letter", "winter", "garden", "people", "machine", "harbour", "council"]


def write_texts(folder: Path, documents: int) -> None:
    """Several chunks of .jsonl, with repeats, junk and Chinese in them."""
    folder.mkdir()
    with (folder / "a.jsonl").open("w") as out:
        for number in range(documents):
            seed = number if number % 11 else number // 7
            words = [WORDS[(seed * 7919 + at * at * 31 + at * seed) % len(WORDS)] for at in range(150 + number % 40)]
            text = f"Document {seed}. " + " ".join(words) + "."
            if number % 50 == 3:
                text = "很短的中文文档，写的是河流和桥梁。" * 20 + str(number)
            if number % 97 == 5:
                text = "<>" * 40
            out.write(json.dumps({"text": text, "mail": f"person{number}@example.org"}) + "\n")
    (folder / "page.html").write_text(f"<html><body><main><p>{'A page about rivers. ' * 30}</p></main></body></html>")


def digest(run: Path) -> str:
    """One hash over everything that a finished corpus is."""
    total = hashlib.sha256()
    files = [*run.glob("corpus/documents-*"), *run.glob("corpus/rejected-*"), run / "corpus" / "card.json"]
    for path in sorted(files):
        total.update(path.name.encode())
        total.update(path.read_bytes())
    return total.hexdigest()


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine") / "texts"
    write_texts(folder, 24_000)
    assert (folder / "a.jsonl").stat().st_size > 3 * 8 << 20
    return folder


def build(texts: Path, out: Path, **force: object) -> str:
    build_corpus([str(texts)], Run.create(out), CorpusConfig(), Progress("quiet"), Workforce(**force))  # type: ignore[arg-type]
    return digest(out)


@pytest.fixture(scope="module")
def alone(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("alone") / "run"
    return out, build(texts, out, workers=1)


def test_one_worker_and_two_give_the_same_bytes(texts: Path, alone: tuple[Path, str], tmp_path: Path) -> None:
    assert len(list((alone[0] / "corpus" / "measured").glob("*.parquet"))) > 2
    assert build(texts, tmp_path / "two", workers=2) == alone[1]


@pytest.mark.slow
def test_ray_gives_the_same_bytes(texts: Path, alone: tuple[Path, str], tmp_path: Path) -> None:
    pytest.importorskip("ray")
    assert build(texts, tmp_path / "ray", engine="ray", workers=2) == alone[1]


SCRIPT = """
import sys
from textmill.base.progress import Progress
from textmill.base.run import Run
from textmill.corpus.build import Workforce, build_corpus
from textmill.corpus.config import CorpusConfig
if __name__ == "__main__":
    build_corpus([sys.argv[1]], Run.create(sys.argv[2]), CorpusConfig(), Progress("quiet"), Workforce(workers=1))
"""


@pytest.mark.slow
def test_a_killed_build_measures_no_chunk_twice(texts: Path, alone: tuple[Path, str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    measured = out / "corpus.partial" / measure.FOLDER
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", SCRIPT, str(texts), str(out)]
    process = subprocess.Popen(command, env=environment)
    deadline = time.monotonic() + 120
    while not list(measured.glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {path.name: path.stat().st_mtime_ns for path in measured.glob("0*.json")}
    assert done, "it was killed before its first chunk was done"
    # What was done keeps its time of writing; the rest is made now.
    assert build(texts, out, workers=1) == alone[1]
    after = {path.name: path.stat().st_mtime_ns for path in (out / "corpus" / measure.FOLDER).glob("0*.json")}
    assert {name: after[name] for name in done} == done
    assert len(after) > len(done)
