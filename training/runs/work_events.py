"""Which of a run's events tell of work on it: those of a worker's process, from its start to its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Event = dict[str, Any]

ENDS = ("interrupted", "failed", "finished")  # the last word of a worker's process
LATER = ("evaluated", "verified", "imported")  # what other commands did to the run: no work on it


def of_workers(events: Sequence[Event]) -> list[list[Event]]:
    """The events of each worker's process, oldest first: from its ``started`` to its end, or to its last sign."""
    groups: list[list[Event]] = []
    ended = True
    for event in events:
        name = event.get("event")
        if name == "started":
            groups.append([])
            ended = False
        if not ended and name not in LATER:
            groups[-1].append(event)
            ended = name in ENDS
    return groups


def last_sign(events: Sequence[Event]) -> str:
    """When a worker last left an event; empty where none did."""
    return max((str(event.get("time", "")) for group in of_workers(events) for event in group), default="")


def came_to_report(events: Sequence[Event]) -> bool:
    """Whether the last process trained and scored to the end, and has not said since how it ended."""
    own = next(reversed(of_workers(events)), [])
    at_report = any(event.get("event") == "stage" and event.get("stage") == "report" for event in own)
    return at_report and own[-1].get("event") not in ENDS
