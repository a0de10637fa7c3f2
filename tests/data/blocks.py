"""How the tests' blocks are made: a module that worker processes import quickly."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np

from backend.errors import BadDataError

SHAPE = (2, 3, 4)


def make(log: Path, path: Path, content: bytes) -> np.ndarray:
    """A block of the source's byte; each call leaves a line in ``log``."""
    with log.open("a") as file:
        file.write(path.name + "\n")
    if content.startswith(b"bad"):
        raise BadDataError(f"{path}: bad")
    if content.startswith(b"die"):
        os.kill(os.getpid(), signal.SIGKILL)
    return np.arange(24, dtype=np.uint8).reshape(SHAPE) + np.uint8(content[0])


def telling_make(log: Path, path: Path, content: bytes) -> tuple[np.ndarray, list[object]]:
    """A block, and what was learned of its source."""
    return make(log, path, content), [path.name, len(content)]


def slow_make(log: Path, path: Path, content: bytes) -> np.ndarray:
    time.sleep(0.02)
    return make(log, path, content)
