"""One self-contained HTML page from a run directory. Reads the run, writes RUN/report.html."""

from __future__ import annotations

import base64
import gzip
import hashlib
import shlex
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textmill.base.files import write_atomic
from textmill.base.progress import Progress
from textmill.base.run import Run
from textmill.base.settings import show_bytes, show_count, show_duration
from textmill.report import figures
from textmill.report.card import card_view
from textmill.report.card_figures import bin_words, lengths_plotly, show_threshold
from textmill.report.data import collect
from textmill.report.languages import LANGUAGES
from textmill.report.leaderboard import board_view
from textmill.report.verdict import OVERRUN_ALLOWED, main_measurement, overrun, own_row

if TYPE_CHECKING:
    from jinja2 import Environment

EXAMPLE_CHARACTERS = 400

CONTENTS = (
    ("families", "Which family"),
    ("measured", "How good"),
    ("learning", "Learning"),
    ("plan", "Plan"),
    ("samples", "Samples"),
    ("corpus", "Corpus"),
    ("rejected", "Left out"),
    ("events", "Events"),
    ("again", "Make it again"),
)
"""The sections in order, by id, with their names in the contents."""


def build_report(run: Run, progress: Progress | None = None) -> Path:
    """Write `RUN/report.html` from what the run directory holds now, and return its path.

    The page stands alone: figures and scripts are inside it, and its content security policy forbids any
    network request. The same run directory gives the same bytes.

    Args:
        run: the run; stages that are absent are left out, each with a line that says which command makes it.
        progress: where to report.
    """
    return write_report(run, collect(run), progress)


def write_report(run: Run, data: dict[str, Any], progress: Progress | None = None) -> Path:
    """Write `RUN/report.html` from what `report.data.collect` found in the run, and return its path."""
    with (progress or Progress("quiet")).task("Report", 1, "page") as task:
        path = run / "report.html"
        write_atomic(path, render(data))
        task.advance(1)
    return path


def render(data: dict[str, Any]) -> str:
    """The page for `report.data.collect`'s dictionary."""
    from markupsafe import Markup

    environment = templates()
    script = environment.get_template("page.js.jinja").render()
    packed, packed_hash = packed_plotly()
    page = environment.get_template("template.html.jinja").render(
        view(data),
        script=Markup(script),
        script_hashes=[source_hash(script.encode()), packed_hash],
        plotly=packed,
    )
    return page.encode("utf-8", "replace").decode()  # half a surrogate pair, from a file's name, is no UTF-8


@lru_cache(maxsize=1)
def templates() -> Environment:
    """The templates beside this file, with the page's filters."""
    from jinja2 import ChainableUndefined, Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("textmill.report", "."),
        autoescape=True,  # everything from the corpus is untrusted text
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        bytes=lambda v: _amount(v, show_bytes),
        count=lambda v: _amount(v, show_count),
        duration=lambda v: _amount(v, show_duration),
        bits=lambda v: _amount(v, lambda x: f"{x:.3f}"),
        whole=lambda v: _amount(v, lambda x: f"{x:,.0f}"),
        percent=lambda v: _amount(v, lambda x: f"{x:.0%}"),
        part=lambda v: _amount(v, show_part),
        bin=bin_words,
        threshold=show_threshold,
        fact=show_fact,
        words=lambda key: str(key).replace("_", " "),
        language=lambda code: LANGUAGES.get(code, code),
        guess_language=guess_language,
        cut=cut,
    )
    return environment


def view(data: dict[str, Any]) -> dict[str, Any]:
    """`collect`'s dictionary with what the page needs beside it: figures, comparisons, long lists cut."""
    plan, training = data["plan"] or {}, data["training"]
    measurement = main_measurement(data)
    comparison = plan_rows(data)
    record = data["stages"].get("corpus") or {}
    card = card_view(data["corpus"] or {}, record.get("configuration"), data["path"])
    shown = sections(data)
    over = overrun(plan)
    return {
        **data,
        "own": own_row(measurement) if measurement else None,
        "measured": measurement,
        "measurements": [
            {**m, "own": own_row(m), "figure": figures.bars(m["rows"])} for m in data["evaluation"] if m["rows"]
        ],
        "board": board_view(data.get("leaderboard")),
        "curve": figures.curve(training, curve_lines(data)) if training else None,
        "curve_split": curve_measurement(data),
        "stage_rows": comparison,
        "stage_figure": figures.stages(comparison),
        "overrun": over,
        "overrun_bad": over is not None and over > OVERRUN_ALLOWED,
        "overrun_allowed": OVERRUN_ALLOWED,
        "card": card,
        "lengths_figure": lengths_plotly(card["histogram"]) if card["histogram"] else None,
        "main_language": card["main_language"],
        "data_card": data["corpus"] is not None and not (shown["measured"] or shown["learning"] or shown["families"]),
        "sections": shown,
        "contents": CONTENTS,
        "steps_left": steps_left(data),
        "created": show_time(data["run"].get("created")),
        "command": show_command(data["run"].get("command")),
        "facts": run_facts(data),
        "example_characters": EXAMPLE_CHARACTERS,
    }


def sections(data: dict[str, Any]) -> dict[str, bool]:
    """Which sections the page has.

    A run with a model, or with measurements, has them all, and what is absent names its command. Any other run has
    those that hold something.
    """
    begun = bool(data["training"] or data["evaluation"])
    filled = {
        "families": data.get("leaderboard"),
        "plan": data["plan"],
        "corpus": data["corpus"],
        "rejected": data["corpus"],
    }
    found = {name: begun or name == "again" or filled.get(name) is not None for name, _ in CONTENTS}
    return found | {"families": data.get("leaderboard") is not None}


def steps_left(data: dict[str, Any]) -> list[tuple[str, str]]:
    """What is still to do, in order: in words, and the key of its command."""
    steps = (
        ("Read, clean and judge the texts", "corpus", data["corpus"]),
        ("Turn the text into tokens", "tokens", data["tokens"]),
        ("See what a time budget allows", "plan", data["plan"]),
        ("Train a model", "train", (data["training"] or {}).get("finished")),
        ("Measure it beside its baselines", "evaluate", data["evaluation"]),
    )
    return [(what, key) for what, key, done in steps if not done]


def curve_measurement(data: dict[str, Any]) -> dict[str, Any] | None:
    """The measurement whose baselines are drawn into the loss curve: validation if there, else test."""
    named = {m["name"]: m for m in data["evaluation"]}
    return named.get("validation") or named.get("test")


def curve_lines(data: dict[str, Any]) -> list[dict[str, Any]]:
    """The baselines as horizontal lines."""
    measurement = curve_measurement(data)
    own = own_row(measurement) if measurement else None
    return [
        {"label": str(r.get("label") or r.get("name")), "value": r["bits_per_byte"], "kind": r.get("kind")}
        for r in (measurement or {}).get("rows", [])
        if r is not own
    ]


def plan_rows(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Seconds planned and taken for each stage: plan.json, or the stage's record where the plan has none."""
    plan = data["plan"] or {}
    predicted = (plan.get("predicted") or {}).get("seconds") or {}
    actual = dict((plan.get("actual") or {}).get("seconds") or {})
    for name, record in data["stages"].items():
        known = {"model": ("model", "training", "train"), "tokens": ("tokens", "tokenize", "tokenizer")}.get(
            name, (name,)
        )
        if not any(key in actual for key in known) and record.get("seconds") is not None:
            actual[next((key for key in known if key in predicted), name)] = record["seconds"]
    names = [*predicted, *(name for name in actual if name not in predicted)]
    return [{"name": n.replace("_", " "), "predicted": predicted.get(n), "actual": actual.get(n)} for n in names]


def run_facts(data: dict[str, Any]) -> list[tuple[str, Any]]:
    """Facts of run.json (nested ones flattened) without those that the page shows elsewhere."""
    found: dict[str, Any] = {}  # by name: the version of textmill stands in run.json twice
    for key, value in data["run"].items():
        if key in ("command", "created", "format"):
            continue
        if isinstance(value, dict):
            plain = key in ("versions", "machine")
            found.update({str(inner) if plain else f"{key} {inner}": v for inner, v in value.items()})
        elif value is not None:
            found[key] = value
    return list(found.items())


def show_time(seconds: Any) -> str:
    """A moment for people, in UTC (the page must not depend on where it is built)."""
    if isinstance(seconds, str):
        return seconds
    if not isinstance(seconds, int | float):
        return ""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def show_part(share: float) -> str:
    """A share as a percentage that never rounds something to nothing or a part to the whole."""
    if 0 < share < 0.001:
        return "<0.1%"
    if 0.999 < share < 1:
        return ">99.9%"
    return f"{share:.1%}" if 0 < share < 0.1 or 0.99 < share < 1 else f"{share:.0%}"


def show_command(command: Any) -> str:
    """The command as one would type it; run.json may hold it as a list or as a line."""
    return shlex.join(map(str, command)) if isinstance(command, list) else str(command or "")


def show_fact(value: Any, key: str = "") -> str:
    """A value of plan.json or run.json for people, its unit read from the end of its key."""
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        if key.endswith("flops_per_second") or key.endswith("flops"):
            return f"{value / 1e9:.0f} GFLOP" + ("/s" if key.endswith("second") else "")
        if key.endswith("bytes_per_second"):
            return f"{show_bytes(value)}/s"
        if key.endswith("per_second"):
            return f"{show_count(value)}/s"
        if key.endswith("seconds"):
            return show_duration(value)
        if key.endswith("bits_per_byte"):
            return f"{value:.3f}"
        if key.endswith("bytes"):
            return show_bytes(value)
        if key.endswith("parameters") or (key.endswith("tokens") and value >= 100_000):
            return show_count(value)
        if isinstance(value, float) and not value.is_integer():
            return f"{value:.4g}"
        return f"{value:,.0f}"
    if isinstance(value, list | tuple):
        return ", ".join(show_fact(v) for v in value)
    if isinstance(value, dict):
        return ", ".join(f"{k} {show_fact(v, str(k))}" for k, v in value.items())
    return str(value)


def guess_language(text: str, otherwise: str = "") -> str:
    """The `lang` attribute of a piece of text, from its script; `otherwise` where the script does not tell.

    Browsers choose the shapes of Han characters by it.
    """
    counts = {"zh": 0, "ja": 0, "ko": 0}
    letters = 0
    for character in text[:2000]:
        if not character.isalpha():
            continue
        letters += 1
        name = unicodedata.name(character, "")
        if name.startswith("CJK"):
            counts["zh"] += 1
        elif name.startswith(("HIRAGANA", "KATAKANA")):
            counts["ja"] += 1
        elif name.startswith("HANGUL"):
            counts["ko"] += 1
    if sum(counts.values()) * 5 < letters or not letters:
        return otherwise if otherwise not in counts else ""
    if counts["ja"]:
        return "ja"
    return max(counts, key=lambda code: counts[code])


def cut(text: Any, limit: int) -> str:
    """At most `limit` characters of `text`; control characters, which no browser shows, become pictures."""
    shown = str(text)[: limit + 1]
    shown = "".join(chr(0x2400 + ord(c)) if ord(c) < 32 and c not in "\n\t" else c for c in shown)
    return shown if len(shown) <= limit else shown[:limit].rstrip() + "…"


def _amount(value: Any, show: Callable[[Any], str]) -> str:
    """A number with the exact value beside the shown one: `<data value="1.4213">1.421</data>`."""
    from markupsafe import Markup

    if isinstance(value, bool) or not isinstance(value, int | float):
        return "—"
    return Markup('<data value="{}">{}</data>').format(repr(value), show(value))


def source_hash(script: bytes) -> str:
    """The content security policy's name for an inline script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script).digest()).decode()


@lru_cache(maxsize=1)
def packed_plotly() -> tuple[str, str]:
    """plotly.js as base64 of gzip (2 MB instead of 4.8; the page unpacks it), and its script hash."""
    from plotly.offline import get_plotlyjs

    source = get_plotlyjs().encode()
    packed = gzip.compress(source, compresslevel=6, mtime=0)
    return base64.b64encode(packed).decode(), source_hash(source)
