"""One download in a process of its own, watched from here.

A process and not a thread, because nothing but a kill ends what hangs in name resolution, in a proxy's handshake or in
a library's own loop; and because one that is left behind could go on writing to the file that the next one continues.
"""

from __future__ import annotations

import importlib
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from filelock import FileLock

from backend.errors import DiskError
from training.data.workers import signals_held, start_worker
from training.fetching.download import Job, Received, SourceError, Voice, disk_error

_POLL_SECONDS = 0.1  # how long a stop can go unnoticed
_LEAVE_SECONDS = 2.0  # for a killed process to be gone
_MODULES = {
    kind: f"training.fetching.download_{module}"
    for kind, module in {"gdrive": "drive", "https": "https", "fsspec": "fsspec", "rclone": "rclone"}.items()
}


class OutOfTimeError(Exception):
    """The time for the whole fetch is over."""


@dataclass(frozen=True)
class Watch:
    """Who is told of a download, and what ends it."""

    stall: float  # seconds without a new byte, pauses that a server asked for left out
    deadline: float  # of time.monotonic()
    received: Callable[[int, int | None], None]  # bytes: (done, total)
    reading: Callable[[int, int], None]  # the same of what is there, for its sha256
    say: Callable[[str], None]
    check_stop: Callable[[], None]


def download(job: Job, watch: Watch) -> Received:
    """``job`` done; what is there of it stays in its folder, whatever ends it.

    Raises SourceError, OutOfTimeError, DiskError, and what ``watch.check_stop`` raises.
    """
    with _running(job) as (process, pipe):
        patience = time.monotonic() + watch.stall
        most = -1
        while True:
            message = _next_message(process, pipe)
            watch.check_stop()
            now = time.monotonic()
            match message:
                case ("bytes", done, total):
                    watch.received(done, total)
                    if done != most:
                        most, patience = done, now + watch.stall
                case ("reading", done, total):
                    watch.reading(done, total)
                    patience = now + watch.stall
                case ("waiting", seconds, why):
                    watch.say(f"  {why}; next try in {seconds:.0f} s")
                    patience = now + seconds + watch.stall
                case ("done", received):
                    return received
                case (kind, *facts):
                    raise _error(kind, facts, job)
            if now > watch.deadline:
                raise OutOfTimeError
            if now > patience:
                raise SourceError(f"it stalled: no new byte for {watch.stall:g} s")


@contextmanager
def _running(job: Job) -> Iterator[tuple[BaseProcess, Connection]]:
    """The download's process; it and what it started are gone after the block."""
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(job, theirs), daemon=True)
    with signals_held():
        process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        for kill in (lambda: os.killpg(process.pid or 0, signal.SIGKILL), process.kill):
            with suppress(ProcessLookupError, PermissionError):  # it may not lead a group yet
                kill()
        ours.close()
        process.join(_LEAVE_SECONDS)
        with suppress(ValueError):  # a dead disk or mount may hold it; it ends when that lets go
            process.close()


def _next_message(process: BaseProcess, pipe: Connection) -> tuple[Any, ...] | None:
    if not pipe.poll(_POLL_SECONDS):
        return None
    try:
        message: tuple[Any, ...] = pipe.recv()
    except EOFError:
        process.join()
        return ("gone", process.exitcode)
    return message


def _error(kind: str, facts: list[Any], job: Job) -> Exception:
    if kind == "fault":
        return SourceError(*facts)
    if kind == "disk":
        code, words, place = facts
        return DiskError(
            f"{place or job.folder}: {words} ({code}) during the download; free some space, or name another place with "
            "--datasets, and run the same command: it goes on from what is there"
        )
    if kind == "gone":
        return SourceError(f"its download was killed (exit code {facts[0]}), perhaps because memory ran out")
    return RuntimeError(f"the download of {job.kind} failed:\n{facts[0]}")


def _work(job: Job, pipe: Connection) -> None:
    """The process: downloads, and says how it went."""
    os.setpgid(0, 0)
    start_worker()
    _be_quiet()
    voice = Voice(pipe.send)
    try:
        with FileLock(job.folder / ".lock", timeout=10):  # one that a kill left behind is about to leave
            received = importlib.import_module(_MODULES[job.kind]).download(job, voice)
        pipe.send(("done", received))
    except SourceError as fault:
        pipe.send(("fault", str(fault)))
    except Exception as error:
        disk = disk_error(error)
        pipe.send(("disk", disk.errno, disk.strerror, disk.filename) if disk else ("bug", traceback.format_exc()))


def _be_quiet() -> None:
    """Libraries have nothing to say on the worker's terminal; what matters goes through the pipe."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
