"""Runs one function over many jobs: in this process, in N processes, or on a Ray cluster. Starts processes; what
the jobs write is theirs.

The function must be importable and its jobs picklable; a job's result depends on the job alone, so results are
the same whatever runs them. Every machine of a Ray cluster must see the run's folder under the same path.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Literal, TypeVar

from textmill.base.errors import Failure, UsageError

Job = TypeVar("Job")
Result = TypeVar("Result")
Engine = Literal["local", "ray"]


def _quiet_worker() -> None:
    """One thread a process, and Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    import pyarrow as pa

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)


def _local(function: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Iterator[tuple[int, Result]]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_quiet_worker)
    try:
        running = {}
        todo = iter(enumerate(jobs))
        for number, job in todo:
            running[pool.submit(function, job)] = number
            if len(running) < 2 * workers:  # a short queue, so that a stop wastes little
                continue
            yield from _finished(running)
        while running:
            yield from _finished(running)
    except BrokenProcessPool as error:
        raise Failure(
            "A worker process died.",
            "The system ended it, most often because memory ran out.",
            "Type the same command again with fewer --workers; what is done is kept.",
        ) from error
    finally:
        for process in list((pool._processes or {}).values()):
            if process.is_alive() and running:
                process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


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
