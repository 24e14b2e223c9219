"""Runs one function over many jobs: in this process, in N processes, or on a Ray cluster. Starts processes; what
the jobs write is theirs.

The function must be importable and its jobs picklable; a job's result depends on the job alone, so results are
the same whatever runs them. Every machine of a Ray cluster must see the run's folder under the same path.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from typing import Any, TypeVar

from textmill.base.errors import Failure, UsageError
from textmill.base.lean import start_lean
from textmill.corpus import foundry
from textmill.corpus.workforce import Engine

Job = TypeVar("Job")
Result = TypeVar("Result")


def _begin() -> None:
    """What a worker does first: its own signals, one thread, few libraries."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    start_lean()
    import pyarrow as pa

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for jobs for ever, and write where the next run writes."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _local(function: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Iterator[tuple[int, Result]]:
    lease = ExitStack()
    pool = ProcessPoolExecutor(workers, mp_context=lease.enter_context(foundry.in_use()), initializer=_begin)
    running: dict[Any, int] = {}
    whole = False
    try:
        for number, job in enumerate(jobs):
            with foundry.undisturbed():
                running[pool.submit(function, job)] = number
            if len(running) < 2 * workers:  # a short queue, so that a stop wastes little
                continue
            yield from _finished(running)
        while running:
            yield from _finished(running)
        whole = True
    except (BrokenProcessPool, OSError) as error:
        # A pool that breaks while it starts another worker closes the pipes that the new one was to be given.
        if isinstance(error, OSError) and not pool._broken:
            raise
        raise Failure(
            "A worker process died.",
            "The system ended it, most often because memory ran out.",
            "Type the same command again with fewer --workers; what is done is kept.",
        ) from error
    finally:
        if whole:  # they end by themselves; nothing needs to wait for it
            threading.Thread(target=_dismiss, args=(pool, lease)).start()
        else:
            for process in list((pool._processes or {}).values()):
                if process.is_alive():
                    process.terminate()
            _dismiss(pool, lease)


def _dismiss(pool: ProcessPoolExecutor, lease: ExitStack) -> None:
    with lease:
        pool.shutdown(wait=True, cancel_futures=True)
    foundry.stop()


def _finished(running: dict[Any, int]) -> Iterator[tuple[int, Any]]:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        number = running[future]
        result = future.result()
        del running[future]
        yield number, result


def _ray(function: Callable[[Job], Result], jobs: Sequence[Job], workers: int | None) -> Iterator[tuple[int, Result]]:
    try:
        os.environ.setdefault("RAY_DEDUP_LOGS", "1")
        import logging

        import ray
        import ray.data
    except ImportError as error:
        raise UsageError(
            "--engine ray needs Ray.", "It is not installed here.", 'Type: pip install "textmill[ray]"'
        ) from error

    started = not ray.is_initialized()
    if started:
        # RAY_ADDRESS, set on a cluster's machines, leads to the cluster; without it Ray starts on this machine alone.
        here = {"num_cpus": workers, "include_dashboard": False}
        options: dict[str, Any] = {} if os.environ.get("RAY_ADDRESS") else here
        ray.init(logging_level=logging.ERROR, log_to_driver=False, **options)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False

    def call(row: dict[str, Any]) -> dict[str, Any]:
        import pickle

        return {"number": row["number"], "result": pickle.dumps(function(pickle.loads(row["job"])))}

    import pickle

    try:
        rows = [{"number": number, "job": pickle.dumps(job)} for number, job in enumerate(jobs)]
        data: Any = ray.data.from_items(rows, override_num_blocks=max(1, len(rows)))
        data = data.map(call, concurrency=workers) if workers else data.map(call)
        for row in data.iter_rows():
            yield row["number"], pickle.loads(row["result"])
    except ray.exceptions.RayError as error:
        raise Failure("The Ray job failed.", str(error).strip().splitlines()[-1], "Look at Ray's own log.") from error
    finally:
        if started:
            ray.shutdown()


def _threads(function: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Iterator[tuple[int, Result]]:
    with ThreadPoolExecutor(workers) as pool:
        running = {pool.submit(function, job): number for number, job in enumerate(jobs)}
        try:
            while running:
                yield from _finished(running)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def run_jobs(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    engine: Engine = "local",
    workers: int | None = None,
    threads: bool = False,
) -> Iterator[tuple[int, Result]]:
    """Results of `function` for every job as they finish, each with its job's number.

    Args:
        function: a module's own function.
        jobs: picklable.
        engine: "local" for this machine's processes, "ray" for a Ray cluster.
        workers: processes, or Ray tasks at a time (None: all cores, or whatever the cluster has).
        threads: the work is done by libraries that leave the interpreter free, so local workers may be threads, which
            start at once.

    Raises:
        UsageError: Ray is not installed.
        Failure: a worker died.
    """
    if engine == "ray":
        yield from _ray(function, jobs, workers)
        return
    from textmill.base.hardware import hardware

    count = min(workers or hardware().cores, len(jobs))
    if count <= 1:
        for number, job in enumerate(jobs):
            yield number, function(job)
        return
    yield from (_threads if threads else _local)(function, jobs, count)
