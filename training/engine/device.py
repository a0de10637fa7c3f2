"""Which device and which precision, each with the reason that is printed."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from backend.errors import ConfigError
from training.engine import gpu


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
    facts = gpu.read_gpu()
    trouble = refusal(asked, facts)
    if trouble is not None:
        raise ConfigError(str(trouble))
    if not facts.available:
        return torch.device("cpu"), Choice("cpu", "no CUDA device is there")
    reason = "training.device is cuda" if asked == "cuda" else "a CUDA device is there"
    return torch.device("cuda"), Choice(f"cuda: {facts.name}", reason)


def refusal(asked: str, facts: gpu.GpuFacts) -> gpu.Trouble | None:
    """Why training must not start with ``asked`` (`auto` or `cuda`) on such a GPU; None when it may."""
    trouble = gpu.why_unusable(facts)
    if trouble is None:
        return None
    if asked == "cuda":
        return gpu.Trouble(f"training.device is cuda, but {trouble.found}", trouble.remedy)
    if facts.available or facts.in_sight:
        return gpu.Trouble(
            f"NVIDIA devices are in sight, but {trouble.found}",
            f"{trouble.remedy}; or set training.device=cpu to train on the CPU all the same",
        )
    return None


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
