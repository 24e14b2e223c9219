"""`textmill ngram`: n-gram models over words, made as lmplz makes them, and queried. Writes the files it is told to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from textmill.base.errors import UsageError
from textmill.cli.options import Json, Quiet
from textmill.models.ngram.config import FALLBACK_DISCOUNTS, Smoothing, TrainingConfig

if TYPE_CHECKING:
    from textmill.base.progress import Progress, Task
    from textmill.models.ngram.query import WordModel
    from textmill.models.ngram.train import Trained

DEFAULT = TrainingConfig()
LEAST_MEMORY = 1 << 20
MULTIPLES = {"": 1, "b": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
UNFINISHED = (
    "The text does not end with a newline, so its last line has no </s>, as with lmplz. (lmplz then shifts back-off "
    "weights from one n-gram to the next; these here are the right ones. With a newline at the end the two agree.)"
)

app = App(name="ngram", help_format="markdown")


@app.default
def ngram(
    text: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    order: int = DEFAULT.order,
    arpa: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    binary: Path | None = None,
    prune: Annotated[tuple[int, ...], Parameter(consume_multiple=True, negative="")] = (),
    discount_fallback: Annotated[tuple[float, ...] | None, Parameter(consume_multiple=True, negative="")] = None,
    smoothing: Smoothing = DEFAULT.smoothing,
    k: float = DEFAULT.k,
    vocabulary: str = "words",
    skip_symbols: Annotated[bool, Parameter(negative="")] = False,
    memory: str | None = None,
    temporary: Path | None = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make an n-gram model of tokenized text, one sentence a line.

    Counts, smooths and prunes as KenLM's lmplz does, to the same figures; no compiler is needed, and the memory is
    bounded. An ARPA file is read by every n-gram tool; the compact form opens in milliseconds.

    Examples:

        textmill ngram text.txt --order 5 --arpa model.arpa

        zcat text.gz | textmill ngram - --order 5 --prune 0 0 1 --arpa model.arpa.gz --binary model.ngrams

        textmill ngram poems.txt --vocabulary characters --order 6 --binary poems.ngrams

        textmill ngram query model.ngrams other.txt

    Parameters
    ----------
    text
        A text file, packed (.gz, .bz2, .xz, .zst) or not; - is standard input.
    order
        Words of the longest n-gram, 1 to 6.
    arpa
        Where to write the ARPA file; packed when it ends with .gz; - is standard output.
    binary
        Where to write the compact form for queries.
    prune
        For each order from 1 the highest count of the n-grams that are left out, as 0 0 1; the last holds for all
        higher orders.
    discount_fallback
        Kneser-Ney discounts of counts 1, 2 and 3+ for orders whose own cannot be estimated, because the text is very
        small or regular; 0.5 1 1.5 when no number follows.
    smoothing
        kneser-ney (interpolated, modified), witten-bell, add-k, or maximum-likelihood, which gives nothing to what was
        not seen.
    k
        What add-k adds to each count.
    vocabulary
        What is counted: words between blanks, characters, rjieba (Chinese words), or the tokens of a run (its folder).
    skip_symbols
        Take <s>, </s> and <unk> in the text for blanks instead of refusing them.
    memory
        Memory for counting, like 500M, 4G or 50% of the machine's; more text goes through temporary files. Half of the
        machine's when not given.
    temporary
        Folder for temporary files; the system's when not given.
    """
    import json as json_module
    import sys
    import time

    from textmill.base.hardware import peak_bytes
    from textmill.base.progress import Progress
    from textmill.models.ngram.arpa import arpa_blocks, write_arpa
    from textmill.models.ngram.query import WordModel
    from textmill.models.ngram.train import train_words
    from textmill.models.ngram.units import unit_named

    if arpa is None and binary is None:
        raise UsageError(
            "Nothing would be written.",
            fix="Say where: --arpa MODEL.arpa for other tools, --binary MODEL for quick queries, or both.",
        )
    if arpa == "-" and json:
        raise UsageError("--arpa - and --json both write to standard output.", fix="Give --arpa a file.")
    if discount_fallback == ():
        discount_fallback = FALLBACK_DISCOUNTS
    config = TrainingConfig(order, smoothing, k, prune, discount_fallback)
    units, limit = unit_named(vocabulary), parse_memory(memory)
    progress = Progress("quiet" if quiet or json else None)
    began = time.monotonic()
    with _TextBlocks(text, progress, "Counting", limit) as blocks:
        trained = train_words(
            blocks, config, units=units, memory=limit, skip_special=skip_symbols, folder=temporary
        )  # fmt: skip
    if trained.unfinished:
        progress.say(UNFINISHED)
    if arpa == "-":
        for block in arpa_blocks(trained.words, trained.grams):
            sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()
    elif arpa is not None:
        write_arpa(trained.words, trained.grams, Path(arpa))
    if binary is not None:
        WordModel.of(trained.words, trained.grams, units).save(binary)
    facts = _facts(trained, config) | {
        "arpa": arpa,
        "binary": None if binary is None else str(binary),
        "seconds": round(time.monotonic() - began, 3),
        "peak_bytes": peak_bytes(),
    }
    if json:
        print(json_module.dumps(facts, ensure_ascii=False))
    elif not quiet:
        _show(facts, sys.stderr if arpa == "-" else sys.stdout)


@app.command
def query(
    model: Path,
    text: Annotated[str, Parameter(allow_leading_hyphen=True)] = "-",
    /,
    *,
    show: Literal["summary", "sentences", "words"] = "summary",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score text with an n-gram model: perplexity with and without unknown words (OOV).

    Prints what KenLM's query prints. Each line is a sentence, scored between <s> and </s>; base-10 logarithms.

    Examples:

        textmill ngram query model.arpa other.txt

        textmill ngram query model.binary other.txt --show sentences

    Parameters
    ----------
    model
        An ARPA file (packed or not), the compact form, or a KenLM binary file (probing or trie).
    text
        A text file, packed or not; - is standard input.
    show
        summary: the whole text. sentences: also each one's log probability and unknown words. words: also each word's
        number, the length of the n-gram that it was found in, and its log probability.
    """
    import json as json_module

    from textmill.base.progress import Progress
    from textmill.models.ngram.query import Perplexity, open_model

    opened = open_model(model)
    totals = Perplexity()
    scores: list[dict[str, Any]] = []
    with _TextBlocks(text, Progress("quiet" if quiet or json or show != "summary" else None), "Scoring") as blocks:
        for block in blocks:
            found = opened.score_block(block)
            totals.add(found)
            if json and show != "summary":
                scores += [
                    {"log10": _finite(float(value)), "tokens": tokens, "oov": unknown}
                    for value, tokens, unknown in zip(
                        found.log10, found.tokens.tolist(), found.unknown.tolist(), strict=True
                    )
                ]
            elif show == "words":
                _print_words(opened, block)
            elif show == "sentences":
                for value, unknown in zip(found.log10, found.unknown.tolist(), strict=True):
                    print(f"Total: {_short(value)} OOV: {unknown}")
    if json:
        facts: dict[str, Any] = {
            "model": str(model),
            "order": opened.order,
            "sentences": totals.sentences,
            "tokens": totals.tokens,
            "oov": totals.oov,
            "log10": _finite(totals.log10),
            "perplexity_including_oov": _finite(totals.including_oov),
            "perplexity_excluding_oov": _finite(totals.excluding_oov),
        }
        print(json_module.dumps(facts | ({} if show == "summary" else {"scores": scores}), allow_nan=False))
        return
    print(f"Perplexity including OOVs:\t{totals.including_oov}")
    print(f"Perplexity excluding OOVs:\t{totals.excluding_oov}")
    print(f"OOVs:\t{totals.oov}")
    print(f"Tokens:\t{totals.tokens}")
    if totals.including_oov == float("inf") and not quiet:
        Progress().say(
            "The model gives some words no probability (maximum likelihood, or <unk> without any), so the perplexity "
            "is infinite. A model with another --smoothing leaves room for what it did not see."
        )


def _finite(value: float) -> float | None:
    """JSON has no infinity and no NaN: None stands for both."""
    return value if abs(value) < float("inf") else None


def _short(value: Any) -> str:
    import numpy as np

    return np.format_float_positional(np.float32(value), unique=True, trim="-")


def _print_words(model: WordModel, block: bytes | bytearray) -> None:
    import numpy as np

    for line in bytes(block).decode("utf-8", "replace").removesuffix("\n").split("\n"):
        total, unknown = np.float32(0), 0
        cells = []
        for word, value, length, oov in model.word_scores(line):
            total += np.float32(value)
            unknown += oov
            number = 0 if oov else model.end if word == "</s>" else model.words.find(word.encode())
            cells.append(f"{word}={number} {length} {_short(value)}\t")
        print(f"{''.join(cells)}Total: {_short(total)} OOV: {unknown}")


class _TextBlocks:
    """A text in blocks of whole lines, with a bar."""

    def __init__(self, text: str, progress: Progress, name: str, memory: int | None = None) -> None:
        import contextlib

        from textmill.models.ngram.files import BLOCK

        self._stack = contextlib.ExitStack()
        self._text, self._progress, self._name = text, progress, name
        self._size = BLOCK if memory is None else min(BLOCK, max(1 << 16, memory // 16))

    def __enter__(self) -> Iterator[bytearray]:
        from textmill.models.ngram.files import line_blocks, open_bytes

        size = Path(self._text).stat().st_size if self._text != "-" and Path(self._text).is_file() else None
        packed = Path(self._text).suffix in {".gz", ".bz2", ".xz", ".zst"}
        stream = self._stack.enter_context(open_bytes(self._text))
        task = self._stack.enter_context(self._progress.task(self._name, None if packed else size, "B"))

        def blocks(task: Task) -> Iterator[bytearray]:
            for block in line_blocks(stream, self._size):
                task.advance(len(block))
                yield block

        return blocks(task)

    def __exit__(self, *ending: Any) -> bool | None:
        return self._stack.__exit__(*ending)


def parse_memory(text: str | None) -> int | None:
    """Bytes in "500M", "4G", "50%" (of the machine's) or a bare number of bytes."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?b?|%)", text.strip().lower())
    if match is None:
        raise UsageError(f'"{text}" is no amount of memory.', fix="Write it like --memory 500M, 4G or 50%.")
    if match[2] == "%":
        from textmill.base.hardware import hardware

        size = int(float(match[1]) / 100 * hardware().memory_bytes)
    else:
        size = int(float(match[1]) * MULTIPLES[match[2][:1]])
    if size < LEAST_MEMORY:
        raise UsageError(f"{text} of memory is too little to count in.", fix="Give at least --memory 2M.")
    return size


def _facts(trained: Trained, config: TrainingConfig) -> dict[str, Any]:
    discounts = trained.grams.discounts or [()] * config.order
    return {
        "smoothing": config.smoothing,
        "tokens": trained.tokens,
        "types": trained.types,
        "orders": [
            {"order": k, "ngrams": len(order), "discounts": list(taken[1:])}
            for k, (order, taken) in enumerate(zip(trained.grams.orders, discounts, strict=True), start=1)
        ],
        "on_disk": trained.on_disk,
        "warnings": [UNFINISHED] if trained.unfinished else [],
    }


def _show(facts: dict[str, Any], stream: Any) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from textmill.base.settings import show_bytes, show_duration

    console = Console(file=stream, highlight=False, soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("order", "n-grams", "D1", "D2", "D3+"):
        table.add_column(name, justify="right")
    for row in facts["orders"]:
        taken = [f"{value:.4f}" for value in row["discounts"]] or ["", "", ""]
        table.add_row(str(row["order"]), f"{row['ngrams']:,}", *taken)
    console.print(table)
    console.print(
        f"{facts['tokens']:,} tokens of {facts['types']:,} types in {show_duration(facts['seconds'])}, "
        f"at most {show_bytes(facts['peak_bytes'])} of memory{', through temporary files' if facts['on_disk'] else ''}."
    )
    for name in ("arpa", "binary"):
        if facts[name] and facts[name] != "-":
            console.print(f"Written: {facts[name]}", markup=False)
