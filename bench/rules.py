"""Quality rules beside datatrove's own code: equal decisions and reasons, document by document, and the speed of both.

`python -m bench.rules --documents FILE.jsonl --oracle-python PYTHON` runs datatrove in the other interpreter (this file
as a script there, nothing of Textmill imported), keeps its verdicts by content, and compares.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

FILTERS = ("repetition", "quality", "c4", "c4_any_ending", "fineweb", "cascade")
"""What is compared: each filter alone on the text as it is, then FineWeb's cascade of four."""
BATCH = 8_000_000
"""Characters measured at once, as the pipeline does."""


# ---- in the interpreter that has datatrove ---------------------------------------------------------------------------


def key_of(text: str) -> str:
    """What a verdict is kept under."""
    return hashlib.sha1(text.encode()).hexdigest()[:20]


def texts_of(path: Path) -> Iterator[str]:
    """The texts of a JSON-lines file."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]


def datatrove_filters() -> dict[str, Any]:
    """datatrove's filters with their own defaults; `c4_any_ending` as FineWeb uses it."""
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    return {
        "repetition": GopherRepetitionFilter(),
        "quality": GopherQualityFilter(),
        "c4": C4QualityFilter(),
        "c4_any_ending": C4QualityFilter(filter_no_terminal_punct=False),
        "fineweb": FineWebQualityFilter(),
    }


def reason_of(chosen: Any, document: Any) -> str:
    """Why datatrove drops a document, "" when it keeps it."""
    try:
        result = chosen.filter(document)
    except ZeroDivisionError:
        return "ZeroDivisionError"
    return "" if result is True else result[1]


def verdict(filters: dict[str, Any], text: str) -> dict[str, str]:
    """Reason of each filter, and hashes of the texts that C4 leaves."""
    from datatrove.data import Document

    found = {}
    for name in ("repetition", "quality", "fineweb"):
        found[name] = reason_of(filters[name], Document(text=text, id=""))
    for name in ("c4", "c4_any_ending"):
        document = Document(text=text, id="")
        found[name] = reason_of(filters[name], document)
        found[name + "_text"] = key_of(document.text) if not found[name] else ""
        if name == "c4_any_ending":
            found["cascade"] = found["repetition"] or found["quality"] or found[name]
            found["cascade"] = found["cascade"] or reason_of(filters["fineweb"], document)
    return found


def record(documents: Path, out: Path) -> None:
    """Append a verdict for each document that has none yet."""
    known = {json.loads(line)["key"] for line in out.open()} if out.exists() else set()
    filters = datatrove_filters()
    with out.open("a") as kept:
        for text in texts_of(documents):
            key = key_of(text)
            if key not in known:
                known.add(key)
                kept.write(json.dumps({"key": key, **verdict(filters, text)}) + "\n")


def time_datatrove(documents: Path, out: Path) -> None:
    """CPU seconds of each filter alone and of the cascade, which stops at the first reason as datatrove's pipeline."""
    from datatrove.data import Document

    filters, texts = datatrove_filters(), list(texts_of(documents))
    verdict(filters, texts[0])
    seconds = {}
    for name, chosen in filters.items():
        start = time.process_time()
        for text in texts:
            reason_of(chosen, Document(text=text, id=""))
        seconds[name] = time.process_time() - start
    start = time.process_time()
    for text in texts:
        document = Document(text=text, id="")
        for name in ("repetition", "quality", "c4_any_ending", "fineweb"):
            if reason_of(filters[name], document):
                break
    seconds["cascade"] = time.process_time() - start
    versions = {name: version(name) for name in ("datatrove", "spacy")}
    out.write_text(json.dumps({"seconds": seconds, "versions": versions}))


def list_words(documents: Path, out: Path) -> None:
    """The words into which datatrove splits each document."""
    from datatrove.utils.text import split_into_words

    out.write_text("".join(json.dumps(split_into_words(text)) + "\n" for text in texts_of(documents)))


# ---- in this interpreter ---------------------------------------------------------------------------------------------


def ask(python: str, task: str, texts: list[str], out: Path) -> None:
    """Run one of the functions above in the other interpreter."""
    with tempfile.TemporaryDirectory() as name:
        documents = Path(name) / "documents.jsonl"
        documents.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        subprocess.run([python, __file__, task, str(documents), str(out)], check=True)


def batches(texts: list[str]) -> Iterator[list[str]]:
    """Lists of texts of about BATCH characters."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def decisions(texts: list[str]) -> dict[str, list[tuple[str, float]]]:
    """Textmill's reason for each document and the value that the rule saw, by filter; C4's texts under NAME_text."""
    import numpy as np

    from textmill.corpus.judging import c4, fineweb, gopher
    from textmill.corpus.judging.rules import decide
    from textmill.corpus.texts import Texts

    found: dict[str, list[tuple[str, float]]] = {name: [] for name in (*FILTERS, "c4_text", "c4_any_ending_text")}
    for batch in batches(texts):
        whole = Texts.from_strings(batch)
        left, strict = c4.clean_lines(whole, "c4")
        left_any, loose = c4.clean_lines(whole, "c4-any-ending")
        columns = {**gopher.measure(whole), **strict, **loose}
        alone, after = fineweb.measure(whole), fineweb.measure(left_any)
        for name, rules, seen in (
            ("repetition", gopher.REPETITION_RULES, columns),
            ("quality", gopher.QUALITY_RULES, columns),
            ("c4", c4.RULES, columns),
            ("c4_any_ending", c4.ANY_ENDING_RULES, columns),
            ("fineweb", fineweb.RULES, alone),
            ("cascade", gopher.RULES + c4.ANY_ENDING_RULES + fineweb.RULES, {**columns, **after}),
        ):
            decided = decide(rules, seen, np.full(len(batch), "en"))
            names = ["" if rule < 0 else rules[rule].name.replace("fineweb_empty", "empty") for rule in decided.rule]
            found[name] += zip(names, decided.value.tolist(), strict=True)
        found["c4_text"] += [(key_of(text), 0.0) for text in left.strings()]
        found["c4_any_ending_text"] += [(key_of(text), 0.0) for text in left_any.strings()]
    return found


def time_textmill(texts: list[str]) -> dict[str, float]:
    """CPU seconds for the same work; the cascade measures every rule on every document."""
    from textmill.corpus.judging import c4, fineweb, gopher
    from textmill.corpus.texts import Texts

    parts = [Texts.from_strings(batch) for batch in batches(texts)]
    seconds = dict.fromkeys(("repetition, quality", "c4", "c4_any_ending", "fineweb", "cascade"), 0.0)
    for part in parts:
        marks = [time.process_time()]
        gopher.measure(part)
        marks.append(time.process_time())
        c4.clean_lines(part, "c4")
        marks.append(time.process_time())
        left, _ = c4.clean_lines(part, "c4-any-ending")
        marks.append(time.process_time())
        fineweb.measure(part)
        marks.append(time.process_time())
        fineweb.measure(left)
        marks.append(time.process_time())
        spent = [after - before for before, after in pairwise(marks)]
        for name, used in zip(seconds, (*spent[:4], spent[0] + spent[2] + spent[4]), strict=True):
            seconds[name] += used
    return seconds


def compare(texts: list[str], python: str, cache: Path) -> str:
    """A table of agreement, and each disagreement with its cause."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    ask(python, "--record", texts, cache)
    verdicts = {row["key"]: row for row in map(json.loads, cache.open())}
    expected = [verdicts[key_of(text)] for text in texts]
    mine = decisions(texts)
    lines = [f"{'filter':<16}{'documents':>10}{'equal':>10}{'differ':>8}{'kept':>8}"]
    causes: list[str] = []
    for name in FILTERS:
        wrong = [row for row, (reason, _) in enumerate(mine[name]) if reason != expected[row][name]]
        kept = Counter(reason for reason, _ in mine[name])[""]
        lines.append(f"{name:<16}{len(texts):>10}{1 - len(wrong) / len(texts):>10.4%}{len(wrong):>8}{kept:>8}")
        causes += [_cause(python, name, texts[row], mine[name][row], expected[row][name]) for row in wrong[:20]]
    for name in ("c4_text", "c4_any_ending_text"):
        both = [row for row in range(len(texts)) if expected[row][name]]
        wrong = [row for row in both if mine[name][row][0] != expected[row][name]]
        lines.append(f"{name[:-5]:<11} text{len(both):>10}{1 - len(wrong) / max(len(both), 1):>10.4%}{len(wrong):>8}")
    return "\n".join([*lines, *causes])


def _cause(python: str, name: str, text: str, mine: tuple[str, float], theirs: str) -> str:
    from textmill.corpus.judging.words import split_words
    from textmill.corpus.texts import Texts

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "words.jsonl"
        ask(python, "--words", [text], out)
        words = json.loads(out.read_text())
    own = split_words(Texts.from_strings([text]))[0]
    differ = [(a, b) for a, b in zip(own, words, strict=False) if a != b]
    cause = f"first other word {differ[0]}" if differ else "the words are equal"
    return f"{name} {key_of(text)}: {mine[0] or 'kept'} ({mine[1]:.6g}) here, {theirs or 'kept'} there; {cause}"


def speeds(texts: list[str], python: str, repeats: int) -> str:
    """MB of UTF-8 for each CPU second, best of interleaved repeats."""
    size = sum(len(text.encode()) for text in texts) / 1e6
    time_textmill(texts[:5])
    theirs: dict[str, list[float]] = {}
    mine: dict[str, list[float]] = {}
    versions = {}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "seconds.json"
            ask(python, "--time", texts, out)
            timed = json.loads(out.read_text())
        versions = timed["versions"]
        for name, used in timed["seconds"].items():
            theirs.setdefault(name, []).append(used)
        for name, used in time_textmill(texts).items():
            mine.setdefault(name, []).append(used)
    both = [a + b for a, b in zip(theirs.pop("repetition"), theirs.pop("quality"), strict=True)]
    theirs = {"repetition, quality": both, **theirs}
    lines = [f"{size:.1f} MB, {len(texts)} documents; MB/s of CPU time, best of {repeats}"]
    lines.append(f"{'filter':<22}{'datatrove':>12}{'textmill':>12}{'ratio':>8}")
    for name, used in theirs.items():
        there, here = size / min(used), size / min(mine[name])
        lines.append(f"{name:<22}{there:>12.2f}{here:>12.1f}{here / there:>8.0f}")
    known = {**versions, "textmill": version("textmill"), "numba": version("numba")}
    return "\n".join([*lines, ", ".join(f"{name} {number}" for name, number in known.items())])


def main() -> None:
    """Compare decisions, then speeds, and print both tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.rules", description=__doc__)
    parser.add_argument("--documents", type=Path, required=True, help="JSON lines with a text field")
    parser.add_argument("--oracle-python", required=True, help="an interpreter that has datatrove and spaCy")
    parser.add_argument("--limit", type=int, default=20_000, help="documents to compare")
    parser.add_argument("--timed", type=int, default=600, help="documents to time")
    parser.add_argument("--repeats", type=int, default=3, help="interleaved timings of each")
    parser.add_argument("--cache", type=Path, default=Path("runs/bench/datatrove-verdicts.jsonl"), help="verdicts kept")
    asked = parser.parse_args()
    texts = [text for text, _ in zip(texts_of(asked.documents), range(asked.limit), strict=False)]
    print(compare(texts, asked.oracle_python, asked.cache))
    print(speeds(texts[: asked.timed], asked.oracle_python, asked.repeats))


TASKS = {"--record": record, "--time": time_datatrove, "--words": list_words}
"""What this file does as a script of the other interpreter."""

if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in TASKS:
        TASKS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
