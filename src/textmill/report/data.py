"""What the report shows, collected from a run directory into one plain dictionary. Reads files only."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from statistics import median
from typing import Any

from textmill.base.run import Run
from textmill.report.verdict import caveats, verdict

STAGES = ("corpus", "tokens", "model")
CURVE_POINTS = 600
"""Training steps are averaged down to this many points; validation points are all kept."""


def collect(run: Run) -> dict[str, Any]:
    """Everything the report shows, JSON-able; a part whose stage is not there yet is None (or an empty list).

    Args:
        run: the run; files that are absent are left out, files that cannot be read are named in `unreadable`.

    Returns:
        `name`, `path`, `run` (run.json), `stages` (each stage.json), `corpus` (card.json), `tokens`
        (index.json), `plan` (plan.json), `training` (curve, events, samples), `evaluation`
        (measurements, test first), `commands`, `verdict` (`sentence`, `caveats`), `unreadable`.
    """
    unreadable: list[str] = []
    data: dict[str, Any] = {
        "name": run.path.resolve().name,
        "path": str(run.path),
        "run": _mapping(run / "run.json", unreadable) or {},
        "stages": {
            name: record for name in STAGES if (record := _mapping(run / name / "stage.json", unreadable)) is not None
        },
        "corpus": _mapping(run / "corpus" / "card.json", unreadable),
        "tokens": _mapping(run / "tokens" / "index.json", unreadable),
        "plan": _mapping(run / "plan.json", unreadable),
        "leaderboard": _mapping(run / "leaderboard.json", unreadable),
    }
    data["training"] = _training(run, data["tokens"], unreadable)
    data["evaluation"] = _evaluation(run / "evaluation", unreadable)
    data["commands"] = commands(data["path"])
    data["unreadable"] = unreadable
    data["verdict"] = {"sentence": verdict(data), "caveats": caveats(data)}
    return data


def commands(path: str) -> dict[str, str]:
    """What to type for each part of the run at `path`."""
    place = shlex.quote(path)
    return {
        "corpus": f"textmill corpus my_texts/ --out {place}",
        "tokens": f"textmill tokenize {place}",
        "query": f'textmill corpus query "select source, characters from documents limit 20" --out {place}',
        "plan": f"textmill plan {place}",
        "train": f"textmill train {place}",
        "evaluate": f"textmill evaluate {place}",
        "evaluate_other": f"textmill evaluate {place} other_texts/",
        "generate": f'textmill generate {place} "Once upon" --temperature 0.8 -n 3',
        "chat": f"textmill chat {place}",
        "report": f"textmill report {place}",
    }


def _no_constant(_: str) -> None:
    """NaN and infinities are not JSON: they become null."""


def _load(path: Path, unreadable: list[str]) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        unreadable.append(f"{path.parent.name}/{path.name}")
        return None


def _mapping(path: Path, unreadable: list[str]) -> dict[str, Any] | None:
    value = _load(path, unreadable)
    if value is not None and not isinstance(value, dict):
        unreadable.append(f"{path.parent.name}/{path.name}")
        return None
    return value


def _lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file; a torn last line (the writer was killed) is skipped."""
    found = []
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    for line in text.splitlines():
        try:
            value = json.loads(line, parse_constant=_no_constant)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def _evaluation(folder: Path, unreadable: list[str]) -> list[dict[str, Any]]:
    """The measurements, the test split first, then validation, then the others by name; best row first."""
    found = []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        measurement = _mapping(path, unreadable)
        if measurement is None:
            continue
        measurement.setdefault("name", path.stem)
        measurement.setdefault("data", {})
        rows = [row for row in measurement.get("rows", []) if isinstance(row.get("bits_per_byte"), int | float)]
        measurement["rows"] = sorted(rows, key=lambda row: (row["bits_per_byte"], str(row.get("name"))))
        found.append(measurement)
    order = {"test": 0, "validation": 1}
    return sorted(found, key=lambda m: (order.get(m["name"], 2), m["name"]))


def _training(run: Run, index: dict[str, Any] | None, unreadable: list[str]) -> dict[str, Any] | None:
    finished = (run / "model" / "stage.json").exists()
    folder = run / "model"
    if not finished and not (folder / "training.jsonl").exists():
        folder = run / "model.partial"
    records = _lines(folder / "training.jsonl")
    if not records and not finished:
        return None
    steps = [r for r in records if r.get("kind") == "step"]
    validation = [
        r for r in records if r.get("kind") == "validation" and isinstance(r.get("bits_per_byte"), int | float)
    ]
    scale = bits_per_byte_of_loss(index)
    speeds = [r["tokens_per_second"] for r in steps if r.get("tokens_per_second")]
    last = max([*steps, *validation], key=lambda r: r.get("seconds", 0.0), default={})
    return {
        "finished": finished,
        "config": _mapping(folder / "config.json", unreadable),
        "steps": thin(steps, scale, CURVE_POINTS),
        "step_count": last.get("step"),
        "validation": validation,
        "best": min(validation, key=lambda r: r["bits_per_byte"], default=None),
        "events": [r for r in records if r.get("kind") == "event"],
        "seconds": last.get("seconds"),
        "tokens": last.get("tokens"),
        "tokens_per_second": median(speeds) if speeds else None,
        "samples": _samples(_lines(folder / "samples.jsonl")),
    }


def bits_per_byte_of_loss(index: dict[str, Any] | None) -> float | None:
    """What turns a training loss (nats a token) into bits per byte: train tokens / (bytes · ln 2)."""
    train = (index or {}).get("splits", {}).get("train", {})
    if not train.get("bytes") or not train.get("tokens"):
        return None
    return float(train["tokens"] / train["bytes"] / math.log(2))


def thin(steps: list[dict[str, Any]], scale: float | None, points: int) -> list[dict[str, Any]]:
    """At most `points` points, each the mean of neighbouring steps; `bits_per_byte` is loss · `scale`."""
    known = [s for s in steps if isinstance(s.get("loss"), int | float)]
    size = max(1, math.ceil(len(known) / points))
    found = []
    for begin in range(0, len(known), size):
        group = known[begin : begin + size]
        loss = sum(s["loss"] for s in group) / len(group)
        point = {"step": group[-1].get("step"), "seconds": group[-1].get("seconds"), "loss": loss}
        if scale is not None:
            point["bits_per_byte"] = loss * scale
        found.append(point)
    return found


def _samples(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Samples grouped by step, in order: `{"step", "seconds", "texts": [{"prompt", "text"}]}`."""
    groups: dict[Any, dict[str, Any]] = {}
    for record in records:
        group = groups.setdefault(
            record.get("step"), {"step": record.get("step"), "seconds": record.get("seconds"), "texts": []}
        )
        prompt, text = str(record.get("prompt") or ""), str(record.get("text") or "")
        group["texts"].append({"prompt": prompt, "text": text.removeprefix(prompt)})
    return sorted(groups.values(), key=lambda g: g["step"] if isinstance(g["step"], int | float) else -1)
