"""The command `fetch`: the dataset in its place, and nothing else done."""

from __future__ import annotations

import os

from backend.errors import UsageError
from training.data.fetch import Tellers
from training.data.fetch import fetch as fetch_dataset
from training.engine.interruption import StopRequest
from training.reporting.log import RunLog
from training.reporting.progress import Progress
from training.requests import PrepareRequest
from training.settle import settle


def fetch(request: PrepareRequest) -> None:
    """Bring the dataset to its place, and say where that is.

    Raises:
        UsageError: nothing says what to fetch.
        WorkerError: with the exit code that says whether running again helps.
    """
    log = RunLog(None)
    with StopRequest() as stop, Progress(log) as display:
        # Whether a GPU is at work matters to the sample alone, which is nothing to fetch.
        loaded, source = settle(request, os.environ, lambda config: False)
        if source.is_sample:
            raise UsageError(
                "nothing says what to fetch: name a manifest with --set data.manifest=FILE, or a Google Drive file "
                "with --drive-id"
            )
        for line in (source.reason, *loaded.notes):
            log.say(line)
        if source.manifest is None:
            log.say("that is a folder, so there is nothing to fetch")
            return
        folder = fetch_dataset(source.manifest, request.datasets, Tellers(log.say, display.update, stop.check))
        log.say(f"complete: {folder}")
