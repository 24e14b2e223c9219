"""The training stage: tokens and a plan to `model/`, through checkpoints that a kill cannot break."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from textmill.base.errors import Failure, UsageError
from textmill.base.files import read_json, write_atomic, write_json
from textmill.base.hardware import hardware, peak_bytes
from textmill.base.progress import Progress
from textmill.base.run import Run, Stage
from textmill.base.settings import from_mapping, show_count
from textmill.models.config import Switches
from textmill.models.families import family_named
from textmill.models.load import save_model
from textmill.models.transformer import Transformer
from textmill.tokens.batches import Batches, StreamBatches, validation_blocks
from textmill.tokens.shards import Shards
from textmill.tokens.tokenizer import Tokenizer
from textmill.training.checkpoints import remove_checkpoints
from textmill.training.compiler import KernelCache
from textmill.training.config import PlanConfig, TrainingConfig
from textmill.training.loop import Trainer
from textmill.training.objectives import make_objective
from textmill.training.plan import Plan, choose_shape
from textmill.training.planning import special_ids
from textmill.training.state import Job

BEST = "best.safetensors"
Sampler = Callable[[Any, Tokenizer, int], str]
"""Draws a text from the model at a step, for the timeline of samples."""


def training_stage(run: Run, plan: Plan, config: TrainingConfig) -> Stage:
    """The stage `model/` for this plan."""
    return Stage(
        run,
        "model",
        inputs={"tokens": run.fingerprint("tokens"), "chosen": plan.chosen},
        configuration=asdict(config),
    )


def prepare_checkpoints(folder: Path, fingerprint: str) -> None:
    """Keep the checkpoints of this very training, remove those of another."""
    mark = folder / "training.json"
    try:
        same = read_json(mark)["fingerprint"] == fingerprint
    except (OSError, json.JSONDecodeError, KeyError):
        same = False
    if not same:
        remove_checkpoints(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(mark, {"fingerprint": fingerprint})


def train_model(
    run: Run,
    plan: Plan,
    config: TrainingConfig,
    progress: Progress,
    sampler: Sampler | None = None,
) -> dict[str, Any]:
    """Train the planned model, or go on where a killed attempt stopped.

    Args:
        run: with a finished tokens stage.
        plan: from `plan_run`.
        config: learning rates and guards.
        progress: where to report.
        sampler: draws a sample at each validation.

    Returns:
        the stage's counts: steps, tokens, seconds, bits_per_byte (validation), memory_bytes, tokens_per_second.
    """
    tokens_folder = run.require("tokens", f"textmill tokenize {run.path}")
    stage = training_stage(run, plan, config)
    if stage.is_finished():
        record = stage.record()
        assert record is not None
        progress.say(f"Training: done before ({run / 'model'}).")
        return dict(record["counts"])
    threads = config.threads or hardware().cores
    torch.set_num_threads(threads)
    torch.manual_seed(config.seed)
    chosen = plan.chosen
    device = str(plan.measured.get("device", "cpu"))
    if device == "cuda" and not torch.cuda.is_available():
        device = "cpu"
    checkpoints = run / "checkpoints"
    prepare_checkpoints(checkpoints, stage.fingerprint)
    tokenizer = Tokenizer.load(tokens_folder)
    if family_named(chosen.get("family", "transformer")).kind == "counted":
        return _fit(stage, plan, config, tokenizer, Shards(tokens_folder, "train"), tokens_folder, progress)
    model = make_model(chosen, tokenizer)
    if chosen.get("embeddings"):
        begin_embeddings(model, Path(chosen["embeddings"]), tokenizer)
    model = model.to(device)
    model.compute_dtype = torch.bfloat16 if chosen["precision"] == "bf16" else torch.float32
    context = chosen["context"]
    shards = Shards(tokens_folder, "train")
    held = validation_blocks(
        Shards(tokens_folder, "validation"),
        context,
        min(config.validation_tokens, getattr(model, "validation_tokens", config.validation_tokens)),
        tokenizer.byte_lengths,
    )
    batches: Batches | StreamBatches
    batches = (StreamBatches if model.carries else Batches)(shards, context, chosen["rows"], config.seed)
    objective = make_objective(model.objective, model.config, special_ids(tokenizer), config.seed, tokenizer)
    kernels = KernelCache() if chosen["compile"] else None
    published = False

    def on_validation(model: Any, step: int, seconds: float) -> list[dict[str, Any]]:
        nonlocal published
        if kernels is not None and not published:
            kernels.publish()
            published = True
        if sampler is None or not family_named(model.family).generates:
            return []
        text = sampler(model, tokenizer, step)
        return [{"kind": "sample", "step": step, "seconds": round(seconds, 3), "prompt": "", "text": text}]

    def on_best(model: Any, step: int) -> None:
        weights = {name: value.detach().cpu() for name, value in model.state_dict().items()}
        # Copies where two names share one memory (tied tables), which the file format does not know.
        shared = len({value.data_ptr() for value in weights.values()}) < len(weights)
        weights = {name: value.clone() if shared else value.contiguous() for name, value in weights.items()}
        scratch = checkpoints / f"{BEST}.writing"
        save_file(weights, scratch, metadata={"step": str(step)})
        scratch.replace(checkpoints / BEST)

    job = Job(
        steps=chosen["steps"],
        seconds=chosen["train_seconds"],
        rows=chosen["rows"],
        micro_rows=chosen["micro_rows"],
        validate_every=max(10, math.ceil(chosen["steps"] / config.validations)),
        table_decay=chosen["table_decay"],
    )
    progress.say(
        f"Training {describe(chosen)}, {show_count(model.size)} parameters, on {show_count(shards.tokens)} tokens."
    )
    try:
        with stage.work() as folder:
            trainer = Trainer(
                model,
                batches,
                held,
                job,
                config,
                checkpoints,
                compile=bool(chosen["compile"]),
                objective=objective,
            )
            done = trainer.run(progress, on_validation, on_best)
            if not math.isfinite(done.best):
                raise Failure(
                    "The training gave no usable weights.",
                    "Not one validation was finite.",
                    "Try lower rates, e.g. --training.matrix-rate 0.005 --training.table-rate 0.05.",
                )
            model.load_state_dict(load_file(checkpoints / BEST))
            model.compute_dtype = torch.float32
            save_model(model, folder, document_end=tokenizer.document_end)
            tokenizer.save(folder)
            samples = [entry for entry in done.log if entry["kind"] == "sample"]
            others = [entry for entry in done.log if entry["kind"] != "sample"]
            write_lines(folder / "training.jsonl", others)
            write_lines(folder / "samples.jsonl", samples)
            speeds = [entry["tokens_per_second"] for entry in others if entry["kind"] == "step"]
            tokens = done.step * chosen["rows"] * context
            stage.counts = {
                "steps": done.step,
                "best_step": done.best_step,
                "tokens": tokens,
                "epochs": round(tokens / shards.tokens, 3),
                "parameters": model.size,
                "training_seconds": round(done.seconds, 2),
                "bits_per_byte": done.best,
                "tokens_per_second": sorted(speeds)[len(speeds) // 2] if speeds else None,
                "micro_rows": done.micro_rows,
                "memory_bytes": peak_bytes(),
                "threads": threads,
            }
    finally:
        if kernels is not None:
            kernels.close()
    shutil.rmtree(checkpoints, ignore_errors=True)  # the model is whole; nothing is left to go on with
    return dict(stage.counts)


def make_model(chosen: dict[str, Any], tokenizer: Tokenizer) -> Any:
    """Fresh weights of the neural model that a plan chose."""
    family = chosen.get("family", "transformer")
    if family != "transformer":
        kind = family_named(family).model_class()
        config = from_mapping(kind.config_class, chosen["config"])
        if hasattr(kind, "fitted"):  # what only the tokenizer tells, such as which tokens end sentences
            config = kind.fitted(config, tokenizer)
        return kind(config)
    shape = choose_shape(
        PlanConfig(
            heads=chosen["heads"], arrangement=chosen["arrangement"], model=from_mapping(Switches, chosen["switches"])
        ),
        chosen["layers"],
        chosen["width"],
        tokenizer.vocabulary,
        chosen["context"],
    )
    return Transformer(shape)


def begin_embeddings(model: Any, folder: Path, tokenizer: Tokenizer) -> None:
    """Put word vectors into the model's table of token embeddings, scaled to that table's own spread.

    Raises:
        UsageError: they are of another tokenizer or width, or the model has no such table.
    """
    from textmill.models.word_vectors import embedding_from_vectors

    tables = [
        module.weight
        for module in model.modules()
        if isinstance(module, torch.nn.Embedding) and module.weight.shape[0] >= tokenizer.vocabulary
    ]
    if not tables:
        raise UsageError(f"The family {model.family} has no table of token embeddings.", fix="Leave --embeddings out.")
    weight = tables[0]
    table = torch.from_numpy(embedding_from_vectors(folder, tokenizer, width=weight.shape[1]))
    with torch.no_grad():
        rows = weight[: len(table)]
        rows.copy_(table * (rows.std() / table.std().clamp_min(1e-9)))


def describe(chosen: dict[str, Any]) -> str:
    """The chosen model in a few words: "2 layers of 192", "LSTM, 2 layers of 256", "n-gram"."""
    family = family_named(chosen.get("family", "transformer"))
    size = f"{chosen['layers']} layers of {chosen['width']}" if chosen.get("layers") and chosen.get("width") else ""
    name = "" if family.name == "transformer" else family.label
    return ", ".join(part for part in (name, size) if part)


def _fit(
    stage: Stage,
    plan: Plan,
    config: TrainingConfig,
    tokenizer: Tokenizer,
    train: Shards,
    tokens_folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Fit a model that counts: all of the text, or what the time allows."""
    family = family_named(plan.chosen["family"])
    kind = family.model_class()
    model = kind(from_mapping(kind.config_class, plan.chosen["config"]))
    progress.say(f"Fitting {describe(plan.chosen)} on {show_count(train.tokens)} tokens.")
    began = time.monotonic()
    with stage.work() as folder:
        with progress.task(f"Fitting the {family.label} model"):
            model.fit(train, seconds=plan.chosen["train_seconds"], seed=config.seed)
        seconds = time.monotonic() - began
        held = Shards(tokens_folder, "validation")
        ids = held.read(0, min(held.tokens, config.validation_tokens))
        if ids[-1] != tokenizer.document_end and (ids == tokenizer.document_end).any():
            ids = ids[: int(np.flatnonzero(ids == tokenizer.document_end)[-1]) + 1]  # whole documents
        nats = -float(np.asarray(model.score(ids), np.float64).sum())
        figure = nats / math.log(2) / max(1, int(tokenizer.byte_lengths[ids].sum()))
        model.save(folder, tokenizer.document_end)
        tokenizer.save(folder)
        write_lines(
            folder / "training.jsonl",
            [{"kind": "validation", "step": 0, "seconds": round(seconds, 3), "tokens": train.tokens,
              "bits_per_byte": figure if math.isfinite(figure) else None}],
        )  # fmt: skip
        write_lines(folder / "samples.jsonl", [])
        fitted = int(getattr(model, "tokens", train.tokens))
        stage.counts = {
            "steps": 0,
            "best_step": 0,
            "tokens": fitted,
            "epochs": round(fitted / train.tokens, 3),
            "parameters": int(model.size),
            "training_seconds": round(seconds, 2),
            "bits_per_byte": figure,
            "tokens_per_second": round(fitted / max(seconds, 1e-9), 1),
            "micro_rows": 0,
            "memory_bytes": peak_bytes(),
            "threads": config.threads or hardware().cores,
        }
    return dict(stage.counts)


def write_lines(path: Path, entries: list[dict[str, Any]]) -> None:
    """One JSON object a line."""
    write_atomic(path, "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries))
