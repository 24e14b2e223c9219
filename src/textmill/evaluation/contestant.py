"""One family of a comparison: trained and scored within its share of the time, in a process of its own. Writes the
sub-run `RUN/families/NAME/`: the model, its token scores, and `row.json`."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from textmill.base.errors import Failure, Interrupted, TextmillError
from textmill.base.files import hash_json, read_json, write_json
from textmill.base.progress import Mode, Progress
from textmill.base.run import Run
from textmill.training.config import PlanConfig, TrainingConfig
from textmill.training.probe import Probe

FOLDER = "families"
SPLITS = ("validation", "test")
SCORING_SHARE = 0.25
"""Share of a family's time that scoring it may take."""
GROUP_TOKENS = 8192
"""Documents are scored in groups of about so many tokens, between which the clock is looked at."""
SAMPLE_TOKENS = 60


@dataclass(frozen=True)
class Contestant:
    """What a process needs to train and score one family.

    Attributes:
        run: the run whose tokens are used.
        family: its name.
        seconds: for training and scoring.
        budget: of the whole comparison, seconds.
        plan: settings of the plan; its family is this one.
        training: settings of the training.
        max_tokens: held-out tokens scored at most, for each split.
        seed: of every draw.
        resamples: bootstrap resamples behind each interval.
        mode: how progress is shown.
        folder: where the sub-runs live, below the run.
        probe: of this machine; None lets the family measure it.
    """

    run: str
    family: str
    seconds: float
    budget: float
    plan: PlanConfig
    training: TrainingConfig
    max_tokens: int
    seed: int
    resamples: int
    mode: Mode
    folder: str = FOLDER
    probe: Probe | None = None

    @property
    def place(self) -> Path:
        """The sub-run's folder."""
        return Path(self.run) / self.folder / self.family


def open_sub_run(job: Contestant) -> Run:
    """The sub-run of a family, which shares the corpus and the tokens of the run by links."""
    place = Run.create(job.place)
    for stage in ("corpus", "tokens"):
        link = job.place / stage
        if not link.exists():
            link.symlink_to(os.path.relpath(Path(job.run) / stage, job.place))
    return place


def run_contestant(job: Contestant) -> dict[str, Any]:
    """Train and score one family in a process of its own, so that its peak memory is its own.

    Returns:
        its row of the leaderboard.

    Raises:
        Interrupted: Ctrl-C; everything is saved.
        Failure, UsageError: the family cannot be trained on this.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(job, there), name=f"textmill-{job.family}")
    process.start()
    there.close()
    try:
        kind, told = here.recv()
    except EOFError:
        process.join()
        raise Failure(
            f"The process that trained the family {job.family} died.",
            f"It ended with status {process.exitcode}; most often because memory ran out.",
            "Type the same command again with a smaller size, or leave that family out.",
        ) from None
    except KeyboardInterrupt:
        process.join(60)  # it was told as well, and saves
        raise Interrupted(
            f"Stopped while the family {job.family} trained; everything is saved.",
            fix="Type the same command again to go on from here.",
        ) from None
    process.join()
    if kind == "row":
        return dict(told)
    if kind == "interrupted":
        raise Interrupted(*told)
    if kind == "fault":
        raise RuntimeError(f"in the process of the family {job.family}:\n{told}")
    raise Failure(*told)


def _child(job: Contestant, answer: Connection) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        answer.send(("row", train_and_score(job)))
    except Interrupted as error:
        answer.send(("interrupted", (error.what, error.why, error.fix)))
    except TextmillError as error:
        answer.send(("failed", (error.what, error.why, error.fix)))
    except Exception:  # a fault of ours: the parent shows it as one
        answer.send(("fault", traceback.format_exc()))
    except KeyboardInterrupt:
        answer.send(("interrupted", (f"Stopped in the family {job.family}.", "", "Type the same command again.")))


def train_and_score(job: Contestant) -> dict[str, Any]:
    """Train one family for its share of the time, then score it on both held-out splits.

    Returns:
        the row: family, label, bits_per_byte (validation) with low and high, test_bits_per_byte, token and word
        perplexity, parameters, bytes (of the model on disk), seconds (of training), tokens_per_second (scored),
        memory_bytes (peak of the process), sample, signature, note.
    """
    began = time.monotonic()
    from textmill.base.hardware import peak_bytes
    from textmill.evaluation.evaluate import doubts_of
    from textmill.models.families import family_named
    from textmill.models.load import load_model
    from textmill.tokens.tokenizer import Tokenizer
    from textmill.training.plan import SMALLEST_BUDGET
    from textmill.training.planning import plan_run
    from textmill.training.train import describe, train_model

    family = family_named(job.family)
    place, progress = open_sub_run(job), Progress(job.mode)
    with place.lock():
        for_training = (1 - SCORING_SHARE) * job.seconds
        whole = max(job.budget, SMALLEST_BUDGET)  # a fold's share may be less than what a build needs from text on
        planned = plan_run(
            place,
            whole,
            job.plan,
            job.training,
            progress,
            elapsed=max(0.0, whole - for_training),
            evaluate=False,
            known_probe=job.probe,
        )
        counts = train_model(place, planned, job.training, progress)
        key = hash_json([place.fingerprint("model"), job.max_tokens, job.seed, job.resamples])
        path = place / "row.json"
        if path.exists() and (known := read_json(path)).get("key") == key:
            return dict(known)
        tokenizer = Tokenizer.load(place / "tokens")
        model = load_model(place / "model", precision="auto")
        left = max(SCORING_SHARE * job.seconds / 2, job.seconds - (time.monotonic() - began))
        row: dict[str, Any] = {"family": job.family, "label": family.label, "shape": describe(planned.chosen)}
        for split in SPLITS:
            row |= _score(job, place, model, tokenizer, split, left / len(SPLITS))
        row |= {
            "parameters": counts["parameters"],
            "bytes": sum(
                one.stat().st_size
                for one in (place / "model").iterdir()
                if not one.name.startswith(("tokenizer", "samples", "training", "stage"))
            ),
            "seconds": counts["training_seconds"],
            "tokens_trained": counts["tokens"],
            "steps": counts["steps"],
            "memory_bytes": max(peak_bytes(), counts["memory_bytes"]),
            "sample": _sample(model, tokenizer, job.seed) if family.generates else "",
            "comparable": not getattr(model, "pseudo_likelihood", False),
            "bound": bool(getattr(model, "bound", False)),
            "note": " ".join(doubts_of(model)),
            "key": key,
        }
        write_json(path, row)
    return row


def _score(
    job: Contestant, place: Run, model: Any, tokenizer: Any, split: str, seconds: float
) -> dict[str, Any]:  # fmt: skip
    """Figures of one split; the tokens' log-probabilities go to `SPLIT.npz`."""
    import torch

    from textmill.evaluation.bootstrap import interval
    from textmill.evaluation.score import document_log_probs, scores_of
    from textmill.evaluation.words import count_words

    documents = drawn_documents(place / "tokens", split, tokenizer, job.max_tokens, job.seed)
    began = time.monotonic()
    done: list[tuple[np.ndarray, np.ndarray]] = []
    with Progress(job.mode).task(f"Scoring {split}", sum(map(len, documents)), "tokens") as task:
        for group in groups(documents, GROUP_TOKENS):
            with torch.inference_mode():
                done += list(document_log_probs(model, group, tokenizer, device=getattr(model, "device", None)))
            task.advance(sum(map(len, group)))
            if time.monotonic() - began > seconds:
                break
    taken = time.monotonic() - began
    scores = scores_of(done, tokenizer)
    np.savez(
        place / f"{split}.npz",
        log_probs=np.concatenate([values for _, values in done]),
        lengths=np.array([len(ids) for ids, _ in done]),
    )
    tokens = int(scores.segment_tokens.sum())
    words, rule = count_words([tokenizer.decode(ids[:-1].tolist()) for ids, _ in done])
    nats = float(scores.segment_nats.sum())
    signature = (
        f"split:{split}|docs:{len(done)}of{len(documents)}|tokens:{tokens}|end:scored|seed:{job.seed}"
        f"|bytes:{int(scores.segment_bytes.sum())}"
    )
    if split == "test":
        return {"test_bits_per_byte": scores.bits_per_byte, "test_documents": len(done), "test_signature": signature}
    bounds = interval(scores, resamples=job.resamples, seed=job.seed)
    return {
        "bits_per_byte": scores.bits_per_byte,
        "low": None if bounds is None else bounds.low,
        "high": None if bounds is None else bounds.high,
        "interval_unit": None if bounds is None else bounds.unit,
        "token_perplexity": scores.token_perplexity,
        "word_perplexity": math.exp(min(700.0, nats / max(1, words))),
        "word_perplexity_signature": f"words:{rule}|count:{words}|unknown:none|end:counted|{signature}",
        "documents": len(done),
        "documents_drawn": len(documents),
        "tokens_scored": tokens,
        "tokens_per_second": round(tokens / max(taken, 1e-9), 1),
        "signature": signature,
    }


def drawn_documents(tokens: Path, split: str, tokenizer: Any, max_tokens: int, seed: int) -> list[np.ndarray]:
    """The held-out documents of every family, in one random order: a slow family scores the first of them."""
    from textmill.evaluation.held_out import HeldOut
    from textmill.tokens.shards import Shards

    shards = Shards(tokens, split)
    if shards.documents == 0:
        raise Failure(
            f"The {split} split holds no document.",
            "The corpus is so small that none fell into it.",
            "Give more text.",
        )
    documents = HeldOut.draw(shards, tokenizer, max_tokens, seed).documents
    return [documents[place] for place in np.random.default_rng(seed).permutation(len(documents)).tolist()]


def groups(documents: list[np.ndarray], tokens: int) -> list[list[np.ndarray]]:
    """Documents in runs of about so many tokens."""
    found: list[list[np.ndarray]] = []
    size = tokens
    for ids in documents:
        if size >= tokens:
            found.append([])
            size = 0
        found[-1].append(ids)
        size += len(ids)
    return found


def _sample(model: Any, tokenizer: Any, seed: int) -> str:
    from textmill.generation.config import SamplingConfig
    from textmill.generation.sampling import generate

    settings = SamplingConfig(seed=seed, max_tokens=SAMPLE_TOKENS, temperature=0.8)
    return str(generate(model, tokenizer, [""], settings)[0].text)
