"""Checks of the machine around the GPU: processors, memory, shared memory, clock."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from training.doctor.finding import Finding, failed, note, ok, warning
from training.doctor.job import Sizes
from training.engine.device import Choice
from training.reporting.units import GIB

PROGRAM_BYTES = {"cpu": 1 * GIB, "cuda": 4 * GIB}  # Python with its libraries; CUDA's are large
_PREPARE_BYTES = GIB // 2  # one process that prepares data
_SURE = 1.25  # an estimate this much above all there is does not come true by luck
_CLOCK_SLACK = 120.0
_CODE = Path(__file__).resolve().parent.parent


def check_processors(usable: int, there: int, device_type: str, workers: int) -> Finding:
    """Processors that may be used, within the control group's limit."""
    name = "processors"
    told = f"{usable} of {there}" if usable < there else f"{usable}"
    if device_type == "cuda" and workers > 0 and usable < 2:
        return warning(name, f"{told}, which must feed the GPU", "allow more: docker's --cpus, or another machine")
    return ok(name, told, {"usable": usable, "there": there})


def check_memory(free: int, total: int, limit: int | None, need: int) -> Finding:
    """Memory that may be used, within the control group's limit, against what the training takes at least."""
    name = "memory"
    has = f"{free / GIB:.1f} of {total / GIB:.1f} GiB free" + ("" if limit is None else ", limited by the container")
    takes = f"about {need / GIB:.1f} GiB needed"
    numbers = {"free_bytes": free, "total_bytes": total, "limit_bytes": limit, "need_bytes": need}
    remedy = "a smaller input or model, fewer data.prepare_workers and training.num_workers, or more memory" + (
        "" if limit is None else " (docker's --memory)"
    )
    if need > _SURE * total:
        return failed(name, f"{has}, {takes}", remedy, numbers)
    if need > free:
        return warning(name, f"{has}, {takes}", remedy, numbers)
    return ok(name, f"{has}, {takes}", numbers)


def memory_need(sizes: Sizes, device_type: str, batch: int, workers: int, prepare_workers: int) -> int:
    """Bytes of memory: the larger of preparation and of training one row at a time."""
    batches = (2 * workers + 2) * batch
    own = sizes.checkpoint if device_type == "cuda" else sizes.state + (sizes.row or 0)  # CUDA's weights pass by saving
    training = PROGRAM_BYTES[device_type] + own + batches
    return max(training, PROGRAM_BYTES["cpu"] + prepare_workers * _PREPARE_BYTES)


def check_shared_memory(free: int | None, batch: int, asked: Choice, chosen: Choice) -> Finding:
    """/dev/shm against the loader's processes; with too little there will be fewer of them."""
    name = "/dev/shm"
    if free is None:
        return note(name, "there is none; the loader needs it only with processes of its own")
    numbers = {"free_bytes": free, "batch_bytes": batch, "workers": int(chosen.value)}
    has = f"{free / 2**20:,.0f} MiB free"
    if chosen == asked:
        return ok(name, f"{has}, {chosen.value} loader processes ({chosen.reason})", numbers)
    return warning(
        name,
        f"{has}, a batch takes {batch / 2**20:,.0f} MiB: {chosen.value} loader processes in place of {asked.value}",
        "docker's --shm-size 8g, or compose's shm_size",
        numbers,
    )


def check_clock(now: float, newest: float) -> Finding:
    """A clock that is behind breaks TLS and the order of runs, which are known by their time."""
    told = _moment(now)
    if now < newest - _CLOCK_SLACK:
        return warning(
            "clock",
            f"{told} is before this machine's newest files ({_moment(newest)})",
            "set the clock; downloads and the order of runs depend on it",
        )
    return ok("clock", told)


def newest_time(output: Path) -> float:
    """The newest of the program's own files and of the runs in ``output``, as seconds since 1970."""
    runs = [Path(run.path) for task in _folders(output) for run in _folders(Path(task.path))]
    return max((path.stat().st_mtime for path in [*_CODE.glob("*.py"), *runs]), default=0.0)


def now() -> float:
    """The clock, as seconds since 1970."""
    return time.time()


def _folders(folder: Path) -> Iterable[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except OSError:
        return []


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
