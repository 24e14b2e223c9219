"""`textmill tag`: parts of speech. Learns taggers from tagged text, tags text, measures. Writes a tagger's folder."""

from __future__ import annotations

import json as json_format
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from textmill.base.errors import UsageError
from textmill.cli.options import Json, Quiet

app = App(name="tag", help_format="markdown")


@app.default
def tag(
    *paths: Annotated[str, Parameter(allow_leading_hyphen=True)],
    tagger: Path,
    tokenized: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Give every word of a text its part of speech.

    The tagger is a hidden Markov model whose states are tags, as in TnT (Brants 2000): it weighs which tags follow
    one another against which tags a word had in the text that it learned from, and guesses words that it never saw by
    their endings. Make one from tagged text with `textmill tag train`, measure it with `textmill tag measure`.

    Each line is taken as a sentence, and printed as `word/tag word/tag …`.

    Examples:

        textmill tag train brown/ --out taggers/brown

        textmill tag novel.txt --tagger taggers/brown

        echo "The jury said it did ." | textmill tag - --tagger taggers/brown --tokenized

        textmill tag measure more_tagged/ --tagger taggers/brown

    Parameters
    ----------
    paths
        Text files in UTF-8, or "-" for standard input.
    tagger
        Folder of the tagger.
    tokenized
        Words are already separated by spaces, marks too; otherwise they are separated first.
    """
    from textmill.models.hmm.tagger import Tagger

    if not paths:
        raise UsageError("There is nothing to tag.", fix="Give files, or - for standard input.")
    model = Tagger.load(tagger)
    sentences = list(_sentences(paths, tokenized))
    tagged = model.tag(sentences)
    if json:
        found = [{"words": words, "tags": tags} for words, tags in zip(sentences, tagged, strict=True)]
        print(json_format.dumps({"sentences": found}, ensure_ascii=False))
        return
    for words, tags in zip(sentences, tagged, strict=True):
        print(" ".join(f"{word}/{name}" for word, name in zip(words, tags, strict=True)))


@app.command
def train(
    *paths: Path,
    out: Path,
    order: Literal[2, 3] = 3,
    tagset: Literal["given", "brown", "universal"] = "given",
    held_out: int = 10,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Learn a tagger from text in which every word has its tag: `The/at jury/nn said/vbd`, a sentence a line.

    Unless --held-out 0, the tagger is first learned without every tenth document and measured on those: accuracy
    over all words, those that it knew, those that it did not, and by giving each word its most frequent tag. The one
    that is kept learns from all.

    Examples:

        textmill tag train brown/ --tagset brown --out taggers/brown

        textmill tag train my_tagged.txt --order 2 --out taggers/mine

    Parameters
    ----------
    paths
        Files, or folders of files, of tagged text. A file is a document.
    out
        Folder for the tagger.
    order
        3: a tag depends on the two before it. 2: on one; smaller, a little less accurate.
    tagset
        given: tags as they stand. brown: tags of the Brown corpus without marks of titles and headlines. universal:
        those mapped to the twelve universal ones.
    held_out
        One document in so many is held out to measure on; 0 for none.
    """
    from textmill.base.progress import Progress
    from textmill.models.hmm.tagged_text import all_sentences, hold_out, read_tagged
    from textmill.models.hmm.tagger import Tagger

    if not paths:
        raise UsageError("There is nothing to learn from.", fix="Give files or folders of tagged text.")
    if held_out == 1 or held_out < 0:
        raise UsageError(f"--held-out {held_out} would leave nothing to learn from.", fix="Give 2 or more, or 0.")
    progress = Progress("quiet" if quiet or json else None)
    with progress.task("Reading tagged text") as task:
        documents = read_tagged(paths, tagset)
        task.update(len(documents), f"{len(documents):,} documents")
    result: dict[str, Any] = {"documents": len(documents)}
    if held_out:
        with progress.task("Measuring on what is held out"):
            learn, measure_on = hold_out(documents, held_out)
            trial = Tagger.learn(all_sentences(learn), order, tagset)
            result["held_out"] = trial.measure(all_sentences(measure_on)).to_json()
    with progress.task("Learning from all"):
        model = Tagger.learn(all_sentences(documents), order, tagset)
        model.save(out)
    result |= {"tagger": str(out), "tags": len(model.tags), "words": len(model.words), "order": order}
    if json:
        print(json_format.dumps(result, ensure_ascii=False))
        return
    print(f"{out}: {len(model.tags)} tags, {len(model.words):,} words, from {len(documents):,} documents")
    if held_out:
        print(_shown(result["held_out"], "held-out documents" if len(documents) >= held_out else "held-out sentences"))


@app.command
def measure(*paths: Path, tagger: Path, json: Json = False, quiet: Quiet = False) -> None:
    """Measure a tagger on tagged text that it did not learn from.

    Examples:

        textmill tag measure more_tagged/ --tagger taggers/brown

    Parameters
    ----------
    paths
        Files, or folders of files, of tagged text, with the tags that the tagger was trained on.
    tagger
        Folder of the tagger.
    """
    from textmill.models.hmm.tagged_text import all_sentences, read_tagged
    from textmill.models.hmm.tagger import Tagger

    model = Tagger.load(tagger)
    found = model.measure(all_sentences(read_tagged(paths, model.tagset))).to_json()  # type: ignore[arg-type]
    print(json_format.dumps(found) if json else _shown(found, "this text"))


def _shown(found: dict[str, Any], where: str) -> str:
    return (
        f"Accuracy on {where}: {found['accuracy']:.2%} of {found['words']:,} words; known words "
        f"{found['known_accuracy']:.2%}, unknown ones {found['unknown_accuracy']:.2%} "
        f"({found['unknown_words'] / max(1, found['words']):.1%} are unknown). Most frequent tag of each word: "
        f"{found['baseline_accuracy']:.2%}."
    )


def _sentences(paths: tuple[str, ...], tokenized: bool) -> Iterator[list[str]]:
    """The words of each line that has any."""
    for path in paths:
        if path == "-":
            text = sys.stdin.read()
        else:
            try:
                text = Path(path).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                why = getattr(error, "strerror", None) or "It is not UTF-8 text"
                raise UsageError(f"{path} cannot be read.", f"{why}.", "Give text files in UTF-8, or -.") from error
        if not tokenized:
            import numpy as np

            from textmill.corpus.cleaning.words import segment
            from textmill.corpus.texts import Texts

            text = segment(Texts.from_bytes([text.encode("utf-8", "replace")]), np.array([""])).string(0)
        for line in text.splitlines():
            if line.split():
                yield line.split()
