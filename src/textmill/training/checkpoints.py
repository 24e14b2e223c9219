"""Checkpoints: written whole, verified when read, the one before kept; and the journal of the clock's decisions."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import torch

from textmill.base.files import read_json, write_atomic, write_json

KEEP = 2


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.json"))


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write `state` as the checkpoint of `step`; the JSON beside it, written last, holds its hash.

    Args:
        folder: `runs/NAME/checkpoints`.
        step: steps done.
        state: tensors, numbers, strings, lists and dicts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    name = f"step-{step:08d}"
    write_atomic(folder / f"{name}.pt", data)
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    write_json(folder / f"{name}.json", {"step": step, "hash": digest, "bytes": len(data)})
    for old in _files(folder)[:-KEEP]:
        old.unlink(missing_ok=True)
        old.with_suffix(".pt").unlink(missing_ok=True)


def load_checkpoint(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest checkpoint that is whole, and a line about each one that was not.

    A damaged one is moved out of the way (`.damaged`), so that the next save counts the whole ones.
    """
    problems: list[str] = []
    for mark in reversed(_files(folder)):
        file = mark.with_suffix(".pt")
        try:
            data = file.read_bytes()
            record = read_json(mark)
            if hashlib.blake2b(data, digest_size=16).hexdigest() != record["hash"]:
                raise ValueError("its content does not match its hash")
            return dict(torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")), problems
        except Exception as error:  # any damage at all means: try the one before
            problems.append(f"checkpoint {mark.stem} is damaged ({error}); the one before it is used")
            for path in (mark, file):
                if path.exists():
                    path.replace(path.with_name(path.name + ".damaged"))
    return None, problems


class Journal:
    """Decisions taken by the clock or by a failure, in the order of their steps, each on disk before it takes effect.

    A run that was killed finds the decisions that it had already taken here and takes the same ones again, so its
    steps are bit-identical up to the kill.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = []
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    self.entries.append(json.loads(line))
                except json.JSONDecodeError:
                    break  # the last line of a killed process: it never took effect

    def add(self, entry: dict[str, Any]) -> None:
        """Write one decision and flush it to disk."""
        self.entries.append(entry)
        self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(item) + "\n" for item in self.entries)
        write_atomic(self.path, text)

    def at(self, step: int, kind: str) -> dict[str, Any] | None:
        """The decision of this kind already taken at `step`, if any."""
        for entry in self.entries:
            if entry["step"] == step and entry["kind"] == kind:
                return entry
        return None

    def forget_after(self, step: int) -> None:
        """Drop the decisions after `step`, for a run that goes back there on purpose."""
        self.entries = [entry for entry in self.entries if entry["step"] <= step]
        self._write()


def remove_checkpoints(folder: Path) -> None:
    """Delete every checkpoint of a folder."""
    if folder.exists():
        for path in folder.iterdir():
            if path.is_file():
                path.unlink()
