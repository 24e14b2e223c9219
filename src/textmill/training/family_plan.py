"""Plans for families other than the decoder Transformer: sizes are tried for a few real steps. Touches nothing."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
import torch

from textmill.base.errors import Failure, UsageError
from textmill.base.settings import show_bytes, show_count, show_duration
from textmill.models.families import Family, family_named
from textmill.training.config import PlanConfig, TrainingConfig
from textmill.training.family_settings import with_settings
from textmill.training.objectives import count_targets, make_objective, rows_of
from textmill.training.optimizers import make_optimizers
from textmill.training.plan import (
    RUNTIME_BYTES,
    Facts,
    Plan,
    check_budget,
    check_corpus,
    choose_batch_tokens,
    effective_bytes,
    estimate_bytes_per_token,
    predict_bits_per_byte,
)
from textmill.training.probe import Probe

CONTEXT = 256
"""Tokens of a training row, where the family's `training_context` says nothing else."""
PROBE_SHARE = 0.06
"""Share of the time left that trying sizes may take."""
MOST_READINGS = 60
COUNTED_TOKENS_PER_SECOND = 150_000
"""A cautious pace of counting, for the prediction of memory and time alone; the clock decides."""


def adjusted(config: Any, asked: PlanConfig, family: Family) -> Any:
    """The family's configuration with what the user fixed.

    Raises:
        UsageError: the family has no such setting.
    """
    known = {field.name for field in fields(config)}
    values = {}
    for name in ("width", "layers", "heads", "context"):
        value = getattr(asked, name)
        if value is None:
            continue
        if name not in known:
            raise UsageError(
                f"--{name} has no effect on the family {family.name}.",
                f"It has: {', '.join(sorted(known - {'vocabulary'}))}.",
                "Leave it out.",
            )
        values[name] = value
    if asked.arrangement != "modern" or asked.model.chosen():
        raise UsageError(
            f"The arrangement and its switches have no effect on the family {family.name}.",
            "They are parts of the decoder Transformer.",
            "Leave them out, or choose --family transformer.",
        )
    return with_settings(replace(config, **values), asked.set, family.name)


def step_seconds(model: Any, objective: Any, config: TrainingConfig, rows: int, context: int) -> float:
    """Seconds of one training step: the second of two on random tokens."""
    optimizers = make_optimizers(model, config)
    drawn = np.random.default_rng(0).integers(16, model.vocabulary, (rows, context + 1))
    seconds = math.inf
    for step in range(2):
        began = time.perf_counter()
        batch = objective.batch(drawn[:, :-1].copy(), drawn[:, 1:].copy(), step)
        part = rows_of(batch, 0, rows, rows, model.device)
        loss, _ = model.training_loss(part, 1.0 / max(1, count_targets(batch)), None)
        loss.backward()
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        seconds = time.perf_counter() - began
    return seconds


def plan_family(
    facts: Facts,
    probe: Probe,
    budget: float | None,
    config: PlanConfig,
    training: TrainingConfig,
    *,
    special: dict[str, int],
    elapsed: float = 0.0,
    evaluate: bool = True,
) -> Plan:
    """Choose a size of one family for the time there is.

    Every size of the family's ladder trains two real steps; that with the lowest predicted bits per byte is taken. The
    prediction's form was fitted on Transformers: for other families it ranks sizes, and its value is a guess.

    Args:
        facts, probe, budget, config, training, elapsed, evaluate: as for `make_plan`.
        special: special tokens of the tokenizer and their ids; the document end is the one named `<|end|>`.
    """
    if budget is None and config.steps is None:
        raise UsageError("There is neither a budget nor a number of steps.", fix="Give --budget 10m, or --steps 1000.")
    check_budget(budget)
    family = family_named(config.family)
    plan = Plan(warnings=check_corpus(facts, config), budget_seconds=budget)
    vocabulary = facts.vocabulary or config.vocabulary or 4096
    per_token = facts.bytes_per_token or estimate_bytes_per_token(vocabulary, facts.texture)
    train_tokens = facts.train_tokens or int(facts.train_bytes / per_token)
    time_left = math.inf if budget is None else budget - elapsed
    after = min(0.35 * time_left, 10.0 + 4e-6 * facts.held_bytes) if evaluate and math.isfinite(time_left) else 1.0
    train_seconds = max(5.0, 0.98 * time_left - after) if math.isfinite(time_left) else math.inf
    kind = family.model_class()
    context = config.context or getattr(kind, "training_context", CONTEXT)
    ladder = kind.ladder(vocabulary, context, train_tokens)
    if config.width or config.layers:
        ladder = ladder[:1]
    end = special.get("<|end|>", 0)
    ladder = [adjusted(_told(one, end, special), config, family) for one in ladder]
    if family.kind == "counted":
        _plan_counted(plan, family, ladder[-1], train_tokens, train_seconds, after, probe)
    else:
        _plan_neural(
            plan, family, kind, ladder, facts, probe, config, training, special, train_tokens, train_seconds, after
        )
    plan.chosen |= {"family": family.name, "vocabulary": vocabulary}
    plan.complete(facts, probe, elapsed)
    return plan


def _told(config: Any, document_end: int, special: dict[str, int]) -> Any:
    """The configuration, told which token ends documents, and other special ones, if it asks."""
    if special and hasattr(config, "with_special"):
        return config.with_special(special)
    if any(field.name == "document_end" for field in fields(config)):
        return replace(config, document_end=document_end)
    return config


def _plan_counted(
    plan: Plan, family: Family, config: Any, train_tokens: int, train_seconds: float, after: float, probe: Probe
) -> None:
    seconds = train_seconds if math.isfinite(train_seconds) else train_tokens / COUNTED_TOKENS_PER_SECOND
    plan.chosen |= {
        "config": asdict(config),
        "context": None,
        "steps": 0,
        "epochs": 1.0,
        "batch_tokens": 0,
        "parameters": 0,
        "precision": "fp32",
        "compile": False,
        "train_seconds": None if math.isinf(train_seconds) else round(train_seconds, 1),
    }
    plan.reasons["config"] = "the largest of the family's sizes that this much text can fill"
    plan.predicted |= {
        "seconds": {
            "training": round(min(seconds, 2.0 + train_tokens / COUNTED_TOKENS_PER_SECOND), 1),
            "evaluation": round(after, 1),
        },
        "memory_bytes": RUNTIME_BYTES + min(200 * train_tokens, probe.memory_bytes // 2),
        "tokens_per_second": None,
        "bits_per_byte": None,
    }


def _plan_neural(
    plan: Plan,
    family: Family,
    kind: Any,
    ladder: list[Any],
    facts: Facts,
    probe: Probe,
    config: PlanConfig,
    training: TrainingConfig,
    special: dict[str, int],
    train_tokens: int,
    train_seconds: float,
    after: float,
) -> None:
    per_token = facts.bytes_per_token or facts.train_bytes / max(1, train_tokens)
    precision = "fp32" if training.precision == "fp32" or not kind.bf16 else probe.precision
    allowed = PROBE_SHARE * train_seconds if math.isfinite(train_seconds) else 30.0
    began, tried, best = time.perf_counter(), 0, None
    before = torch.get_num_threads()
    torch.set_num_threads(probe.cores)
    try:
        for shape in ladder:
            context = getattr(shape, "context", CONTEXT)
            batch = config.batch_tokens or choose_batch_tokens(1e6)
            rows = max(1, batch // context)
            with torch.random.fork_rng(devices=[]):
                model = kind(shape).to(probe.device)
                model.compute_dtype = torch.bfloat16 if precision == "bf16" else torch.float32
                seconds = step_seconds(
                    model, make_objective(kind.objective, shape, special, training.seed), training, rows, context
                )
            tried += 1
            rate = rows * context / seconds
            read = config.steps * rows * context if config.steps else max(0.0, train_seconds - 4.0) * rate
            read = min(read, MOST_READINGS * train_tokens)
            figure = predict_bits_per_byte(
                shape.matmul_parameters, read * per_token, train_tokens * per_token, facts.texture
            )
            size = sum(parameter.numel() for parameter in model.parameters())
            fits = 16 * size + 60 * rows * context * getattr(shape, "width", 256) < 0.6 * probe.memory_bytes
            if fits and (best is None or figure < best[0]):
                best = (figure, shape, rate, rows, size, read)
            elif best is not None and figure > 1.05 * best[0]:
                break
            if time.perf_counter() - began > allowed:
                break
    finally:
        torch.set_num_threads(before)
    if best is None:
        raise Failure(
            f"No {family.label} fits into the memory of this machine.",
            f"{show_bytes(probe.memory_bytes)} is less than the smallest needs.",
            "Free some memory, or fix a smaller one with --width 64 --layers 1.",
        )
    figure, shape, rate, rows, size, read = best
    context = getattr(shape, "context", CONTEXT)
    if config.batch_tokens is None:
        rows = max(1, choose_batch_tokens(read) // context)
    steps = config.steps or max(20, int(read / (rows * context)))
    epochs = steps * rows * context / max(1, train_tokens)
    if config.steps or read >= MOST_READINGS * train_tokens:
        train_seconds = 4.0 + steps * rows * context / rate
    compile = bool(
        hasattr(kind, "training_parts")
        and (training.compile if training.compile is not None else probe.compiler and train_seconds > 90)
    )
    plan.chosen |= {
        "config": asdict(shape),
        "embeddings": config.embeddings,
        "layers": getattr(shape, "layers", None),
        "width": getattr(shape, "width", None),
        "context": context,
        "batch_tokens": rows * context,
        "rows": rows,
        "micro_rows": rows,
        "steps": steps,
        "epochs": round(epochs, 3),
        "parameters": size,
        "multiplied_parameters": shape.matmul_parameters,
        "table_decay": 0.0,
        "precision": precision,
        "compile": compile,
        "train_seconds": None if config.steps else round(train_seconds, 1),
    }
    plan.reasons |= {
        "config": f"the lowest predicted bits per byte of {tried} sizes that were tried for two steps each",
        "batch_tokens": f"about {show_count(steps)} steps",
        "epochs": f"{show_count(steps * rows * context)} tokens read, {show_count(train_tokens)} in the training split",
        "steps": f"what {show_duration(train_seconds)} hold at {show_count(rate)} tokens a second",
    }
    if effective_bytes(epochs, 1.0) > 8:
        plan.warnings.append(
            f"The text will be read {epochs:.0f} times: the model will remember much of it. "
            "Early stopping guards the rest."
        )
    plan.predicted |= {
        "seconds": {"training": round(train_seconds, 1), "evaluation": round(after, 1)},
        "memory_bytes": RUNTIME_BYTES + 16 * size + 60 * rows * context * getattr(shape, "width", 256),
        "tokens_per_second": round(rate, 1),
        "bits_per_byte": round(figure, 3),
    }
