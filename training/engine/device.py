"""Which device and which precision, each with the reason that is printed."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from backend.errors import ConfigError


@dataclass(frozen=True)
class Choice:
    """What an `auto` became, and why."""

    value: str
    reason: str

    def __str__(self) -> str:
        return f"{self.value} ({self.reason})"


def choose_device(asked: str) -> tuple[torch.device, Choice]:
    """`auto|cuda|cpu` to a device.

    Raises:
        ConfigError: CUDA was asked for, or NVIDIA devices are in sight, and no kernel runs there. A rented GPU is
            never paid for while the CPU trains.
    """
    if asked == "cpu":
        return torch.device("cpu"), Choice("cpu", "training.device is cpu")
    if torch.cuda.is_available():
        _run_a_kernel()
        reason = "training.device is cuda" if asked == "cuda" else "a CUDA device is there"
        return torch.device("cuda"), Choice(f"cuda: {torch.cuda.get_device_name()}", reason)
    if asked == "cuda":
        raise ConfigError(f"training.device is cuda, but torch {torch.__version__} finds no CUDA device{_cuda_hint()}")
    if nvidia_in_sight():
        raise ConfigError(
            f"NVIDIA devices are in sight, but torch {torch.__version__} cannot use them{_cuda_hint()}; "
            "set training.device=cpu to train on the CPU all the same"
        )
    return torch.device("cpu"), Choice("cpu", "no CUDA device is there")


def nvidia_in_sight() -> bool:
    """Whether the machine shows an NVIDIA GPU, unless the user hides it with an empty CUDA_VISIBLE_DEVICES."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "unset").strip() in ("", "-1"):
        return False
    gpus = Path("/proc/driver/nvidia/gpus")
    return Path("/dev/nvidia0").exists() or (gpus.is_dir() and any(gpus.iterdir()))


def _cuda_hint() -> str:
    if torch.version.cuda is None:
        return " (this torch is built without CUDA)"
    return f" (built for CUDA {torch.version.cuda}; check the driver with nvidia-smi, and docker's --gpus all)"


def _run_a_kernel() -> None:
    """A card that is too new for this torch looks available and fails at its first kernel."""
    try:
        torch.ones(8, device="cuda").add_(1).sum().item()
    except RuntimeError as error:
        major, minor = torch.cuda.get_device_capability()
        raise ConfigError(
            f"{torch.cuda.get_device_name()} (sm_{major}{minor}) runs no kernel of torch {torch.__version__}, "
            f"which is built for {' '.join(torch.cuda.get_arch_list())}; use an image with a newer CUDA "
            f"({str(error).splitlines()[0]})"
        ) from error


class Precision:
    """Mixed precision: the autocast type, and a gradient scaler where fp16 needs one."""

    def __init__(self, asked: str, device: torch.device) -> None:
        self.device = device
        self.dtype, self.choice = _choose_dtype(asked, device)
        self.scaler = torch.amp.GradScaler(device.type) if self.dtype is torch.float16 else None

    def autocast(self) -> AbstractContextManager[object]:
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


def _choose_dtype(asked: str, device: torch.device) -> tuple[torch.dtype | None, Choice]:
    named = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}
    if asked == "fp16" and device.type == "cpu":
        raise ConfigError("training.amp is fp16, which needs a GPU; use auto, off or bf16 on the CPU")
    if asked in named:
        return named[asked], Choice("fp32" if asked == "off" else asked, f"training.amp is {asked}")
    if device.type == "cpu":
        if has_bf16_matrix_units():
            return torch.bfloat16, Choice("bf16", "the CPU has matrix units for it")
        return None, Choice("fp32", "the CPU has no matrix units for bf16")
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16, Choice("bf16", "the GPU has it, and it needs no loss scaling")
    return torch.float16, Choice("fp16", "the GPU has no bf16; the loss is scaled")


def has_bf16_matrix_units() -> bool:
    """Whether the CPU multiplies bf16 matrices in hardware (AMX); without it bf16 is slower than fp32."""
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text("ascii")
    except OSError:
        return False
