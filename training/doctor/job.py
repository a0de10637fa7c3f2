"""The training that the checks are about, with its sizes, from settings and a glance at the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from backend.errors import BadDataError, DiskError
from training.config.settle import cache_folder
from training.data.source import DataSource
from training.doctor.volumes import try_to_write
from training.engine.device import Precision
from training.engine.gpu import GpuFacts, read_gpu, why_unusable
from training.fetching.fetch import bytes_to_come
from training.tasks.protocol import Glance, Task


@dataclass(frozen=True)
class Job:
    """A training that is about to begin. ``source`` is None where no data could be chosen."""

    task: Task
    output: Path
    datasets: Path
    source: DataSource | None
    data: Path | None  # the dataset's folder, where it exists
    run: Path | None = None  # the run folder that will be continued
    in_image: bool = False
    unmounted_ok: bool = False

    @property
    def config(self) -> Any:
        """The resolved configuration."""
        return self.task.config

    @property
    def fetches(self) -> bool:
        """Whether the dataset has to be fetched first."""
        return self.source is not None and self.source.kind == "manifest" and self.data is None

    @cached_property
    def fetch_bytes(self) -> int | None:
        """That fetching and unpacking still have to write into the datasets folder; None where nobody knows."""
        if not self.fetches or self.source is None or self.source.manifest is None:
            return 0
        return bytes_to_come(self.source.manifest, self.datasets)

    @cached_property
    def cache_dir(self) -> Path:
        """Where the prepared cache will lie."""
        return cache_folder(
            self.config, self.task.name, self.datasets, self.output, lambda folder: try_to_write(folder) is None
        )

    @cached_property
    def gpu(self) -> GpuFacts:
        """The GPU, asked once, with a first kernel in the precision that would be used; left alone for the CPU."""
        if self.config.training.device == "cpu":
            return GpuFacts(torch.__version__, torch.version.cuda, in_sight=False, available=False)
        asked = self.config.training.amp
        return read_gpu(None if asked == "off" or not torch.cuda.is_available() else _dtype(asked, "cuda"))

    @cached_property
    def device(self) -> torch.device:
        """Where it would train."""
        if self.config.training.device == "cpu" or why_unusable(self.gpu) is not None:
            return torch.device("cpu")
        return torch.device("cuda")

    @cached_property
    def dtype(self) -> torch.dtype:
        """The type of the large operations."""
        return _dtype(self.config.training.amp, self.device.type) or torch.float32

    @cached_property
    def glance(self) -> Glance:
        """What the dataset will become, or what the settings alone imply. The dataset's own check tells its faults."""
        try:
            return self.task.glance(self.data, self.cache_dir)
        except (BadDataError, DiskError):
            return self.task.glance(None, self.cache_dir)

    @cached_property
    def sizes(self) -> Sizes:
        """What the model takes, from its shapes alone."""
        return sizes_of(self.task, self.glance.facts, self.dtype, self.device.type)


@dataclass(frozen=True)
class Sizes:
    """Bytes. ``row`` is None where the task does not say."""

    weights: int
    trained: int  # of the weights: those that have gradients and optimizer state
    ema: int
    row: int | None  # activations of one row in a training step

    @property
    def state(self) -> int:
        """Weights, gradients, AdamW's two moments and the average."""
        return self.weights + 3 * self.trained + self.ema

    @property
    def checkpoint(self) -> int:
        """One checkpoint on the disk."""
        return self.weights + 2 * self.trained + self.ema


def sizes_of(task: Task, facts: Mapping[str, Any], dtype: torch.dtype, device_type: str) -> Sizes:
    """Sizes of the model of ``task``, without any of its memory."""
    model = shapes_of(task, facts)
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    ema = weights if task.config.training.ema_decay is not None else 0
    return Sizes(weights, trained, ema, task.row_bytes(model, dtype, device_type))


def shapes_of(task: Task, facts: Mapping[str, Any]) -> nn.Module:
    """The model's shapes without its numbers."""
    with torch.device("meta"):
        return task.build_model(facts)


def _dtype(asked: str, device_type: str) -> torch.dtype | None:
    return Precision(asked, torch.device(device_type)).dtype
