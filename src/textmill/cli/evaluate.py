"""`textmill evaluate`: bits per byte of held-out or other text. Writes RUN/evaluation/NAME.json."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from textmill.cli.options import Json, Quiet
from textmill.evaluation.config import EvaluationConfig

if TYPE_CHECKING:
    from rich.table import Table

DEFAULT = EvaluationConfig()
WIDE = 110
"""Columns from which a table shows everything."""


def evaluate(
    run: Path,
    /,
    *paths: str,
    evaluation: Annotated[EvaluationConfig, Parameter(name="*")] = DEFAULT,
    time_limit: str | None = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a model in bits per byte: how many bits it needs, on average, for each byte of text.

    Fewer is better. A byte of a plain file takes 8; a good compressor comes to about 2; the fewer a model
    needs, the more it knows of the language. The unit does not depend on the tokenizer, so models, n-grams
    and compressors stand in one table, all measured on the same bytes:

    - Textmill, the run's model;
    - unigram, which knows only how frequent each token is, and the Kneser-Ney 5-gram, which counts what
      follows every four tokens, both fitted on the training text;
    - xz -9e and zstd -19, on the held-out text alone, and given the training text first.

    Without texts, the run's test and validation splits are measured. The 95% interval (bootstrap) tells how
    much a figure owes to the choice of documents: with others of the same kind it might as well have come out
    anywhere in there. Each figure's signature names all that it depends on; compare figures whose text and
    data agree.

    Examples:

        textmill evaluate runs/mine

        textmill evaluate runs/mine other_texts/ novel.txt

        textmill evaluate runs/mine --json

        textmill evaluate runs/mine --weights int8 --weights int4     # what rounding the weights costs

    Parameters
    ----------
    run
        Run directory, such as runs/mine.
    paths
        Other texts to measure on: files, folders, globs or samples. Nothing is trained on them.
    time_limit
        Longest time for each measurement, like "30s" or "2m"; what does not fit is cut or left out, and said.
    """
    from textmill.base.progress import Progress
    from textmill.base.run import Run
    from textmill.base.settings import parse_duration
    from textmill.evaluation.evaluate import evaluate_run, evaluate_texts

    place = Run.open(run)
    progress = Progress("quiet" if quiet or json else None)
    limit = None if time_limit is None else parse_duration(time_limit)
    with place.lock():
        if paths:
            found = [evaluate_texts(place, list(paths), evaluation, progress, time_limit=limit)]
        else:
            found = [
                evaluate_run(place, evaluation, progress, split=split, time_limit=limit) for split in evaluation.splits
            ]
    if json:
        print(json_format.dumps({"measurements": found}, indent=2, ensure_ascii=False, allow_nan=False))
        return
    show_measurements(found, signatures=not quiet)


def show_measurements(found: list[dict[str, Any]], *, signatures: bool) -> None:
    """Each measurement as a table, its notes, and the signatures if asked for."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, WIDE)  # in a file or a pipe nothing needs to wrap
    for number, measurement in enumerate(found):
        if number:
            console.print()
        console.print(_table(measurement, wide=console.width >= WIDE))
        for note in measurement["notes"]:
            console.print(f"- {note}", markup=False, style="yellow")
        if not signatures:
            continue
        console.print("\nSignatures:", style="dim")
        for row in measurement["rows"]:
            console.print(f"  {row['signature']}", markup=False, style="dim", soft_wrap=True)


def _table(measurement: dict[str, Any], wide: bool) -> Table:
    """One measurement: bits per byte with its interval first; a narrow terminal gets no perplexity."""
    from rich.table import Table
    from rich.text import Text

    from textmill.base.settings import show_bytes, show_count, show_duration

    data = measurement["data"]
    title = f"{data['description']}: {data['documents']} documents, {show_bytes(data['bytes'])}"
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    perplexity = ["perplexity of a token"] if wide else []
    for name in ("bits per byte", "95% interval", *perplexity, "parameters", "time"):
        table.add_column(name, justify="right", no_wrap=name == "95% interval")
    for row in measurement["rows"]:
        cells = [
            f"{row['bits_per_byte']:.3f}",
            f"{row['low']:.3f} – {row['high']:.3f}" if "low" in row else "",
            f"{row['token_perplexity']:.1f}" if "token_perplexity" in row else "",
            show_count(row["parameters"]) if "parameters" in row else "",
            show_duration(row["seconds"]),
        ]
        if not wide:
            del cells[2]
        table.add_row(Text(row["label"]), *cells, style="bold" if row["kind"] == "model" else None)
    return table
