"""Where the registry lies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from training.requests import OUTPUT

VARIABLE = "TRAIN_WORKER_REGISTRY"
OUTPUT_VARIABLE = "TRAIN_WORKER_OUTPUT_DIR"
NAME = "registry.json"


def registry_place(output: Path, environ: Mapping[str, str]) -> Path:
    """The registry of the runs under ``output``: what TRAIN_WORKER_REGISTRY names, else ``registry.json`` in it."""
    named = environ.get(VARIABLE)
    return Path(named).expanduser() if named else output / NAME


def output_folder(environ: Mapping[str, str]) -> Path:
    """Where runs are kept when nothing else is said: TRAIN_WORKER_OUTPUT_DIR, else ``model_output``."""
    return Path(environ.get(OUTPUT_VARIABLE) or OUTPUT).expanduser()
