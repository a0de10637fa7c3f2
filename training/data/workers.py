"""Worker processes for preparation: started afresh, deaf to the signals meant for the parent, gone when it is gone."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context, parent_process
from types import TracebackType
from typing import TypeVar

from backend.errors import ConfigError

Job = TypeVar("Job")
Result = TypeVar("Result")

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")  # the cores are all busy
_SIGNALS = {signal.SIGINT, signal.SIGTERM}
_JOBS_PER_WORKER = 2  # one being done and one waiting: workers never idle, memory stays small
_POLL_SECONDS = 0.25  # how long a stop can go unnoticed while every worker is busy


def _leave_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def start_worker() -> None:
    """For the beginning of a worker process: the parent alone decides when to stop, and nobody outlives it."""
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))  # before numerical libraries are imported here
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


@contextmanager
def signals_held() -> Iterator[None]:
    """Around the spawning of a process: it inherits the mask, so no signal ends it before it ignores them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class WorkerPool:
    """Runs a module-level function over jobs in ``workers`` processes; with one worker, in this process.

    Processes are spawned, because netCDF4 and CUDA do not survive a fork. `check_stop` is called between results.
    """

    def __init__(self, workers: int, check_stop: Callable[[], None]) -> None:
        self.workers = workers
        self._check_stop = check_stop
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None

    def run(self, function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """Results in the order in which they are done. Errors of a job are raised here."""
        if self.workers > 1:
            yield from self._run_in_processes(function, iter(jobs))
            return
        for job in jobs:
            self._check_stop()
            yield function(job)

    def _run_in_processes(self, function: Callable[[Job], Result], jobs: Iterator[Job]) -> Iterator[Result]:
        under_way: set[Future[Result]] = set()
        try:
            while True:
                for job in islice(jobs, _JOBS_PER_WORKER * self.workers - len(under_way)):
                    under_way.add(self._submit(function, job))
                if not under_way:
                    return
                done, under_way = wait(under_way, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
                self._check_stop()
        except BrokenProcessPool as error:
            raise ConfigError(
                "A preparation worker was killed, most likely because memory ran out. "
                "Set data.prepare_workers to a smaller number; finished work is kept."
            ) from error

    def _submit(self, function: Callable[[Job], Result], job: Job) -> Future[Result]:
        if self._executor is None:
            self._executor = ProcessPoolExecutor(self.workers, get_context("spawn"), initializer=start_worker)
        with signals_held():  # a process may be spawned here
            return self._executor.submit(function, job)
