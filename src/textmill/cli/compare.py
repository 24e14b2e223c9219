"""`textmill compare`: every family of model on the same texts for the same time. Writes RUN/families/ and
RUN/leaderboard.json."""

from __future__ import annotations

import json as json_format
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from textmill.cli.build import CORPUS, EVALUATION, PLAN, TOKENIZER, TRAINING, default_out, remember
from textmill.cli.options import Json, Quiet
from textmill.corpus.config import CorpusConfig
from textmill.evaluation.config import EvaluationConfig
from textmill.tokens.config import TokenizerConfig
from textmill.training.config import PlanConfig, TrainingConfig

if TYPE_CHECKING:
    from textmill.base.run import Run

COMPARISON = Group("Comparison", sort_key=5)
WIDTH = 140
"""Columns of the table where there is no terminal to fit."""


def compare(
    *paths: Annotated[str, Parameter(allow_leading_hyphen=True)],
    families: Annotated[str, Parameter(group=COMPARISON)] = "all",
    budget: Annotated[str, Parameter(group=COMPARISON)] = "20m",
    folds: Annotated[int, Parameter(group=COMPARISON)] = 0,
    out: Path | None = None,
    corpus: Annotated[CorpusConfig, Parameter(group=CORPUS)] = CorpusConfig(),  # noqa: B008 (frozen)
    tokenizer: Annotated[TokenizerConfig, Parameter(group=TOKENIZER)] = TokenizerConfig(),  # noqa: B008
    plan: Annotated[PlanConfig, Parameter(group=PLAN)] = PlanConfig(),  # noqa: B008
    training: Annotated[TrainingConfig, Parameter(group=TRAINING)] = TrainingConfig(),  # noqa: B008
    evaluation: Annotated[EvaluationConfig, Parameter(group=EVALUATION)] = EvaluationConfig(),  # noqa: B008
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train every family of language model on the same texts, and show which one they and the time deserve.

    All families get the same tokens and an equal share of the time, each in a process of its own; they are scored
    by the same code in bits per byte (lower is better) on text that none of them has seen, alone and mixed in twos.
    Stopped or killed, the same command goes on.

    Examples:

        textmill compare my_texts/ --families all --budget 20m

        textmill compare sample:sotu --families ngram,lstm,transformer --budget 6m --json

        textmill compare my_texts/ --families ngram,transformer --folds 5 --budget 30m

    Parameters
    ----------
    paths
        Files, folders, globs or samples, as for `textmill build`; or one run whose tokens are made already.
    families
        "all", or names with commas between: ngram, hmm, rnn, gru, lstm, mingru, mamba, transformer, bert,
        encoder-decoder, autoencoder, vae.
    budget
        Time for everything, such as 6m or 2h.
    folds
        Cross-validation: deal the documents to so many folds and hold each out once. 0 for none.
    out
        Run directory to make, or to go on with; by default runs/ and the name of the first path.
    corpus
        Settings of the corpus stage.
    tokenizer
        Settings of the tokens stage.
    plan
        What you fix yourself for every family; the planner chooses the rest.
    training
        Settings of the training.
    evaluation
        Settings of the evaluation.
    """
    from textmill.base.errors import UsageError
    from textmill.base.progress import Progress
    from textmill.base.run import RUN_FILE, Run
    from textmill.base.settings import parse_duration
    from textmill.evaluation.leaderboard import check_time, chosen_families

    began = time.monotonic()
    if not paths:
        raise UsageError(
            "There is nothing to read.",
            "No file or folder was given.",
            "Type for example: textmill compare my_texts/ --families all --budget 20m",
        )
    names = chosen_families(families)
    _check(plan, names)
    seconds = parse_duration(budget)
    check_time(seconds / max(1, folds), names)
    made = len(paths) == 1 and (Path(paths[0]) / RUN_FILE).exists()
    place = Run.open(Path(paths[0])) if made else Run.create(out if out is not None else default_out(paths[0]))
    progress = Progress("quiet" if quiet or json else None)
    with place.lock():
        if not made:
            remember(place, seconds)
            _tokens(place, list(paths), seconds, corpus, tokenizer, plan, training, progress)
        board = _boards(place, names, evaluation, training, plan, progress, seconds, began, folds)
        if not folds:
            from textmill.report.build import build_report

            build_report(place, progress)
    if json:
        print(json_format.dumps(board["rows"], indent=2, ensure_ascii=False, allow_nan=False))
        return
    show_board(board)
    if not quiet and not folds:
        print(f"\nThe report: {place / 'report.html'}    The figures: {place / 'leaderboard.json'}")


def _check(plan: PlanConfig, names: list[str]) -> None:
    """Refuse settings that not every family has."""
    from textmill.base.errors import UsageError

    for name in ("width", "layers", "heads", "context"):
        if getattr(plan, name) is not None and len(names) > 1:
            raise UsageError(
                f"--plan.{name} has no meaning for all of {', '.join(names)}.",
                "Each family is planned by itself.",
                f"Leave it out, or train one alone: textmill build my_texts/ --family {names[-1]} --plan.{name} N",
            )


def _tokens(
    place: Run,
    paths: list[str],
    seconds: float,
    corpus: CorpusConfig,
    tokenizer: TokenizerConfig,
    plan: PlanConfig,
    training: TrainingConfig,
    progress: Any,
) -> None:
    """The corpus and tokens that all families share."""
    from textmill.base.files import read_json
    from textmill.corpus.build import build_corpus
    from textmill.tokens.build import tokenize_corpus
    from textmill.tokens.vocabulary import choose_vocabulary

    build_corpus(paths, place, corpus, progress)
    size = read_json(place / "corpus" / "card.json")["splits"]["train"]["bytes"]
    tokenize_corpus(place, tokenizer, progress, vocabulary=plan.vocabulary or choose_vocabulary(size).vocabulary)


def _boards(
    place: Run,
    names: list[str],
    evaluation: EvaluationConfig,
    training: TrainingConfig,
    plan: PlanConfig,
    progress: Any,
    seconds: float,
    began: float,
    folds: int,
) -> dict[str, Any]:
    from textmill.evaluation.leaderboard import compare_families

    if not folds:
        return compare_families(
            place, names, evaluation, training, plan, progress, budget=seconds, elapsed=time.monotonic() - began
        )
    from textmill.base.files import write_json
    from textmill.evaluation.folds import check_folds, fold_run, summary

    check_folds(place, folds)
    boards = []
    for fold in range(folds):
        progress.say(f"Fold {fold + 1} of {folds}")
        share = (seconds - (time.monotonic() - began)) / (folds - fold)
        part = fold_run(place, fold, folds, evaluation.seed)
        boards.append(compare_families(part, names, evaluation, training, plan, progress, budget=share, mixtures=False))
    result = {"rows": summary(boards), "folds": folds}
    write_json(place / "folds" / "cross_validation.json", result)
    return result


def show_board(board: dict[str, Any]) -> None:
    """The leaderboard as a table, and the recommendation."""
    from rich.console import Console
    from rich.table import Table

    from textmill.base.settings import show_bytes, show_count, show_duration

    table = Table(box=None, pad_edge=False, header_style="bold")
    if "folds" in board:
        for name in ("family", "bits per byte, mean of folds", "deviation"):
            table.add_column(name, justify="left" if name == "family" else "right")
        for row in board["rows"]:
            spread = "" if row["deviation"] is None else f"± {row['deviation']:.3f}"
            table.add_row(row["family"], f"{row['bits_per_byte']:.3f}", spread)
        Console().print(table)
        return
    heads = (
        "family",
        "bits per byte",
        "95% interval",
        "test",
        "word ppl",
        "parameters",
        "on disk",
        "trained",
        "tok/s",
        "memory",
    )
    for name in heads:
        table.add_column(name, justify="left" if name == "family" else "right")
    notes = []
    for row in board["rows"]:
        own = row["kind"] == "family"
        exact = row["comparable"] and not row["bound"] and row.get("documents") == row.get("documents_drawn")
        mark = "" if exact or (row["comparable"] and not own) else "*"
        if mark:
            notes.append(f"* {row['label']}: {row['note']}")
        interval = f"{row['low']:.3f} to {row['high']:.3f}" if own and row.get("low") is not None else ""
        table.add_row(
            row["label"] + mark,
            f"{row['bits_per_byte']:.3f}",
            interval,
            f"{row['test_bits_per_byte']:.3f}",
            f"{row['word_perplexity']:,.0f}" if own else "",
            show_count(row["parameters"]),
            show_bytes(row["bytes"]),
            show_duration(row["seconds"]),
            show_count(row["tokens_per_second"]) if own else "",
            show_bytes(row["memory_bytes"]) if own else "",
        )
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table)
    for note in notes:
        print(note)
    for one in board["failed"]:
        print(f"Left out: {one['family']}: {one['what']} {one['why']}")
    print(f"\n{board['recommendation']}")
