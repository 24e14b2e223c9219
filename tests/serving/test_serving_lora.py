"""LoRA adapters of a server: loaded and unloaded while it serves, chosen by `model`, for administrators alone."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
from serving_process import Server

from textmill.generation.config import SamplingConfig
from textmill.generation.engine import Engine
from textmill.generation.loading import open_model
from textmill.models.lora import save_lora
from textmill.serving.keys import KeyStore
from textmill.serving.server import adapter_of

PROMPT = "The people of the United States"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the model "small", which has our own arrangement."""
    folder = tmp_path_factory.mktemp("adapters") / "polite"
    torch.manual_seed(5)
    parts = {
        f"blocks.{layer}.{name}": (torch.randn(2, 32), torch.randn(32, 2))
        for layer in range(2)
        for name in ("attention.out",)
    }
    save_lora(folder, parts, alpha=4)
    return folder


@pytest.fixture(scope="module")
def guarded(
    start: Callable[..., Server], runs: dict[str, Path], tmp_path_factory: Any
) -> tuple[Server, dict[str, str]]:
    place = str(tmp_path_factory.mktemp("keys") / "keys.sqlite")
    store = KeyStore(place)
    keys = {"admin": store.create("root", admin=True), "plain": store.create("someone")}
    return start(runs["small"], runs["counts"], "--keys", place, "--audit", ""), keys


def post(server: Server, key: str, path: str, **body: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx.post(server.url + path, json=body, headers=headers, timeout=60)


def written(run: Path, lora: Path | None) -> str:
    """What the model writes alone."""
    opened = open_model(run, "cpu", lora)
    engine = Engine(opened.model, opened.tokenizer)
    try:
        return engine.submit(PROMPT, SamplingConfig(temperature=0, max_tokens=20)).results()[0].text
    finally:
        engine.close()


def test_loaded_and_unloaded_while_serving(
    guarded: tuple[Server, dict[str, str]], runs: dict[str, Path], adapter: Path
) -> None:
    server, keys = guarded
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=keys["plain"], max_retries=0)

    def text(model: str) -> str:
        return client.completions.create(model=model, prompt=PROMPT, max_tokens=20, temperature=0).choices[0].text

    alone, adapted = written(runs["small"], None), written(runs["small"], adapter)
    assert alone != adapted
    stop, seen = threading.Event(), set()

    def keep_asking() -> None:
        while not stop.is_set():
            seen.add(text("small"))

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        body = {"lora_name": "polite", "lora_path": str(adapter)}
        loaded = post(server, keys["admin"], "/v1/load_lora_adapter", **body)
        assert (loaded.status_code, loaded.text) == (200, "Success: LoRA adapter 'polite' added successfully.")
        assert text("polite") == adapted
        assert text("small") == alone
        again = post(server, keys["admin"], "/v1/load_lora_adapter", **body)
        assert again.status_code == 400
        assert "already been loaded" in again.json()["error"]["message"]
        card = client.models.retrieve("polite").model_dump()
        assert (card["parent"], card["root"], card["rank"]) == ("small", str(adapter), 2)
        assert card["matrices_bytes"] == 2 * 32 * 32 * 4
        assert {one.id for one in client.models.list()} == {"small", "counts", "polite"}
        kept = post(server, keys["admin"], "/v1/unload_model", name="small")
        assert (kept.status_code, kept.json()["error"]["code"]) == (400, "has_adapters")
        gone = post(server, keys["admin"], "/v1/unload_lora_adapter", lora_name="polite")
        assert (gone.status_code, gone.text) == (200, "Success: LoRA adapter 'polite' removed successfully.")
        with pytest.raises(openai.NotFoundError):
            text("polite")
        assert post(server, keys["admin"], "/v1/unload_lora_adapter", lora_name="polite").status_code == 404
    finally:
        stop.set()
        asking.join()
    assert seen == {alone}


def test_refusals(guarded: tuple[Server, dict[str, str]], runs: dict[str, Path], adapter: Path) -> None:
    server, keys = guarded
    path, body = "/v1/load_lora_adapter", {"lora_name": "x", "lora_path": str(adapter)}
    for route, sent in ((path, body), ("/v1/unload_lora_adapter", {"lora_name": "x"})):
        assert post(server, "", route, **sent).status_code == 401
        assert post(server, "tm-wrong", route, **sent).status_code == 401
        assert post(server, keys["plain"], route, **sent).status_code == 403
        assert post(server, keys["admin"], route).status_code == 400
    for place in ("/etc", "../../etc/passwd", "nowhere", str(runs["small"])):
        wrong = post(server, keys["admin"], path, lora_name="x", lora_path=place)
        assert wrong.status_code == 400
        assert "no LoRA adapter" in wrong.json()["error"]["message"]
    for base in ("counts", "nobody"):
        assert post(server, keys["admin"], path, **body, base_model_name=base).status_code == 400
    assert post(server, keys["admin"], "/v1/unload_lora_adapter", lora_name="small").status_code == 404
    taken = post(server, keys["admin"], path, lora_name="small", lora_path=str(adapter))
    assert taken.status_code == 400


def test_options_of_serve_and_generate(
    start: Callable[..., Server], runs: dict[str, Path], adapter: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.sqlite"
    several = (runs["small"], runs["small"], "--alias", "one", "--alias", "two")
    server = start(*several, "--lora", f"polite={adapter}@two", "--keys", keys, "--audit", "")
    assert httpx.get(server.url + "/v1/models/polite").json()["parent"] == "two"
    asked = {"model": "polite", "prompt": PROMPT, "max_tokens": 20, "temperature": 0}
    adapted = written(runs["small"], adapter)
    assert httpx.post(server.url + "/v1/completions", json=asked).json()["choices"][0]["text"] == adapted
    assert server.stop() == 0
    words = ["generate", runs["small"], PROMPT, "--lora", adapter, "--temperature", "0", "--max-tokens", "20", "--json"]
    done = subprocess.run([sys.executable, "-m", "textmill", *map(str, words)], capture_output=True, text=True)
    assert json.loads(done.stdout)["samples"][0]["text"] == adapted
    unclear = ["serve", *several, "--lora", f"polite={adapter}", "--port", "0", "--keys", keys]
    done = subprocess.run([sys.executable, "-m", "textmill", *map(str, unclear)], capture_output=True, text=True)
    assert done.returncode == 2
    assert "not clear which model" in done.stderr


def test_what_an_option_means(tmp_path: Path) -> None:
    (tmp_path / "a@b").mkdir()
    assert adapter_of("x=some/where", ["m"]) == ("x", Path("some/where"), "")
    assert adapter_of("x=some/where@m", ["m"]) == ("x", Path("some/where"), "m")
    assert adapter_of(f"x={tmp_path}/a@b", ["m"]) == ("x", tmp_path / "a@b", "")
    assert adapter_of(f"x={tmp_path}/a@b@m", ["m"]) == ("x", tmp_path / "a@b", "m")
