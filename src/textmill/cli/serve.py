"""`textmill serve`: models behind an OpenAI-compatible API. Listens at a port, reads models, writes usage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from textmill.cli.options import Json, Quiet
from textmill.generation.engine.config import EngineConfig
from textmill.serving.config import ServeConfig

SERVER = Group("Server", sort_key=5)
ENGINE = Group("Engine", sort_key=6)


def serve(
    *runs: Path,
    alias: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    server: Annotated[ServeConfig, Parameter(name="*", group=SERVER)] = ServeConfig(),  # noqa: B008 (frozen)
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

        curl http://127.0.0.1:8000/v1/completions -H "Content-Type: application/json" -d '{"prompt": "Once upon"}'

    Parameters
    ----------
    runs
        The runs (or model folders) to serve.
    alias
        Names to serve them under, in their order; by default those of their folders.
    server
        Where to listen, for whom, how much.
    engine
        How many requests at once, in how much memory.
    device
        Where to compute: cpu, cuda; left out, a GPU if there is one.
    """
    import json as json_format

    from textmill.base.errors import UsageError
    from textmill.serving.server import serve as serve_models

    if not runs:
        raise UsageError("There is no model to serve.", fix="Name a run: textmill serve runs/mine")
    if alias and len(alias) != len(runs):
        raise UsageError(
            f"{len(alias)} aliases do not fit {len(runs)} runs.", fix="Give one --alias for each run, or none."
        )

    def started(url: str, names: list[str]) -> None:
        if json:
            print(json_format.dumps({"url": url, "models": names}), flush=True)
        elif not quiet:
            print(_welcome(url, names, server), flush=True)

    names = alias or ("",) * len(runs)
    serve_models(list(zip(runs, names, strict=True)), server, engine, device, started)
    if not quiet and not json:
        print("The server has ended.", flush=True)


def _welcome(url: str, names: list[str], config: ServeConfig) -> str:
    """How to reach the models."""
    key = "" if config.local else ' -H "Authorization: Bearer KEY"'
    secret = "none" if config.local else "KEY"
    body = f'{{"model": "{names[0]}", "prompt": "Once upon a time", "max_tokens": 40}}'
    return (
        f"Serving {', '.join(names)} at {url}   (Ctrl-C ends it)\n\n"
        f"  Open {url}/ in a browser: write, chat, and see why each token came.\n\n"
        f"  curl {url}/v1/completions{key} -H \"Content-Type: application/json\" \\\n    -d '{body}'\n\n"
        f'  from openai import OpenAI\n  client = OpenAI(base_url="{url}/v1", api_key="{secret}")\n'
        f'  client.completions.create(model="{names[0]}", prompt="Once upon a time", max_tokens=40)\n\n'
        f"Metrics: {url}/metrics    Keys and usage: {config.keys}"
    )
