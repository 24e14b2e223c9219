"""`textmill report RUN`: write the run's page and say where it is. Writes RUN/report.html."""

from __future__ import annotations

import json as json_format
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from textmill.cli.options import Json, Quiet

if TYPE_CHECKING:
    from rich.table import Table


def report(
    run: Path,
    /,
    *,
    open: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the page of a run, RUN/report.html, and say where it is.

    The page is one file that needs no network: send it, print it, read it on a phone. It tells how good the
    model is beside its baselines, how it learned, whether the plan held, what it wrote along the way, what
    the corpus holds and what was left out of it, and how to make the run again. A run that is not finished
    gets a page too, with what is there so far; while it has a corpus alone, the page is its data card: where
    the text came from, how long, in which languages, what each rule dropped and would drop at other thresholds,
    repeats, personal data, licences.

        textmill report runs/mine --open

    Parameters
    ----------
    run
        Run directory, such as runs/mine.
    open
        Open the page in the browser.
    """
    from textmill.base.progress import Progress
    from textmill.base.run import Run
    from textmill.report.build import write_report
    from textmill.report.data import collect

    place = Run.open(run)
    data = collect(place)
    page = write_report(place, data, Progress("quiet" if quiet or json else None))
    if json:
        print(json_format.dumps({"report": str(page), **data}, indent=2, ensure_ascii=False))
    elif quiet:
        print(page)
    else:
        _summary(page, data)
    if open:
        import webbrowser

        if not webbrowser.open(page.resolve().as_uri()) and not quiet:
            print("No browser could be opened; open the file yourself.", file=sys.stderr)


def _summary(page: Path, data: dict[str, Any]) -> None:
    """The verdict, its caveats, each measurement as a table, and the page's path as the last line."""
    from rich.console import Console

    console = Console(highlight=False)
    console.print(data["verdict"]["sentence"], markup=False)
    for caveat in data["verdict"]["caveats"]:
        console.print(f"- {caveat}", markup=False, style="yellow")
    for measurement in data["evaluation"]:
        console.print()
        console.print(_table(measurement))
    console.print()
    print(page)  # not through rich, which would break a long path into lines


def _table(measurement: dict[str, Any]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from textmill.base.settings import show_count, show_duration

    table = Table(title=Text(str(measurement["name"])), title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    for name in ("bits per byte", "95% interval", "parameters", "time"):
        table.add_column(name, justify="right")
    for row in measurement["rows"]:
        low, high = row.get("low"), row.get("high")
        table.add_row(
            Text(str(row.get("label") or row.get("name"))),
            f"{row['bits_per_byte']:.3f}",
            f"{low:.3f} – {high:.3f}" if low is not None and high is not None else "",
            show_count(row["parameters"]) if row.get("parameters") else "",
            show_duration(row["seconds"]) if row.get("seconds") is not None else "",
            style="bold" if row.get("kind") == "model" else None,
        )
    return table
