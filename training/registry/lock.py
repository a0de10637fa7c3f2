"""Whether somebody is at work on a run, asked without getting in the way."""

from __future__ import annotations

import fcntl
import os

LOCK = ".lock"  # of `training.runs.run.Run.locked`


def at_work(folder: str) -> bool:
    """Whether a process holds the run's lock.

    The lock is tried for reading, which takes it from a worker that starts in this very instant; that one waits for a
    moment before it gives up. Where locks cannot be asked about, nobody is said to be at work.
    """
    try:
        descriptor = os.open(f"{folder}/{LOCK}", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
