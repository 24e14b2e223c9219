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
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Learn a tokenizer from the corpus of a run and turn every document into token ids.

    A model reads numbers, not letters. The tokenizer begins with the 256 bytes, so it can write any text in
    any script, and then joins the pair that stands together most often, again and again, until the vocabulary
    is full (byte pair encoding). It learns from the training documents alone; the others are tokenized with
    what it learned, as any text of yours will be.

    A larger vocabulary makes the same text shorter, but each token rarer and the model's output layer larger.
    Left out, it follows from the size of the corpus: 4,096 for 12 MB.

    Parameters
    ----------
    run
        The run, with its corpus made: textmill corpus my_texts/ --out runs/mine
    """
    from textmill.tokens.build import tokenize_corpus
    from textmill.tokens.tokenizer import Tokenizer

    opened = Run.open(run)
    with opened.lock():
        index = tokenize_corpus(opened, config, Progress("quiet" if quiet or json else None))
    if json:
        print(json_format.dumps(index, indent=2, ensure_ascii=False))
        return
    if not quiet:
        folder = opened / "tokens"
        show(folder, index, Tokenizer.load(folder))


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
    console.print(colour_tokens(tokenizer, sample_text(folder, tokenizer), separated=not console.is_terminal))


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
