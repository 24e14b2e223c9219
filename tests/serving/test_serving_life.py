"""Starting, ending, hanging up, flooding: the server outlives its callers, and ends when told to."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving_process import Server

LONG = {"model": "counts", "prompt": "The people", "max_tokens": 4000, "ignore_eos": True, "stream": True}


def running(url: str) -> float:
    text = httpx.get(url + "/metrics").text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("vllm:num_requests_running"))


def until(condition: Callable[[], bool], seconds: float = 15) -> bool:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if condition():
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "no model to serve"),
        (["/nowhere"], "There is no model"),
        (["RUN", "--port", "99999"], "no port"),
        (["RUN", "--port", "TAKEN"], "Nothing can listen"),
        (["RUN", "RUN", "--port", "0"], "served already"),
        (["RUN", "--alias", "a", "--alias", "b"], "aliases"),
        (["RUN", "--cors", "*"], "refused"),
        (["RUN", "--log-prompts"], "no effect"),
    ],
)
def test_what_cannot_be_served_is_explained(runs: dict[str, Path], tmp_path: Path, words: list[str], told: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        names = {"RUN": str(runs["counts"]), "TAKEN": str(taken.getsockname()[1])}
        ended = subprocess.run(
            [sys.executable, "-m", "textmill", "serve", *(names.get(word, word) for word in words),
             "--keys", str(tmp_path / "keys.sqlite")], capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert ended.returncode == 2, ended.stderr
    assert told in ended.stderr


def test_hanging_up_in_mid_stream_frees_the_place(server: Server) -> None:
    for _ in range(5):
        with httpx.stream("POST", server.url + "/v1/completions", json=LONG) as answer:
            next(answer.iter_lines())
    assert until(lambda: running(server.url) == 0)


def test_hanging_up_before_the_answer_frees_the_place(server: Server) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(server.url + "/v1/completions", json={**LONG, "stream": False}, timeout=0.3)
    assert until(lambda: running(server.url) == 0)


def test_a_slow_reader_holds_up_nobody(server: Server) -> None:
    with httpx.stream("POST", server.url + "/v1/completions", json=LONG) as slow:
        next(slow.iter_lines())
        began = time.monotonic()
        for _ in range(5):
            httpx.post(server.url + "/v1/completions", json={"model": "counts", "prompt": "a", "max_tokens": 3})
        assert time.monotonic() - began < 5


def test_a_body_that_never_ends_is_cut_off(server: Server) -> None:
    def endless() -> Any:
        for _ in range(100):
            yield b" " * 100_000

    answer = httpx.post(server.url + "/v1/completions", content=endless(), headers={"content-type": "application/json"})
    assert answer.status_code == 413
    big = httpx.post(server.url + "/v1/completions", json={"model": "counts", "prompt": "a" * (5 << 20)})
    assert big.status_code == 413
    assert "larger than" in big.json()["error"]["message"]


def test_thousands_of_stops_and_a_huge_prompt_are_answered(server: Server) -> None:
    stops = [f"stop {i}" for i in range(5000)]
    body = {"model": "counts", "prompt": "The people", "stop": stops, "max_tokens": 20}
    assert httpx.post(server.url + "/v1/completions", json=body, timeout=30).status_code == 200
    huge = {"model": "counts", "prompt": "The people of America. " * 40_000, "max_tokens": 1}
    assert httpx.post(server.url + "/v1/completions", json=huge, timeout=60).status_code == 200


def test_garbage_on_the_socket_does_no_harm(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    post = b"POST /v1/completions HTTP/1.1\r\n"
    for junk in (b"\x00\xff\x00", b"GET / HTTP/9.9\r\n\r\n", post + b"content-length: -5\r\n\r\n",
                 post + b"host: localhost\r\ncontent-length: 100\r\n\r\n{"):  # fmt: skip
        with socket.create_connection((host, int(port)), timeout=5) as line:
            line.sendall(junk)
            line.settimeout(0.3)
            with contextlib.suppress(TimeoutError):
                line.recv(1000)
    assert httpx.get(server.url + "/health").status_code == 200


def test_ending_finishes_streams_and_refuses_new_ones(
    start: Callable[..., Server], runs: dict[str, Path], tmp_path: Path
) -> None:
    server = start(runs["counts"], "--keys", tmp_path / "keys.sqlite")
    lines: list[str] = []
    begun = threading.Event()

    def read() -> None:
        body = {**LONG, "max_tokens": 1500}
        with httpx.stream("POST", server.url + "/v1/completions", json=body, timeout=60) as answer:
            for line in answer.iter_lines():
                if line:
                    lines.append(line)
                    begun.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert begun.wait(10)
    assert server.stop() == 0
    reader.join(20)
    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url + "/health")


def test_a_time_limit_gives_what_there_is(start: Callable[..., Server], runs: dict[str, Path], tmp_path: Path) -> None:
    server = start(runs["counts"], "--keys", tmp_path / "keys.sqlite", "--max-seconds", "0.5", "--drain-seconds", "1")
    began = time.monotonic()
    body = {**LONG, "stream": False, "n": 4}
    answer = httpx.post(server.url + "/v1/completions", json=body, timeout=30).json()
    assert time.monotonic() - began < 5
    assert {choice["finish_reason"] for choice in answer["choices"]} == {"length"}
    assert 0 < answer["usage"]["completion_tokens"] < 16_000
    assert server.stop() == 0


@pytest.mark.slow
def test_mixed_load_loses_no_reply_and_leaks_nothing(
    start: Callable[..., Server], runs: dict[str, Path], tmp_path: Path
) -> None:
    server = start(runs["counts"], runs["small"], "--keys", tmp_path / "keys.sqlite")
    pid = server.process.pid

    def memory() -> int:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096

    def threads() -> int:
        return len(list(Path(f"/proc/{pid}/task").iterdir()))

    def one(seed: int) -> str:
        draw = random.Random(seed)
        body: dict[str, Any] = {
            "model": draw.choice(["counts", "small"]), "prompt": "The people " * draw.randrange(1, 20),
            "max_tokens": draw.randrange(1, 30), "seed": seed,
        }  # fmt: skip
        kind = draw.choice(["whole", "stream", "hang up", "wrong"])
        with httpx.Client(base_url=server.url, timeout=60) as client:
            if kind == "wrong":
                assert client.post("/v1/completions", json={**body, "nonsense": 1}).status_code == 400
            elif kind == "whole":
                answer = client.post("/v1/completions", json=body)
                assert answer.status_code == 200, answer.text
                assert answer.json()["choices"][0]["finish_reason"] in ("stop", "length")
            else:
                with client.stream("POST", "/v1/completions", json={**body, "stream": True}) as answer:
                    lines = answer.iter_lines()
                    if kind == "hang up":
                        next(lines)
                    else:
                        assert [line for line in lines if line][-1] == "data: [DONE]"
        return kind

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(150)))  # warm: caches fill, threads start
        before, tasks = memory(), threads()
        kinds = list(pool.map(one, range(1000, 1450)))
    assert len(kinds) == 450
    assert until(lambda: running(server.url) == 0)
    assert memory() - before < 60 << 20
    assert threads() <= tasks + 2
    assert server.stop() == 0
