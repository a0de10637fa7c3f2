"""What happened to a run, what that cost, and where its time went."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from training.reporting.run_folder import Record, RunFolder
from training.reporting.units import duration, moment
from training.runs.work_events import ENDS, came_to_report, of_workers
from training.shown import without_secrets

_HAPPENINGS = ("micro-batch", "refused step", "extended", "not drawn")


def story(run: RunFolder) -> dict[str, Any]:
    """The processes that worked on the run, one after another: from when to when, how each ended, what it redid."""
    groups = by_start(run)
    sessions = [_session(events) for events in groups]
    for number, session in enumerate(sessions, start=1):
        session["ended"] = session["ended"] or _unsaid(run, last=number == len(sessions))
    redone = sum(session["redone"] or 0 for session in sessions)
    step = step_seconds(run)
    starting = [_starting(events) for events in groups[1:]]
    return {
        "sessions": sessions,
        "interruptions": max(len(sessions) - 1, 0),
        "redone": redone,
        "redoing": duration(redone * step) if step and redone else None,
        "starting": duration(sum(starting)),
        "still": duration(_still(groups)),
        "happened": [_happening(event) for event in run.events if event.get("event") in _HAPPENINGS],
    }


def by_start(run: RunFolder) -> list[list[Record]]:
    """The events of each process, to its end; what later commands did to the run (`evaluated`) is left out.

    The last of the lines that a killed one logged stands for its end.
    """
    groups = of_workers(run.events)
    begins = [str(group[0].get("time", "")) for group in groups]
    return [_with_last_line(run, group, until) for group, until in zip(groups, [*begins[1:], "~"], strict=False)]


def _with_last_line(run: RunFolder, events: list[Record], until: str) -> list[Record]:
    last = str(events[-1].get("time", ""))
    if events[-1].get("event") in ENDS:
        return events
    logged = max((line["time"] for line in run.metrics if last < str(line.get("time", "")) < until), default=None)
    return [*events, {"time": logged, "event": "logged"}] if logged else events


def _session(events: list[Record]) -> dict[str, Any]:
    ends = {
        "interrupted": lambda e: f"stopped by {e.get('signal') or 'request'}; the last step was saved",
        "failed": lambda e: without_secrets(f"failed: {e.get('error')}"),
        "finished": lambda e: "finished",
    }
    ended = [ends[event["event"]](event) for event in events if event.get("event") in ends]
    resumed = next((event for event in events if event.get("event") == "resumed"), {})
    return {
        "from": moment(events[0].get("time", "")),
        "to": moment(events[-1].get("time", "")),
        "step": resumed.get("step", 0),
        "redone": resumed.get("steps_done_again", 0),
        "ended": ended[-1] if ended else "",
    }


def _unsaid(run: RunFolder, last: bool) -> str:
    if not last:
        return "killed without a word"
    return "reached this report" if came_to_report(run.events) else "at work, or killed without a word"


def _happening(event: Record) -> str:
    known = ("time", "event", "step", "config_hash")
    facts = ", ".join(f"{key} {_listed(value)}" for key, value in event.items() if key not in known)
    at = f", step {event['step']}" if "step" in event else ""
    return f"{moment(event.get('time', ''))}{at}: {event['event']} ({facts})"


def _listed(value: Any) -> str:
    """``changed`` is a mapping of settings to what they were and are."""
    if isinstance(value, dict):
        return ", ".join(f"{key} from {was} to {now}" for key, (was, now) in value.items())
    return str(value)


def _starting(events: list[Record]) -> float:
    """Seconds from a process's start until it trained again."""
    trains = (e for e in events if e.get("event") == "stage" and e.get("stage") == "training")
    return _seconds(events[0], next(trains, events[-1]))


def _still(groups: Sequence[list[Record]]) -> float:
    """Seconds in which nobody worked on the run, from the last sign of one process to the start of the next."""
    return sum(_seconds(before[-1], after[0]) for before, after in pairwise(groups))


def speed(run: RunFolder) -> dict[str, Any] | None:
    """Throughput, waiting for data, and the device's hours."""
    if not run.training and not run.events:
        return None
    return {
        "items_per_second": _median(run, "items_per_second"),
        "step": step_seconds(run),
        "data_wait": _mean(run, "data_wait"),
        "validations": len(run.validations),
        "validating": duration(sum(record.get("seconds") or 0 for record in run.validations)),
        **used(run),
    }


def used(run: RunFolder) -> dict[str, Any]:
    """Hours over all starts, on which kind of device, and what they cost where the price was known."""
    noted, cost = noted_use(run)
    seen = sum(_seconds(events[0], events[-1]) for events in by_start(run))
    seconds = max(noted or 0.0, seen)  # a note is some seconds old, or lost
    return {
        "kind": device_kind(run),
        "hours": seconds / 3600 if seconds else None,
        "worked": duration(seconds) if seconds else None,
        "cost": cost,
    }


def device_kind(run: RunFolder) -> str:
    """``GPU`` or ``CPU``; ``device`` where it was not recorded."""
    return {"cuda": "GPU", "cpu": "CPU"}.get((run.metadata.get("device") or {}).get("kind", ""), "device")


def noted_use(run: RunFolder) -> tuple[float | None, float | None]:
    """Seconds and cost from `usage.json`, which is newer than the metadata while a process is at work."""
    try:
        note = json.loads((run.path / "usage.json").read_text("utf-8"))
        return float(note["seconds"]), float(note["cost"]) if note["priced_seconds"] else None
    except (OSError, ValueError, KeyError, TypeError):
        usage = run.metadata.get("usage") or {}
        hours = usage.get("hours")
        return (hours * 3600 if hours else None), usage.get("cost")


def step_seconds(run: RunFolder) -> float | None:
    """Seconds of an optimizer step, from the median throughput; None where that is not known."""
    pace = _median(run, "items_per_second")
    batch = (run.config.get("training") or {}).get("batch_size")
    return batch / pace if pace and isinstance(batch, int) else None


def _median(run: RunFolder, key: str) -> float | None:
    values = _values(run, key)
    return statistics.median(values) if values else None


def _mean(run: RunFolder, key: str) -> float | None:
    values = _values(run, key)
    return statistics.fmean(values) if values else None


def _values(run: RunFolder, key: str) -> list[float]:
    return [record[key] for record in run.training if isinstance(record.get(key), int | float)]


def _seconds(first: Record, last: Record) -> float:
    try:
        moments = [datetime.fromisoformat(str(event.get("time"))) for event in (first, last)]
        return max((moments[1] - moments[0]).total_seconds(), 0.0)
    except ValueError:
        return 0.0
