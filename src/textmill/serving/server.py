"""The server's life: open models and keys, listen, and end in an orderly way. Listens at a port."""

from __future__ import annotations

import gc
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from textmill.base.errors import Failure, UsageError
from textmill.serving.config import ServeConfig


def check_address(config: ServeConfig, no_keys: bool) -> None:
    """Refuse to serve others without a key.

    Raises:
        UsageError: with the commands that make one.
    """
    if not config.local and no_keys:
        raise UsageError(
            f"The server would be open to everyone who reaches {config.host}.",
            f"There is no key in {config.keys} yet.",
            f"Make one first: textmill keys create NAME --keys {config.keys}; or listen here alone: --host 127.0.0.1",
        )


def need_packages() -> None:
    """Refuse to go on without what a server is made of.

    Raises:
        UsageError: with the command that brings it.
    """
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "Serving needs further packages.", f"{error.name} is not installed here.",
            'Type: pip install "textmill[serve]"',
        ) from None  # fmt: skip


def url_of(host: str, port: int) -> str:
    """The address to type."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def adapter_of(text: str, models: Sequence[str]) -> tuple[str, Path, str]:
    """Name, folder and model ("" if none is named) of an adapter from NAME=PATH or NAME=PATH@MODEL.

    Args:
        text: what was typed.
        models: names of the models that are served.

    Raises:
        UsageError: it is neither.
    """
    name, _, path = text.partition("=")
    if not name or not path:
        raise UsageError(f"--lora {text} is no adapter.", fix="Give a name and a folder: --lora mine=adapters/mine")
    before, _, model = path.rpartition("@")
    if before and (model in models or not Path(path).exists()):  # a folder's own name may hold an @
        return name, Path(before), model
    return name, Path(path), ""


def bind(config: ServeConfig) -> socket.socket:
    """The socket to listen at.

    Raises:
        UsageError: the address cannot be had.
    """
    try:
        family = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0][0]
        # asyncio sends at once (TCP_NODELAY) only where the protocol is named; else answers wait 40 ms for an echo.
        found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((config.host, config.port))
    except OSError as error:
        raise UsageError(
            f"Nothing can listen at {config.host}, port {config.port}.",
            f"{error.strerror or error}.",
            "Something else may listen there: take another port, such as --port 8001, or --port 0 for a free one.",
        ) from None
    return found


def serve(
    models: Sequence[tuple[Path, str]],
    config: ServeConfig,
    engine: object,
    device: str | None = None,
    started: Callable[[str, list[str]], None] = lambda _url, _names: None,
    adapters: Sequence[str] = (),
) -> None:
    """Serve models until told to end (Ctrl-C, SIGTERM); streams under way may finish then.

    Args:
        models: (run or model folder, name or "").
        config: address and limits.
        engine: an `EngineConfig`.
        device: where to compute.
        started: called with the address and the names once the server listens.
        adapters: LoRA adapters, each NAME=PATH or NAME=PATH@MODEL.

    Raises:
        UsageError: a package is missing, no key guards an open address, a model cannot be served.
    """
    need_packages()
    import uvicorn

    from textmill.serving.app import make_app
    from textmill.serving.keys import KeyStore
    from textmill.serving.library import Library
    from textmill.serving.metrics import Metrics

    keys = KeyStore(config.keys)
    check_address(config, keys.empty())
    listening = bind(config)
    library = Library(engine, Metrics())  # type: ignore[arg-type]
    try:
        for path, name in models:
            library.load(path, name, device)
        for one in adapters:
            library.load_adapter(*adapter_of(one, [served.name for served in library.all()]))
        app = make_app(library, keys, config)
        url = url_of(*listening.getsockname()[:2])

        class Server(uvicorn.Server):
            """Says when it listens; at the end refuses new work while what is under way goes on."""

            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                if self.started:
                    started(url, [one.name for one in library.all()])

            async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
                app.service.ready = False
                await super().shutdown(sockets)

        # The loop and the parser that are always there: another extra brings others, which uvicorn would take unasked.
        settings = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, date_header=False, lifespan="off",
            timeout_graceful_shutdown=max(1, int(config.drain_seconds)), backlog=2048, loop="asyncio", http="h11",
        )  # fmt: skip
        server = Server(settings)
        # What is here now stays: it is not looked through again. Otherwise the hundreds of thousands of objects of
        # libraries let garbage pile up until it is a quarter of them, and stop all requests while it is looked for.
        gc.collect()
        gc.freeze()
        try:
            server.run([listening])
        except KeyboardInterrupt:  # uvicorn ends in order, then raises the signal that it was told by once more
            if not server.started:
                raise
        app.service.audit.close()
    except SystemExit as error:
        raise Failure("The server could not start.", str(error), "See the lines above.") from None
    finally:
        listening.close()
        library.close(1.0)
