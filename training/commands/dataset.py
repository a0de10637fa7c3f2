"""`fetch` and `prepare`: the first stages of a training alone."""

from __future__ import annotations

import os

from backend.errors import UsageError
from training.config.settle import settle
from training.data.prepared import prune
from training.doctor.run import job_of, preflight
from training.engine.interruption import StopRequest
from training.heartbeat import beat
from training.reporting.progress import Progress
from training.requests import PrepareRequest
from training.work import Work


def fetch(request: PrepareRequest) -> None:
    """Bring the dataset to its place, and say where that is.

    Raises:
        UsageError: nothing says what to fetch.
        WorkerError: with the exit code that says whether running again helps.
    """
    with StopRequest(beat) as stop:
        # Whether a GPU is at work matters to the sample alone, which is nothing to fetch.
        loaded, source = settle(request, os.environ, lambda config: False)
        if source.is_sample:
            raise UsageError(
                "nothing says what to fetch: name a manifest with --set data.manifest=FILE, or a Google Drive file "
                "with --drive-id"
            )
        work = Work.of(request, loaded, source, stop)
        with Progress(work.log) as work.display:
            work.say_settled()
            if source.manifest is None:
                work.log.say("that is a folder, so there is nothing to fetch")
                return
            work.log.say(f"complete: {work.data()}")


def prepare(request: PrepareRequest) -> None:
    """Read, check, split and cache the dataset, and show what was found."""
    with StopRequest(beat) as stop:
        loaded, source = settle(request, os.environ)
        work = Work.of(request, loaded, source, stop)
        work.warnings = preflight(job_of(work.task, request, source, None), training=False)
        with Progress(work.log) as work.display:
            work.say_settled()
            prepared = work.searched_for_leaks(work.prepare())
            for line in prepared.summary:
                work.log.say(line)
            if request.prune:
                freed = prune(work.cache_dir, prepared.facts.get("cache"))
                work.log.say(f"other prepared caches in {work.cache_dir}: deleted, {freed / 1e6:,.1f} MB freed")
