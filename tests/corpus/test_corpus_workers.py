"""How workers begin and end: what they load, that none outlives its command, and that the loaded process goes too."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from textmill.base.errors import Failure
from textmill.base.progress import Progress
from textmill.base.run import Run
from textmill.corpus import foundry
from textmill.corpus.build import build_corpus
from textmill.corpus.config import CorpusConfig
from textmill.corpus.decide import Chunks, Judge, judge_rows, ruling
from textmill.corpus.engine import run_jobs
from textmill.corpus.judging.rules import Rule
from textmill.corpus.workforce import SMALL_BYTES, Workforce

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def command_lines() -> dict[int, str]:
    """Every process of this machine: what it was started as."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
    return found


def below(root: int) -> set[int]:
    """Processes that `root` started, and those that they started."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue
    found = {root}
    while True:
        more = {process for process, parent in parents.items() if parent in found} - found
        if not more:
            return found - {root}
        found |= more


def double(value: int) -> int:
    return 2 * value


def die(value: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return value


def fail(value: int) -> int:
    raise ValueError(f"job {value}")


def test_every_job_gives_its_result_once() -> None:
    assert sorted(run_jobs(double, list(range(9)), workers=2)) == [(number, 2 * number) for number in range(9)]


def test_a_worker_that_dies_is_told_and_nothing_stays_behind() -> None:
    before = set(multiprocessing.active_children())
    with pytest.raises(Failure, match="A worker process died"):
        list(run_jobs(die, list(range(4)), workers=2))
    assert set(multiprocessing.active_children()) <= before


@LINUX
def test_a_worker_that_dies_while_another_starts_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = multiprocessing.forkserver.connect_to_new_process
    started: list[int] = []

    def slowly(fds: list[int]) -> tuple[int, int]:
        if started:
            time.sleep(1)  # the first worker dies meanwhile, and the pool closes what the second was to be given
        started.append(1)
        return connect(fds)

    monkeypatch.setattr(multiprocessing.forkserver, "connect_to_new_process", slowly)
    before = set(multiprocessing.active_children())
    with pytest.raises(Failure, match="A worker process died"):
        list(run_jobs(die, list(range(4)), workers=2))
    assert set(multiprocessing.active_children()) <= before


@LINUX
def test_a_pool_that_ends_leaves_the_loaded_process_to_the_next() -> None:
    from multiprocessing.forkserver import _forkserver  # Python offers no other sight of it

    with foundry.in_use():
        assert sorted(run_jobs(double, list(range(4)), workers=2)) == [(number, 2 * number) for number in range(4)]
        loaded = _forkserver._forkserver_pid
        foundry.stop()
        assert loaded is not None
        assert _forkserver._forkserver_pid == loaded
        assert sorted(run_jobs(double, list(range(4)), workers=2)) == [(number, 2 * number) for number in range(4)]
    deadline = time.monotonic() + 60
    while _forkserver._forkserver_pid is not None and time.monotonic() < deadline:
        time.sleep(0.02)  # the last pool ends in its own thread, and the loaded process with it
    assert _forkserver._forkserver_pid is None


def test_the_error_of_a_job_arrives() -> None:
    with pytest.raises(ValueError, match="job"):
        list(run_jobs(fail, list(range(4)), workers=2))


def write_lines(path: Path, size: int) -> None:
    lot = random.Random(0)
    words = ["".join(lot.choice("etaoinshrdlu") for _ in range(lot.randrange(2, 9))) for _ in range(3_000)]
    with path.open("w") as out:
        while out.tell() < size:
            out.write(json.dumps({"text": " ".join(lot.choices(words, k=300))}) + "\n")


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_command(tmp_path: Path, ending: signal.Signals) -> None:
    write_lines(tmp_path / "a.jsonl", SMALL_BYTES + (8 << 20))
    command = ["-m", "textmill", "corpus", str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "run"), "--workers", "2"]
    process = subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    measured = tmp_path / "run" / "corpus.partial" / "measured"
    while not list(measured.glob("*.json")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    children = below(process.pid)
    assert len(children) >= 3  # the loaded process and its two copies
    process.send_signal(ending)
    process.wait(timeout=60)
    while (left := children & below(1) & set(command_lines())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left
    if ending == signal.SIGINT:
        assert process.returncode == 130
        assert b"Traceback" not in (process.stderr.read() if process.stderr else b"")


@LINUX
def test_a_small_input_loads_no_workers(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A short text about a river and the people who live there.\n" * 20)
    before = below(os.getpid())
    Workforce("local", 2).load([tmp_path / "a.txt"], tmp_path / "run", CorpusConfig())
    assert below(os.getpid()) == before


def test_the_command_line_loads_neither_pandas_nor_scipy(tmp_path: Path) -> None:
    """They cost more than all that Textmill loads itself, and nothing uses them."""
    (tmp_path / "a.txt").write_text("\n\n".join(f"Chapter {n}. The river runs and runs, {n} miles." for n in range(90)))
    script = (
        "import sys\n"
        "from textmill.cli.app import run\n"
        "code = run(['corpus', *sys.argv[1:], '--quiet', '--json'])\n"
        "print(code, sorted({'pandas', 'scipy', 'awkward', 'torch'} & set(sys.modules)), file=sys.stderr)"
    )
    typed = [str(tmp_path / "a.txt"), "--out", str(tmp_path / "run")]
    done = subprocess.run([sys.executable, "-c", script, *typed], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "0 []"


def test_after_a_lean_start_pandas_and_scipy_can_be_used() -> None:
    pytest.importorskip("pandas")
    script = (
        "from textmill.base.lean import start_lean\n"
        "start_lean()\n"
        "import pyarrow as pa, pandas, scipy.linalg\n"
        "assert pa.table({'a': [1, 2]}).to_pandas()['a'].sum() == 3\n"
        "assert pa.array(pandas.Series([1, 2])).to_pylist() == [1, 2]"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("bound", ["min", "max"])
@pytest.mark.parametrize("strict", [False, True])
def test_counting_at_many_thresholds_is_dropping_at_each(bound: str, strict: bool) -> None:
    lot = np.random.default_rng(0)
    values = np.concatenate([lot.integers(0, 6, 200) / 4, [np.nan, np.inf, -np.inf]])
    thresholds = np.array([0, 0.25, 0.5, 0.6, 1.25, 9])
    rule = Rule("r", "c", bound, 0.5, "", strict=strict)  # type: ignore[arg-type]
    expected = [np.count_nonzero(rule.at(threshold).drops(values)) for threshold in thresholds.tolist()]
    assert rule.counts(values, thresholds).tolist() == expected


def test_chunks_may_be_judged_in_any_order(tmp_path: Path) -> None:
    """Workers finish in any order, and each chunk is judged when it is finished."""
    folder = tmp_path / "texts"
    folder.mkdir()
    english = "the river is wide and a bridge was old when people from that market came to see it with their letters"
    german = "der Fluss ist breit und die alte Brücke war schön als Leute vom Markt mit ihren Briefen kamen und sie"
    chinese = "河很宽桥很老人们从市场来看它带着信和花园里的果子冬天雪落在石头上机器在港口响"
    words = (english.split(), german.split(), list(chinese))
    lot = random.Random(0)
    for number in range(2_300):  # more files than a chunk takes
        chosen = words[(number // 700) % 3]
        (folder / f"{number:04d}.txt").write_text(" ".join(lot.choices(chosen, k=60 + number % 40)) + str(number))
    config = CorpusConfig(languages=("en", "zh"), small_corpus=0)
    build_corpus([str(folder)], Run.create(tmp_path / "run"), config, Progress("quiet"), Workforce("local", 1))
    chunks = Chunks(tmp_path / "run" / "corpus", 2)
    assert len(chunks.files) == 2
    found = ruling(config)
    backwards = Judge(config, found)
    for number, path in reversed(list(enumerate(chunks.files))):
        assert path is not None
        backwards.add(number, path)
    one, two = judge_rows(chunks, config, found), judge_rows(chunks, config, found, backwards)
    for name, value in vars(one).items():
        other = getattr(two, name)
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, other, name)
        else:
            assert value == other, name
