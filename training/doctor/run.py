"""`doctor` from its request to its exit code, and the same checks as the other commands call them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from backend.errors import BadDataError
from training.config.settle import load_request, settle
from training.data.source import DataSource
from training.doctor.checks import before_preparing, before_training, everything
from training.doctor.finding import Finding, exit_code, raise_failed, worst_state
from training.doctor.job import Job
from training.doctor.show import Shown
from training.doctor.volumes import UNMOUNTED_OK
from training.engine.interruption import StopRequest
from training.machine import available_cpus
from training.requests import DoctorRequest, Places
from training.tasks import task_class
from training.tasks.protocol import Task

IN_IMAGE = "TRAIN_WORKER_IMAGE"


def doctor(request: DoctorRequest) -> int:
    """Check everything, show it as a table or as JSON, and return the exit code.

    Raises:
        ConfigError: the settings are wrong, so that there is nothing to check.
        InterruptedRunError: a stop was asked for.
    """
    started = time.monotonic()
    torch.set_num_threads(min(torch.get_num_threads(), available_cpus()))
    with StopRequest() as stop:
        source: DataSource | None = None
        refused: BadDataError | None = None
        try:
            loaded, source = settle(request, os.environ)
        except BadDataError as error:
            refused = error
            loaded = load_request(request, request.config, os.environ)
        job = job_of(task_class(request.task)(loaded.config), request, source, None)
        with Shown(quiet=request.as_json) as shown:
            findings = []
            for finding in everything(job, refused, request.price_per_hour, stop.check):
                findings.append(finding)
                shown.add(finding)
    seconds = time.monotonic() - started
    if request.as_json:
        print(json.dumps(as_json(request.task, findings, seconds), indent=1))  # noqa: T201
    else:
        shown.finish(findings, seconds)
    return exit_code(findings)


def job_of(
    task: Task,
    places: Places,
    source: DataSource | None,
    run: Path | None,
    environ: Mapping[str, str] = os.environ,
) -> Job:
    """What the checks are about: ``task`` with its settings, on ``source``, continuing ``run`` if there is one."""
    return Job(
        task,
        places.output,
        places.datasets,
        source,
        _folder_of(task.name, places, source),
        run,
        in_image=environ.get(IN_IMAGE) == "1",
        unmounted_ok=environ.get(UNMOUNTED_OK) == "1",
    )


def preflight(job: Job, training: bool = True) -> list[str]:
    """The quick checks before a training or a preparation; the lines of what is to be warned of.

    Raises:
        ConfigError, DiskError: a check failed; the line says what to do.
    """
    findings = list(before_training(job) if training else before_preparing(job))
    raise_failed(findings)
    return [f"warning: {finding.name}: {finding.line}" for finding in findings if finding.state == "warning"]


def as_json(task: str, findings: list[Finding], seconds: float) -> dict[str, Any]:
    """The result for programs."""
    return {
        "format": 1,
        "task": task,
        "state": worst_state(findings),
        "exit_code": exit_code(findings),
        "seconds": round(seconds, 2),
        "checks": [
            {"name": f.name, "state": f.state, "found": f.found, "todo": f.todo, "facts": dict(f.facts)}
            for f in findings
        ],
    }


def _folder_of(task: str, places: Places, source: DataSource | None) -> Path | None:
    """The dataset's folder, or file, where it is there; the sample's, where it was made."""
    if source is None:
        return None
    if source.path is not None:
        return source.path if source.path.exists() else None
    samples = (place / ".samples" / task for place in (places.datasets, places.output))
    return next((folder for folder in samples if folder.is_dir()), None)
