"""Eight clients at once, over HTTP: tokens a second of our server beside llama.cpp's. Starts processes.

`python -m bench.clients --llama-server BINARY --peers-python PYTHON`, with the folder that bench.serving made. Every
contestant gets the same eight prompts of a round at the same moment, writes 128 tokens after each, the likeliest, no
end allowed, and streams them; rounds alternate, so that a busy moment of the machine meets all alike. Tokens are those
that the stream's usage tells. The servers stay up; who is not asked sleeps.

- textmill: `textmill serve`, int4 weights; the same without guessing ahead; and the GGUF file served as it is.
- llama.cpp's own server on the GGUF file, eight slots.
- llama-cpp-python's server on the GGUF file. It works on one request at a time, so the eight wait for each other.
- transformers: `generate` on all eight as one batch, in the measuring process, no server between.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from http.client import HTTPResponse
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx

from bench.measure import Spread, machine, table, version_in
from bench.server import Server, speeches
from bench.serving import weights_file

CLIENTS, TOKENS, LETTERS = 8, 128, 240


class Peer:
    """Another server in a process of its own; `{port}` in its command is a free one."""

    def __init__(self, command: Sequence[object], ready: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        line = [str(word).format(port=port) for word in command]
        self.process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            if self.process.poll() is not None:
                raise RuntimeError(f"{line[0]} ended with status {self.process.returncode}")
            try:
                if httpx.get(self.url + ready).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise RuntimeError(f"{line[0]} does not answer")

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(60)


def prompts_of(texts: Sequence[str], number: int) -> list[str]:
    """Beginnings of a round, in no other round."""
    return [text[LETTERS * number : LETTERS * (number + 1)] for text in texts[:: len(texts) // CLIENTS][:CLIENTS]]


async def _one(host: str, port: int, prompt: str, no_end: dict[str, Any]) -> bytes:
    """All that a server sends until it hangs up; looked at afterwards, for the two cores are the servers' meanwhile."""
    body = json.dumps({
        "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "stream": True,
        "stream_options": {"include_usage": True}, **no_end,
    }).encode()  # fmt: skip
    head = f"POST /v1/completions HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-type: application/json\r\n" + (
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(head.encode() + body)
        return await asyncio.wait_for(reader.read(), 600)
    finally:
        writer.close()


def tokens_in(answer: bytes) -> int:
    """Tokens of one stream; of a server that tells no usage, its pieces, which are a token each."""
    response = HTTPResponse(cast("Any", SimpleNamespace(makefile=lambda _mode: io.BytesIO(answer))))
    response.begin()
    text = response.read().decode(errors="replace")
    if response.status != 200:
        raise RuntimeError(text)
    lines = text.splitlines()
    assert "data: [DONE]" in lines, "a stream was cut off"
    pieces = [line for line in lines if line.startswith("data: {")]
    usage = json.loads(pieces[-1].removeprefix("data: ")).get("usage")
    return int(usage["completion_tokens"]) if usage else min(len(pieces), TOKENS)


def together(url: str, prompts: Sequence[str], no_end: dict[str, Any]) -> tuple[int, float]:
    """Tokens and seconds of all clients together."""
    host, _, port = url.removeprefix("http://").partition(":")

    async def all_of_them() -> tuple[list[bytes], float]:
        began = time.perf_counter()
        answers = await asyncio.gather(*(_one(host, int(port), prompt, no_end) for prompt in prompts))
        return answers, time.perf_counter() - began

    answers, seconds = asyncio.run(all_of_them())
    return sum(map(tokens_in, answers)), seconds


def transformers(folder: Path, kind: str, threads: int) -> Callable[[Sequence[str]], tuple[int, float]]:
    """`generate` on one batch."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(folder / "theirs", padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(folder / "theirs", dtype=getattr(torch, kind)).eval()

    def write(prompts: Sequence[str]) -> tuple[int, float]:
        began = time.perf_counter()
        given = tokenizer(list(prompts), return_tensors="pt", padding=True)
        out = model.generate(
            input_ids=given.input_ids, attention_mask=given.attention_mask, do_sample=False,
            max_new_tokens=TOKENS, min_new_tokens=TOKENS, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        return out[:, given.input_ids.shape[1] :].numel(), time.perf_counter() - began

    return write


def main() -> None:
    """Run the comparison and print its table; the raw figures go to --out."""
    parser = argparse.ArgumentParser(prog="python -m bench.clients", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench/smollm2"), help="where bench.serving put them")
    parser.add_argument("--peers-python", type=Path, default=Path(sys.executable), help="has llama-cpp-python[server]")
    parser.add_argument("--llama-server", type=Path, default=None, help="llama.cpp's own server")
    parser.add_argument("--threads", type=int, default=2, help="of the peers; ours takes every core")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=None, help="file for the raw figures")
    asked = parser.parse_args()
    weights, texts = weights_file(), [text for text in speeches() if len(text) > LETTERS * (asked.repeats + 1)]
    servers: dict[str, Any] = {}
    scratch = tempfile.TemporaryDirectory()
    keys = ("--keys", Path(scratch.name) / "keys.sqlite")
    try:
        ours = asked.folder / "ours"
        servers["textmill, int4"] = Server(ours, *keys, "--engine.weights", "int4")
        servers["textmill, int4, no guesses"] = Server(
            ours, *keys, "--engine.weights", "int4", "--engine.draft-tokens", 0
        )
        servers["textmill, the GGUF file"] = Server(weights, *keys)
        if asked.llama_server:
            line = (asked.llama_server, "-m", weights, "-np", CLIENTS, "-t", asked.threads, "-tb", asked.threads,
                    "-c", 512 * CLIENTS, "--host", "127.0.0.1", "--port", "{port}")  # fmt: skip
            servers["llama.cpp's server"] = Peer(line, "/health")
        if version_in(asked.peers_python, "llama-cpp-python") != "absent":
            alone = (asked.peers_python, "-m", "llama_cpp.server", "--model", weights, "--n_threads", asked.threads,
                     "--n_threads_batch", asked.threads, "--n_ctx", 512, "--host", "127.0.0.1", "--port", "{port}",
                     "--interrupt_requests", "false", "--verbose", "false")  # fmt: skip
            servers["llama-cpp-python's server"] = Peer(alone, "/v1/models")
        ends = json.loads((asked.folder / "theirs" / "config.json").read_text())["eos_token_id"]
        bias = {"logit_bias": {str(end): -100 for end in (ends if isinstance(ends, list) else [ends])}}
        contestants: dict[str, Callable[[Sequence[str]], tuple[int, float]]] = {
            name: partial(together, server.url, no_end=bias if "python" in name else {"ignore_eos": True})
            for name, server in servers.items()
        }
        contestants |= {f"transformers, {kind}": transformers(asked.folder, kind, asked.threads) for kind in ("bfloat16", "float32")}  # fmt: skip  # noqa: E501
        found: dict[str, list[float]] = {name: [] for name in contestants}
        for number in range(asked.repeats + 1):  # the first warms up
            for name, write in contestants.items():
                tokens, seconds = write(prompts_of(texts, number))
                if number:
                    found[name].append(tokens / seconds)
                    print(f"round {number}, {name}: {tokens} tokens in {seconds:.2f} s", flush=True)
    finally:
        for server in servers.values():
            server.stop()
        scratch.cleanup()
    rows = []
    peers = [name for name in found if not name.startswith("textmill")]
    for name, rates in found.items():
        ratios = [Spread.of([a / b for a, b in zip(rates, found[peer], strict=True)]).show(".1f") for peer in peers]
        rows.append([name, Spread.of(rates).show(".0f"), *(ratios if name not in peers else [""] * len(peers))])
    print(table(["eight clients", "tokens/s together", *(f"times {peer}" for peer in peers)], rows))
    python, own = version_in(asked.peers_python, "llama-cpp-python"), version_in(Path(sys.executable), "transformers")
    print(f"\nllama-cpp-python {python} (llama.cpp's server is built from the sources in it), transformers {own}; "
          f"{asked.threads} threads")  # fmt: skip
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        versions = {"llama-cpp-python": python, "transformers": own}
        asked.out.write_text(json.dumps({"found": found, "versions": versions, "machine": machine()}, indent=2))


if __name__ == "__main__":
    main()
