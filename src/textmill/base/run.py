"""Run directories and their stages: each stage is finished whole, or resumed, or redone; never half-written.

A run is a folder with `run.json`. A stage owns one subfolder. It works in `STAGE.partial/` and renames that to
`STAGE/` when it is done, with `stage.json` inside it: the inputs' content hash, the configuration, the versions,
the counts and the seconds. The same inputs and configuration find it finished; others redo it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from textmill import __version__
from textmill.base.errors import Failure, UsageError
from textmill.base.files import hash_json, read_json, sync_folder, write_json

RUN_FILE = "run.json"
STAGE_FILE = "stage.json"


class Run:
    """One run directory, e.g. `runs/mine`.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path | str) -> Run:
        """Open `path` as a run, making it when it is absent or empty; a folder of something else is refused."""
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise UsageError(
                f"{path} is a file, not a folder.",
                fix="Give --out a folder that does not exist yet, such as runs/mine.",
            )
        if path.is_dir() and not (path / RUN_FILE).exists():
            found = sorted(entry.name for entry in path.iterdir())
            if found:
                raise UsageError(
                    f"{path} belongs to something else.",
                    f"It is not empty and has no {RUN_FILE} (it holds {', '.join(found[:3])}"
                    f"{', …' if len(found) > 3 else ''}), so nothing is written there.",
                    "Give --out a new folder, such as runs/mine.",
                )
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not (path / RUN_FILE).exists():
                write_json(path / RUN_FILE, {"format": 1, "textmill": __version__, "created": time.time()})
        except (PermissionError, NotADirectoryError, FileExistsError) as error:
            raise UsageError(
                f"{path} cannot be written.", f"{error.strerror}.", "Give --out a folder that you own."
            ) from error
        return cls(path)

    @classmethod
    def open(cls, path: Path | str) -> Run:
        """Open an existing run."""
        path = Path(path)
        if not (path / RUN_FILE).exists():
            raise UsageError(
                f"{path} is not a run.",
                "There is no such folder." if not path.exists() else f"It has no {RUN_FILE}.",
                f"Make one with: textmill build my_texts/ --out {path}",
            )
        return cls(path)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for writing; a second process that wants it gets an error instead of a mixture."""
        with (self.path / ".lock").open("a+") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.seek(0)
                owner = stream.read().strip() or "unknown"
                raise Failure(
                    f"{self.path} is in use.",
                    f"Another textmill (process {owner}) is writing to it.",
                    "Wait for it to finish, or give --out another folder.",
                ) from None
            stream.seek(0)
            stream.truncate()
            stream.write(str(os.getpid()))
            stream.flush()
            yield

    def require(self, stage: str, command: str) -> Path:
        """The finished folder of `stage`, or an error that names the command which makes it."""
        folder = self.path / stage
        finish_renaming(self.path, stage)
        if not (folder / STAGE_FILE).exists():
            raise UsageError(
                f"{self.path} has no finished {stage}.",
                "The stage that makes it was not run, or was stopped before its end.",
                f"Type: {command}",
            )
        return folder

    def fingerprint(self, stage: str) -> str:
        """The fingerprint of a finished stage; what the stages after it are made from."""
        return str(read_json(self.path / stage / STAGE_FILE)["fingerprint"])

    def remember(self, **facts: Any) -> None:
        """Keep facts about the run in `run.json` (the command, the versions…)."""
        record = read_json(self.path / RUN_FILE)
        record.update(facts)
        write_json(self.path / RUN_FILE, record)

    def facts(self) -> dict[str, Any]:
        """The contents of `run.json`."""
        return dict(read_json(self.path / RUN_FILE))


class Stage:
    """One stage of a run: `with stage.work() as folder:` writes into the partial folder and finishes it.

    Args:
        run: the run.
        name: the stage's folder name, e.g. "corpus".
        inputs: JSON-able description of what goes in, content hashes included.
        configuration: JSON-able settings that shape the output.
        version: number to raise when the stage's code changes its output.
    """

    def __init__(self, run: Run, name: str, *, inputs: Any, configuration: Any, version: int = 1) -> None:
        self.run, self.name = run, name
        self.inputs, self.configuration = inputs, configuration
        self.fingerprint = hash_json([name, version, inputs, configuration])
        self.folder = run.path / name
        self.partial = run.path / f"{name}.partial"
        self.counts: dict[str, Any] = {}

    def _recover(self) -> None:
        """A kill between finishing and renaming left a whole stage under the partial name: rename it now."""
        finish_renaming(self.run.path, self.name)

    def record(self) -> dict[str, Any] | None:
        """`stage.json` of the finished stage, whatever it was made from; None when it is not finished."""
        try:
            return dict(read_json(self.folder / STAGE_FILE))
        except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
            return None

    def is_finished(self) -> bool:
        """Whether the finished folder was made from these very inputs and this configuration."""
        self._recover()
        record = self.record()
        return record is not None and record.get("fingerprint") == self.fingerprint

    @contextmanager
    def work(self) -> Iterator[Path]:
        """Yield the partial folder (kept from a killed attempt of the same fingerprint), then finish it by renaming."""
        self._recover()
        mark = self.partial / ".attempt"
        attempt: dict[str, Any] = {"fingerprint": self.fingerprint, "seconds": 0.0}
        if self.partial.exists():
            try:
                found = read_json(mark)
            except (FileNotFoundError, json.JSONDecodeError):
                found = {}
            if found.get("fingerprint") == self.fingerprint:
                attempt = found
            else:
                shutil.rmtree(self.partial)
        self.partial.mkdir(parents=True, exist_ok=True)
        write_json(mark, attempt)
        began = time.monotonic()
        try:
            yield self.partial
        except BaseException:
            if self.partial.exists():  # keep the pieces, and the time that they took
                attempt["seconds"] += time.monotonic() - began
                with suppress(OSError):
                    write_json(mark, attempt)
            raise
        write_json(
            self.partial / STAGE_FILE,
            {
                "stage": self.name,
                "fingerprint": self.fingerprint,
                "inputs": self.inputs,
                "configuration": self.configuration,
                "textmill": __version__,
                "counts": self.counts,
                "seconds": attempt["seconds"] + time.monotonic() - began,
                "finished": time.time(),
            },
        )
        finish_renaming(self.run.path, self.name)


def finish_renaming(run: Path, name: str) -> None:
    """Put a whole partial folder in the finished one's place; at no moment is the name half-written."""
    folder, partial, old = run / name, run / f"{name}.partial", run / f"{name}.old"
    if not (partial / STAGE_FILE).exists():
        return
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    (partial / ".attempt").unlink(missing_ok=True)
    partial.rename(folder)
    sync_folder(run)
    shutil.rmtree(old, ignore_errors=True)
