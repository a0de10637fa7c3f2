"""Checks of the GPU: is it there, does it compute, is the driver new enough, does a row fit, who else is on it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from training.doctor.finding import Finding, failed, note, ok, warning
from training.doctor.job import Sizes
from training.engine.device import refusal
from training.engine.gpu import GpuFacts, driver_too_old, oldest_driver
from training.reporting.units import GIB

_ROOM = 0.95  # of a card's memory: the rest goes to libraries and fragments
_FOREIGN_BYTES = GIB  # what this process's own context takes stays below it
_QUERY = ("--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader,nounits")
_NAME = "GPU"


@dataclass(frozen=True)
class GpuProcess:
    """A process that holds memory of the GPU."""

    pid: int
    name: str
    mib: int | None


def check_device(asked: str, facts: GpuFacts, precision: str) -> Finding:
    """Whether there is a GPU that runs kernels, as far as training needs one."""
    if asked == "cpu":
        return note(_NAME, "not used, because training.device is cpu")
    trouble = refusal(asked, facts)
    if trouble is not None:
        return failed(_NAME, trouble.found, trouble.remedy)
    if not facts.available:
        return note(_NAME, "no NVIDIA device: the CPU trains", "for a GPU in a container: docker run --gpus all")
    return ok(
        _NAME,
        f"{facts.name} ({facts.arch}) computes with torch {facts.torch} (CUDA {facts.cuda}) in {precision}",
        {"name": facts.name, "arch": facts.arch, "torch": facts.torch, "cuda": facts.cuda},
    )


def check_driver(facts: GpuFacts) -> Finding:
    """The driver against the CUDA of torch's build; a GPU that computes in spite of it is only warned of."""
    old = driver_too_old(facts)
    if old is not None:
        return warning("driver", old.found, old.remedy, {"driver": facts.driver})
    if facts.driver is None:
        return note("driver", "its version cannot be read; the GPU computes all the same")
    needed = oldest_driver(facts.cuda)
    least = f" (needs {needed})" if needed else ""
    return ok("driver", f"{facts.driver} for CUDA {facts.cuda}{least}", {"driver": facts.driver, "needed": needed})


def check_video_memory(facts: GpuFacts, sizes: Sizes) -> Finding:
    """Free memory of the GPU against weights, gradients, AdamW and the activations of a single row."""
    name = "GPU memory"
    row = sizes.row or 0
    need = sizes.state + row
    has = f"{facts.free / GIB:.1f} of {facts.total / GIB:.1f} GiB free"
    takes = f"the model with gradients and AdamW takes {_gib(sizes.state)}" + (
        f", a row about {_gib(row)}" if row else ""
    )
    numbers = {"free_bytes": facts.free, "total_bytes": facts.total, "state_bytes": sizes.state, "row_bytes": sizes.row}
    smaller = "a smaller input or model, model.gradient_checkpointing=true where the task has it, or a larger card"
    if need > facts.total:
        return failed(name, f"{has}, but {takes}", smaller, numbers)
    if need > _ROOM * facts.free:
        if facts.total - facts.free > _FOREIGN_BYTES:
            smaller = "end what else runs on this GPU"
        return warning(name, f"{has}, but {takes}", smaller, numbers)
    rows = f"; room for about {int((_ROOM * facts.free - sizes.state) // row):,} rows at once" if row else ""
    return ok(name, f"{has}; {takes}{rows}", numbers)


def check_neighbours(facts: GpuFacts, processes: Sequence[GpuProcess], own_bytes: int) -> Finding:
    """Others at work on the GPU. Containers do not see each other's processes, but their memory."""
    name = "GPU neighbours"
    foreign = facts.total - facts.free - own_bytes
    if processes:
        named = ", ".join(f"{p.name} ({p.pid})" for p in processes[:3]) + (" and more" if len(processes) > 3 else "")
        return warning(name, f"{len(processes)} other processes: {named}", "end them, or expect half the speed")
    if foreign > _FOREIGN_BYTES:
        return warning(
            name,
            f"{foreign / GIB:.1f} GiB are held by something that cannot be seen from here",
            "look on the host with nvidia-smi",
        )
    return ok(name, "nobody else is on this GPU")


def gpu_processes(own: int, gpu: str | None = None, command: str = "nvidia-smi") -> list[GpuProcess]:
    """Who holds memory of the GPU besides process ``own``, as far as nvidia-smi tells; empty without it."""
    found = shutil.which(command)
    if found is None:
        return []
    words = [found, *([f"--id={gpu}"] if gpu else []), *_QUERY]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [process for process in map(_parsed, done.stdout.splitlines()) if process and process.pid != own]


def _parsed(line: str) -> GpuProcess | None:
    parts = [part.strip() for part in line.split(",")]
    if len(parts) < 3 or not parts[0].isdigit():
        return None
    pid, *name, mib = parts
    return GpuProcess(int(pid), ",".join(name).rpartition("/")[2], int(mib) if mib.isdigit() else None)


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / 2**20:.0f} MiB"
