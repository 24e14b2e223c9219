"""Stages are finished whole, resumed, or redone; a kill at any moment leaves nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from textmill.base.errors import Failure, UsageError
from textmill.base.run import Run, Stage


def stage(run: Run, setting: int = 1, inputs: str = "hash") -> Stage:
    return Stage(run, "corpus", inputs=inputs, configuration={"setting": setting})


def finish(work: Stage, text: str = "done") -> None:
    with work.work() as folder:
        (folder / "piece.txt").write_text(text)


def stop(work: Stage, text: str, seconds: float = 0.0) -> None:
    with work.work() as folder:
        (folder / "piece.txt").write_text(text)
        time.sleep(seconds)
        raise KeyboardInterrupt


def names(run: Run) -> set[str]:
    return {entry.name for entry in run.path.iterdir()} - {".lock"}


def test_finished_stage_is_found_again(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    work = stage(run)
    assert not work.is_finished()
    work.counts["documents"] = 3
    finish(work)

    assert stage(Run.open(run.path)).is_finished()
    assert names(run) == {"run.json", "corpus"}
    record = json.loads((run / "corpus/stage.json").read_text())
    assert record["configuration"] == {"setting": 1}
    assert record["inputs"] == "hash"
    assert record["counts"] == {"documents": 3}
    assert record["seconds"] >= 0
    assert sorted(entry.name for entry in (run / "corpus").iterdir()) == ["piece.txt", "stage.json"]


@pytest.mark.parametrize("changed", [{"setting": 2}, {"inputs": "other"}])
def test_changed_configuration_or_input_redoes_the_stage(tmp_path: Path, changed: dict) -> None:
    run = Run.create(tmp_path / "run")
    finish(stage(run), "old")
    again = stage(run, **changed)
    assert not again.is_finished()
    finish(again, "new")
    assert again.is_finished()
    assert not stage(run).is_finished()
    assert (run / "corpus/piece.txt").read_text() == "new"
    assert names(run) == {"run.json", "corpus"}


def test_old_result_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    finish(stage(run), "old")
    with pytest.raises(KeyboardInterrupt):
        stop(stage(run, setting=2), "half")
    assert (run / "corpus/piece.txt").read_text() == "old"
    assert stage(run).is_finished()


def test_stopped_stage_keeps_its_pieces_and_its_time(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        stop(stage(run), "first half", seconds=0.2)
    assert not (run / "corpus").exists()
    with stage(run).work() as folder:
        assert (folder / "piece.txt").read_text() == "first half"
    seconds = json.loads((run / "corpus/stage.json").read_text())["seconds"]
    assert seconds >= 0.2  # the first attempt counts too


def test_pieces_of_another_configuration_are_thrown_away(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        stop(stage(run, setting=1), "setting 1")
    with stage(run, setting=2).work() as folder:
        assert not (folder / "piece.txt").exists()


def test_damaged_attempt_mark_starts_the_stage_anew(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        stop(stage(run), "half")
    (run / "corpus.partial/.attempt").write_text("{ not JSON")
    finish(stage(run))
    assert stage(run).is_finished()


@pytest.mark.parametrize("before", [False, True], ids=["first time", "over an older result"])
def test_kill_between_finishing_and_renaming_recovers(tmp_path: Path, before: bool) -> None:
    run = Run.create(tmp_path / "run")
    if before:
        finish(stage(run, setting=1), "old")
    finish(stage(run, setting=2), "whole")
    # What the disk holds when the process dies just before the rename:
    (run / "corpus").rename(run / "corpus.partial")
    (run / "corpus.partial/.attempt").write_text("{}")
    if before:
        (run / "corpus.old").mkdir()
    again = stage(run, setting=2)
    assert again.is_finished()
    assert (run / "corpus/piece.txt").read_text() == "whole"
    assert names(run) == {"run.json", "corpus"}


WORKER = """
import sys
from pathlib import Path
from textmill.base.run import Run, Stage
run = Run.create(Path(sys.argv[1]))
stage = Stage(run, "corpus", inputs="hash", configuration={"setting": 1})
if not stage.is_finished():
    with stage.work() as folder:
        done = folder / "pieces.txt"
        for piece in range(len(done.read_text().split()) if done.exists() else 0, 200):
            with done.open("a") as stream:
                stream.write(f"{piece}\\n")
            print(piece, flush=True)
"""


def test_kill_9_at_any_moment_ends_in_the_same_files(tmp_path: Path) -> None:
    """Twenty kills at spread-out moments, then one run to the end: the pieces are all there, once each."""
    command = [sys.executable, "-c", WORKER, str(tmp_path / "run")]
    for attempt in range(20):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(attempt % 7):
                process.stdout.readline()
            os.kill(process.pid, signal.SIGKILL)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    pieces = (tmp_path / "run/corpus/pieces.txt").read_text().split()
    assert pieces == [str(number) for number in range(200)]
    assert not (tmp_path / "run/corpus.partial").exists()


def test_a_second_writer_is_told_who_holds_the_run(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    with run.lock(), pytest.raises(Failure, match="in use") as caught, Run.open(run.path).lock():
        pass
    assert str(os.getpid()) in caught.value.why
    with run.lock():  # free again
        pass


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("ten years of work")
    with pytest.raises(UsageError, match="belongs to something else") as caught:
        Run.create(tmp_path)
    assert "thesis.doc" in caught.value.why
    assert caught.value.fix
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.doc"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(UsageError, match="is a file"):
        Run.create(tmp_path / "run")
    with pytest.raises(UsageError, match="cannot be written"):
        Run.create(tmp_path / "run" / "below")


def test_an_empty_folder_becomes_a_run_and_opens_again(tmp_path: Path) -> None:
    Run.create(tmp_path)
    created = Run.open(tmp_path).facts()["created"]
    Run.create(tmp_path)
    assert Run.open(tmp_path).facts()["created"] == created
    Run.open(tmp_path).remember(command="textmill build")
    assert Run.open(tmp_path).facts()["command"] == "textmill build"


def test_opening_what_is_no_run_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a run") as caught:
        Run.open(tmp_path / "nowhere")
    assert "textmill build" in caught.value.fix


def test_a_missing_stage_names_the_command_that_makes_it(tmp_path: Path) -> None:
    run = Run.create(tmp_path)
    with pytest.raises(UsageError) as caught:
        run.require("tokens", "textmill tokenize runs/mine")
    assert "textmill tokenize runs/mine" in caught.value.fix
    finish(stage(run))
    assert run.require("corpus", "") == tmp_path / "corpus"
    shutil.rmtree(tmp_path / "corpus")
    with pytest.raises(UsageError):
        run.require("corpus", "textmill corpus")
