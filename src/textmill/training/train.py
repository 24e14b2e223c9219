"""The training stage: tokens and a plan to `model/`, through checkpoints that a kill cannot break."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from textmill.base.errors import Failure
from textmill.base.files import read_json, write_atomic, write_json
from textmill.base.hardware import hardware, peak_bytes
from textmill.base.progress import Progress
from textmill.base.run import Run, Stage
from textmill.base.settings import from_mapping, show_count
from textmill.models.config import Switches
from textmill.models.load import save_model
from textmill.models.transformer import Transformer
from textmill.tokens.batches import Batches, validation_blocks
from textmill.tokens.shards import Shards
from textmill.tokens.tokenizer import Tokenizer
from textmill.training.checkpoints import remove_checkpoints
from textmill.training.compiler import KernelCache
from textmill.training.config import PlanConfig, TrainingConfig
from textmill.training.loop import Trainer
from textmill.training.plan import Plan, choose_shape
from textmill.training.state import Job

BEST = "best.safetensors"
Sampler = Callable[[Transformer, Tokenizer, int], str]
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
    shape = choose_shape(
        PlanConfig(
            heads=chosen["heads"], arrangement=chosen["arrangement"], model=from_mapping(Switches, chosen["switches"])
        ),
        chosen["layers"],
        chosen["width"],
        tokenizer.vocabulary,
        chosen["context"],
    )
    model = Transformer(shape).to(device)
    model.compute_dtype = torch.bfloat16 if chosen["precision"] == "bf16" else torch.float32
    shards = Shards(tokens_folder, "train")
    held = validation_blocks(
        Shards(tokens_folder, "validation"), shape.context, config.validation_tokens, tokenizer.byte_lengths
    )
    kernels = KernelCache() if chosen["compile"] else None
    published = False

    def on_validation(model: Transformer, step: int, seconds: float) -> list[dict[str, Any]]:
        nonlocal published
        if kernels is not None and not published:
            kernels.publish()
            published = True
        if sampler is None:
            return []
        text = sampler(model, tokenizer, step)
        return [{"kind": "sample", "step": step, "seconds": round(seconds, 3), "prompt": "", "text": text}]

    def on_best(model: Transformer, step: int) -> None:
        weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
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
        f"Training {shape.layers} layers of {shape.width}, {show_count(model.size)} parameters, "
        f"on {show_count(shards.tokens)} tokens."
    )
    try:
        with stage.work() as folder:
            trainer = Trainer(
                model,
                Batches(shards, shape.context, chosen["rows"], config.seed),
                held,
                job,
                config,
                checkpoints,
                compile=bool(chosen["compile"]),
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
            tokens = done.step * chosen["rows"] * shape.context
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


def write_lines(path: Path, entries: list[dict[str, Any]]) -> None:
    """One JSON object a line."""
    write_atomic(path, "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries))
