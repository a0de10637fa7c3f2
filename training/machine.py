"""What this process may use of the machine: processors and memory, within its control group's limits; whether GPUs."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
SHARED_MEMORY = Path("/dev/shm")
_NO_LIMIT = 1 << 60  # version 1 writes a number of this size where there is none


def available_cpus(cgroup: Path = CGROUP) -> int:
    """Processors that this process may keep busy; `docker run --cpus` limits time, which affinity does not show."""
    cpus = len(os.sched_getaffinity(0))
    quota = _cpu_quota(cgroup)
    return cpus if quota is None else min(cpus, max(1, math.ceil(quota)))


def available_memory(cgroup: Path = CGROUP) -> int:
    """Bytes of memory that this process may still take."""
    free = _meminfo("MemAvailable")
    limit = memory_limit(cgroup)
    return free if limit is None else max(min(free, limit - _memory_used(cgroup)), 0)


def total_memory(cgroup: Path = CGROUP) -> int:
    """Bytes of memory that this process could ever have."""
    return min(_meminfo("MemTotal"), memory_limit(cgroup) or _NO_LIMIT)


def memory_limit(cgroup: Path = CGROUP) -> int | None:
    """The control group's limit in bytes (version 2, else version 1); None where there is none."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = _number(cgroup / name)
        if limit is not None:
            return limit if limit < _NO_LIMIT else None
    return None


def free_shared_memory(folder: Path = SHARED_MEMORY) -> int | None:
    """Bytes free in /dev/shm, through which loader processes hand over their batches; None where there is none."""
    try:
        state = os.statvfs(folder)
    except OSError:
        return None
    return state.f_bavail * state.f_frsize


def _cpu_quota(cgroup: Path) -> float | None:
    try:
        quota, period = (cgroup / "cpu.max").read_text("ascii").split()
        return int(quota) / int(period)
    except (OSError, ValueError):  # version 1, no control group, or "max"
        pass
    period_us = _number(cgroup / "cpu" / "cpu.cfs_period_us")
    quota_us = _number(cgroup / "cpu" / "cpu.cfs_quota_us")
    return quota_us / period_us if period_us and quota_us is not None and quota_us > 0 else None


def _memory_used(cgroup: Path) -> int:
    """What the group holds, without file pages that the system drops when memory is wanted."""
    for folder, current in ((cgroup, "memory.current"), (cgroup / "memory", "memory.usage_in_bytes")):
        used = _number(folder / current)
        if used is not None:
            return used - _droppable(folder / "memory.stat")
    return 0


def _droppable(stat: Path) -> int:
    try:
        text = stat.read_text("ascii")
    except OSError:
        return 0
    found = re.findall(r"(?m)^(?:total_)?inactive_file (\d+)$", text)  # version 1 also tells it with all groups below
    return max(map(int, found), default=0)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):
        return None


def _meminfo(name: str) -> int:
    lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def nvidia_in_sight() -> bool:
    """Whether the machine shows an NVIDIA GPU, unless the user hides it with an empty CUDA_VISIBLE_DEVICES."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "unset").strip() in ("", "-1"):
        return False
    gpus = Path("/proc/driver/nvidia/gpus")
    return Path("/dev/nvidia0").exists() or (gpus.is_dir() and any(gpus.iterdir()))
