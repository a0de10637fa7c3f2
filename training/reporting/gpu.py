"""How busy and how full the GPU is."""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import dataclass

import torch

from training.reporting.units import GIB, percent

POLL_SECONDS = 2.0
_QUERY = ("--query-gpu=utilization.gpu", "--format=csv,noheader,nounits")


@dataclass(frozen=True, slots=True)
class GpuUse:
    """Memory of the whole device in bytes, and the share of time it was busy (None where nothing tells)."""

    used: int
    total: int
    busy: float | None

    def __str__(self) -> str:
        memory = f"{self.used / GIB:.1f} of {self.total / GIB:.0f} GiB"
        return f"GPU {memory}" if self.busy is None else f"GPU {percent(self.busy)}, {memory}"


class GpuMeter:
    """Reads a CUDA device at most every `POLL_SECONDS`; between readings the last one is given again."""

    def __init__(self, device: torch.device) -> None:
        self._device = device if device.type == "cuda" else None
        self._next = 0.0
        self._use: GpuUse | None = None
        self._busy = Utilization(gpu_name(self._device)) if self._device is not None else None

    def read(self) -> GpuUse | None:
        """The newest reading; None on the CPU, or when the driver does not answer."""
        now = time.monotonic()
        if self._device is not None and now >= self._next:
            self._next = now + POLL_SECONDS
            self._use = self._measure(self._device)
        return self._use

    def _measure(self, device: torch.device) -> GpuUse | None:
        try:
            free, total = torch.cuda.mem_get_info(device)
        except RuntimeError:
            return None
        return GpuUse(total - free, total, self._busy.read() if self._busy is not None else None)


class Utilization:
    """The share of time that a GPU was busy, from nvidia-smi, which comes with every driver.

    The command takes a tenth of a second, so it is started and read at the next call: nothing waits for it.
    """

    def __init__(self, gpu: str, command: str = "nvidia-smi") -> None:
        found = shutil.which(command)
        self._words = [found, f"--id={gpu}", *_QUERY] if found else []
        self._asked: subprocess.Popen[str] | None = None
        self._busy: float | None = None

    def read(self) -> float | None:
        """The newest answer, 0 to 1; None before the first one, and where there is no nvidia-smi."""
        if not self._words:
            return None
        if self._asked is not None and self._asked.poll() is not None:
            answer, _ = self._asked.communicate()
            self._busy = float(answer) / 100 if answer.strip().isdigit() else None
            self._asked = None
        if self._asked is None:
            self._asked = subprocess.Popen(
                self._words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        return self._busy


def gpu_name(device: torch.device) -> str:
    """The name by which nvidia-smi knows the device, whatever CUDA_VISIBLE_DEVICES makes of the numbers."""
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    return f"GPU-{uuid}" if uuid is not None else str(torch.cuda.current_device())
