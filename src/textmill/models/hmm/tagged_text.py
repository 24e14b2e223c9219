"""Text with a tag for every word (`word/tag word/tag …`, a sentence a line), and Brown's tags. Reads files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from textmill.base.errors import UsageError

Tagset = Literal["given", "brown", "universal"]

_MARKS = re.compile(r"(-(tl|hl|nc|n|t))+$")
_UNIVERSAL = {
    "NOUN": "nn nns nn$ nns$ np nps np$ nps$ nr nrs nr$ cd$",
    "VERB": "vb vbd vbg vbn vbz be bed bedz beg bem ben ber bez do dod doz hv hvd hvg hvn hvz md",
    "ADJ": "jj jjr jjs jjt jj$ ap od",
    "ADV": "rb rbr rbt rb$ rn ql qlp wql wrb *",
    "PRON": "pn pn$ pp$$ ppl ppls ppo pps ppss wpo wps",
    "DET": "at dt dt$ dti dts dtx pp$ wdt wp$ abx",
    "ADP": "in cs",
    "PRT": "rp to ex abl abn uh ap$",
    "NUM": "cd",
    "CONJ": "cc",
    "X": "fw nil",
    ".": ". , : -- ( ) `` '' '",
}
UNIVERSAL: dict[str, str] = {tag: name for name, tags in _UNIVERSAL.items() for tag in tags.split()}
"""Brown's tags to the twelve universal ones (Petrov, Das and McDonald 2012)."""


class Tagged(NamedTuple):
    """One sentence."""

    words: list[str]
    tags: list[str]


class TaggedDocument(NamedTuple):
    """The sentences of one file, in order."""

    name: str
    sentences: list[Tagged]


def brown_tag(tag: str) -> str:
    """A tag of the Brown corpus without the marks of titles, headlines and cited words; foreign words are all `fw`."""
    tag = tag.lower()
    if tag.startswith("fw-") or tag == "fw":
        return "fw"
    return _MARKS.sub("", tag) or tag


def universal_tag(tag: str) -> str:
    """The universal tag of a tag of the Brown corpus: that of its first part where words are joined (`pps+bez`)."""
    plain = brown_tag(tag).split("+")[0]
    if plain not in UNIVERSAL and plain.endswith("*") and len(plain) > 1:  # negated: hv* is haven't
        plain = plain[:-1]
    return UNIVERSAL.get(plain, "X")


_CONVERSIONS: dict[str, Callable[[str], str]] = {"given": str, "brown": brown_tag, "universal": universal_tag}


def read_sentence(line: str, tagset: Tagset, place: str) -> Tagged:
    """The words and tags of one line; the tag follows the last `/` of each token.

    Raises:
        UsageError: a token has no word or no tag; `place` says where the line stands.
    """
    words, tags = [], []
    convert = _CONVERSIONS[tagset]
    for token in line.split():
        word, slash, tag = token.rpartition("/")
        if not slash or not word or not tag:
            raise UsageError(
                f'"{token[:40]}" in {place} is not a word with its tag.',
                "Every token must be a word, a slash and a tag, like The/at jury/nn said/vbd.",
                "Correct the line, or leave the file out.",
            )
        words.append(word)
        tags.append(convert(tag))
    return Tagged(words, tags)


def read_tagged(paths: Sequence[Path | str], tagset: Tagset = "given") -> list[TaggedDocument]:
    """Every file of `paths` (files, or folders whose files are read in the order of their names) as a document.

    In folders, files are passed over whose first line with text is no tagged one (a README, a list of contents).

    Raises:
        UsageError: there is no such path, nothing tagged in it, or a line is wrong (its number is named).
    """
    documents = []
    for path in map(Path, paths):
        if not path.exists():
            raise UsageError(f"There is no {path}.", fix="Give files or folders of tagged text.")
        files = sorted(entry for entry in path.rglob("*") if entry.is_file()) if path.is_dir() else [path]
        for file in files:
            try:
                text = file.read_text(encoding="utf-8")
            except UnicodeDecodeError as error:
                if path.is_dir():
                    continue
                raise UsageError(f"{file} is not UTF-8 text.", str(error), "Convert it to UTF-8.") from error
            lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
            if path.is_dir() and not (lines and _is_tagged(lines[0][1])):
                continue
            sentences = [read_sentence(line, tagset, f"{file}, line {number}") for number, line in lines]
            if sentences:
                documents.append(TaggedDocument(str(file), sentences))
    if not documents:
        raise UsageError(
            f"There is no tagged text in {', '.join(map(str, paths))}.",
            "No file holds lines like The/at jury/nn said/vbd.",
            "Give files or folders of tagged text.",
        )
    return documents


def _is_tagged(line: str) -> bool:
    return all(len(word) > 0 and len(tag) > 0 for word, _, tag in (token.rpartition("/") for token in line.split()))


def hold_out(documents: Sequence[TaggedDocument], every: int) -> tuple[list[TaggedDocument], list[TaggedDocument]]:
    """Documents to learn from and documents to measure on: every `every`-th. A single document is cut by sentences.

    Raises:
        UsageError: there are fewer sentences than that.
    """
    if len(documents) < every:
        sentences = [sentence for document in documents for sentence in document.sentences]
        if len(sentences) < every:
            raise UsageError(
                f"{len(sentences)} sentences are too few to hold out one in {every}.",
                fix="Give more text, or --held-out 0 to measure nothing.",
            )
        name = documents[0].name
        return (
            [TaggedDocument(name, [s for i, s in enumerate(sentences) if i % every != every - 1])],
            [TaggedDocument(name, sentences[every - 1 :: every])],
        )
    return (
        [document for i, document in enumerate(documents) if i % every != every - 1],
        list(documents[every - 1 :: every]),
    )


def all_sentences(documents: Iterable[TaggedDocument]) -> list[Tagged]:
    """The sentences of all documents."""
    return [sentence for document in documents for sentence in document.sentences]
