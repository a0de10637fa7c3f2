"""What a result was made with: versions, code, device, determinism."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = (
    "torch",
    "numpy",
    "xarray",
    "netCDF4",
    "pydantic",
    "safetensors",
    "pytorch-msssim",
    "opencv-python-headless",
)
_ROOT = Path(__file__).resolve().parent.parent


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape results; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, Any]:
    """Commit and whether tracked files differ from it; an image tells its commit by TRAIN_WORKER_GIT_COMMIT."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {"commit": os.environ.get("TRAIN_WORKER_GIT_COMMIT", "unknown"), "dirty": None}
    return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "--untracked-files=no"))}


def _git(*arguments: str) -> str | None:
    if not (_ROOT / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def device_facts(device: torch.device) -> dict[str, Any]:
    """The device as the record keeps it."""
    if device.type == "cpu":
        return {"kind": "cpu", "name": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    properties = torch.cuda.get_device_properties(device)
    return {
        "kind": "cuda",
        "name": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
    }


@contextmanager
def determinism(wanted: bool, device: torch.device) -> Iterator[set[str]]:
    """Deterministic operations where ``wanted``; yields the set of those that could not be, filled as they run."""
    names: set[str] = set()
    if device.type == "cpu":
        yield names
        return
    if not wanted:
        torch.backends.cudnn.benchmark = True  # shapes are static: the fastest kernels are worth finding
        yield names
        return
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    show = warnings.showwarning

    def note(message: Any, category: Any, *rest: Any, **more: Any) -> None:
        text = str(message)
        if "deterministic" in text:
            names.add(text.split(" does not have")[0].strip())
        else:
            show(message, category, *rest, **more)

    warnings.showwarning = note
    try:
        yield names
    finally:
        warnings.showwarning = show
        torch.use_deterministic_algorithms(False)


def prepare_environment(deterministic: bool) -> None:
    """What must be set before CUDA starts."""
    torch.backends.cudnn.allow_tf32 = False  # what is called fp32 is; large operations have bf16 where they may
    if deterministic and "torch.cuda" in sys.modules:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
