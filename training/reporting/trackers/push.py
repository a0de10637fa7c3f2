"""`runs push RUN --to mlflow|wandb`: a run's curves and scores to a tracker, also long after it has ended."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout

from filelock import Timeout

from backend.errors import ConfigError, SourceUnavailableError
from training.reporting.run_folder import RunFolder
from training.reporting.trackers.choice import QUIET, check_tracker, make_tracker
from training.reporting.trackers.delivery import Delivery
from training.reporting.trackers.tracker import shown
from training.runs.run import Run

_STATES = ("finished", "interrupted", "failed")


def push(run: Run, to: str, say: Callable[[str], None]) -> None:
    """Bring over what the tracker does not have yet.

    Raises:
        UsageError: there is no such tracker.
        ConfigError: its package is missing, or a training is bringing the run there.
        SourceUnavailableError: the tracker refuses or cannot be reached.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    mode = str((RunFolder(run.folder).config.get("tracking") or {}).get("wandb", "off"))
    tracker = make_tracker(to, run.folder.resolve(), mode)
    if to == "wandb":
        mode = "offline" if tracker.place.endswith("offline") else "online"
    check_tracker(to, mode, os.environ)
    state = run.metadata.get("state")
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # they print addresses with passwords
            delivery = Delivery(run.folder.resolve(), tracker)
            delivery.begin()
            where = delivery.finish(state if state in _STATES else "interrupted")
    except Timeout:
        raise ConfigError(f"{run.folder}: a training is bringing it to {to} now; nothing needs to be done") from None
    except Exception as error:
        raise SourceUnavailableError(f"{to} ({tracker.place}): {shown(error)}") from error
    say(f"{run.run_id}: {where}")
