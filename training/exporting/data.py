"""Inputs by which an exported model is checked: random ones, and items of the run's dataset where it is at hand."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backend.artifact import Artifact
from backend.errors import InterruptedRunError, WorkerError
from training.config.compare import with_neutral_of
from training.config.settle import settle
from training.engine.interruption import StopRequest
from training.reporting.progress import Progress
from training.requests import ExportRequest, PrepareRequest
from training.runs.data import data_of
from training.runs.run import Run
from training.tasks.protocol import Batch, Task
from training.work import Work

SEED = 0
SPLIT = "val"


def random_items(task: Task, facts: Mapping[str, Any], rows: int) -> list[Batch]:
    """At least ``rows`` rows of random data, the same each time."""
    rng, found, count = np.random.default_rng(SEED), [], 0
    while count < rows:
        item = task.trial_item(facts, rng)
        count += next(len(value) for value in item.values() if isinstance(value, torch.Tensor))
        found.append(item)
    return found


def real_items(
    run: Run, task: Task, artifact: Artifact, request: ExportRequest, rows: int, stop: StopRequest
) -> tuple[list[Batch], str | None]:
    """At most ``rows`` items of the run's validation split, and why there are none; nothing is fetched for it.

    Raises:
        InterruptedRunError: the command was asked to stop.
    """
    data = data_of(run)
    if data is None or (data != "sample" and not Path(data).exists()):
        return [], "the run's dataset is not at hand"
    wanted = PrepareRequest(
        task=task.name, data=data, config=str(run.path("config.yaml")), output=request.output, datasets=request.datasets
    )
    try:
        loaded, source = settle(wanted, os.environ)
        work = Work.of(wanted, replace(loaded, config=with_neutral_of(task.config, loaded.config)), source, stop)
        work.be_quiet()
        with Progress(work.log) as work.display:
            prepared = work.prepare()
    except InterruptedRunError:
        raise
    except WorkerError as error:
        return [], f"the run's dataset cannot be used ({error})"
    other = task.mismatch(artifact.preprocessing, artifact.facts, prepared)
    if other is not None:
        return [], f"the dataset is another one by now: {other}"
    items = prepared.splits[SPLIT]
    return [items.item(index, None) for index in range(min(rows, len(items)))], None
