"""Files of a run that hold no result that cannot be had again: a damaged one costs a line in the log, never the run."""

from __future__ import annotations

from typing import Any

from backend.errors import UsageError
from training.runs.run import Run


def read_side_file(run: Run, name: str) -> dict[str, Any]:
    """The JSON object in the run folder's file ``name``; empty where there is none, or a damaged one, which is told."""
    try:
        return run.read_json(name)
    except UsageError as error:
        from training.reporting.log import RunLog

        RunLog(run.path("train.log")).say(f"warning: damaged, so taken as not there: {error}")
        return {}
