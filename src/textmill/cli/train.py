"""`textmill train`: token shards to weights. Writes RUN/plan.json, RUN/checkpoints/ and RUN/model/."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from textmill.cli.options import Json, Quiet
from textmill.training.config import PlanConfig, TrainingConfig


def train(
    run: Path,
    /,
    *,
    budget: str | None = None,
    plan: Annotated[PlanConfig, Parameter(name="*")] = PlanConfig(),  # noqa: B008 (frozen)
    training: Annotated[TrainingConfig, Parameter(name="*")] = TrainingConfig(),  # noqa: B008 (frozen)
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a model on the tokens of a run, for a time or for a number of steps.

    The same command typed again goes on from the last checkpoint. With --steps the result is bit-identical
    whether or not it was killed in between, at an equal number of threads.

    Examples:

        textmill train runs/mine --budget 30m

        textmill train runs/mine --steps 1000 --width 256 --layers 4

    Parameters
    ----------
    run
        Run directory with finished tokens (textmill tokenize runs/mine).
    budget
        Time for the training, such as 10m or 2h. Without it and without --steps, what `textmill plan` planned
        is trained, or else 10m.
    plan
        What you fix yourself; the planner chooses the rest.
    training
        Learning rates, guards, checkpoints.
    """
    from textmill.base.errors import UsageError
    from textmill.base.progress import Progress
    from textmill.base.run import Run
    from textmill.base.settings import parse_duration, show_count, show_duration
    from textmill.cli.build import make_sampler, show_plan
    from textmill.training.plan import check_budget
    from textmill.training.planning import merge, plan_run, read_request
    from textmill.training.train import train_model

    if plan.vocabulary is not None:
        raise UsageError(
            "--vocabulary has no effect here: the tokens are already made.",
            fix=f"Make them anew with: textmill tokenize {run} --vocabulary {plan.vocabulary}",
        )
    if plan.steps is not None and budget is not None:
        raise UsageError(
            "Both --steps and --budget were given.",
            "Each sets the length of the training.",
            "Leave one of them out.",
        )
    place = Run.open(run)
    planned_before = plan.steps is None and budget is None and read_request(place)
    seconds: float | None
    if planned_before:
        seconds, plan = planned_before[0], merge(planned_before[1], plan)
    else:
        seconds = None if plan.steps is not None else parse_duration(budget or "10m")
    check_budget(seconds)
    place.require("corpus", f"textmill corpus my_texts/ --out {run}")
    place.require("tokens", f"textmill tokenize {run}")
    progress = Progress("quiet" if quiet or json else None)
    with place.lock():
        planned = plan_run(place, seconds, plan, training, progress, evaluate=bool(planned_before))
        show_plan(planned, progress)
        counts = train_model(place, planned, training, progress, make_sampler())
    if json:
        print(json_format.dumps(counts, indent=2, allow_nan=False))
        return
    how = f"after {counts['steps']:,} steps " if counts["steps"] else ""
    print(
        f"{counts['bits_per_byte']:.3f} bits per byte on the validation split {how}"
        f"({show_count(counts['tokens'])} tokens, {show_duration(counts['training_seconds'])}). "
        f"The model: {place / 'model'}"
    )
    if not quiet:
        print(f"Next:  textmill evaluate {run}\n       textmill generate {run}")
