"""Whether the worker in this container makes progress: exit code 0, or 1 and a line that says since when it does not.

The worker keeps a heartbeat file that holds its process number (`training/heartbeat.py`). A worker that is there and
has not touched the file for TRAIN_WORKER_STALL_MINUTES (10) is stalled. No file, or one that a worker left which is
gone, is no trouble: none is at work. Standard library alone, and quick.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

DEFAULT_FILE = "/dev/shm/train_worker.heartbeat"
DEFAULT_MINUTES = 10.0


def stalled_for(file: Path, now: float, processes: Path = Path("/proc")) -> float:
    """Minutes since the worker last touched ``file``; 0 where no worker is at work."""
    try:
        worker, touched = int(file.read_text("ascii")), file.stat().st_mtime
    except (OSError, ValueError):
        return 0.0
    return max(now - touched, 0.0) / 60 if (processes / str(worker)).exists() else 0.0


def main(environ: Mapping[str, str]) -> int:
    """Say how it stands; the exit code for Docker."""
    file = Path(environ.get("TRAIN_WORKER_HEARTBEAT") or DEFAULT_FILE)
    limit = float(environ.get("TRAIN_WORKER_STALL_MINUTES") or DEFAULT_MINUTES)
    minutes = stalled_for(file, time.time())
    if minutes > limit:
        sys.stdout.write(f"stalled: no progress for {minutes:.1f} minutes, expected some every {limit:g}\n")
        return 1
    sys.stdout.write("at work or idle\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(os.environ))
