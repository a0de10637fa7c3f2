"""The check of published weights that a training starts from: here, or to be had."""

from __future__ import annotations

from pathlib import PurePosixPath
from urllib.parse import urlsplit

import requests

from backend.artifact import checkpoints
from backend.errors import SOURCE_UNAVAILABLE, BadDataError
from training.doctor.finding import Finding, failed, ok
from training.doctor.job import Job
from training.fetching.pretrained import SPARE, file_here
from training.reporting.units import size_in_words

_NAME = "weights"
_SECONDS = 10.0


def check_weights(job: Job) -> Finding | None:
    """Look for the file, else ask the host for it; None where the training needs none."""
    url = job.task.published_weights()
    if url is None or (job.run is not None and checkpoints(job.run / "checkpoints")):
        return None
    try:
        path = file_here(url, SPARE)
    except BadDataError as error:
        return failed(_NAME, str(error), "", code=error.exit_code)
    if path is not None:
        return ok(_NAME, f"{path}: sound")
    return _asked(url)


def _asked(url: str) -> Finding:
    name, host = PurePosixPath(urlsplit(url).path).name, urlsplit(url).netloc
    try:
        answer = requests.head(url, timeout=_SECONDS, allow_redirects=True)
        answer.raise_for_status()
    except requests.RequestException as error:
        why = f"it answers {error.response.status_code}" if error.response is not None else "it cannot be reached"
        todo = "mend the network, put the file into torch.hub's folder, or --set model.pretrained=none"
        return failed(_NAME, f"{name} would be fetched from {host}, but {why}", todo, code=SOURCE_UNAVAILABLE)
    size = int(answer.headers.get("Content-Length") or 0)
    return ok(_NAME, f"{name} will be fetched from {host}{f', {size_in_words(size)}' if size else ''}")
