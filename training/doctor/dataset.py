"""The check of the dataset: which one, why, and whether a first look at it finds what the task needs."""

from __future__ import annotations

from backend.errors import BAD_DATA, BadDataError, WorkerError
from training.data.source import DataSource
from training.doctor.finding import Finding, failed, note, ok
from training.doctor.job import Job

_NAME = "dataset"


def check_dataset(job: Job, refused: BadDataError | None) -> Finding:
    """List the files and open the first one; preparation looks at all of them."""
    if refused is not None or job.source is None:
        return failed(_NAME, str(refused), "", code=BAD_DATA)
    if job.data is None:
        why = "made when it is first needed" if job.source.is_sample else "not there yet"
        return note(_NAME, f"{_reason(job.source)}; {why}")
    try:
        glance = job.task.glance(job.data, job.cache_dir)
    except WorkerError as error:
        return failed(_NAME, str(error), "", code=error.exit_code)
    return ok(
        _NAME, f"{_reason(job.source)}: {glance.found}", {"items": dict(glance.items or {}), "exact": glance.exact}
    )


def _reason(source: DataSource) -> str:
    return source.reason.removeprefix("data: ").split(". ")[0]
