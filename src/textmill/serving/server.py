"""The server's life: open models and keys, listen, and end in an orderly way. Listens at a port."""

from __future__ import annotations

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


def bind(config: ServeConfig) -> socket.socket:
    """The socket to listen at.

    Raises:
        UsageError: the address cannot be had.
    """
    try:
        family = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0][0]
        found = socket.socket(family, socket.SOCK_STREAM)
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
) -> None:
    """Serve models until told to end (Ctrl-C, SIGTERM); streams under way may finish then.

    Args:
        models: (run or model folder, name or "").
        config: address and limits.
        engine: an `EngineConfig`.
        device: where to compute.
        started: called with the address and the names once the server listens.

    Raises:
        UsageError: a package is missing, no key guards an open address, a model cannot be served.
    """
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise UsageError(
            "Serving needs further packages.", f"{error.name} is not installed here.",
            'Type: pip install "textmill[serve]"',
        ) from None  # fmt: skip
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
        app = make_app(library, keys, config)
        host, port = listening.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"

        class Server(uvicorn.Server):
            """Says when it listens; at the end refuses new work while what is under way goes on."""

            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                if self.started:
                    started(url, [one.name for one in library.all()])

            async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
                app.service.ready = False
                await super().shutdown(sockets)

        settings = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, date_header=False, lifespan="off",
            timeout_graceful_shutdown=max(1, int(config.drain_seconds)), backlog=2048,
        )  # fmt: skip
        server = Server(settings)
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
