"""Mixed load on a server for as long as is asked: no reply lost or wrong, and nothing grows. Starts processes.

`python -m bench.soak --minutes 60 --folder FOLDER …` serves the models of the folders (`--small`: and an n-gram, a
Transformer and a BERT of small size, made on the spot) in a process of its own. A few clients ask, each for this and
that in turn: streams read to their ends, streams dropped in the middle, whole answers, samples drawn, conversations,
embeddings of models that give them, tokens there and back, requests that are wrong, and the metrics.

- Lost is a request that was accepted and brought no finish_reason, or no [DONE]; or that was refused although right.
- Wrong is a greedy text, a vector or a list of tokens that is not what the same request brought the first time.
- Resident memory, open files and threads are read every ten seconds. Memory leaks when the straight line through the
  readings after the first tenth of the time rises by more than --bound MB; files and threads when, all clients gone,
  more than a few are left beyond those of before. Prompts kept for reuse get a small memory (a Transformer's holds at
  least one whole context), so that it is full within that tenth when the time is an hour.

The status is 1 for a leak, a lost or a wrong reply, or a failure in the server's log. `--cores` holds the load down:
pauses grow until the server uses that many cores.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from bench.measure import machine, table
from bench.server import Server, small_runs, speeches

CACHE, FEW, TICK = 32 << 20, 8, os.sysconf("SC_CLK_TCK")
WRONG: tuple[tuple[str, str, Any, int], ...] = (
    ("POST", "/v1/completions", {"prompt": "a", "nonsense": 1}, 400),
    ("POST", "/v1/completions", {"prompt": "a", "max_tokens": 10**9}, 400),
    ("POST", "/v1/completions", {"prompt": "a", "temperature": -1}, 400),
    ("POST", "/v1/completions", {"prompt": [10**8]}, 400),
    ("POST", "/v1/completions", {"prompt": "a", "model": "nobody"}, 404),
    ("POST", "/v1/completions", b"{", 400),
    ("POST", "/v1/chat/completions", {"messages": []}, 400),
    ("POST", "/v1/chat/completions", {"messages": [{"role": "nobody", "content": "a"}]}, 400),
    ("POST", "/detokenize", {"tokens": [10**8]}, 400),
    ("GET", "/v1/models/nobody", None, 404),
    ("GET", "/nowhere", None, 404),
    ("GET", "/v1/completions", None, 405),
)
"""Method, route, body, status."""


class Lost(Exception):
    """A reply did not come, or not whole."""


class Readings:
    """What the process of the server holds, at several times."""

    def __init__(self, process: int) -> None:
        self.folder = Path(f"/proc/{process}")
        self.rows: list[tuple[float, float, int, int]] = []
        """Seconds since the first, MB resident, open files, threads."""
        self.began = time.monotonic()

    def take(self) -> tuple[float, float, int, int]:
        """Read once more."""
        pages = int((self.folder / "statm").read_text().split()[1])
        counts = (len(list((self.folder / name).iterdir())) for name in ("fd", "task"))
        seconds = time.monotonic() - self.began
        self.rows.append((seconds, pages * os.sysconf("SC_PAGE_SIZE") / 2**20, *counts))  # type: ignore[arg-type]
        return self.rows[-1]

    def cpu(self) -> float:
        """Seconds of processor that it has used."""
        fields = (self.folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def after(self, seconds: float) -> list[tuple[float, float, int, int]]:
        """Readings from that time on."""
        return [row for row in self.rows if row[0] >= seconds]


class Load:
    """What is asked, and what came back.

    Args:
        url: the server.
        cards: what it says of its models.
        texts: to take prompts from.
    """

    def __init__(self, url: str, cards: list[dict[str, Any]], texts: list[str]) -> None:
        self.url, self.texts = url, texts
        self.writers = [card["id"] for card in cards if card["writes"]]
        self.encoders = [card["id"] for card in cards if card["embeds"]]
        self.everyone = [card["id"] for card in cards]
        self.pause = 0.05
        """Seconds that each client rests between two requests, on average."""
        self.counts: Counter[str] = Counter()
        self.seconds: dict[str, list[float]] = {}
        self.lost: list[str] = []
        self.wrong: list[str] = []
        self._first: dict[str, Any] = {}
        self._lock = threading.Lock()
        kinds: dict[str, tuple[int, Callable[[httpx.Client, random.Random], None]]] = {
            "stream": (5, self.stream), "dropped": (3, self.dropped), "whole": (4, self.whole),
            "drawn": (2, self.drawn), "chat": (3, self.chat),
            "embeddings": (2 if self.encoders else 0, self.embeddings),
            "tokens": (2, self.tokens), "refused": (3, self.refused), "metrics": (1, self.metrics),
        }  # fmt: skip
        self._kinds = kinds

    def client(self, seed: int, ends: float) -> None:
        """Ask until the time is up."""
        draw = random.Random(seed)
        names, weights = list(self._kinds), [weight for weight, _ in self._kinds.values()]
        with httpx.Client(base_url=self.url, timeout=120) as client:
            while time.monotonic() < ends:
                name = draw.choices(names, weights)[0]
                began, fault = time.perf_counter(), ""
                try:
                    self._kinds[name][1](client, draw)
                except Exception as error:  # whatever it is, a reply is missing
                    fault = f"{name}: {type(error).__name__} {str(error)[:300]}"
                with self._lock:
                    self.counts[name] += 1
                    self.seconds.setdefault(name, []).append(time.perf_counter() - began)
                    if fault:
                        self.lost.append(fault)
                time.sleep(self.pause * draw.expovariate(1))

    # ---- what is asked ---------------------------------------------------------------------------------------------

    def _greedy(self, draw: random.Random) -> dict[str, Any]:
        """One of a few dozen requests whose answer is always the same."""
        which = draw.randrange(24)
        text = self.texts[which % len(self.texts)]
        prompt = text[: 20 + 30 * (which % 7)]
        tokens = 4 + 5 * (which % 6)
        return {"model": self.writers[which % len(self.writers)], "prompt": prompt, "max_tokens": tokens, "temperature": 0}  # fmt: skip  # noqa: E501

    def _same(self, what: str, asked: Any, got: Any) -> None:
        """Compare with the first answer to the same request."""
        with self._lock:
            first = self._first.setdefault(f"{what} {json.dumps(asked, sort_keys=True)}", got)
            vectors = what == "vectors" and len(first) == len(got)
            if not (np.allclose(first, got, atol=1e-4) if vectors else first == got):
                self.wrong.append(f"{what} {json.dumps(asked)[:200]}: {str(got)[:200]}, at first {str(first)[:200]}")

    @staticmethod
    def _json(answer: httpx.Response, status: int = 200) -> Any:
        if answer.status_code != status:
            raise Lost(f"status {answer.status_code} in place of {status}: {answer.text[:200]}")
        return answer.json()

    def stream(self, client: httpx.Client, draw: random.Random) -> None:
        """A stream to its end."""
        asked = self._greedy(draw)
        text, reason, usage, last = "", None, None, ""
        body = {**asked, "stream": True, "stream_options": {"include_usage": True}}
        with client.stream("POST", "/v1/completions", json=body) as answer:
            if answer.status_code != 200:
                raise Lost(f"status {answer.status_code}")
            for line in filter(None, answer.iter_lines()):
                last = line
                if line.startswith("data: {"):
                    piece = json.loads(line.removeprefix("data: "))
                    usage = piece.get("usage") or usage
                    for choice in piece["choices"]:
                        text, reason = text + choice["text"], choice["finish_reason"] or reason
        if reason is None or usage is None or last != "data: [DONE]":
            raise Lost(f"finish_reason {reason}, usage {usage}, last {last[:100]!r}")
        self._same("text", asked, [text, reason, usage["completion_tokens"]])

    def whole(self, client: httpx.Client, draw: random.Random) -> None:
        """An answer in one piece."""
        asked = self._greedy(draw)
        found = self._json(client.post("/v1/completions", json=asked))
        choice = found["choices"][0]
        self._same("text", asked, [choice["text"], choice["finish_reason"], found["usage"]["completion_tokens"]])

    def dropped(self, client: httpx.Client, draw: random.Random) -> None:
        """A stream whose reader leaves."""
        text = draw.choice(self.texts)
        start = draw.randrange(max(1, len(text) - 300))
        body = {"model": draw.choice(self.writers), "prompt": text[start : start + 200], "max_tokens": 64,
                "ignore_eos": True, "stream": True}  # fmt: skip
        with client.stream("POST", "/v1/completions", json=body) as answer:
            if answer.status_code != 200:
                raise Lost(f"status {answer.status_code}")
            lines = answer.iter_lines()
            for _ in range(draw.randrange(1, 12)):
                next(lines, None)

    def drawn(self, client: httpx.Client, draw: random.Random) -> None:
        """Two samples of a prompt that is new."""
        body = {"model": draw.choice(self.writers), "prompt": f"{draw.randrange(10**6)} people", "max_tokens": 12,
                "n": 2, "seed": draw.randrange(10**6), "top_p": 0.9}  # fmt: skip
        found = self._json(client.post("/v1/completions", json=body))
        if len(found["choices"]) != 2 or any(one["finish_reason"] is None for one in found["choices"]):
            raise Lost(json.dumps(found)[:300])

    def chat(self, client: httpx.Client, draw: random.Random) -> None:
        """A turn of a conversation."""
        which = draw.randrange(6)
        asked = {"model": self.writers[which % len(self.writers)], "max_tokens": 16, "temperature": 0,
                 "messages": [{"role": "user", "content": f"Count from {which} to {which + 5}."}]}  # fmt: skip
        choice = self._json(client.post("/v1/chat/completions", json=asked))["choices"][0]
        if choice["finish_reason"] is None:
            raise Lost(json.dumps(choice)[:300])
        self._same("chat", asked, [choice["message"]["content"], choice["finish_reason"]])

    def embeddings(self, client: httpx.Client, draw: random.Random) -> None:
        """Two vectors."""
        which = draw.randrange(12)
        asked = {"model": self.encoders[which % len(self.encoders)], "input": [self.texts[which % len(self.texts)][:100], f"{which} people"]}  # fmt: skip  # noqa: E501
        found = self._json(client.post("/v1/embeddings", json=asked))
        self._same("vectors", asked, [value for one in found["data"] for value in one["embedding"]])

    def tokens(self, client: httpx.Client, draw: random.Random) -> None:
        """A text to tokens and back."""
        text = draw.choice(self.texts)[: draw.randrange(20, 400)]
        model = draw.choice(self.everyone)
        asked = {"model": model, "prompt": text, "add_special_tokens": False}
        ids = self._json(client.post("/tokenize", json=asked))["tokens"]
        back = self._json(client.post("/detokenize", json={"model": model, "tokens": ids}))["prompt"]
        with self._lock:
            if back != text:
                self.wrong.append(f"tokens {text[:100]!r} came back as {back[:100]!r}")

    def refused(self, client: httpx.Client, draw: random.Random) -> None:
        """Something wrong."""
        method, route, body, status = draw.choice(WRONG)
        if isinstance(body, dict) and "model" not in body:
            body = {**body, "model": self.writers[0]}
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        found = self._json(client.request(method, route, content=content, headers={"content-type": "application/json"}), status)  # fmt: skip  # noqa: E501
        if not found["error"]["message"]:
            raise Lost("an error without a message")

    def metrics(self, client: httpx.Client, draw: random.Random) -> None:
        """What a monitor reads."""
        if running(client) is None:
            raise Lost("no metrics")


def running(client: httpx.Client) -> float | None:
    """Samples being written, and requests that wait; None if the server does not say."""
    lines = client.get("/metrics").text.splitlines()
    values = [float(line.split()[-1]) for line in lines if line.startswith(("vllm:num_requests_running", "vllm:num_requests_waiting"))]  # fmt: skip  # noqa: E501
    return sum(values) if values else None


def soak(folders: list[Path], asked: argparse.Namespace, scratch: Path) -> tuple[dict[str, Any], list[str]]:
    """Run the load; what was measured, and what was wrong."""
    log = scratch / "server.log"
    words = ("--keys", scratch / "keys.sqlite", "--engine.cache-bytes", CACHE, "--engine.weights", asked.weights)
    server = Server(*folders, *words, log=log)
    faults: list[str] = []
    try:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            load = Load(server.url, client.get("/v1/models").json()["data"], speeches()[::8])
        time.sleep(1)
        readings = Readings(server.process.pid)
        _, _, files, tasks = readings.take()
        began, cpu = time.monotonic(), readings.cpu()
        ends = began + 60 * asked.minutes
        clients = [threading.Thread(target=load.client, args=(seed, ends)) for seed in range(asked.clients)]
        for one in clients:
            one.start()
        used, at = cpu, began
        while time.monotonic() < ends and server.process.poll() is None:
            time.sleep(min(asked.interval, max(0.0, ends - time.monotonic())))
            seconds, memory, *_ = readings.take()
            now, spent = time.monotonic(), readings.cpu()
            if asked.cores and now - at > 1:
                share = (spent - used) / (now - at) / asked.cores
                load.pause = min(10.0, max(0.005, load.pause * min(2.0, max(0.5, share))))
            used, at = spent, now
            if asked.progress:
                print(f"{seconds:6.0f} s  {memory:6.1f} MB  {load.counts.total():7} requests  {len(load.lost)} lost  "
                      f"{len(load.wrong)} wrong  pause {load.pause:.3f} s", flush=True)  # fmt: skip
        for one in clients:
            one.join(150)
        with httpx.Client(base_url=server.url, timeout=60) as client:
            left: float | None = 1
            for _ in range(100):
                left = running(client)
                if left == 0:
                    break
                time.sleep(0.2)
        time.sleep(1)
        cores = (readings.cpu() - cpu) / (time.monotonic() - began)
        _, memory, files_after, tasks_after = readings.take()
    finally:
        server.stop()
    later = readings.after(readings.rows[-1][0] / 10)
    times, sizes = [row[0] for row in later], [row[1] for row in later]
    slope = statistics.linear_regression(times, sizes).slope if len(later) > 2 else 0.0
    growth = slope * (times[-1] - times[0])
    if left != 0:
        faults.append(f"{left} samples were still being worked on when every client had gone")
    if growth > asked.bound:
        faults.append(f"memory rose by {growth:.1f} MB after the first tenth of the time; {asked.bound:g} are allowed")
    if files_after > files + FEW:
        faults.append(f"{files_after} files were open at the end, {files} before")
    if tasks_after > later[0][3] + FEW:
        faults.append(f"{tasks_after} threads at the end, {later[0][3]} after the first tenth")
    if server.process.returncode:
        faults.append(f"the server ended with status {server.process.returncode}")
    if "Traceback" in log.read_text():
        faults.append("the server's log tells of a failure:\n" + log.read_text()[-3000:])
    faults += [f"lost: {one}" for one in load.lost[:20]] + [f"wrong: {one}" for one in load.wrong[:20]]
    every = sorted(value for values in load.seconds.values() for value in values)
    rows = []
    for name, values in sorted(load.seconds.items()):
        cuts = statistics.quantiles(values, n=100) if len(values) > 1 else values * 99
        rows.append((name, load.counts[name], round(1000 * cuts[49], 1), round(1000 * cuts[98], 1)))
    cuts = statistics.quantiles(every, n=100)
    rows.append(("all", len(every), round(1000 * cuts[49], 1), round(1000 * cuts[98], 1)))
    found = {
        "minutes": asked.minutes, "requests": rows, "lost": len(load.lost), "wrong": len(load.wrong),
        "server's cores": cores, "MB at the start": readings.rows[0][1], "MB after a tenth": sizes[0],
        "MB at the end": memory, "MB at most": max(row[1] for row in readings.rows), "MB an hour": 3600 * slope,
        "line's rise, MB": growth, "readings": len(readings.rows),
        "files before": files, "files at most": max(row[2] for row in readings.rows), "files at the end": files_after,
        "threads before": tasks, "threads at the end": tasks_after,
    }  # fmt: skip
    return found, faults


def main() -> None:
    """Run it and print what came out; the figures go to --out."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--folder", type=Path, nargs="*", default=[], help="runs or model folders to serve")
    parser.add_argument("--small", action="store_true", help="serve small models made on the spot, too")
    parser.add_argument("--weights", default="auto", help="of Transformers: auto, float32, int8, int4")
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--cores", type=float, default=0.0, help="how busy the server may be kept; 0: as it comes")
    parser.add_argument("--interval", type=float, default=10.0, help="seconds between two readings")
    parser.add_argument("--bound", type=float, default=32.0, help="MB that memory may rise by")
    parser.add_argument("--progress", action="store_true", help="a line for each reading")
    parser.add_argument("--out", type=Path, default=None)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        small = asked.small or not asked.folder
        folders = [*asked.folder, *(small_runs(scratch, encoder=True).values() if small else ())]
        found, faults = soak(folders, asked, scratch)
    print(table(("asked", "times", "50% ms", "99% ms"), found["requests"]))
    print()
    for what, value in found.items():
        if what != "requests":
            print(f"  {what:<24} {value:,.{2 if isinstance(value, float) else 0}f}")
    for fault in faults:
        print(f"!! {fault}")
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps({"found": found, "faults": faults, "machine": machine()}, indent=2))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
