"""The planner: from corpus, budget and measured speed to a model, a schedule, a prediction. Pure; touches nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from textmill.base.errors import Failure, UsageError
from textmill.base.settings import show_bytes, show_count, show_duration
from textmill.models.config import TransformerConfig
from textmill.models.presets import LADDER, arrange, bigram_buckets
from textmill.tokens.vocabulary import choose_vocabulary
from textmill.training.config import PlanConfig, TrainingConfig
from textmill.training.probe import Probe

SMALLEST_BUDGET = 60.0
SMALLEST_CORPUS = 100_000
USEFUL_CORPUS = 1_000_000
LEAST_STEPS = 20

EFFICIENCY = {"compiled": 1.7, "eager": 1.05}
"""Speed of a training step over that of the probe's uncompiled step (docs/LOG.md, 2026-11-23)."""

# Predicted bits per byte = texture / 1.975 * (E + A / N^a + B / D^b), the form of Hoffmann et al. 2022, with N the
# multiplied weights, D the effective bytes read, and the texture the bits per byte of zstd -19 on a megabyte of the
# text (1.975 on the speeches on which the constants were fitted: docs/LOG.md, 2026-11-23). It ranks sizes well on
# budgets of minutes; far outside of them it is a guess, and plan.json keeps the prediction beside what came.
SCALE_E, SCALE_A, SCALE_a, SCALE_B, SCALE_b = 1.19, 8.0, 0.34, 1.065e7, 1.18
SCALE_TEXTURE = 1.975
MOST_TABLE_DECAY = 0.1
RUNTIME_BYTES = 1_000_000_000
"""Memory of the interpreter, the libraries and compiled kernels while they train (measured, rounded up)."""
REPEAT_VALUE = 15.0
"""Repetitions after which reading the text again teaches e times less (Muennighoff et al. 2023, R*_D)."""


@dataclass(frozen=True)
class Facts:
    """What the planner knows of the corpus.

    Attributes:
        train_bytes: UTF-8 bytes of the training split.
        held_bytes: UTF-8 bytes of validation and test.
        texture: bits per byte of `zstd -19` on a sample of the training split.
        bytes_per_token: known after tokenizing; None makes the planner estimate it.
        train_tokens: known after tokenizing.
        vocabulary: the tokenizer's real size, known after tokenizing.
    """

    train_bytes: int
    held_bytes: int
    texture: float
    bytes_per_token: float | None = None
    train_tokens: int | None = None
    vocabulary: int | None = None


@dataclass
class Plan:
    """What was chosen, why, and what is expected. `plan.json` is this, plus what really came."""

    chosen: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    measured: dict[str, Any] = field(default_factory=dict)
    predicted: dict[str, Any] = field(default_factory=dict)
    actual: dict[str, Any] = field(default_factory=dict)
    budget_seconds: float | None = None

    def complete(self, facts: Facts, probe: Probe, elapsed: float) -> None:
        """Note what was measured, and the total of what is predicted, `elapsed` seconds being gone."""
        self.measured |= {**probe.to_json(), "texture": round(facts.texture, 4)}
        self.predicted["seconds"] = {"corpus, tokens": round(elapsed, 1), **self.predicted["seconds"]}
        self.predicted["total_seconds"] = round(sum(self.predicted["seconds"].values()), 1)


def estimate_bytes_per_token(vocabulary: int, texture: float) -> float:
    """Bytes that a byte-level BPE token of this vocabulary stands for, before there is a tokenizer.

    Fitted on English prose (3.65 at 2,048, 4.31 at 4,096, 4.85 at 8,192) and scaled by how compressible the text is.
    """
    return max(1.5, (0.6 * math.log2(vocabulary) - 2.9) * (SCALE_TEXTURE / texture) ** 0.5)


def effective_bytes(read: float, unique: float) -> float:
    """Bytes read, those read again discounted (Muennighoff et al. 2023, eq. 5)."""
    if read <= unique:
        return read
    repeats = read / unique - 1
    return unique * (1 + REPEAT_VALUE * (1 - math.exp(-repeats / REPEAT_VALUE)))


def predict_bits_per_byte(parameters: float, read_bytes: float, unique_bytes: float, texture: float) -> float:
    """Expected bits per byte on held-out text of the same kind."""
    seen = max(1.0, effective_bytes(read_bytes, unique_bytes))
    figure = SCALE_E + SCALE_A / parameters**SCALE_a + SCALE_B / seen**SCALE_b
    return texture / SCALE_TEXTURE * figure


def training_memory(shape: TransformerConfig, parameters: int, micro_rows: int) -> int:
    """Bytes of memory that training needs: weights, gradients and two moments, activations, and the runtime."""
    tokens = micro_rows * shape.context
    activations = tokens * shape.width * (shape.layers * 44 + 24)
    logits = 3 * 4 * (1 << 22)
    return 16 * parameters + activations + logits + RUNTIME_BYTES


def evaluation_memory(train_tokens: float) -> int:
    """Bytes of memory that the evaluation needs; fitting the n-grams takes most of it (docs/LOG.md)."""
    return RUNTIME_BYTES + 200_000_000 + int(300 * min(train_tokens, 1e7))


def model_parameters(shape: TransformerConfig) -> int:
    """Trained values of the arrangement, tables included (scalars and norms left out)."""
    tables = shape.vocabulary * shape.width  # the embedding
    if shape.value_embeddings:
        tables += (shape.layers + 1) // 2 * shape.vocabulary * shape.width
    tables += shape.bigram_buckets * shape.width
    head = 0 if shape.tied_head else shape.vocabulary * shape.width
    return shape.matmul_parameters + shape.idle_parameters - shape.vocabulary * shape.width + tables + head


def choose_batch_tokens(read_tokens: float) -> int:
    """Tokens a step: a power of two that grows slowly with the tokens to be read (nanochat: D^0.38)."""
    exact = 4096 * (max(read_tokens, 1) / 2.5e6) ** 0.4
    return int(min(524288, max(2048, 2 ** round(math.log2(exact)))))


def choose_shape(config: PlanConfig, layers: int, width: int, vocabulary: int, context: int) -> TransformerConfig:
    """The Transformer of this size in the arrangement asked for."""
    heads = config.heads or max(1, width // 64)
    if width % heads or (width // heads) % 2:
        raise UsageError(
            f"A width of {width} cannot be divided over {heads} heads of even size.",
            fix="Use a width that is a multiple of 64, or give the number of heads as well.",
        )
    shape: dict[str, Any] = {
        "vocabulary": vocabulary, "context": context, "layers": layers, "width": width, "heads": heads,
    }  # fmt: skip
    if config.arrangement == "modern":
        shape["bigram_buckets"] = bigram_buckets(vocabulary)
    return replace(arrange(config.arrangement, **shape), **config.model.chosen())


def evaluation_seconds(facts: Facts, shape: TransformerConfig, tokens_per_second: float) -> float:
    """Time that the final evaluation, the baselines, the samples and the report will take."""
    per_token = facts.bytes_per_token or estimate_bytes_per_token(shape.vocabulary, facts.texture)
    scoring = 2 * facts.held_bytes / per_token / (2.5 * tokens_per_second)  # windows overlap by half
    baselines = 1.9e-6 * min(facts.train_bytes, 16e6) + 4e-7 * facts.train_bytes / per_token
    return scoring + baselines + 6.0


def check_budget(budget: float | None) -> None:
    """Refuse a budget in which nothing useful fits."""
    if budget is not None and budget < SMALLEST_BUDGET:
        raise UsageError(
            f"A budget of {show_duration(budget)} is too short.",
            "Reading, tokenizing, compiling and evaluating alone take most of a minute.",
            "Give at least --budget 1m; five minutes make a model worth talking to.",
        )


def check_corpus(facts: Facts, config: PlanConfig) -> list[str]:
    """Refuse a corpus that cannot work; return warnings about one that can, badly."""
    warnings = []
    if facts.train_bytes < SMALLEST_CORPUS and not config.allow_small:
        raise Failure(
            f"The corpus is too small: {show_bytes(facts.train_bytes)} of text to train on.",
            f"A model trained on less than {show_bytes(SMALLEST_CORPUS)} learns its text by heart and nothing else.",
            f"Add text ({show_bytes(USEFUL_CORPUS)} or more is useful), or insist with --plan.allow-small "
            "(textmill plan and train: --allow-small).",
        )
    if facts.train_bytes < USEFUL_CORPUS:
        warnings.append(
            f"The corpus is small: {show_bytes(facts.train_bytes)}. Expect a model that imitates the style and "
            f"repeats its text; {show_bytes(USEFUL_CORPUS)} or more gives better ones."
        )
    return warnings


def make_plan(
    facts: Facts,
    probe: Probe,
    budget: float | None,
    config: PlanConfig,
    training: TrainingConfig,
    *,
    elapsed: float = 0.0,
    evaluate: bool = True,
) -> Plan:
    """Choose vocabulary, width, depth, context, batch, steps and epochs for the time there is.

    Args:
        facts: the corpus.
        probe: the machine.
        budget: seconds of wall clock for the whole build; None when `config.steps` sets the length instead.
        config: what the user fixed.
        training: the trainer's settings (precision, compile).
        elapsed: seconds of the budget already spent.
        evaluate: whether evaluation, baselines and report come out of the budget as well.
    """
    if budget is None and config.steps is None:
        raise UsageError("There is neither a budget nor a number of steps.", fix="Give --budget 10m, or --steps 1000.")
    check_budget(budget)
    plan = Plan(warnings=check_corpus(facts, config), budget_seconds=budget)
    chosen, reasons = plan.chosen, plan.reasons
    asked = choose_vocabulary(facts.train_bytes)
    vocabulary = facts.vocabulary or config.vocabulary or asked.vocabulary
    reasons["vocabulary"] = "you fixed it" if config.vocabulary else asked.reason
    time_left = math.inf if budget is None else budget - elapsed
    use_compile = training.compile if training.compile is not None else probe.compiler and time_left > 45
    if use_compile and not probe.compiler:
        raise UsageError(
            "Compiling was asked for, but there is no C++ compiler.",
            fix="Install one (Debian, Ubuntu: apt-get install g++), or leave --training.compile out.",
        )
    best: tuple[float, Plan] | None = None
    for layers, width in LADDER:
        if config.layers or config.width:
            width = config.width or (config.layers or 4) * 64
            layers = config.layers or max(2, width // 64)
        candidate = _candidate(
            facts, probe, config, training, layers, width, vocabulary, time_left, bool(use_compile), evaluate
        )
        if candidate is None:
            continue
        if best is None or candidate.predicted["bits_per_byte"] < best[0]:
            best = (candidate.predicted["bits_per_byte"], candidate)
        if config.layers or config.width:
            break
    if best is None:
        raise Failure(
            "No model fits into the memory of this machine.",
            f"{show_bytes(probe.memory_bytes)} is less than the smallest model needs.",
            "Free some memory, or fix a smaller one with --plan.width 128 --plan.layers 2 --plan.context 128.",
        )
    found = best[1]
    chosen.update(found.chosen)
    plan.predicted = found.predicted
    plan.warnings += found.warnings
    reasons.update(found.reasons)
    plan.measured["flops_per_second"] = probe.rate(chosen["width"])
    plan.complete(facts, probe, elapsed)
    return plan


def _candidate(
    facts: Facts,
    probe: Probe,
    config: PlanConfig,
    training: TrainingConfig,
    layers: int,
    width: int,
    vocabulary: int,
    time_left: float,
    use_compile: bool,
    evaluate: bool,
) -> Plan | None:
    """The plan for one size, or None when it does not fit the machine."""
    context = config.context or (256 if width < 512 else 512 if width < 1024 else 1024)
    shape = choose_shape(config, layers, width, vocabulary, context)
    parameters = model_parameters(shape)
    precision = probe.precision if training.precision == "auto" else training.precision
    rate = probe.rate(width) * EFFICIENCY["compiled" if use_compile else "eager"]
    tokens_per_second = rate / shape.flops_per_token()
    per_token = facts.bytes_per_token or estimate_bytes_per_token(vocabulary, facts.texture)
    train_tokens = facts.train_tokens or facts.train_bytes / per_token
    setup = (12.0 if use_compile else 2.0) + 2.0
    after = evaluation_seconds(facts, shape, tokens_per_second) if evaluate else 1.0
    after = max(0.0, min(after, 0.35 * time_left))
    train_seconds = max(5.0, time_left - after - 0.02 * time_left) if math.isfinite(time_left) else math.inf
    warnings = []
    if config.steps:
        batch = config.batch_tokens or choose_batch_tokens(config.steps * 4096)
        steps = config.steps
    else:
        read = max(0.0, train_seconds - setup) * tokens_per_second
        most = 60 * train_tokens  # past this a small text only gets memorized, however long the budget
        if read > most:
            warnings.append(
                f"The budget is longer than this corpus can use: training stops after {most / train_tokens:.0f} "
                "readings of the text. More text, not more time, would help."
            )
            read = most
        batch = config.batch_tokens or choose_batch_tokens(read)
        steps = max(LEAST_STEPS, int(read / batch))
    rows = max(1, batch // context)
    read_tokens = steps * rows * context
    epochs = read_tokens / train_tokens
    micro = rows
    while micro > 1 and training_memory(shape, parameters, micro) > 0.6 * probe.memory_bytes:
        micro //= 2
    memory = training_memory(shape, parameters, micro)
    # No size that the clock, or with a fixed number of steps so few tokens, cannot feed: of the same least number of
    # steps the largest size would always make the most, in hours.
    late = setup + read_tokens / tokens_per_second > 1.001 * (time_left if config.steps else max(train_seconds, setup))
    hungry = bool(config.steps) and shape.matmul_parameters > 2 * read_tokens
    if (late or hungry) and not (config.width or config.layers) and width > LADDER[0][1]:
        return None
    if memory > 0.85 * probe.memory_bytes:
        return None
    if config.steps or read_tokens / tokens_per_second + setup < 0.9 * train_seconds:
        train_seconds = setup + read_tokens / tokens_per_second
    figure = predict_bits_per_byte(
        shape.matmul_parameters, read_tokens * per_token, train_tokens * per_token, facts.texture
    )
    table_decay = training.table_decay
    if table_decay is None:
        table_decay = round(min(MOST_TABLE_DECAY, 0.05 * max(0.0, epochs - 1)), 4)
    if epochs > 8:
        warnings.append(
            f"The text will be read {epochs:.0f} times: the model will remember much of it. "
            "Early stopping guards the rest."
        )
    elif epochs < 0.5 and math.isfinite(time_left):
        warnings.append(
            f"The budget is too short to read the text once ({100 * epochs:.0f}% of it will be seen): "
            f"--budget {max(2, math.ceil(time_left / epochs / 60))}m would read all of it."
        )
    return Plan(
        chosen={
            "vocabulary": vocabulary,
            "layers": layers,
            "width": width,
            "heads": shape.heads,
            "context": context,
            "arrangement": config.arrangement,
            "switches": config.model.chosen(),
            "embeddings": config.embeddings,
            "batch_tokens": rows * context,
            "rows": rows,
            "micro_rows": micro,
            "steps": steps,
            "epochs": round(epochs, 3),
            "parameters": parameters,
            "multiplied_parameters": shape.matmul_parameters,
            "table_decay": table_decay,
            "precision": precision,
            "compile": use_compile,
            "train_seconds": None if config.steps else round(train_seconds, 1),
        },
        reasons={
            "width": f"{layers} layers of {width}: the lowest predicted bits per byte among the sizes that "
            f"{show_duration(train_seconds)} of training can feed",
            "context": f"{context} tokens are about {show_bytes(context * per_token)} of this text",
            "batch_tokens": f"about {show_count(steps)} steps: few enough tokens a step for many of them",
            "epochs": f"{show_count(read_tokens)} tokens read, {show_count(train_tokens)} in the training split",
            "micro_rows": f"{show_bytes(memory)} of {show_bytes(probe.memory_bytes)}",
            "precision": f"{precision} multiplies fastest here" if training.precision == "auto" else "you fixed it",
        },
        warnings=warnings,
        predicted={
            "seconds": {"training": round(train_seconds, 1), "evaluation": round(after, 1)},
            "memory_bytes": max(memory, evaluation_memory(train_tokens)) if evaluate else memory,
            "tokens_per_second": round(tokens_per_second, 1),
            "bits_per_byte": round(figure, 3),
        },
    )
