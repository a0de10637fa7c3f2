"""One process fetches a thing; the others wait for their turn, and are told why."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from training.fetching.archive import Tellers

_POLL_SECONDS = 0.2


@contextmanager
def turn(path: Path, name: str, tell: Tellers) -> Iterator[None]:
    """Hold the lock at ``path`` while ``name`` is fetched; wait for another process that fetches it.

    Raises:
        InterruptedRunError: a stop was asked for while waiting.
    """
    lock, told = FileLock(path), False
    while not lock.is_locked:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not told:
                tell.say(f"{name}: another process is fetching it; waiting for that")
                told = True
            tell.check_stop()
            time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()
