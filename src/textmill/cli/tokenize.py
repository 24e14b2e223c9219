"""`textmill tokenize`: clean documents to token shards. Writes RUN/tokens."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from textmill.base.progress import Progress
from textmill.base.run import Run
from textmill.base.settings import show_bytes
from textmill.cli.options import Json, Quiet
from textmill.tokens.config import TokenizerConfig

if TYPE_CHECKING:
    import numpy as np
    from rich.text import Text

    from textmill.tokens.tokenizer import Tokenizer

SAMPLE_CHARACTERS = 160
COLOURS = (
    "black on bright_cyan",
    "black on bright_yellow",
    "black on bright_green",
    "black on bright_magenta",
)


def tokenize(
    run: Path,
    /,
    *,
    config: Annotated[TokenizerConfig, Parameter(name="*")] = TokenizerConfig(),  # noqa: B008  (frozen)
    sweep: str | None = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Learn a tokenizer from the corpus of a run and turn every document into token ids.

    A model reads numbers, not letters. The tokenizer begins with the 256 bytes, so it can write any text in
    any script, and then joins the pair that stands together most often, again and again, until the vocabulary
    is full (byte pair encoding). It learns from the training documents alone; the others are tokenized with
    what it learned, as any text of yours will be.

    A larger vocabulary makes the same text shorter, but each token rarer and the model's output layer larger.
    Left out, it follows from the size of the corpus: 4,096 for 12 MB. --sweep measures it on your own text.

    A stopped command goes on where it was. The token ids do not depend on the number of cores.

    Examples:

        textmill tokenize runs/mine

        textmill tokenize runs/mine --kind unigram --vocabulary 8192

        textmill tokenize runs/mine --tokenizer models/gpt2/tokenizer.json

        textmill tokenize runs/mine --sweep 1024,4096,16384

    Parameters
    ----------
    run
        The run, with its corpus made: textmill corpus my_texts/ --out runs/mine
    sweep
        Write no tokens, but compare vocabularies of these sizes, such as 1024,4096,16384 (or auto), by what a
        5-gram model over their tokens needs for the validation split. Written to RUN/sweep.json.
    """
    from textmill.tokens.build import tokenize_corpus
    from textmill.tokens.tokenizer import Tokenizer

    opened = Run.open(run)
    if sweep is not None:
        with opened.lock():
            measured = run_sweep(opened, config, sweep, Progress("quiet" if quiet or json else None))
        if json:
            print(json_format.dumps(measured, indent=2, ensure_ascii=False))
        elif not quiet:
            show_sweep(measured)
        return
    with opened.lock():
        index = tokenize_corpus(opened, config, Progress("quiet" if quiet or json else None))
    if json:
        print(json_format.dumps(index, indent=2, ensure_ascii=False))
        return
    if not quiet:
        folder = opened / "tokens"
        show(folder, index, Tokenizer.load(folder))


def parse_sizes(text: str) -> tuple[int, ...]:
    """`1024,4096` as numbers; `auto` is the sweep's own choice."""
    from textmill.base.errors import UsageError
    from textmill.tokens.sweep import DEFAULT_SIZES

    if text == "auto":
        return DEFAULT_SIZES
    try:
        return tuple(int(size) for size in text.replace("_", "").split(","))
    except ValueError:
        raise UsageError(
            f'The sizes "{text}" are not numbers.', fix="Give them as --sweep 1024,4096,16384, or as --sweep auto."
        ) from None


def run_sweep(run: Run, config: TokenizerConfig, sizes: str, progress: Progress) -> dict[str, Any]:
    """The sweep, measured by a Kneser-Ney 5-gram model."""
    from textmill.models.ngram import NGram
    from textmill.tokens.sweep import sweep_vocabularies

    def score(training: np.ndarray, held_out: np.ndarray, vocabulary: int, document_end: int) -> float:
        return -float(NGram(vocabulary, document_end, order=5).fit(training).score(held_out).sum())

    return sweep_vocabularies(run, config, parse_sizes(sizes), score, progress)


def show_sweep(measured: dict[str, Any]) -> None:
    """Print the sweep as a table."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in (
        "vocabulary",
        "bytes a token",
        "bits per byte",
        f"embedding at width {measured['width']}",
        "encoding, MB/s of CPU",
    ):
        table.add_column(name, justify="right")
    for row in measured["rows"]:
        table.add_row(
            f"{row['vocabulary']:,}",
            f"{row['bytes_per_token']:.2f}",
            f"{row['bits_per_byte']:.4f}",
            f"{row['embedding_parameters']:,}",
            f"{row['encode_megabytes_per_second']:,.1f}",
            style="bold" if row["vocabulary"] == measured["best"] else "",
        )
    console.print(table)
    console.print(
        f"Bits per byte of {show_bytes(measured['validation_bytes'])} that nothing was learned from, by a 5-gram model "
        f"over the tokens of {show_bytes(measured['training_bytes'])}; fewest with {measured['best']:,}. A neural "
        "model that reads farther gains less from longer tokens, and pays for each in its embedding table."
    )


def show(folder: Path, index: dict[str, Any], tokenizer: Tokenizer) -> None:
    """Print the vocabulary, each split's size, and how a sentence is cut."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    console.print(f"Vocabulary {index['vocabulary']:,}, in {folder}")
    for split, entry in index["splits"].items():
        if not entry["documents"]:
            console.print(f"  {split:<10}  empty")
            continue
        text_tokens = max(1, entry["tokens"] - entry["documents"])
        console.print(
            f"  {split:<10}  {entry['tokens']:>13,} tokens  {entry['documents']:>9,} documents  "
            f"{show_bytes(entry['bytes']):>9}  {entry['bytes'] / text_tokens:.2f} bytes a token"
        )
    if not index["lossless"]:
        console.print(describe_loss(index["loss"]))
    console.print(colour_tokens(tokenizer, sample_text(folder, tokenizer), separated=not console.is_terminal))


def describe_loss(loss: dict[str, int]) -> str:
    """What a tokenizer that was taken over loses, in a sentence or two."""
    changed = loss["changed_documents"] / max(1, loss["checked_documents"])
    return (
        f"This tokenizer does not keep text as it is: of {loss['checked_documents']:,} documents looked at, "
        f"{changed:.1%} come back changed; {loss['unknown_tokens']:,} tokens stand for what it does not know; its "
        f"tokens spell {show_bytes(loss['decoded_bytes'])} of {show_bytes(loss['bytes'])}. Figures per byte count the "
        "spelled text alone, so do not compare them with those of other tokenizers."
    )


def sample_text(folder: Path, tokenizer: Tokenizer) -> str:
    """The beginning of a document that the tokenizer was not trained on, if there is one."""
    from textmill.tokens.shards import Shards

    for split in ("validation", "test", "train"):
        shards = Shards(folder, split)
        if shards.documents:
            ids = shards.read(0, min(SAMPLE_CHARACTERS, int(shards.ends[0])))
            text = " ".join(tokenizer.decode(ids).rstrip("\ufffd").split())
            if text:
                return text[:SAMPLE_CHARACTERS]
    return ""


def colour_tokens(tokenizer: Tokenizer, text: str, separated: bool = False) -> Text:
    """`text` with each token in another colour; `separated` puts "|" between them, for where no colour shows.

    A character that is cut between tokens is shown whole, in the colour of its last piece.
    """
    from rich.text import Text

    shown = Text()
    stream = tokenizer.stream()
    for number, token in enumerate(tokenizer.encode(text)):
        piece = stream.feed(token)
        if piece and separated and shown:
            shown.append("|")
        shown.append(piece, style="" if separated else COLOURS[number % len(COLOURS)])
    return shown
