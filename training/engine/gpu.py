"""What torch, the driver and a first kernel say of the GPU, and what is wrong with it in words that lead on.

Facts are gathered in one place and judged by pure functions, so that every card and every driver can be judged
without one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F

from training.machine import nvidia_in_sight

Capability = tuple[int, int]

NEWER_BASE = "pytorch/pytorch:2.7.1-cuda12.8-cudnn9-runtime"
OLDER_BASE = "pytorch/pytorch:2.5.1-cuda12.1-cudnn9-runtime"
BLACKWELL = (10, 0)
# The oldest driver of Linux for each family of CUDA (docs.nvidia.com/deploy/cuda-compatibility).
_OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}
_DRIVER_FILE = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class GpuFacts:
    """The state of the GPU that torch would use; plain values only."""

    torch: str
    cuda: str | None  # the CUDA that torch is built for
    in_sight: bool  # the machine shows an NVIDIA device
    available: bool  # torch sees a CUDA device
    driver: str | None = None
    name: str = ""
    capability: Capability = (0, 0)
    arches: Sequence[str] = field(default=())  # that torch's kernels are built for: sm_80, compute_90
    kernel_error: str | None = None
    free: int = 0  # bytes
    total: int = 0

    @property
    def arch(self) -> str:
        """The card's architecture as compilers name it."""
        return f"sm_{self.capability[0]}{self.capability[1]}"


def read_gpu(dtype: torch.dtype | None = None) -> GpuFacts:
    """Ask torch and the driver, and run a matrix product and a convolution in ``dtype`` (None: fp32)."""
    available = torch.cuda.is_available()
    cuda, sight, driver = torch.version.cuda, nvidia_in_sight(), driver_version()
    if not available:
        return GpuFacts(torch.__version__, cuda, sight, available, driver)
    free, total, error = 0, 0, _try_kernels(dtype)
    if error is None:
        free, total = torch.cuda.mem_get_info()
    return GpuFacts(
        torch.__version__,
        cuda,
        sight,
        available,
        driver,
        torch.cuda.get_device_name(),
        torch.cuda.get_device_capability(),
        tuple(torch.cuda.get_arch_list()),
        error,
        free,
        total,
    )


def driver_version(file: Path = _DRIVER_FILE) -> str | None:
    """The NVIDIA driver's version, such as 535.104.05; None where the kernel has none."""
    try:
        found = re.search(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b", file.read_text("utf-8", "replace"))
    except OSError:
        return None
    return found[1] if found else None


@dataclass(frozen=True)
class Trouble:
    """What is wrong, and what to do about it."""

    found: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.found}: {self.remedy}"


def why_unusable(facts: GpuFacts) -> Trouble | None:
    """What keeps this torch from computing on the GPU; None when nothing does."""
    if not facts.available:
        return _why_not_available(facts)
    if facts.kernel_error is not None:
        return _why_no_kernel(facts)
    return None


def _why_not_available(facts: GpuFacts) -> Trouble:
    told = f"torch {facts.torch} finds no CUDA device"
    if facts.cuda is None:
        return Trouble(f"{told} (it is built without CUDA)", "install one with CUDA, or use the image")
    old = driver_too_old(facts)
    if old is not None:
        return Trouble(f"{told}, since {old.found}", old.remedy)
    return Trouble(f"{told} (it is built for CUDA {facts.cuda})", "check nvidia-smi, and docker's --gpus all")


def _why_no_kernel(facts: GpuFacts) -> Trouble:
    card = f"{facts.name} ({facts.arch}{', Blackwell' if facts.capability >= BLACKWELL else ''})"
    build = f"torch {facts.torch} (CUDA {facts.cuda}, built for {' '.join(facts.arches) or 'unknown cards'})"
    if runs_on(facts.capability, facts.arches):
        return Trouble(f"{card} fails at its first kernel: {facts.kernel_error}", "free or restart it, or take another")
    if facts.capability > _newest(facts.arches):
        return Trouble(
            f"{card} is too new for {build}",
            f"build the image on a newer base, --build-arg BASE_IMAGE={NEWER_BASE} or newer, or take an older card",
        )
    return Trouble(
        f"{card} is too old for {build}",
        f"build the image on an older base, --build-arg BASE_IMAGE={OLDER_BASE}, or take a newer card",
    )


def runs_on(capability: Capability, arches: Sequence[str]) -> bool:
    """Whether one of ``arches`` has code for a card: sm_80 runs on 8.0 to 8.9, compute_80 on everything from 8.0 on."""
    major, minor = capability
    for kind, number in _numbers(arches):
        if kind == "sm" and number[0] == major and number[1] <= minor:
            return True
        if kind == "compute" and number <= capability:
            return True
    return False


def driver_too_old(facts: GpuFacts) -> Trouble | None:
    """The driver against the CUDA that torch is built for; None when it is new enough or nothing is known."""
    oldest = oldest_driver(facts.cuda)
    if facts.driver is None or oldest is None or int(facts.driver.split(".")[0]) >= oldest:
        return None
    return Trouble(
        f"the driver is {facts.driver} and CUDA {facts.cuda} needs {oldest} or newer",
        "update the driver, or take a machine with a newer one",
    )


def oldest_driver(cuda: str | None) -> int | None:
    """The oldest driver (its first number) for a version of CUDA; None where nothing is known."""
    return _OLDEST_DRIVER.get(int((cuda or "0").split(".")[0]))


def _newest(arches: Sequence[str]) -> Capability:
    return max((number for _, number in _numbers(arches)), default=(0, 0))


def _numbers(arches: Sequence[str]) -> list[tuple[str, Capability]]:
    """``sm_120`` as ("sm", (12, 0)); what runs on one card alone (``sm_90a``) counts as its number."""
    found = [re.fullmatch(r"(sm|compute)_(\d+)(\d)[af]?", arch) for arch in arches]
    return [(match[1], (int(match[2]), int(match[3]))) for match in found if match]


def _try_kernels(dtype: torch.dtype | None) -> str | None:
    """A card that is too new or too old for this torch looks available and fails at its first kernel."""
    kind = dtype or torch.float32
    try:
        image = torch.ones(1, 8, 32, 32, device="cuda", dtype=kind, requires_grad=True)
        weight = torch.ones(8, 8, 3, 3, device="cuda", dtype=kind)
        made = F.conv2d(image, weight, padding=1).flatten(2)
        (made @ made.transpose(1, 2)).float().mean().backward()
        torch.cuda.synchronize()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return None
