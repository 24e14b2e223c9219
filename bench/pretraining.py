"""Pre-training side by side: same text, tokenizer, threads, minutes and parameter count; every curve by wall clock.

The peer is `transformers`' GPT2LMHeadModel trained as its own examples do: AdamW (betas 0.9, 0.95, weight decay 0.1),
linear warm-up and cosine decay, once in fp32 (its default on a CPU) and once under bf16 autocast. The learning rate
is the best of a short search before the clock starts, so that the peer is not lost to a bad guess. Textmill's clock
includes its compilation. Validation is outside the clock for all.
"""

from __future__ import annotations

import gc
import json
import math
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from textmill.base.hardware import hardware
from textmill.base.progress import Progress
from textmill.base.run import Run
from textmill.corpus.build import build_corpus
from textmill.corpus.config import CorpusConfig
from textmill.tokens.batches import Batches, ValidationBlocks, validation_blocks
from textmill.tokens.build import tokenize_corpus
from textmill.tokens.config import TokenizerConfig
from textmill.tokens.shards import Shards
from textmill.training.config import PlanConfig, TrainingConfig
from textmill.training.plan import Plan
from textmill.training.planning import plan_run
from textmill.training.train import train_model

Curve = list[tuple[float, float]]
RATES = (6e-4, 1.5e-3, 3e-3)
POINTS = 6


def gpt2_like(parameters: int, vocabulary: int, context: int) -> tuple[int, int]:
    """(layers, width) of the GPT-2 whose parameter count is nearest, 40 to 100 of width a layer (its own has 64)."""

    def count(layers: int, width: int) -> int:
        return vocabulary * width + context * width + 12 * layers * width * width

    shapes = [
        (layers, width) for layers in range(1, 25) for width in range(64, 2048, 64) if 40 <= width / layers <= 100
    ]
    return min(shapes, key=lambda shape: abs(math.log(count(*shape) / parameters)))


def bits_per_byte(logits: Callable[[torch.Tensor], torch.Tensor], held: ValidationBlocks) -> float:
    """Of a model given as a function from tokens to logits."""
    nats = 0.0
    with torch.no_grad():
        for start in range(0, len(held.inputs), 8):
            inputs = torch.from_numpy(held.inputs[start : start + 8])
            targets = torch.from_numpy(held.targets[start : start + 8])
            values = logits(inputs).float().flatten(0, 1)
            nats += float(F.cross_entropy(values, targets.flatten(), ignore_index=-1, reduction="sum"))
    return nats / math.log(2) / held.bytes


def train_gpt2(
    shards: Shards, held: ValidationBlocks, plan: Plan, seconds: float, rate: float, autocast: bool, points: int
) -> tuple[Curve, int, float]:
    """Train the peer for `seconds`; returns its curve, its parameters and its tokens per second."""
    from transformers import GPT2Config, GPT2LMHeadModel

    chosen = plan.chosen
    layers, width = gpt2_like(chosen["parameters"], chosen["vocabulary"], chosen["context"])
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=shards.vocabulary, n_positions=chosen["context"], n_embd=width, n_layer=layers,
            n_head=width // 64, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
            bos_token_id=shards.document_end, eos_token_id=shards.document_end,
        )
    )  # fmt: skip
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=rate, betas=(0.9, 0.95), fused=True,
    )  # fmt: skip
    batches = Batches(shards, chosen["context"], chosen["rows"], seed=0)
    curve: Curve = []
    clock, step = 0.0, 0
    while clock < seconds:
        began = time.perf_counter()
        share = clock / seconds
        level = min(1.0, (step + 1) / 50) * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * share)))
        for group in optimizer.param_groups:
            group["lr"] = rate * level
        inputs, targets = (torch.from_numpy(part) for part in batches.batch(step))
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = model(inputs, use_cache=False).logits
        loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=-1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        clock += time.perf_counter() - began
        if clock >= seconds * (len(curve) + 1) / points:
            curve.append((clock, bits_per_byte(lambda x: model(x, use_cache=False).logits, held)))
    speed = step * chosen["rows"] * chosen["context"] / clock
    return curve, model.num_parameters(), speed


def train_textmill(run: Run, plan: Plan, config: TrainingConfig, seconds: float) -> tuple[Curve, int, float]:
    """Train Textmill's model for `seconds`; its own log is the curve."""
    plan.chosen["train_seconds"] = seconds
    shutil.rmtree(run / "model", ignore_errors=True)
    counts = train_model(run, plan, config, Progress("quiet"))
    lines = [json.loads(line) for line in (run / "model" / "training.jsonl").read_text().splitlines()]
    curve = [(line["seconds"], line["bits_per_byte"]) for line in lines if line["kind"] == "validation"]
    return curve, counts["parameters"], counts["tokens_per_second"]


def at(curve: Curve, seconds: float) -> float:
    """The curve's last figure by that time (NaN before its first)."""
    known = [figure for moment, figure in curve if moment <= seconds * 1.02]
    return known[-1] if known else math.nan


def time_to(curve: Curve, figure: float) -> float:
    """Seconds until the curve is at most `figure`, by interpolation; infinity when it never is."""
    before: tuple[float, float] | None = None
    for moment, value in curve:
        if value <= figure:
            if before is None:
                return moment
            share = (before[1] - figure) / (before[1] - value)
            return before[0] + share * (moment - before[0])
        before = (moment, value)
    return math.inf


def compare(corpus: str, seconds: float, repeats: int, threads: int | None, out: Path) -> dict[str, Any]:
    """Train all contestants `repeats` times in turn; returns curves, ratios and a table."""
    quiet = Progress()
    run = Run.create(out / "run")
    build_corpus([corpus], run, CorpusConfig(), quiet)
    torch.set_num_threads(threads or hardware().cores)
    config = TrainingConfig(threads=threads, validations=POINTS, validation_tokens=16384)
    first = plan_run(run, seconds + 30, PlanConfig(), config, quiet, tokenized=False, evaluate=False)
    tokenize_corpus(run, TokenizerConfig(), quiet, vocabulary=first.chosen["vocabulary"])
    plan = plan_run(run, seconds + 30, PlanConfig(), config, quiet, evaluate=False)
    shards = Shards(run / "tokens", "train")
    held = validation_blocks(Shards(run / "tokens", "validation"), plan.chosen["context"], config.validation_tokens)
    trial = max(10.0, seconds / 6)
    rates: dict[bool, float] = {}
    for autocast in (False, True):
        found = {rate: train_gpt2(shards, held, plan, trial, rate, autocast, 1)[0][-1][1] for rate in RATES}
        rates[autocast] = min(found, key=lambda rate: found[rate])
        print(f"GPT-2 {'bf16' if autocast else 'fp32'} after {trial:.0f} s by rate: {found}", flush=True)
    names = ("textmill", "gpt2 fp32", "gpt2 bf16 autocast")
    curves: dict[str, list[Curve]] = {name: [] for name in names}
    sizes: dict[str, int] = {}
    speeds: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(repeats):
        for name in names:
            if name == "textmill":
                curve, size, speed = train_textmill(run, plan, config, seconds)
            else:
                autocast = "bf16" in name
                curve, size, speed = train_gpt2(shards, held, plan, seconds, rates[autocast], autocast, POINTS)
            curves[name].append(curve)
            sizes[name] = size
            speeds[name].append(speed)
            print(f"repeat {repeat + 1}, {name}: {curve[-1][1]:.4f} after {curve[-1][0]:.0f} s", flush=True)
            gc.collect()
    moments = [seconds * (point + 1) / POINTS for point in range(POINTS)]
    lines = [
        f"Bits per byte on the validation split of {corpus} by seconds of training, {repeats} runs each "
        "(median; least to most at the end)",
        "seconds".ljust(22) + "".join(f"{moment:8.0f}" for moment in moments) + "        spread   tokens/s  parameters",
    ]
    for name in names:
        row = [statistics.median(at(curve, moment) for curve in curves[name]) for moment in moments]
        ends = sorted(curve[-1][1] for curve in curves[name])
        lines.append(
            name.ljust(22)
            + "".join(f"{figure:8.3f}" for figure in row)
            + f"  {ends[0]:.3f}-{ends[-1]:.3f} {statistics.median(speeds[name]):9.0f} {sizes[name]:11,}"
        )
    ratios: dict[str, list[float]] = {}
    for name in names[1:]:
        pairs = zip(curves["textmill"], curves[name], strict=True)
        ratios[name] = [peer[-1][0] / time_to(ours, peer[-1][1]) for ours, peer in pairs]
        shown = sorted(ratios[name])
        lines.append(
            f"Textmill reaches the final figure of {name} {statistics.median(shown):.1f} times as fast "
            f"({shown[0]:.1f}-{shown[-1]:.1f})"
        )
    return {
        "corpus": corpus, "seconds": seconds, "repeats": repeats, "threads": torch.get_num_threads(),
        "plan": plan.chosen, "rates": {str(key): value for key, value in rates.items()}, "curves": curves,
        "parameters": sizes, "tokens_per_second": speeds, "times_as_fast": ratios, "table": "\n".join(lines),
    }  # fmt: skip
