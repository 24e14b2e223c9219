"""`textmill serve`: models behind an OpenAI-compatible API. Listens at a port, reads models, writes usage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from textmill.cli.options import Json, Quiet
from textmill.generation.engine.config import EngineConfig
from textmill.serving.config import ServeConfig

SERVER = Group("Server", sort_key=5)
ENGINE = Group("Engine", sort_key=6)


def serve(
    *runs: Path,
    alias: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    lora: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    server: Annotated[ServeConfig, Parameter(name="*", group=SERVER)] = ServeConfig(),  # noqa: B008 (frozen)
    run_by: Annotated[Literal["local", "ray"], Parameter(name="--engine", group=SERVER)] = "local",
    replicas: Annotated[int | None, Parameter(group=SERVER)] = None,
    engine: Annotated[EngineConfig, Parameter(group=ENGINE)] = EngineConfig(),  # noqa: B008
    device: str | None = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Serve models over HTTP, the way OpenAI's clients expect it.

    Any family can be served, several models at once; a request names the one that it wants. Other machines reach the
    server only when you say so (--host) and a key exists. Ctrl-C ends it: no new requests, what is being written may
    finish.

    Examples:

        textmill serve runs/mine

        textmill serve runs/mine runs/other --alias small --alias large --port 9000

        textmill keys create me && textmill serve runs/mine --host 0.0.0.0

        textmill serve runs/mine --lora polite=adapters/polite

        textmill serve runs/mine --engine ray --replicas 2

        curl http://127.0.0.1:8000/v1/completions -H "Content-Type: application/json" -d '{"prompt": "Once upon"}'

    Parameters
    ----------
    runs
        The runs, model folders or GGUF files to serve.
    alias
        Names to serve them under, in their order; by default those of their folders.
    lora
        A LoRA adapter of one of them, a folder as PEFT saves it, served under a name of its own: NAME=PATH, or
        NAME=PATH@MODEL where several models are served; may be given several times. Each takes memory for the matrices
        that it changes, twice, and for a cache (--engine.cache-bytes).
    server
        Where to listen, for whom, how much.
    run_by
        local: one server, in this process. ray: replicas of it, run by Ray Serve (on RAY_ADDRESS's cluster, else on
        this machine). Each loads the models and caches prompts for itself; keys and limits hold for all together,
        /metrics tells of each, and models are neither loaded nor unloaded while they serve.
    replicas
        How many replicas --engine ray runs; 1 by default. They share the cores, and the GPUs.
    engine
        How many requests at once, in how much memory.
    device
        Where to compute: cpu, cuda; left out, a GPU if there is one.
    """
    import json as json_format

    from textmill.base.errors import UsageError

    if not runs:
        raise UsageError("There is no model to serve.", fix="Name a run: textmill serve runs/mine")
    if alias and len(alias) != len(runs):
        raise UsageError(
            f"{len(alias)} aliases do not fit {len(runs)} runs.", fix="Give one --alias for each run, or none."
        )

    if replicas is not None and run_by != "ray":
        raise UsageError(
            "--replicas would have no effect.", "One server runs in this process.", "Add --engine ray, or leave it out."
        )

    if lora and run_by == "ray":
        raise UsageError("--lora cannot be had with --engine ray.", fix="Leave one of them out.")

    def started(url: str, names: list[str]) -> None:
        if json:
            print(json_format.dumps({"url": url, "models": names}), flush=True)
        elif not quiet:
            print(_welcome(url, names, server, replicas or 1 if run_by == "ray" else 0), flush=True)

    models = list(zip(runs, alias or ("",) * len(runs), strict=True))
    if run_by == "ray":
        from textmill.serving.replicas import serve_replicas

        serve_replicas(models, server, engine, device, started, 1 if replicas is None else replicas)
    else:
        from textmill.serving.server import serve as serve_models

        serve_models(models, server, engine, device, started, lora)
    if not quiet and not json:
        print("The server has ended.", flush=True)


def _welcome(url: str, names: list[str], config: ServeConfig, replicas: int) -> str:
    """How to reach the models."""
    key = "" if config.local else ' -H "Authorization: Bearer KEY"'
    secret = "none" if config.local else "KEY"
    body = f'{{"model": "{names[0]}", "prompt": "Once upon a time", "max_tokens": 40}}'
    told = ""
    if replicas:
        told = (
            f"\n\n{replicas} replica{'s' * (replicas > 1)}, run by Ray Serve. Models cannot be loaded or unloaded "
            "while they serve; a replica knows again only prompts that it has read itself."
        )
    return (
        f"Serving {', '.join(names)} at {url}   (Ctrl-C ends it)\n\n"
        f"  Open {url}/ in a browser: write, chat, and see why each token came.\n\n"
        f"  curl {url}/v1/completions{key} -H \"Content-Type: application/json\" \\\n    -d '{body}'\n\n"
        f'  from openai import OpenAI\n  client = OpenAI(base_url="{url}/v1", api_key="{secret}")\n'
        f'  client.completions.create(model="{names[0]}", prompt="Once upon a time", max_tokens=40)\n\n'
        f"Metrics: {url}/metrics    Keys and usage: {config.keys}{told}"
    )
