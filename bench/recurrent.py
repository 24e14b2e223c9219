"""`python -m bench.recurrent`: training an LSTM, Textmill's loop beside a plain `nn.LSTM` loop, tokens a second.

The peer is what one writes by hand: `nn.Embedding`, `nn.LSTM`, `nn.Linear`, `cross_entropy`, `AdamW`, fp32, clipped
gradients. Ours has the same shape, vocabulary, batch and untied head. Rounds alternate in one process, so that a busy
moment of the machine meets both. With --memory the peak memory of a step is measured in fresh processes.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.measure import Spread, machine, table
from textmill.models.recurrent.config import RecurrentConfig
from textmill.models.recurrent.networks import Lstm
from textmill.training.compiler import compiled


class Plain(nn.Module):
    """The usual LSTM language model."""

    def __init__(self, vocabulary: int, width: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, layers, batch_first=True)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        outputs, state = self.lstm(self.embedding(tokens), state)
        return self.head(outputs), state


def plain_step(asked: argparse.Namespace) -> Callable[[Tensor, Tensor], float]:
    """The peer's training step."""
    torch.manual_seed(0)
    model = Plain(asked.vocabulary, asked.width, asked.layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    state: Any = None

    def step(tokens: Tensor, targets: Tensor) -> float:
        nonlocal state
        logits, state = model(tokens, state)
        state = tuple(part.detach() for part in state)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


def our_step(asked: argparse.Namespace, precision: str, compile: bool) -> Callable[[Tensor, Tensor], float]:
    """Textmill's training step, AdamW for all parameters."""
    torch.manual_seed(0)
    model = Lstm(RecurrentConfig(vocabulary=asked.vocabulary, width=asked.width, layers=asked.layers, tied_head=False))
    model.compute_dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    parts = model.training_parts(compiled if compile else None)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    state: Any = None

    def step(tokens: Tensor, targets: Tensor) -> float:
        nonlocal state
        batch = {"tokens": tokens, "targets": targets}
        loss, state = model.training_loss(batch, 1 / targets.numel(), state, **parts)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


def contestants(asked: argparse.Namespace) -> dict[str, Callable[[], Callable[[Tensor, Tensor], float]]]:
    """Each contestant's step, made on demand."""
    return {
        "nn.LSTM, fp32": lambda: plain_step(asked),
        "textmill, fp32": lambda: our_step(asked, "fp32", False),
        "textmill, bf16": lambda: our_step(asked, "bf16", False),
        "textmill, bf16, compiled loss": lambda: our_step(asked, "bf16", True),
    }


def batches(asked: argparse.Namespace) -> Callable[[], tuple[Tensor, Tensor]]:
    """Random tokens: speed does not depend on them."""
    generator = torch.Generator().manual_seed(0)

    def draw() -> tuple[Tensor, Tensor]:
        ids = torch.randint(0, asked.vocabulary, (asked.rows, asked.context + 1), generator=generator)
        return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()

    return draw


def compare(asked: argparse.Namespace) -> dict[str, Any]:
    """Alternate the contestants; tokens a second of each, and the ratio round by round."""
    draw = batches(asked)
    clock = time.process_time if asked.clock == "cpu" else time.perf_counter
    chosen = {name: make for name, make in contestants(asked).items() if asked.compile or "compiled" not in name}
    steps = {name: make() for name, make in chosen.items()}
    for step in steps.values():
        for _ in range(2):
            step(*draw())
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(asked.repeats):
        for name, step in steps.items():
            began = clock()
            for _ in range(asked.steps):
                step(*draw())
            rates[name].append(asked.steps * asked.rows * asked.context / (clock() - began))
    peer = rates["nn.LSTM, fp32"]
    return {
        name: {
            "tokens_per_second": Spread.of(values).to_json(),
            "ratio": Spread.of([a / b for a, b in zip(values, peer, strict=True)]).to_json(),
        }
        for name, values in rates.items()
    }


def memory(asked: argparse.Namespace) -> dict[str, int]:
    """Peak memory of three steps of each contestant, in a fresh process, bytes above that of the weights' start."""
    found = {}
    for name in ("nn.LSTM, fp32", "textmill, fp32", "textmill, bf16"):  # compiling takes memory of its own
        command = [sys.executable, "-m", "bench.recurrent", "--only", name, "--vocabulary", str(asked.vocabulary)]
        command += ["--width", str(asked.width), "--layers", str(asked.layers), "--rows", str(asked.rows)]
        command += ["--context", str(asked.context), "--threads", str(asked.threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[name] = int(done.stdout.split()[-1])
    return found


def only(asked: argparse.Namespace) -> int:
    """Peak resident memory of three steps of one contestant, in bytes."""
    draw = batches(asked)
    step = contestants(asked)[asked.only]()
    for _ in range(3):
        step(*draw())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Measure and print a table; the raw figures go to --out."""
    parser = argparse.ArgumentParser(prog="python -m bench.recurrent", description=__doc__)
    parser.add_argument("--vocabulary", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--rows", type=int, default=20)
    parser.add_argument("--context", type=int, default=64)
    parser.add_argument("--steps", type=int, default=4, help="steps of each contestant a round")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--clock", choices=["wall", "cpu"], default="wall", help="cpu on a busy machine, with --threads 1"
    )
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="leave the compiled loss out")
    parser.add_argument("--memory", action="store_true", help="measure peak memory instead of speed")
    parser.add_argument("--only", default=None, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=None, help="file for the raw figures")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.only:
        print(only(asked))
        return
    shape = f"{asked.layers} x {asked.width}, vocabulary {asked.vocabulary:,}, {asked.rows} x {asked.context} tokens"
    result: dict[str, Any] = {"shape": shape, "machine": machine()}
    if asked.memory:
        result["peak_bytes"] = memory(asked)
        rows = [[name, f"{value / 1e6:,.0f}"] for name, value in result["peak_bytes"].items()]
        text = table(["contestant", "peak MB"], rows)
    else:
        result["speed"] = compare(asked)
        rows = [
            [name, Spread(**v["tokens_per_second"]).show(",.0f"), Spread(**v["ratio"]).show()]
            for name, v in result["speed"].items()
        ]
        text = table(["contestant", "tokens/s", "times nn.LSTM"], rows)
    print(shape, text, sep="\n\n")
    if asked.out:
        asked.out.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
