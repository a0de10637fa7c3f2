"""A sign of life for health checks: a file, touched while work goes on, that says which process is at work.

Written only where TRAIN_WORKER_HEARTBEAT names the file, as the image does. `docker/healthcheck.py` reads it. A stalled
loop stops calling `beat`, so the file grows old; a thread that beat by itself would hide just that.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

VARIABLE = "TRAIN_WORKER_HEARTBEAT"
_SECONDS = 1.0

_next_beat = 0.0


def beat() -> None:
    """Touch the heartbeat file, at most once a second. Cheap, and never raises: work is worth more than its sign."""
    global _next_beat
    now = time.monotonic()
    if now < _next_beat:
        return
    _next_beat = now + _SECONDS
    name = os.environ.get(VARIABLE)
    if name:
        with suppress(OSError):
            _write(Path(name))


def _write(file: Path) -> None:
    """Whole or not at all, but not made durable: it means nothing after the machine is gone."""
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    fresh.write_text(f"{os.getpid()}\n", "ascii")
    fresh.replace(file)
