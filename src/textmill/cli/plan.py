"""`textmill plan`: probe the machine and choose what to train. Writes RUN/plan.json."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from textmill.cli.options import Json, Quiet
from textmill.training.config import PlanConfig, TrainingConfig

if TYPE_CHECKING:
    from textmill.training.plan import Plan


def plan(
    run: Path,
    /,
    *,
    budget: str = "10m",
    settings: Annotated[PlanConfig, Parameter(name="*")] = PlanConfig(),  # noqa: B008 (frozen)
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure this machine for a few seconds and choose the model that the time affords; train nothing.

    Vocabulary, width, depth, context, batch, steps and epochs are chosen for the lowest bits per byte that the
    budget allows; minutes, memory and bits per byte are predicted. What you fix yourself stays fixed.

    Examples:

        textmill plan runs/mine --budget 30m

        textmill plan runs/mine --budget 30m --width 384 --layers 6

    Parameters
    ----------
    run
        Run directory with a finished corpus (textmill corpus my_texts/ --out runs/mine).
    budget
        Time for the whole build, such as 10m or 2h.
    settings
        What you fix yourself.
    """
    from dataclasses import asdict

    from textmill.base.progress import Progress
    from textmill.base.run import Run
    from textmill.base.settings import parse_duration
    from textmill.training.plan import check_budget
    from textmill.training.planning import plan_run

    seconds = parse_duration(budget)
    check_budget(seconds)
    place = Run.open(run)
    place.require("corpus", f"textmill corpus my_texts/ --out {run}")
    progress = Progress("quiet" if quiet or json else None)
    with place.lock():
        tokenized = (place / "tokens" / "stage.json").exists()
        made = plan_run(place, seconds, settings, TrainingConfig(), progress, tokenized=tokenized)
    if json:
        print(json_format.dumps(asdict(made), indent=2, allow_nan=False))
        return
    show(made)


def show(made: Plan) -> None:
    """The plan as a table, with its reasons and warnings."""
    from rich.console import Console
    from rich.table import Table

    from textmill.base.settings import show_bytes, show_count, show_duration

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False)
    for heading in ("chosen", "", "why"):
        table.add_column(heading)
    for name, value in made.chosen.items():
        if value is None or value == {}:
            continue
        shown = show_count(value) if "parameters" in name else f"{value:,}" if isinstance(value, int) else str(value)
        table.add_row(name.replace("_", " "), shown, made.reasons.get(name, ""))
    console.print(table)
    predicted = made.predicted
    parts = ", ".join(f"{name} {show_duration(value)}" for name, value in predicted["seconds"].items())
    console.print(
        f"\nPredicted: {predicted['bits_per_byte']:.2f} bits per byte, {show_bytes(predicted['memory_bytes'])} of "
        f"memory, {show_count(predicted['tokens_per_second'])} tokens/s; {parts}."
    )
    for warning in made.warnings:
        console.print(f"Warning: {warning}", style="yellow")
