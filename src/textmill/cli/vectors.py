"""`textmill vectors`: word vectors of a run. Writes RUN/vectors."""

from __future__ import annotations

import json as json_format
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from textmill.cli.options import Json, Quiet
from textmill.models.word_vectors_config import VectorsConfig

if TYPE_CHECKING:
    from textmill.base.progress import Progress
    from textmill.base.run import Run

DEFAULT = VectorsConfig()


def vectors(
    run: Path,
    /,
    *,
    config: Annotated[VectorsConfig, Parameter(name="*")] = DEFAULT,
    nearest: list[str] | None = None,
    count: int = 10,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Learn a vector for every token or word of a run's training text, so that like words have like vectors.

    By skip-gram or CBOW (Mikolov et al. 2013), with gensim: pip install "textmill[vectors]". Vectors of tokens can
    begin the embeddings of a model; vectors of words are for looking at. Both are measured on English analogies (king
    to queen as man to what?) and on two lists of word similarities judged by people. Each figure says how many of its
    questions the vectors cover: with little text those are few, and easy.

    Writes RUN/vectors/: `vectors.safetensors`, `vectors.json` (the words, in the rows' order), `vectors.txt` in
    word2vec's format. Typed again without settings, it uses what is there.

    Examples:

        textmill vectors runs/mine

        textmill vectors runs/mine --units words --dimensions 100

        textmill vectors runs/mine --nearest peace --nearest war

    Parameters
    ----------
    run
        Run directory, such as runs/mine, with its corpus and tokens.
    nearest
        Word (or token) to show the nearest ones of; may be given several times.
    count
        How many of them.
    """
    from textmill.base.progress import Progress
    from textmill.base.run import Run
    from textmill.models.word_vectors import FOLDER, Vectors, readable
    from textmill.tokens.tokenizer import Tokenizer

    place = Run.open(run)
    progress = Progress("quiet" if quiet or json else None)
    folder = place / FOLDER
    with place.lock():
        counts = _make(place, config, progress)
    found = Vectors.load(folder)
    result: dict[str, Any] = {"vectors": str(folder), "configuration": asdict(found.config), **counts}
    named = readable(found, Tokenizer.load(place / "tokens") if found.config.units == "tokens" else None)
    asked: dict[str, list[tuple[str, float]]] = {}
    for word in nearest or []:
        wanted = word if word in named.number or found.config.units == "words" else f" {word}"
        wanted = wanted if wanted in named.number else word
        asked[word] = named.neighbours(wanted, count)
    if json:
        print(json_format.dumps({**result, "nearest": asked}, ensure_ascii=False))
        return
    for word, others in asked.items():
        print(f"{word}: " + ", ".join(f"{other.strip() or repr(other)} {value:.2f}" for other, value in others))
    if not asked:
        _show(result)


def _make(run: Run, config: VectorsConfig, progress: Progress) -> dict[str, Any]:
    """Train what is not there yet; the stage's counts."""
    from textmill.base.run import Stage
    from textmill.models.word_vectors import (
        FOLDER,
        TokenSentences,
        WordSentences,
        measure_vectors,
        readable,
        tokenizer_key,
        train_vectors,
    )
    from textmill.tokens.shards import Shards
    from textmill.tokens.tokenizer import Tokenizer

    of_tokens = config.units == "tokens"
    needed = "tokens" if of_tokens else "corpus"
    stage = Stage(run, FOLDER, inputs=None, configuration=None)
    if config == DEFAULT and (record := stage.record()):
        made_from = record["inputs"]
        if made_from == {name: run.fingerprint(name) for name in made_from}:
            return dict(record["counts"])
    commands = {"tokens": f"textmill tokenize {run.path}", "corpus": f"textmill corpus my_texts/ --out {run.path}"}
    source = run.require(needed, commands[needed])
    stage = Stage(run, FOLDER, inputs={needed: run.fingerprint(needed)}, configuration=asdict(config))
    if stage.is_finished():
        record = stage.record()
        assert record is not None
        return dict(record["counts"])
    with stage.work() as folder:
        if of_tokens:
            tokenizer = Tokenizer.load(source)
            made = train_vectors(
                TokenSentences(Shards(source, "train")), config, tokenizer_key(tokenizer), progress=progress
            )
            named = readable(made, tokenizer)
        else:
            named = made = train_vectors(WordSentences(source), config, progress=progress)
        made.save(folder)
        with progress.task("Measuring"):
            scores = measure_vectors(named)
        stage.counts = {"words": len(made.words), "dimensions": made.matrix.shape[1], "scores": scores}
    return dict(stage.counts)


def _show(result: dict[str, Any]) -> None:
    scores, units = result["scores"], result["configuration"]["units"]
    print(f"{result['vectors']}: {result['words']:,} {units}, {result['dimensions']} dimensions each")
    analogies = scores["analogies"]
    accuracy = "none can be asked" if analogies["accuracy"] is None else f"{analogies['accuracy']:.1%} right"
    print(f"  analogies   {accuracy} ({analogies['asked']:,} of {analogies['of']:,} questions have all their words)")
    for name in ("wordsim353", "simlex999"):
        found = scores[name]
        value = "none" if found["spearman"] is None else f"{found['spearman']:.3f}"
        print(f"  {name:<10}  rank correlation {value} ({found['asked']} of {found['of']} pairs)")
