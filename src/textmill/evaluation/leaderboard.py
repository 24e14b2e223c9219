"""`textmill compare`: every family on the same tokens for the same time, and mixtures of them. Writes `RUN/families/`
and `RUN/leaderboard.json`."""

from __future__ import annotations

import contextlib
import itertools
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from textmill.base.errors import Failure, TextmillError, UsageError, nearest
from textmill.base.files import write_json
from textmill.base.progress import Progress
from textmill.base.run import Run
from textmill.base.settings import show_duration
from textmill.evaluation.config import EvaluationConfig
from textmill.evaluation.contestant import FOLDER, SPLITS, Contestant, drawn_documents, run_contestant
from textmill.evaluation.mixtures import (
    LOG_LINEAR_TOKENS,
    LogLinear,
    Scored,
    cache_log_probs,
    common,
    fit_linear,
    mix_linear,
)
from textmill.evaluation.recommendation import recommend
from textmill.models.families import FAMILIES, family_named
from textmill.tokens.tokenizer import Tokenizer
from textmill.training.config import PlanConfig, TrainingConfig
from textmill.training.probe import probe_machine

LEADERBOARD = "leaderboard.json"
LEAST_SECONDS = 12.0
"""A family cannot start up, train and be scored in less."""
AFTER_SHARE = 0.05
"""Share of the time for mixtures and the report."""
MAX_TOKENS = 60_000
"""Held-out tokens of each split that families are scored on at most."""
COUNTED_SHARE = 0.5
"""Share of an equal part that a family which counts may take: it stops early by itself as a rule."""


def chosen_families(asked: str) -> list[str]:
    """The families of "all" or "ngram,lstm,…", in the order in which they train.

    Raises:
        UsageError: an unknown one.
    """
    names = [name.strip().lower() for name in asked.split(",") if name.strip()]
    if not names:
        raise UsageError(
            "No family was named.", fix="Type --families all, or for example --families ngram,transformer."
        )
    if "all" in names:
        return list(FAMILIES)
    for name in names:
        if name not in FAMILIES:
            raise UsageError(
                f'There is no family "{name}".{nearest(name, [*FAMILIES, "all"])}',
                fix=f"Choose from: all, {', '.join(FAMILIES)}.",
            )
    return [name for name in FAMILIES if name in names]


def check_time(seconds: float, families: list[str]) -> None:
    """Refuse a time in which nothing would be trained.

    Raises:
        UsageError: with the time that is needed.
    """
    needed = LEAST_SECONDS * len(families) / (1 - AFTER_SHARE)
    if seconds < needed:
        raise UsageError(
            f"{show_duration(max(0, seconds))} for {len(families)} families is too short.",
            f"Each needs {LEAST_SECONDS:.0f} s at the least to start up, train and be scored.",
            f"Give --budget {max(2, int(needed / 60) + 2)}m, or fewer --families.",
        )


def compare_families(
    run: Run,
    families: list[str],
    config: EvaluationConfig,
    training: TrainingConfig,
    plan: PlanConfig,
    progress: Progress,
    *,
    budget: float,
    elapsed: float = 0.0,
    folder: str = FOLDER,
    mixtures: bool = True,
) -> dict[str, Any]:
    """Train and score each family on the run's tokens, each for an equal share of the time that is left.

    Args:
        run: with finished tokens.
        families: in the order in which they train; a family that needs less than its share leaves the rest to those
            after it.
        config: the seed, the resamples, the most tokens to score.
        training, plan: settings for all of them.
        progress: where to report.
        budget: seconds for all of it, of which `elapsed` are gone.
        folder: where the sub-runs live.
        mixtures: whether to look for the best mixtures too.

    Returns:
        {"rows": …, "failed": …, "recommendation": …, …} as in `leaderboard.json`.
    """
    began = time.monotonic()
    tokens = run.require("tokens", f"textmill tokenize {run.path}")
    check_time(budget - elapsed, families)
    with progress.task("Probing this machine"):
        probe = probe_machine(training.threads)
    rows: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    for number, name in enumerate(families):
        left = (budget - elapsed) * (1 - AFTER_SHARE) - (time.monotonic() - began)
        counted = sum(family_named(one).kind == "counted" for one in families[number:])
        share = left / (len(families) - number - (1 - COUNTED_SHARE) * counted)
        if family_named(name).kind == "counted":
            share *= COUNTED_SHARE
        share = max(LEAST_SECONDS, share)
        progress.say(f"{family_named(name).label} ({number + 1} of {len(families)}): {show_duration(share)}")
        job = Contestant(
            run=str(run.path),
            family=name,
            seconds=share,
            budget=budget,
            plan=replace(plan, family=name),
            training=training,
            max_tokens=min(config.max_tokens, MAX_TOKENS),
            seed=config.seed,
            resamples=config.resamples,
            mode=progress.mode,
            folder=folder,
            probe=probe,
        )
        try:
            row = run_contestant(job)
        except Failure as error:
            failed.append({"family": name, "what": error.what, "why": error.why, "fix": error.fix})
            progress.say(f"{family_named(name).label} left out: {error.what} {error.why}")
            continue
        row["kind"] = "family"
        if row["documents"] < row["documents_drawn"]:
            row["note"] = " ".join(
                [row["note"], f"Time was up after {row['documents']} of {row['documents_drawn']} documents."]
            ).strip()
        rows.append(row)
        progress.say(f"{row['label']}: {row['bits_per_byte']:.3f} bits per byte after {row['seconds']:.0f} s")
    if not rows:
        first = failed[0]
        raise Failure(f"Not one of the families could be trained. {first['what']}", first["why"], first["fix"])
    tokenizer = Tokenizer.load(tokens)
    if mixtures:
        with progress.task("Mixing"):
            rows += mixed_rows(run, rows, tokenizer, config, folder)
    rows.sort(key=lambda row: (not row["comparable"], row["bits_per_byte"]))
    result = {
        "rows": rows,
        "failed": failed,
        "families": families,
        "budget_seconds": budget,
        "seconds": round(elapsed + time.monotonic() - began, 1),
        "seed": config.seed,
    }
    result["recommendation"] = recommend(result, _facts(run))
    write_json(run / (LEADERBOARD if folder == FOLDER else f"{folder}/{LEADERBOARD}"), result)
    return result


def _facts(run: Run) -> dict[str, Any]:
    from textmill.base.files import read_json

    index = read_json(run / "tokens" / "index.json")
    train = index["splits"]["train"]
    return {"train_bytes": train["bytes"], "train_tokens": train["tokens"], "vocabulary": index["vocabulary"]}


def mixed_rows(
    run: Run, rows: list[dict[str, Any]], tokenizer: Tokenizer, config: EvaluationConfig, folder: str
) -> list[dict[str, Any]]:
    """Rows of the mixtures: of every two comparable families linearly, of the best two also log-linearly, and of the
    best family with a cache."""
    names = [row["family"] for row in rows if row["comparable"] and not row["bound"]]
    by_name = {row["family"]: row for row in rows}
    if not names:
        return []
    scored = {name: {split: load_scored(run.path / folder / name, split) for split in SPLITS} for name in names}
    documents = {
        split: drawn_documents(
            run / "tokens", split, tokenizer, min(config.max_tokens, MAX_TOKENS), config.seed
        )
        for split in SPLITS
    }  # fmt: skip
    found = []
    for pair in itertools.combinations(names, 2):
        found.append(_linear(pair, scored, documents, tokenizer, by_name))
    found.sort(key=lambda row: (not row["comparable"], row["bits_per_byte"]))
    found = found[:10]
    best = min(names, key=lambda name: by_name[name]["bits_per_byte"])
    cached = {
        split: Scored(cache_log_probs(documents[split]), np.array([len(ids) for ids in documents[split]]))
        for split in SPLITS
    }
    found.append(
        _linear((best, "cache"), {**scored, "cache": cached}, documents, tokenizer, {**by_name, "cache": CACHE_ROW})
    )
    if len(names) > 1:
        top = tuple(found[0]["families"])
        with contextlib.suppress(TextmillError):  # one that cannot be read from left to right has no such mixture
            found.append(_log_linear(run, top, documents, tokenizer, by_name, folder))
    return found


CACHE_ROW: dict[str, Any] = {"parameters": 0, "seconds": 0.0, "bytes": 0, "label": "cache"}


def load_scored(folder: Path, split: str) -> Scored:
    """What `contestant.py` kept of a family's scores."""
    with np.load(folder / f"{split}.npz") as stored:
        return Scored(stored["log_probs"], stored["lengths"])


def _bits_per_byte(log_probs: np.ndarray, documents: list[np.ndarray], tokenizer: Tokenizer) -> float:
    size = int(sum(tokenizer.byte_lengths[ids].sum() for ids in documents))
    return float(-log_probs.sum() / np.log(2) / max(1, size))


def _mixture_row(pair: tuple[str, str], by_name: dict[str, Any], how: str) -> dict[str, Any]:
    one, two = (by_name[name] for name in pair)
    return {
        "kind": "mixture",
        "family": " + ".join(pair),
        "families": list(pair),
        "label": f"{one['label']} + {two['label']}, {how}",
        "how": how,
        "parameters": one["parameters"] + two["parameters"],
        "seconds": one["seconds"] + two["seconds"],
        "bytes": one["bytes"] + two["bytes"],
        "comparable": True,
        "bound": False,
    }


def _linear(
    pair: tuple[str, str],
    scored: dict[str, dict[str, Scored]],
    documents: dict[str, list[np.ndarray]],
    tokenizer: Tokenizer,
    by_name: dict[str, Any],
) -> dict[str, Any]:
    row = _mixture_row(pair, by_name, "linear")
    weight = 0.0
    for split, key in (("validation", "bits_per_byte"), ("test", "test_bits_per_byte")):
        first, second, held = common(scored[pair[0]][split], scored[pair[1]][split])
        if split == "validation":
            weight = fit_linear(first, second)
        here = documents[split][:held]
        row[key] = _bits_per_byte(mix_linear(first, second, weight), here, tokenizer)
        alone = min(_bits_per_byte(part, here, tokenizer) for part in (first, second) if np.isfinite(part).all())
        row[f"{split}_gain"] = alone - row[key]
        row["documents" if split == "validation" else "test_documents"] = held
        row["comparable"] = row["comparable"] and held == len(documents[split])
    row["weight"] = round(weight, 4)
    row["note"] = (
        f"{weight:.0%} of {pair[1]}; the weight was fitted on validation, the test figure never saw it: "
        f"{row['test_gain']:+.3f} gained there over the better one alone."
    )
    if not row["comparable"]:
        row["note"] += (
            f" Measured on the first {row['documents']} of {len(documents['validation'])} documents (test: "
            f"{row['test_documents']} of {len(documents['test'])}), which both scored: not to be ranked with others."
        )
    return row


def _log_linear(
    run: Run,
    pair: tuple[str, ...],
    documents: dict[str, list[np.ndarray]],
    tokenizer: Tokenizer,
    by_name: dict[str, Any],
    folder: str,
) -> dict[str, Any]:
    from textmill.models.load import load_model

    models = tuple(load_model(run.path / folder / name / "model") for name in pair)
    tokens = min(LOG_LINEAR_TOKENS, max(256, 48_000_000 // tokenizer.vocabulary))
    mixer = LogLinear((models[0], models[1]), tokenizer.document_begin)
    both = mixer.distributions(documents["validation"], tokens)
    weights = mixer.fit(both)
    row = _mixture_row((pair[0], pair[1]), by_name, "log-linear")
    import torch

    for split, key in (("validation", "bits_per_byte"), ("test", "test_bits_per_byte")):
        if split == "test":
            both = mixer.distributions(documents["test"], tokens)
        with torch.no_grad():
            nats = float(mixer.nats(both, torch.tensor(weights))) * len(both[2])
        row[key] = nats / float(np.log(2)) / max(1, int(tokenizer.byte_lengths[both[2].numpy()].sum()))
        one, two = (_sub_bits(part, both[2], tokenizer) for part in both[:2])
        row[f"{split}_alone"] = [one, two]
    row["weights"] = [round(value, 4) for value in weights]
    row["sampled"] = True
    row["note"] = (
        f"Powers {weights[0]:.2f} and {weights[1]:.2f}. Measured on the first {len(both[2]):,} tokens of documents' "
        f"beginnings alone, where the two by themselves have {row['test_alone'][0]:.3f} and "
        f"{row['test_alone'][1]:.3f} on test: not to be ranked with the rows above."
    )
    row["comparable"] = False
    return row


def _sub_bits(log_probs: Any, targets: Any, tokenizer: Tokenizer) -> float:
    nats = -float(log_probs.gather(1, targets[:, None]).double().sum())
    return nats / float(np.log(2)) / max(1, int(tokenizer.byte_lengths[targets.numpy()].sum()))
