"""A few seconds of measurement: how fast this machine trains, by real steps of two small models."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import Any

import torch

from textmill.base.hardware import hardware
from textmill.models.config import TransformerConfig
from textmill.models.cross_entropy import linear_cross_entropy
from textmill.models.transformer import Transformer
from textmill.training.config import TrainingConfig
from textmill.training.optimizers import make_optimizers

WIDTHS = (192, 512)
STEP_TOKENS = 2048


@dataclass(frozen=True)
class Probe:
    """What was measured.

    Attributes:
        cores: usable CPU cores (threads used).
        device: "cpu" or "cuda".
        device_name: processor or GPU.
        memory_bytes: memory that the training may use.
        precision: "bf16" where that is the faster, else "fp32".
        rates: FLOP/s of a whole uncompiled training step (forward, backward, optimizers), by width of the model, in
            that precision.
        compiler: whether blocks can be compiled.
        seconds: time that the probe took.
    """

    cores: int
    device: str
    device_name: str
    memory_bytes: int
    precision: str
    rates: dict[int, float]
    compiler: bool
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Everything, for `from_json` and for plan.json."""
        return {
            "cores": self.cores,
            "device": self.device,
            "device_name": self.device_name,
            "memory_bytes": self.memory_bytes,
            "precision": self.precision,
            "rates": {str(width): rate for width, rate in self.rates.items()},
            "compiler": self.compiler,
            "probe_seconds": round(self.seconds, 2),
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Probe:
        """What `to_json` gave."""
        return cls(
            cores=stored["cores"],
            device=stored["device"],
            device_name=stored["device_name"],
            memory_bytes=stored["memory_bytes"],
            precision=stored["precision"],
            rates={int(width): rate for width, rate in stored["rates"].items()},
            compiler=stored["compiler"],
            seconds=stored["probe_seconds"],
        )

    def rate(self, width: int) -> float:
        """FLOP/s at a width, interpolated between the measured ones."""
        known = sorted(self.rates)
        if width <= known[0]:
            return self.rates[known[0]] * width / known[0]
        for low, high in itertools.pairwise(known):
            if width <= high:
                share = (width - low) / (high - low)
                return self.rates[low] * (1 - share) + self.rates[high] * share
        return self.rates[known[-1]]


def product_rate(width: int, dtype: torch.dtype, device: str, seconds: float = 0.15) -> float:
    """FLOP/s of one matrix product, the median of those that fit in `seconds`."""
    left = torch.randn(4096, width, device=device).to(dtype)
    right = torch.randn(4 * width, width, device=device).to(dtype)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 4 or (time.perf_counter() - began < seconds and len(times) < 200):
        start = time.perf_counter()
        left @ right.T
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    usual = sorted(times[1:])[len(times[1:]) // 2]
    return 2.0 * 4096 * width * 4 * width / usual


def step_rate(width: int, dtype: torch.dtype, device: str) -> float:
    """FLOP/s of whole training steps of two layers of this width: the quicker of two after a warm-up."""
    shape = TransformerConfig(vocabulary=4096, context=256, layers=2, width=width, heads=width // 64)
    model = Transformer(shape).to(device)
    model.compute_dtype = dtype
    optimizers = make_optimizers(model, TrainingConfig())
    tokens = torch.randint(0, shape.vocabulary, (STEP_TOKENS // shape.context, shape.context), device=device)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        hidden = model.hidden(tokens).flatten(0, 1)
        linear_cross_entropy(hidden, model.head_weight, tokens.flatten(), cap=shape.logit_softcap).backward()
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return shape.flops_per_token() * STEP_TOKENS / min(times[1:])


def probe_machine(threads: int | None = None) -> Probe:
    """Measure this machine for one to three seconds.

    Args:
        threads: CPU threads to use; all usable cores by default.
    """
    began = time.perf_counter()
    facts = hardware()
    cores = threads or facts.cores
    device = "cuda" if torch.cuda.is_available() else "cpu"
    before = torch.get_num_threads()
    torch.set_num_threads(cores)
    try:
        full = product_rate(512, torch.float32, device)
        half = product_rate(512, torch.bfloat16, device) if device == "cuda" or facts.bf16_is_fast else 0.0
        precision = "bf16" if half > 1.2 * full else "fp32"
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        with torch.random.fork_rng(devices=[]):
            rates = {width: step_rate(width, dtype, device) for width in WIDTHS}
    finally:
        torch.set_num_threads(before)
    if device == "cuda":
        memory = torch.cuda.mem_get_info()[0]
        name = torch.cuda.get_device_name()
    else:
        memory, name = facts.memory_bytes, facts.cpu
    return Probe(
        cores=cores,
        device=device,
        device_name=name,
        memory_bytes=memory,
        precision=precision,
        rates=rates,
        compiler=facts.compiler is not None or device == "cuda",
        seconds=time.perf_counter() - began,
    )
