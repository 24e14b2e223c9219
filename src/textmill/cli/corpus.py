"""`textmill corpus`: files to clean documents. Writes `RUN/corpus/`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from textmill.base.errors import UsageError
from textmill.cli.options import Json, Quiet
from textmill.corpus.config import CorpusConfig

if TYPE_CHECKING:
    from rich.table import Table

DEFAULT = CorpusConfig()


def corpus(
    *paths: Annotated[str, Parameter(allow_leading_hyphen=True)],
    out: Path,
    config: Annotated[CorpusConfig, Parameter(name="*")] = DEFAULT,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Read raw text and keep what is worth learning.

    Reads .txt, .md, .html, .jsonl, .csv, .tsv and .parquet, each also as .gz or .zst; a folder without any of these
    is read as source code. A text file is a document, and so is a row of .jsonl, .csv or .parquet. Encodings are
    detected and repaired, HTML becomes text, exact repeats go, and each document gets its split from its own content,
    so that files added later move none.

    Writes OUT/corpus/: `documents-*.parquet`, `rejected-*.parquet` with the reason for each, and
    `card.json`, which says what was read, kept and dropped. The same command typed again finds it done.

    Examples:

        textmill corpus my_texts/ --out runs/mine

        textmill corpus "notes/**/*.md" books.jsonl.gz --out runs/mine

        textmill corpus tables.csv --text-column review --out runs/mine

        zcat dump.txt.gz | textmill corpus - --out runs/mine

        textmill corpus sample:sotu --out runs/demo        # also sample:stdlib, sample:wiki, sample:chinese

    Parameters
    ----------
    paths
        Files, folders, patterns, "-" for standard input, or sample:NAME.
    out
        The run's folder; it is made when absent.
    """
    import json as json_module

    _refuse_options(paths)
    from textmill.base.progress import Progress
    from textmill.base.run import Run
    from textmill.corpus.build import build_corpus

    run = Run.create(out)
    with run.lock():
        card = build_corpus(list(paths), run, config, Progress("quiet" if quiet else None))
    if json:
        print(json_module.dumps(card, ensure_ascii=False))
    else:
        _show(card, run / "corpus")


def _refuse_options(paths: tuple[str, ...]) -> None:
    """A mistyped option must not be taken for a file."""
    import dataclasses

    from textmill.base.errors import nearest

    for path in paths:
        if path.startswith("-") and path != "-" and not Path(path).exists():
            known = [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(CorpusConfig)]
            raise UsageError(
                f'Unknown option "{path}".{nearest(path, [*known, "--out", "--json", "--quiet"])}',
                fix="See: textmill corpus --help",
            )


def _table(title: str, *columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    return table


def _show(card: dict[str, Any], folder: Path) -> None:
    """The card for people, on standard output."""
    from rich.console import Console
    from rich.markup import escape

    from textmill.base.settings import show_bytes

    console = Console(highlight=False)
    read, kept = card["read"], card["kept"]
    formats = ", ".join(f"{count:,} {kind}" for kind, count in read["formats"].items())
    console.print(f"Read {read['files']:,} files ({formats}), {show_bytes(read['bytes'])}", soft_wrap=True)
    skipped = ", ".join(f"{count:,} {reason}" for reason, count in read["skipped"].items() if count)
    if skipped:
        console.print(f"Left out: {escape(skipped)}", soft_wrap=True)
    languages = ", ".join(
        f"{name or 'unknown'} {100 * amounts['bytes'] / kept['bytes']:.0f}%"
        for name, amounts in list(card["languages"].items())[:5]
    )
    table = _table("Kept", "split", "documents", "bytes")
    for name, amounts in card["splits"].items():
        table.add_row(name, f"{amounts['documents']:,}", show_bytes(amounts["bytes"]))
    table.add_row("all", f"{kept['documents']:,}", show_bytes(kept["bytes"]), style="bold")
    console.print(table)
    median = card["lengths"]["50"]
    console.print(f"Languages by bytes: {languages}. Median length {median:,} characters.", soft_wrap=True)
    if card["cut"]:
        console.print(escape(card["cut"]["rule"]), soft_wrap=True)
    if card["moved"]:
        console.print(escape(card["split_rule"]), soft_wrap=True)
    if card["dropped"]:
        table = _table("Dropped", "rule", "documents", "bytes", "for example")
        for rule, dropped in card["dropped"].items():
            example = dropped["examples"][0]
            sample = escape(f"{example['source']} ({example['value']})")
            table.add_row(rule, f"{dropped['documents']:,}", show_bytes(dropped["bytes"]), sample)
        console.print(table)
    if read["problem_count"]:
        console.print(f"[bold]Problems: {read['problem_count']:,}[/bold]")
        for problem in read["problems"][:5]:
            console.print(f"  {escape(problem['source'])}: {escape(problem['problem'])}", soft_wrap=True)
    for source, licence in card["licences"].items():
        console.print(f"Licence of {source}: {escape(licence)}", soft_wrap=True)
    console.print(f"Written to {escape(str(folder))}", soft_wrap=True)
