"""`python -m bench.vae_ablation`: does a decoder that writes backwards help a character-level sentence VAE?

Three variational autoencoders on the same characters, steps, seeds and data order, at equal numbers of parameters:

- none: encoder, latent vector, forward generator (wider, to have as many parameters);
- aligned: a reverse decoder writes the segment backwards from the latent vector alone, and at each position the
  forward generator sees the reverse state that stands for the same position;
- unaligned: the same, but the states come in the order of writing, so that the first position sees the state that
  stands for the last. Parameters and work are those of "aligned"; only the alignment is gone.

All three are judged by the importance-weighted bound of the forward generator's likelihood on held-out documents:
the reverse decoder reads no token of the text, so it adds nothing to condition on but the latent vector, and its own
training loss is no part of the figure. Each run's figures are kept in OUT, and a second call goes on from there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from textmill.base.hardware import hardware
from textmill.base.progress import Progress
from textmill.base.run import Run
from textmill.corpus.build import build_corpus
from textmill.corpus.config import CorpusConfig
from textmill.models.variational.config import VaeConfig
from textmill.models.variational.measures import latent_report, segments_of_documents
from textmill.models.variational.vae import Vae
from textmill.models.variational.writing import encode, split_segments, write
from textmill.tokens.batches import Batches
from textmill.tokens.build import tokenize_corpus
from textmill.tokens.config import TokenizerConfig
from textmill.tokens.shards import Shards
from textmill.tokens.tokenizer import Tokenizer
from textmill.training.config import TrainingConfig
from textmill.training.objective_elbo import EvidenceLowerBound
from textmill.training.optimizers import make_optimizers
from textmill.training.schedule import Schedule

PATHS = ("none", "aligned", "unaligned")


def size_of(config: VaeConfig) -> int:
    """Number of trained values."""
    with torch.device("meta"):
        return Vae(config).size


def arrangements(base: VaeConfig) -> dict[str, VaeConfig]:
    """The three, "none" widened until it has the parameters of the others."""
    found = {path: replace(base, reverse_path=path) for path in PATHS}
    wanted = size_of(found["aligned"])
    widths = range(base.width, 2 * base.width + 1)
    plain = found["none"]
    found["none"] = min(
        (replace(plain, width=width) for width in widths), key=lambda config: abs(size_of(config) - wanted)
    )
    return found


def train(
    config: VaeConfig, shards: Shards, steps: int, rows: int, seed: int, training: TrainingConfig
) -> tuple[Vae, float]:
    """A trained model and the seconds that it took."""
    torch.manual_seed(seed)
    model = Vae(config).train()
    objective = EvidenceLowerBound(config, {}, seed)
    batches = Batches(shards, config.context, rows, seed)
    optimizers = make_optimizers(model, training)
    schedule = Schedule(steps, min(20, steps // 4), training.decay_share)
    began = time.monotonic()
    for step in range(steps):
        batch = objective.batch(*batches.batch(step), step)
        loss, _ = model.training_loss(batch, 1.0 / max(1, int((batch["targets"] >= 0).sum())))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip)
        for optimizer in optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["base"] * schedule.level(step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if step % 100 == 0:
            print(f"  step {step}: {float(loss.detach()):.3f} nats a character", flush=True)
    return model.eval(), time.monotonic() - began


def measure(model: Vae, tokenizer: Tokenizer, documents: list[np.ndarray], samples: int, most: int) -> dict[str, Any]:
    """Figures on held-out documents, and what became of a few sentences."""
    report = latent_report(model, documents, samples=samples, most=most)
    segments = segments_of_documents(model, documents)
    chosen = torch.arange(report["segments"]) * report["segments_available"] // report["segments"]
    content = segments.content[chosen].numpy()
    size = int(tokenizer.byte_lengths[content[content >= 0]].sum())
    nats = report["score_nats"] * report["segments"]
    report["bytes"] = size
    report["bits_per_byte"] = nats / math.log(2) / size
    sentences = [one for one in split_segments(model, documents[0]) if 20 <= len(one) <= 60][:6]
    written = write(model, encode(model, sentences))
    report["given_back"] = [[tokenizer.decode(a), tokenizer.decode(b)] for a, b in zip(sentences, written, strict=True)]
    return report


def table(results: list[dict[str, Any]]) -> str:
    """Mean and range over seeds for each arrangement, and the difference to "none" seed by seed."""
    lines = [
        "| reverse path | parameters | bits per byte (bound) | reconstruction | divergence | mutual information "
        "| active | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    bits: dict[str, dict[int, float]] = {}
    for path in PATHS:
        own = [one for one in results if one["reverse_path"] == path]
        if not own:
            continue
        bits[path] = {one["seed"]: one["bits_per_byte"] for one in own}

        def mean(name: str, own: list[dict[str, Any]] = own) -> float:
            return statistics.mean(one[name] for one in own)

        figures = sorted(bits[path].values())
        lines.append(
            f"| {path} | {own[0]['parameters']:,} | {statistics.mean(figures):.4f} ({figures[0]:.4f} to "
            f"{figures[-1]:.4f}) | {mean('reconstruction_nats'):.2f} | {mean('divergence_nats'):.2f} | "
            f"{mean('mutual_information_nats'):.2f} | {mean('active_units'):.1f} of {own[0]['latent']} | "
            f"{mean('seconds'):.0f} |"
        )
    for path in PATHS[1:]:
        both = sorted(set(bits.get(path, {})) & set(bits.get("none", {})))
        if both:
            gaps = [bits[path][seed] - bits["none"][seed] for seed in both]
            shown = ", ".join(f"{gap:+.4f}" for gap in gaps)
            lines.append(f"{path} against none, bits per byte, seed by seed (negative is better): {shown}")
    return "\n".join(lines)


def main() -> None:
    """Train what is missing in OUT, print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.vae_ablation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", default="sample:sotu", help="texts, as for textmill build")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rows", type=int, default=16, help="rows of 256 characters a step")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--samples", type=int, default=16, help="latent samples a segment in the evaluation")
    parser.add_argument("--segments", type=int, default=1500, help="held-out segments measured")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", type=Path, default=Path("runs/bench/vae"))
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads or hardware().cores)
    asked.out.mkdir(parents=True, exist_ok=True)
    run = Run.create(asked.out / "run")
    build_corpus([asked.corpus], run, CorpusConfig(), Progress())
    tokenize_corpus(run, TokenizerConfig(kind="character"), Progress(), vocabulary=384)
    tokenizer = Tokenizer.load(run / "tokens")
    shards, held = Shards(run / "tokens", "train"), Shards(run / "tokens", "test")
    edges = [0, *held.ends.tolist()]
    documents = [held.read(a, b).astype(np.int64) for a, b in itertools.pairwise(edges)]
    base = VaeConfig(
        vocabulary=tokenizer.vocabulary, width=asked.width, embedding=asked.width // 2, latent=24,
        reverse_width=asked.width // 2, annealing_steps=max(1, asked.steps // 4),
    )  # fmt: skip
    base = Vae.fitted(base, tokenizer)
    results = []
    for seed in asked.seeds:
        for path, config in arrangements(base).items():
            setting = {
                "reverse_path": path, "seed": seed, "steps": asked.steps, "rows": asked.rows, "width": config.width,
                "samples": asked.samples, "most": asked.segments,
            }  # fmt: skip
            file = asked.out / f"{path}-{seed}-{asked.steps}-{asked.rows}-{asked.width}.json"
            if file.exists():
                results.append(json.loads(file.read_text()))
                continue
            print(f"{path}, seed {seed}", flush=True)
            model, seconds = train(config, shards, asked.steps, asked.rows, seed, TrainingConfig())
            found = measure(model, tokenizer, documents, asked.samples, asked.segments)
            result = {**setting, "parameters": model.size, "seconds": seconds, **found}
            file.write_text(json.dumps(result, indent=2, ensure_ascii=False))
            results.append(result)
            print(f"  {result['bits_per_byte']:.4f} bits per byte after {seconds:.0f} s", flush=True)
    text = table(results)
    (asked.out / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
