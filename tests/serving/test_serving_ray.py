"""`textmill serve --engine ray`: two replicas behind one address, as one server to everyone who asks."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from serving_process import Server

from textmill.base.errors import UsageError
from textmill.generation.engine.config import EngineConfig
from textmill.serving.config import ServeConfig
from textmill.serving.keys import KeyStore
from textmill.serving.replicas import serve_replicas, share

LONG = {"model": "counts", "prompt": "The people", "max_tokens": 4000, "ignore_eos": True, "stream": True}


def children(parent: int) -> dict[int, str]:
    """All processes that came from one, with their command lines."""
    found: dict[int, tuple[int, str]] = {}
    for place in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            above = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            found[int(place.name)] = above, (place / "cmdline").read_text().replace("\0", " ")
    below = {parent}
    while more := {pid for pid, (above, _) in found.items() if above in below} - below:
        below |= more
    return {pid: found[pid][1] for pid in below - {parent}}


@pytest.fixture(scope="module")
def replicas(start: Callable[..., Server], runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server of two replicas with keys: (server, {name: key})."""
    folder = tmp_path_factory.mktemp("replicas")
    store = KeyStore(str(folder / "keys.sqlite"))
    keys = {"plain": store.create("plain"), "slow": store.create("slow", requests_per_minute=4),
            "admin": store.create("admin", admin=True)}  # fmt: skip
    words = ["--engine", "ray", "--replicas", "2", "--keys", folder / "keys.sqlite", "--audit", folder / "audit.jsonl"]
    return start(runs["counts"], runs["small"], *words), keys


@pytest.fixture(scope="module")
def http(replicas: Any) -> httpx.Client:
    server, keys = replicas
    return httpx.Client(base_url=server.url, timeout=30, headers={"authorization": f"Bearer {keys['plain']}"})


def measured(http: httpx.Client, name: str) -> dict[str, float]:
    """A metric of each replica, summed over its other labels."""
    sums = {"0": 0.0, "1": 0.0}
    for number, value in re.findall(rf'^{name}{{.*replica="(\d)".*}} (\S+)$', http.get("/metrics").text, re.MULTILINE):
        sums[number] += float(value)
    return sums


@pytest.mark.slow
def test_the_official_client_is_answered_by_both_replicas(replicas: Any, http: httpx.Client) -> None:
    server, keys = replicas
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=keys["plain"], max_retries=0)
    assert {card.id for card in client.models.list()} == {"counts", "small"}

    def whole(model: str) -> str:
        return client.completions.create(model=model, prompt="The people", max_tokens=20, temperature=0).choices[0].text

    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(whole, ["counts", "small"] * 12))
    assert set(texts[::2]) == {texts[0]}  # whichever replica wrote it
    assert set(texts[1::2]) == {texts[1]}
    stream = client.completions.create(model="small", prompt="The people", max_tokens=20, temperature=0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == texts[1]
    said = client.chat.completions.create(model="counts", messages=[{"role": "user", "content": "Hello"}], max_tokens=5)
    assert said.choices[0].message.content
    totals = measured(http, "vllm:generation_tokens_total")
    assert min(totals.values()) > 0  # both worked, and whichever is asked knows of both
    page = http.get("/metrics").text
    assert page.count("# TYPE vllm:generation_tokens_total") == 1


@pytest.mark.slow
def test_keys_limits_and_refusals_hold_for_all_replicas(replicas: Any, http: httpx.Client) -> None:
    server, keys = replicas
    body = {"model": "counts", "prompt": "The people", "max_tokens": 2}

    def ask(key: str) -> int:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.post(server.url + "/v1/completions", json=body, headers=headers, timeout=30).status_code

    assert ask("") == ask("tm-wrong") == 401
    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(ask, [keys["slow"]] * 10)) == [200] * 4 + [429] * 6
    refused = httpx.post(server.url + "/v1/unload_model", json={"name": "small"},
                         headers={"authorization": f"Bearer {keys['admin']}"})  # fmt: skip
    assert (refused.status_code, refused.json()["error"]["code"]) == (501, "replicas")
    assert http.post("/v1/completions", json={**body, "nonsense": 1}).json()["error"]["code"] == "unknown_parameter"
    assert http.post("/v1/completions", json={**body, "prompt": "a" * (5 << 20)}).status_code == 413
    assert httpx.get(server.url + "/health", headers={"host": "evil.example"}).status_code == 403


@pytest.mark.slow
def test_hanging_up_frees_the_place_in_a_replica(http: httpx.Client) -> None:
    for _ in range(4):
        with http.stream("POST", "/v1/completions", json=LONG) as answer:
            next(answer.iter_lines())
    with pytest.raises(httpx.ReadTimeout):
        http.post("/v1/completions", json={**LONG, "stream": False}, timeout=0.3)
    ends = time.monotonic() + 15
    while any(measured(http, "vllm:num_requests_running").values()) and time.monotonic() < ends:
        time.sleep(0.2)
    assert not any(measured(http, "vllm:num_requests_running").values())


@pytest.mark.slow
def test_ctrl_c_finishes_streams_refuses_new_ones_and_leaves_nothing(replicas: Any, http: httpx.Client) -> None:
    """The last test of this server."""
    server, _ = replicas
    below = children(server.process.pid)
    (folder,) = {found[0] for line in below.values() if (found := re.search(r"/\S*textmill-ray-[^/ ]+", line))}
    assert not [line for line in below.values() if "dashboard.py" in line and "UsageStatsHead" not in line]
    lines: list[str] = []
    begun = threading.Event()

    def read() -> None:
        with http.stream("POST", "/v1/completions", json={**LONG, "max_tokens": 1500}, timeout=60) as answer:
            for line in answer.iter_lines():
                if line:
                    lines.append(line)
                    begun.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert begun.wait(10)
    group = os.getpgid(server.process.pid)  # a terminal's Ctrl-C reaches everyone in it
    for pid in (server.process.pid, *below):
        with contextlib.suppress(OSError):
            if os.getpgid(pid) == group:
                os.kill(pid, signal.SIGINT)
    refused = []
    while reader.is_alive():
        with contextlib.suppress(httpx.HTTPError):
            refused.append(http.post("/v1/completions", json={"model": "counts", "prompt": "a", "max_tokens": 1}))
        time.sleep(0.05)
    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    assert "closing" in {answer.json()["error"]["code"] for answer in refused if answer.status_code == 503}
    assert server.process.wait(30) == 0, server.log.read_text()
    with pytest.raises(httpx.ConnectError):
        http.get("/health")
    ends = time.monotonic() + 10
    while (left := [pid for pid in below if Path(f"/proc/{pid}").exists()]) and time.monotonic() < ends:
        time.sleep(0.2)
    assert not left
    assert not Path(folder).exists()
    assert not server.log.read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["RUN", "--replicas", "2"], "--engine ray"),
        (["RUN", "--engine", "ray", "--replicas", "0"], "nobody"),
        (["/nowhere", "--engine", "ray"], "There is no model"),
        (["RUN", "RUN", "--engine", "ray"], "served already"),
        (["RUN", "--engine", "ray", "--host", "0.0.0.0"], "textmill keys create"),
        (["RUN", "--engine", "ray", "--device", "cuda:1"], "chooses"),
        (["RUN", "--engine", "beam"], "beam"),
    ],
)
def test_what_cannot_be_served_is_explained_before_ray_starts(
    runs: dict[str, Path], tmp_path: Path, words: list[str], told: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "textmill", "serve", *(str(runs["counts"]) if word == "RUN" else word for word in words),
         "--keys", str(tmp_path / "keys.sqlite"), "--port", "0"], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 2, ended.stderr
    assert told in ended.stderr


def test_without_ray_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # so that nothing is set up for a Ray of our own
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"textmill\[serve,ray\]"):
        serve_replicas([], ServeConfig(), EngineConfig())


@pytest.mark.parametrize(
    ("machines", "replicas", "device", "expected"),
    [
        ([{"CPU": 8}], 2, None, (4, 0.0)),
        ([{"CPU": 2}], 3, None, (1, 0.0)),
        ([{"CPU": 8}, {"CPU": 16}], 3, None, (4, 0.0)),  # two of them on the smaller one
        ([{"CPU": 8}, {}], 1, None, (8, 0.0)),
        ([{"CPU": 8, "GPU": 1}], 2, None, (4, 0.5)),
        ([{"CPU": 8, "GPU": 2}], 3, "cuda", (2, 0.5)),  # two on one GPU, the third has its own
        ([{"CPU": 8, "GPU": 4}], 2, "cuda", (4, 1.0)),
        ([{"CPU": 8, "GPU": 4}], 2, "cpu", (4, 0.0)),
    ],
)
def test_replicas_share_cores_and_gpus(
    machines: list[dict[str, float]], replicas: int, device: str | None, expected: tuple[int, float]
) -> None:
    nodes = [{"Alive": True, "Resources": one} for one in machines] + [{"Alive": False, "Resources": {"CPU": 1}}]
    assert share(nodes, replicas, device) == expected
