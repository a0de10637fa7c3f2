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

from training.engine.gpu import driver_version

_PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "xarray",
    "netCDF4",
    "pydantic",
    "safetensors",
    "pytorch-msssim",
    "opencv-python-headless",
    "scikit-learn",
    "scipy",
    "torchmetrics",
    "faster-coco-eval",
    "transformers",
)
_DIRTY = "-dirty"
_NOT_DETERMINISTIC = r"(?s).*(?i:deterministic)"
_ROOT = Path(__file__).resolve().parents[2]


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
    """Commit and whether tracked files differ from it.

    An image tells both by TRAIN_WORKER_GIT_COMMIT, as `git describe --dirty` writes them when it is built.
    """
    commit = _git("rev-parse", "HEAD")
    if commit is not None:
        return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    told = os.environ.get("TRAIN_WORKER_GIT_COMMIT") or "unknown"
    if told == "unknown":
        return {"commit": told, "dirty": None}
    return {"commit": told.removesuffix(_DIRTY), "dirty": told.endswith(_DIRTY)}


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
        "cudnn": torch.backends.cudnn.version(),
        "driver": driver_version(),
    }


@contextmanager
def determinism(wanted: bool, device: torch.device) -> Iterator[set[str]]:
    """Deterministic operations where ``wanted``; yields the set of those that could not be, filled as they run."""
    names: set[str] = set()
    if not wanted:
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # shapes are static: the fastest kernels are worth finding
        yield names
        return
    torch.backends.cudnn.benchmark = False
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings():
            _note_into(names)
            yield names
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _note_into(names: set[str]) -> None:
    """From now on warnings of operations that are not deterministic are noted; all others are shown as before."""
    show = warnings.showwarning
    warnings.filterwarnings("always", message=_NOT_DETERMINISTIC)  # also one that was shown before

    def note(message: Any, category: Any, *rest: Any, **more: Any) -> None:
        name = undetermined_operation(str(message))
        if name is None:
            show(message, category, *rest, **more)
        else:
            names.add(name)

    warnings.showwarning = note


def undetermined_operation(warning: str) -> str | None:
    """The operation that a warning of torch calls not deterministic; None for any other warning."""
    if "does not have a deterministic implementation" in warning:
        return warning.split(" does not have")[0].strip()
    if "CuBLAS" in warning and "deterministic" in warning:
        return "cuBLAS (CUBLAS_WORKSPACE_CONFIG is not set)"
    return (
        "memory-efficient or flash attention" if "attention" in warning.lower() and "deterministic" in warning else None
    )


def prepare_environment(deterministic: bool) -> None:
    """What must be set before CUDA starts."""
    torch.backends.cudnn.allow_tf32 = False  # what is called fp32 is; large operations have bf16 where they may
    if deterministic and "torch.cuda" in sys.modules:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
