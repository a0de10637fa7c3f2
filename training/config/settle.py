"""Which settings and which data: decided together, because the sample calls for the preset `sample`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from training.config.loading import LoadedConfig, load_config, preset_names
from training.data.source import SAMPLE, DataSource, choose_source
from training.requests import PrepareRequest


def gpu_at_work(config: Any) -> bool:
    """Whether ``config`` would train on a GPU of this machine."""
    import torch

    return config.training.device != "cpu" and torch.cuda.is_available()


def settle(
    request: PrepareRequest, environ: Mapping[str, str], has_gpu: Callable[[Any], bool] = gpu_at_work
) -> tuple[LoadedConfig, DataSource]:
    """The resolved configuration and the chosen dataset of ``request``.

    ``has_gpu(config)`` says whether that configuration would train on a GPU. Without ``--config`` the preset is
    `sample` on the built-in sample and `default` on everything else. Raises ConfigError and BadDataError.
    """
    loaded = load_request(request, request.config, environ)
    manifest = getattr(getattr(loaded.config, "data", None), "manifest", None)
    source = choose_source(
        request.task,
        request.data,
        environ,
        manifest,
        request.datasets,
        has_gpu(loaded.config),
        drive_id=request.drive_id,
    )
    if source.is_sample and request.config is None and SAMPLE in preset_names(request.task):
        loaded = load_request(request, SAMPLE, environ)
    return loaded, source


def load_request(request: PrepareRequest, preset_or_file: str | None, environ: Mapping[str, str]) -> LoadedConfig:
    """The configuration of ``request`` on top of ``preset_or_file``."""
    return load_config(
        request.task,
        preset_or_file=preset_or_file,
        sets=list(request.sets),
        flags={"training.seed": request.seed},
        environ=environ,
    )


def cache_folder(config: Any, task: str, datasets: Path, output: Path, can_be_written: Callable[[Path], bool]) -> Path:
    """Where prepared caches of ``task`` lie: as configured, else beside the datasets, else with the output."""
    if config.data.cache_dir is not None:
        return Path(config.data.cache_dir)
    folder = datasets / ".prepared" / task
    return folder if can_be_written(folder) else output / ".prepared" / task


def can_be_made(folder: Path) -> bool:
    """Make ``folder`` where it is not there yet; whether it can be written."""
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return os.access(folder, os.W_OK)
