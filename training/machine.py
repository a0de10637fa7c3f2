"""What this process may use of the machine: processors and memory, within its control group's limits."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def available_cpus(cgroup: Path = CGROUP) -> int:
    """Processors that this process may keep busy; `docker run --cpus` limits time, which affinity does not show."""
    cpus = len(os.sched_getaffinity(0))
    try:
        quota, period = (cgroup / "cpu.max").read_text("ascii").split()
        return min(cpus, max(1, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no control group, or "max"
        return cpus


def available_memory(cgroup: Path = CGROUP) -> int:
    """Bytes of memory that this process may still take."""
    meminfo = Path("/proc/meminfo").read_text("ascii").splitlines()
    free = next(int(line.split()[1]) * 1024 for line in meminfo if line.startswith("MemAvailable"))
    try:
        limit = int((cgroup / "memory.max").read_text("ascii"))
        used = int((cgroup / "memory.current").read_text("ascii"))
    except (OSError, ValueError):
        return free
    return max(min(free, limit - used), 0)
