"""Several servers as one: replicas that Ray Serve runs, behind one address. Starts Ray's processes; listens at a port.

Models, engines and connections to databases cannot be sent to another process, so each replica makes its own, from
paths and settings. What is kept between them is kept in the store of keys.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from textmill.base.errors import Failure, UsageError
from textmill.base.hardware import hardware
from textmill.generation.engine.config import EngineConfig
from textmill.serving.config import ServeConfig
from textmill.serving.server import bind, check_address, need_packages, url_of

NAME = "textmill"
"""Of the application, and of its one deployment."""
OBJECT_STORE_BYTES = 128 << 20
"""Requests and answers pass through it, models do not; Ray would take a third of the memory."""
PATIENCE_SECONDS = 30.0
"""In which Ray may start what listens anew."""
UNLIMITED = 1_000_000
"""Requests that Ray may hand to a replica: its engine knows better than Ray when it is busy, and says so."""
LOCAL = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    # Whoever reaches Ray's own ports may run code: they listen on this machine alone (the name is older than this
    # use of it), and ask for a token.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
}
"""Environment of a Ray that is started for one server."""


class Replica:
    """One of the servers: its own models, engines and application, in a process of Ray's.

    Args:
        models: (run or model folder, name).
        config: address and limits.
        engine: settings of each engine.
        device: where to compute.
    """

    def __init__(
        self, models: Sequence[tuple[Path, str]], config: ServeConfig, engine: EngineConfig, device: str | None
    ) -> None:
        from textmill.serving.app import make_app
        from textmill.serving.keys import KeyStore
        from textmill.serving.library import Library
        from textmill.serving.metrics import Metrics

        class SharedMetrics(Metrics):
            """Whichever replica is asked tells of all."""

            def text(self) -> bytes:
                return _merged(_everyone("families"))

        self.metrics, self.open = SharedMetrics(), 0
        self.library = Library(engine, self.metrics)
        for path, name in models:
            self.library.load(path, name, device)
        self.guard = make_app(self.library, KeyStore(config.keys), config, replica=True)

    def __serve_build_asgi_app__(self) -> Any:  # Ray Serve asks for the application by this name
        async def counted(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await self.guard(scope, receive, send)
                return
            self.open += 1
            try:
                await self.guard(scope, receive, send)
            finally:
                self.open -= 1

        return counted

    def check_health(self) -> None:
        """Ray Serve asks from time to time, and replaces a replica that raises."""
        for served in self.library.all():
            if served.engine is not None and not served.engine.alive:
                raise RuntimeError(f"the engine of {served.name} has stopped")

    def finish(self) -> int:
        """Take no new work. How many requests are still under way."""
        self.guard.service.ready = False
        return self.open

    def families(self) -> list[Any]:
        """What this replica measures, each sample with the replica's number."""
        from ray import serve

        number = str(serve.get_replica_context().rank.rank)
        found = list(self.metrics.registry.collect())
        for family in found:
            family.samples = [one._replace(labels={**one.labels, "replica": number}) for one in family.samples]
        return found


def _everyone(method: str) -> list[Any]:
    """What a method of every replica gives."""
    from ray import serve

    return serve.get_deployment_handle(NAME, NAME).broadcast(method).results(timeout_s=10)


def _merged(replicas: Sequence[list[Any]]) -> bytes:
    """Metrics of several replicas in Prometheus' text format, which wants all samples of one metric together."""
    from prometheus_client import generate_latest

    families: dict[str, Any] = {}
    for found in replicas:
        for family in found:
            if family.name in families:
                families[family.name].samples += family.samples
            else:
                families[family.name] = family

    class Together:
        def collect(self) -> Iterator[Any]:
            return iter(families.values())

    return generate_latest(Together())  # type: ignore[arg-type]


def share(nodes: Sequence[dict[str, Any]], replicas: int, device: str | None) -> tuple[int, float]:
    """Threads and GPUs of each replica, such that all find room and none takes another's.

    Args:
        nodes: machines, as `ray.nodes()` tells of them.
        replicas: how many.
        device: where to compute.
    """
    resources = [node["Resources"] for node in nodes if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    if not resources:
        raise Failure("The Ray cluster has no CPU to give.", fix="Start machines for it: ray start --address …")
    most = -(-replicas // len(resources))  # on one machine
    threads = max(1, int(min(one["CPU"] for one in resources)) // most)
    gpus = int(sum(one.get("GPU", 0) for one in resources)) if device != "cpu" else 0
    return threads, 1 / -(-replicas // gpus) if gpus else 0.0


def serve_replicas(
    models: Sequence[tuple[Path, str]],
    config: ServeConfig,
    engine: EngineConfig,
    device: str | None = None,
    started: Callable[[str, list[str]], None] = lambda _url, _names: None,
    replicas: int = 1,
) -> None:
    """Serve models from several processes until told to end (Ctrl-C, SIGTERM); streams under way may finish then.

    Args:
        models: (run or model folder, name or "").
        config: address and limits.
        engine: settings of each engine.
        device: where to compute.
        started: called with the address and the names once the server listens.
        replicas: how many.

    Raises:
        UsageError: a package is missing, no key guards an open address, a model cannot be served.
        Failure: Ray, or a replica, does not start.
    """
    if "RAY_ADDRESS" not in os.environ:
        os.environ.update(LOCAL, RAY_AUTH_TOKEN=secrets.token_hex(32))  # before Ray is imported, which reads them
    _check(replicas, config, device)
    need_packages()
    from textmill.serving.keys import KeyStore

    named = _named(models)
    check_address(config, KeyStore(config.keys).empty())
    # Replicas may work in other folders.
    keys = config.keys if "://" in config.keys else str(Path(config.keys).expanduser().absolute())
    audit = str(Path(config.audit).expanduser().absolute()) if config.audit else ""
    draft = str(Path(engine.draft).absolute()) if engine.draft else ""
    config, engine = replace(config, keys=keys, audit=audit), replace(engine, draft=draft)
    if "RAY_ADDRESS" not in os.environ:
        with contextlib.closing(bind(config)) as free:  # a free port, or why there is none, before Ray takes its time
            config = replace(config, port=free.getsockname()[1])
    with _ray(replicas) as ray:
        from ray import serve

        if len(ray.nodes()) > 1 and not config.keys.startswith("postgresql"):
            raise UsageError(
                "Replicas on several machines need one store of keys.",
                f"{config.keys} is a file, and another on each of them.",
                "Name a database: --keys postgresql+psycopg://user@host/name",
            )
        threads, gpus = share(ray.nodes(), replicas, device)
        engine = replace(engine, threads=min(engine.threads or threads, threads))
        quiet = {"log_level": "ERROR", "enable_access_log": False}
        deploy = serve.deployment(
            name=NAME, num_replicas=replicas, max_ongoing_requests=UNLIMITED, max_constructor_retry_count=1,
            graceful_shutdown_wait_loop_s=0.1, graceful_shutdown_timeout_s=2.0,
            ray_actor_options={"num_cpus": threads, "num_gpus": gpus},
        )  # fmt: skip
        try:
            serve.start(
                proxy_location="HeadOnly", http_options={"host": config.host, "port": config.port}, logging_config=quiet
            )
            application = deploy(serve.ingress()(Replica)).bind(named, config, engine, device)
            serve.run(application, name=NAME, route_prefix="/", logging_config=quiet)
        except RuntimeError as error:
            served = serve.status().applications.get(NAME)
            said = [one.message for one in served.deployments.values() if one.message] if served else []
            raise Failure(
                "The replicas could not start.",
                _reason(said[0] if said else str(error)),
                "See whether one server can: leave --engine ray out.",
            ) from None
        ending = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ending.set())
        started(url_of(config.host, config.port), [name for _, name in named])
        _wait(ending, config)
        ending.clear()
        _finish(ending, config.drain_seconds)


def _check(replicas: int, config: ServeConfig, device: str | None) -> None:
    """Refuse what cannot work."""
    if replicas < 1:
        raise UsageError(f"{replicas} replicas serve nobody.", fix="Give --replicas 1 or more.")
    if device is not None and device.startswith("cuda:"):
        raise UsageError(
            f"Ray chooses each replica's GPU, so --device {device} cannot be had.", fix="Say --device cuda, or cpu."
        )
    if config.port == 0 and "RAY_ADDRESS" in os.environ:
        raise UsageError("The cluster's machines cannot be asked for a free port.", fix="Name one, such as --port 8000")
    try:
        import ray.serve  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "--engine ray needs Ray Serve.", f"It is not installed here ({error}).",
            'Type: pip install "textmill[serve,ray]"',
        ) from None  # fmt: skip


def _named(models: Sequence[tuple[Path, str]]) -> list[tuple[Path, str]]:
    """The models with full paths and the names that they will have.

    Raises:
        UsageError: one is missing, or two have one name; here, before Ray starts, and not in a replica's log.
    """
    from textmill.serving.library import own_name, weights_at

    named: dict[str, Path] = {}
    for path, name in models:
        weights_at(path)
        name = name or own_name(path)
        if name in named:
            raise UsageError(
                f'A model named "{name}" is served already.', fix=f"Give another name: {path} --alias other-name"
            )
        named[name] = path.absolute()
    return [(path, name) for name, path in named.items()]


@contextlib.contextmanager
def _ray(replicas: int) -> Iterator[Any]:
    """Ray while it is needed: the cluster that RAY_ADDRESS leads to, or one of our own that ends with us."""
    cluster = "RAY_ADDRESS" in os.environ
    folder = None
    if not cluster:
        # A folder of our own, which others on this machine cannot enter; a short path, because sockets lie in it.
        folder = tempfile.mkdtemp(prefix="textmill-ray-", dir="/tmp" if Path("/tmp").is_dir() else None)
    import ray
    from ray import serve

    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    here: dict[str, Any] = {
        "num_cpus": max(hardware().cores, replicas), "include_dashboard": False,
        "object_store_memory": OBJECT_STORE_BYTES, "_temp_dir": folder,
    }  # fmt: skip
    ours = False
    try:
        try:
            ray.init(logging_level=logging.ERROR, log_to_driver=False, **({} if cluster else here))
            signal.signal(signal.SIGTERM, before[signal.SIGTERM])  # Ray put its own in its place
            taken = cluster and bool(serve.status().proxies)
        except SystemExit:  # what Ray makes of a SIGTERM that comes while it starts
            raise KeyboardInterrupt from None
        except (OSError, RuntimeError, ray.exceptions.RayError) as error:
            raise Failure("Ray could not start.", _reason(str(error)), "Look at Ray's own log.") from None
        if taken:
            raise UsageError(
                "The cluster serves something already.",
                "Ray Serve runs there, with an address of its own.",
                "End that with: serve shutdown; or unset RAY_ADDRESS, to serve from this machine alone.",
            )
        ours = True
        yield ray
    finally:
        with contextlib.suppress(Exception):  # the cluster may be what failed
            if cluster and ours:
                serve.shutdown()
        ray.shutdown()
        for number, handler in before.items():
            signal.signal(number, handler)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _reason(report: str) -> str:
    """What a long report of Ray's comes down to."""
    lines = [line.strip() for line in report.splitlines() if line.strip()]
    errors = [line for line in lines if "Error: " in line or "Failure: " in line]
    return (errors or lines or ["It does not say why."])[-1].removeprefix("textmill.base.errors.")[:500]


def _wait(ending: threading.Event, config: ServeConfig) -> None:
    """Until told to end. Ray Serve replaces replicas that end; if Ray itself ends, nobody would notice but us.

    Raises:
        Failure: nothing listens any more.
    """
    heard = time.monotonic()
    while not ending.wait(2.0):
        if "RAY_ADDRESS" in os.environ:  # a cluster has others who look after it, and its head may be far from here
            continue
        with contextlib.suppress(OSError):
            socket.create_connection((config.host, config.port), timeout=2.0).close()
            heard = time.monotonic()
        if time.monotonic() - heard > PATIENCE_SECONDS:
            raise Failure(
                f"Nothing has listened at port {config.port} for {PATIENCE_SECONDS:.0f} seconds.",
                "Ray has ended, most often because memory ran out.",
                "Start the server anew, with fewer --replicas if memory is short.",
            )


def _finish(hurry: threading.Event, seconds: float) -> None:
    """Refuse new requests, wait for those under way, end the replicas."""
    ends = time.monotonic() + seconds
    with contextlib.suppress(Exception):  # a replica that does not answer any more has nothing to finish
        while any(_everyone("finish")):
            if time.monotonic() > ends or hurry.wait(0.1):
                return
        from ray import serve

        serve.delete(NAME)  # waits until the last bytes are on their way
