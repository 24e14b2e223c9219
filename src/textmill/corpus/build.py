"""The corpus stage: files to clean, judged, deduplicated, split documents. Writes `RUN/corpus/` through a stage.

Inputs become chunks; every chunk is measured alone (measure.py), on any worker; then one process decides over all of
them (decide.py, reshape.py, mixing.py), and every chunk's documents are written alone (assemble.py). What is
measured stays in `corpus/measured/`, so that other thresholds need no second reading.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from textmill.base.errors import Failure, UsageError
from textmill.base.files import hash_json, read_json, write_json
from textmill.base.progress import Progress
from textmill.base.run import Run, Stage
from textmill.base.settings import show_count, to_mapping
from textmill.corpus import assemble, foundry, measure, reshape
from textmill.corpus.card import corpus_card
from textmill.corpus.chunks import Chunk, plan_chunks
from textmill.corpus.config import CorpusConfig, measuring
from textmill.corpus.decide import Chunks, Judge, Rows, Ruling, drop_repeats, judge_rows, load_repeats, ruling
from textmill.corpus.engine import run_jobs
from textmill.corpus.inputs import Input, find_inputs, fingerprint, nothing_read
from textmill.corpus.mixing import mixture
from textmill.corpus.split import SPLITS, fill_empty, splits_of, wanted_splits
from textmill.corpus.tally import Tally
from textmill.corpus.workforce import Workforce

VERSION = 2
CARD = "card.json"
PLAN = "plan.json"


def build_corpus(
    paths: list[str], run: Run, config: CorpusConfig, progress: Progress, workforce: Workforce | None = None
) -> dict[str, Any]:
    """Make `RUN/corpus/` out of what was typed, or find it made already.

    Args:
        paths: files, folders, patterns, "-" for standard input, `sample:NAME` or `hf:NAME`.
        run: the run to write into.
        config: the settings.
        progress: where to report.
        workforce: who does it.

    Returns:
        the data card, as in `corpus/card.json`.

    Raises:
        UsageError: no such path, an empty folder, an unknown sample, column, rule or dialect.
        Failure: no readable text, every document rejected, or too little text to split.
    """
    tally = Tally()
    workforce = workforce or Workforce()
    found = ruling(config)
    try:
        inputs, licences = find_inputs(paths, run, tally, progress)
        workforce.load((item.path for item in inputs), run.path, config)
        with ThreadPoolExecutor(1) as beside:  # both read all of the inputs; where there is a corpus, one may suffice
            once = (run / "corpus").exists() or any(item.kind == "hf" for item in inputs)
            early = None if once else beside.submit(plan_chunks, inputs, config, tally)
            stage = Stage(
                run,
                "corpus",
                inputs={**fingerprint(inputs, licences, progress), **_learned_from(config)},
                configuration=to_mapping(config),
                version=VERSION,
            )
        chunks = None if early is None else early.result()
        if stage.is_finished():
            return dict(read_json(stage.folder / CARD))
        with stage.work() as folder:
            try:
                judge = _measure(folder, stage, inputs, chunks, licences, tally, config, found, progress, workforce)
                card = _decide(folder, config, found, progress, workforce, judge)
            except Failure:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            stage.counts = {"documents": card["kept"]["documents"], "bytes": card["kept"]["bytes"]}
        return card
    finally:
        foundry.stop()
        for spooled in run.path.glob(".input-*"):
            spooled.unlink()


def rethreshold_corpus(
    run: Run, config: CorpusConfig, progress: Progress, workforce: Workforce | None = None
) -> dict[str, Any]:
    """Decide anew over a finished corpus, without reading its inputs.

    Settings that shape what was measured stay as they were; giving another value for one of them is an error.

    Raises:
        UsageError: the run has no corpus, or the settings need what was not measured.
    """
    folder = run.require("corpus", f"textmill corpus my_texts/ --out {run.path}")
    record = read_json(folder / "stage.json")
    before = CorpusConfig(**record["configuration"])
    default = CorpusConfig()
    kept = {}
    for name, value in measuring(before).items():
        asked = getattr(config, name)
        if asked not in (value, getattr(default, name)):
            option = name.replace("_", "-")
            raise UsageError(
                f"--rethreshold cannot change --{option}.",
                f"It shapes what was measured, and {run.path} was measured with {value!r}.",
                "Type the command with its paths and without --rethreshold; that reads the inputs again.",
            )
        kept[name] = value
    plan = read_json(folder / measure.FOLDER / PLAN)
    config = dataclasses.replace(config, **kept, measures=before.measures)
    found = ruling(config)
    missing = sorted(set(found.groups) - set(plan["groups"]))
    if missing or found.line_rules != plan["line_rules"] or (config.near_duplicates and not plan["signed"]):
        lines = "the removal of lines" if found.line_rules != plan["line_rules"] else "signatures"
        what = ", ".join(missing) or lines
        raise UsageError(
            f"These rules need {what}, which {run.path} was made without.",
            fix="Type the command with its paths and without --rethreshold; that reads the inputs again.",
        )
    stage = Stage(run, "corpus", inputs=record["inputs"], configuration=to_mapping(config), version=VERSION)
    if stage.is_finished():
        return dict(read_json(stage.folder / CARD))
    with stage.work() as partial:
        _link_measured(folder, partial)
        try:
            card = _decide(partial, config, found, progress, workforce or Workforce())
        except Failure:
            shutil.rmtree(partial, ignore_errors=True)  # the corpus as it was stays
            raise
        stage.counts = {"documents": card["kept"]["documents"], "bytes": card["kept"]["bytes"]}
    return card


def _learned_from(config: CorpusConfig) -> dict[str, Any]:
    """Content hashes of the files that settings name, so that a change in them is noticed."""
    named = [*config.good, *config.bad, *config.toxic, *config.harmless, *config.decontaminate]
    named += [config.toxic_words] if config.toxic_words else []
    named += [name for name in config.rules if name.endswith(".toml")]
    if not named:
        return {}
    from textmill.corpus.learning import content_hash

    return {"named": {name: content_hash(name) for name in named}}


def _link_measured(old: Path, new: Path) -> None:
    """Make what was measured appear in another folder without copying it."""
    (new / measure.FOLDER).mkdir(exist_ok=True)
    for path in sorted((old / measure.FOLDER).iterdir()):
        target = new / measure.FOLDER / path.name
        if not target.exists():
            try:
                os.link(path, target)
            except OSError:  # a file system without links
                shutil.copyfile(path, target)
    for model in old.glob("*.model"):
        shutil.copyfile(model, new / model.name)


def _measure(
    folder: Path,
    stage: Stage,
    inputs: list[Input],
    chunks: list[Chunk] | None,
    licences: dict[str, str],
    tally: Tally,
    config: CorpusConfig,
    found: Ruling,
    progress: Progress,
    workforce: Workforce,
) -> Judge | None:
    """Measure every chunk that is not measured yet; gives who has judged some of them meanwhile."""
    plan = {
        "inputs": stage.inputs,
        "settings": dict(measuring(config)),
        "groups": list(found.groups),
        "line_rules": found.line_rules,
        "signed": config.near_duplicates,
        "version": VERSION,
    }
    plan["fingerprint"] = hash_json(plan)
    earlier = stage.folder / measure.FOLDER / PLAN
    if not (folder / measure.FOLDER).exists() and earlier.exists():
        try:
            if read_json(earlier)["fingerprint"] == plan["fingerprint"]:
                progress.say("The inputs were measured before; only the decisions are made again.")
                _link_measured(stage.folder, folder)
                return None
        except (KeyError, ValueError):
            pass
    (folder / measure.FOLDER).mkdir(exist_ok=True)
    if chunks is None:
        chunks = plan_chunks(inputs, config, tally)
    models = _models(folder, config, chunks, progress)
    jobs = [
        measure.Job(chunk, str(folder), config, found.groups, found.line_rules, models)
        for chunk in chunks
        if not measure.is_measured(folder, chunk.number)
    ]
    total = sum(chunk.size for chunk in chunks)
    done = total - sum(job.chunk.size for job in jobs)
    workforce = workforce.for_size(total)
    judge = Judge(config, found) if workforce.workers != 1 and len(jobs) > 1 else None
    with progress.task("Reading", total, "B") as task, ThreadPoolExecutor(1) as aside:
        task.update(done)
        if judge and config.near_duplicates:  # while others work; what fails here is done, or told, in deciding
            aside.submit(load_repeats)
        for at, _ in run_jobs(measure.measure_chunk, jobs, workforce.engine, workforce.workers):
            task.advance(jobs[at].chunk.size)
            if judge:
                number = jobs[at].chunk.number
                aside.submit(judge.add, number, measure.paths_of(folder, number)["parquet"])
    rows = 0
    for chunk in chunks:
        record = read_json(measure.paths_of(folder, chunk.number)["json"])
        tally.merge(Tally.from_json(record["tally"]))
        rows += record["rows"]
    if rows == 0:
        raise nothing_read(tally, config.text_column)
    write_json(
        folder / measure.FOLDER / PLAN,
        {**plan, "chunks": len(chunks), "tally": tally.to_json(), "licences": licences},
    )
    return judge


def _models(folder: Path, config: CorpusConfig, chunks: list[Chunk], progress: Progress) -> measure.Models:
    """Train what the settings ask for, once; the workers load it."""
    if not (config.good or config.toxic or config.decontaminate):
        return measure.Models()
    from textmill.corpus.learning import learn

    return learn(folder, config, chunks, progress)


def _decide(
    folder: Path,
    config: CorpusConfig,
    found: Ruling,
    progress: Progress,
    workforce: Workforce,
    judge: Judge | None = None,
) -> dict[str, Any]:
    """From measured chunks to documents, rejects and the card."""
    plan = read_json(folder / measure.FOLDER / PLAN)
    tally = Tally.from_json(plan["tally"])
    _clear(folder)
    chunks = Chunks(folder, plan["chunks"])
    if any(rule.column not in chunks.columns() for rule in found.rules):
        missing = next(rule for rule in found.rules if rule.column not in chunks.columns())
        raise UsageError(
            f"The rule {missing.name} needs {missing.column}, which was not measured.",
            fix="Type the command with its paths and without --rethreshold.",
        )
    facts: dict[str, Any] = {"read": tally.card(), "licences": plan["licences"], "removed": {}, "cut": None}
    rows = judge_rows(chunks, config, found, judge)
    if not rows.kept.any():
        raise _all_rejected(chunks, rows, found, config)
    with progress.task("Looking for repeats", unit="documents") as task:
        facts["near_duplicates"] = drop_repeats(rows, chunks, config)
        if reshape.needed(config):
            chunks, rows, facts["removed"] = reshape.remove_repeats(chunks, rows, config)
        size = reshape.piece_size(rows, config)
        if size:
            chunks, rows, facts["cut"] = _cut(chunks, rows, config, size)
        if config.order != "mixed":
            chunks, rows = reshape.order_documents(chunks, rows, config)
        task.update(len(rows), f"{show_count(int(np.count_nonzero(rows.kept)))} stay")
    split, facts["moved"] = _split(rows, config)
    copies, facts["mixture"] = mixture(rows, split, config)
    facts["pii"] = rows.pii
    facts["measured"] = sorted(set(chunks.columns()) - {"id", "text", "source", "meta", *assemble.INTERNAL})
    with ThreadPoolExecutor(1) as beside:
        card = beside.submit(corpus_card, chunks, rows, split, found, config, facts)
        _write(chunks, rows, split, copies, progress, workforce)
    _clear(folder, keep_documents=True)
    write_json(folder / CARD, card.result())
    return card.result()


def _clear(folder: Path, keep_documents: bool = False) -> None:
    """Remove what an attempt that was killed, or this one, no longer needs."""
    for left in [*reshape.folders(folder), folder / assemble.DECIDED]:
        shutil.rmtree(left, ignore_errors=True)
    for pattern in ("*.new", *(() if keep_documents else ("documents-*", "rejected-*"))):
        for path in folder.glob(pattern):
            path.unlink()


def _cut(chunks: Chunks, rows: Rows, config: CorpusConfig, size: int) -> tuple[Chunks, Rows, dict[str, Any] | None]:
    few = int(np.count_nonzero(rows.kept)) < config.small_corpus
    chunks, rows, whole = reshape.cut_documents(chunks, rows, size)
    if not whole:
        return chunks, rows, None
    reason = (
        f"the corpus has fewer than {config.small_corpus} documents"
        if few
        else "one document holds more than a tenth of the text"
    )
    rule = (
        f"Documents longer than {size} characters were cut into pieces at blank lines, "
        f"because {reason}; training, validation and test hold pieces of the same documents."
    )
    return chunks, rows, {"documents": whole, "characters": size, "rule": rule}


def _split(rows: Rows, config: CorpusConfig) -> tuple[np.ndarray, dict[str, list[str]]]:
    """The split of every document, and the few that were moved so that no wanted split is empty."""
    kept = np.flatnonzero(rows.kept)
    wanted = wanted_splits(config)
    if len(kept) < len(wanted):
        raise Failure(
            "The corpus is too small to split.",
            f"Distinct pieces of text in it: {len(kept)}; {', '.join(wanted)} need one each.",
            "Give more text, or set --test-share 0 and --validation-share 0.",
        )
    split = splits_of(rows.identity, config)
    if all(np.any(split[kept] == SPLITS.index(name)) for name in wanted):
        return split, {}
    names = {f"{high:016x}{low:016x}": row for (high, low), row in zip(rows.identity[kept].tolist(), kept, strict=True)}
    moved: dict[str, list[str]] = {}
    for identity, name in fill_empty({one: SPLITS[split[row]] for one, row in names.items()}, config).items():
        split[names[identity]] = SPLITS.index(name)
        moved.setdefault(name, []).append(identity)
    return split, moved


def _write(
    chunks: Chunks, rows: Rows, split: np.ndarray, copies: np.ndarray | None, progress: Progress, workforce: Workforce
) -> None:
    present = [number for number, path in enumerate(chunks.files) if path is not None]
    jobs = [
        assemble.Job(str(chunks.folder), number, chunks.name, number == present[0], tuple(rows.reasons))
        for number in present
    ]
    for number in present:
        assemble.write_decisions(chunks, rows, split, copies, number)
    workforce = workforce.for_size(int(rows.size.sum()))
    with progress.task("Writing", float(rows.size.sum()), "B") as task:
        for at, _ in run_jobs(assemble.assemble_chunk, jobs, workforce.engine, workforce.workers, threads=True):
            begin, end = chunks.starts[jobs[at].number], chunks.starts[jobs[at].number + 1]
            task.advance(float(rows.size[begin:end].sum()))


FIXES = {
    "too_short": "Lower --min-characters, or put the texts together into longer documents.",
    "symbols": "Raise --max-symbol-ratio (1 switches the rule off).",
    "unreadable": "Convert the files to text first: textmill corpus --help lists what can be read.",
    "binary": "Convert the files to text first: textmill corpus --help lists what can be read.",
    "language": "Name other --languages, or none.",
    "quality": "Lower --min-quality.",
    "perplexity": "Raise --max-perplexity (0 switches the rule off).",
    "toxicity": "Raise --max-toxicity (1 switches the rule off).",
}


def _all_rejected(chunks: Chunks, rows: Rows, found: Ruling, config: CorpusConfig) -> Failure:
    from textmill.corpus.card import dropped_card

    dropped = dropped_card(chunks, rows, found)
    most = max(dropped, key=lambda rule: dropped[rule]["documents"])
    example = dropped[most]["examples"][0]
    rule = next((one for one in found.rules if one.name == most), None)
    fix = FIXES.get(most)
    if fix is None and rule is not None:
        way = "Lower" if rule.bound == "min" else "Raise"
        fix = f"{way} it with --thresholds.{most} (now {rule.threshold:g}), or leave its dialect out of --rules."
    counts = ", ".join(f"{name} {one['documents']}" for name, one in dropped.items())
    return Failure(
        "Every document was rejected.",
        f"By rule: {counts}. For example {example['source']} ({most}: {example['value']}).",
        fix or "Loosen the rules.",
    )
