"""Whether the trackers that the settings ask for can work here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from backend.errors import ConfigError
from training.doctor.finding import Finding, failed, ok
from training.reporting.trackers.choice import asked_for, check_tracker


def check_trackers(config: Any) -> Iterator[Finding]:
    """A finding for each tracker; none where none is asked for."""
    for name in asked_for(config):
        try:
            check_tracker(name, config.tracking.wandb, os.environ)
        except ConfigError as error:
            yield failed("trackers", str(error), "")
        else:
            yield ok("trackers", f"{name} is installed")
