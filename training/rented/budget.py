"""What a run may cost: hours and money over all its starts, on whatever machines.

The worker's own time counts, from its start to its last sign of life, preparation included. It is noted in the run
folder every few seconds, so that a kill loses no more than that; where the note is lost or old, the run's events tell.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from backend.errors import BudgetSpentError, ConfigError
from training.clock import now_utc
from training.engine.interruption import StopReason, StopRequest
from training.reporting.units import duration
from training.runs.run import Run
from training.runs.side_files import read_side_file
from training.runs.work_events import Event, last_sign, of_workers

NOTE = "usage.json"
_NOTE_SECONDS = 5.0


@dataclass(frozen=True)
class Usage:
    """Time at work in seconds, and what the part of it cost whose price was known."""

    seconds: float = 0.0
    priced_seconds: float = 0.0
    cost: float = 0.0

    def plus(self, seconds: float, price_per_hour: float | None) -> Usage:
        """With more time; a price also holds for earlier time whose price was not known."""
        total = self.seconds + seconds
        if price_per_hour is None:
            return Usage(total, self.priced_seconds, self.cost)
        return Usage(total, total, self.cost + (total - self.priced_seconds) / 3600 * price_per_hour)


@dataclass(frozen=True)
class Budget:
    """Limits for one run, in hours and in the unit of the price; None for no limit."""

    max_hours: float | None = None
    max_cost: float | None = None
    price_per_hour: float | None = None

    def check(self) -> None:
        """Raise ConfigError where a limit cannot be kept."""
        for flag, value in (("--max-hours", self.max_hours), ("--max-cost", self.max_cost)):
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"{flag} {value:g}: expected a number above 0")
        if self.price_per_hour is not None and not 0 <= self.price_per_hour < float("inf"):
            raise ConfigError(f"--price-per-hour {self.price_per_hour:g}: expected a number of at least 0")
        if self.max_cost is not None and not self.price_per_hour:
            raise ConfigError("--max-cost needs the machine's price: give --price-per-hour, or set VAST_DPH")

    def spent(self, usage: Usage) -> StopReason | None:
        """Why to stop, once ``usage`` has reached a limit."""
        if self.max_hours is not None and usage.seconds >= self.max_hours * 3600:
            what, flag = f"{usage.seconds / 3600:.4g} of {self.max_hours:g} hours are used", "--max-hours"
        elif self.max_cost is not None and usage.cost >= self.max_cost:
            what, flag = f"{usage.cost:.4g} of {self.max_cost:g} are spent", "--max-cost"
        else:
            return None
        return StopReason(
            f"budget spent: {what}", f"run the same command with a larger {flag} to continue", BudgetSpentError
        )

    def seconds_left(self, usage: Usage) -> float:
        """Time until a limit is reached; infinite without one."""
        left = float("inf") if self.max_hours is None else self.max_hours * 3600 - usage.seconds
        if self.max_cost is not None and self.price_per_hour:
            left = min(left, (self.max_cost - usage.cost) / self.price_per_hour * 3600)
        return max(left, 0.0)


class Meter:
    """Counts one run's usage while this process works on it, and asks for a stop when the budget is spent."""

    def __init__(self, budget: Budget, stop: StopRequest) -> None:
        self.budget, self._stop = budget, stop
        self._since = time.monotonic()
        self._before = Usage()
        self._run: Run | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def usage(self) -> Usage:
        """What the run has used up to now."""
        return self._before.plus(time.monotonic() - self._since, self.budget.price_per_hour)

    def begin(self, run: Run, known_elsewhere: Mapping[str, Any]) -> None:
        """Count on from what the run has used before, also by another machine's word.

        Raises:
            BudgetSpentError: there is nothing left to spend.
        """
        told = (_used(run), _usage_of(known_elsewhere))
        self._before = max(told, key=lambda usage: usage.seconds)
        reason = self.budget.spent(self._before.plus(0, self.budget.price_per_hour))
        if reason is not None:
            raise reason.error(f"{reason.what}; {reason.then}")
        self._run = run
        self._ended.clear()
        self._thread = threading.Thread(target=self._watch, name="budget", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """The run is over for this process: its usage is noted and kept in its metadata."""
        if self._thread is None or self._run is None:
            return
        self._ended.set()
        self._thread.join()
        self._note()
        self._run.update(usage=self.record())
        self._before, self._since = self.usage(), time.monotonic()
        self._thread, self._run = None, None

    def record(self) -> dict[str, Any]:
        """Usage and budget as the metadata keep them."""
        usage, budget = self.usage(), self.budget
        return {
            "hours": round(usage.seconds / 3600, 4),
            "cost": round(usage.cost, 4) if usage.priced_seconds else None,
            **asdict(budget),
        }

    def line(self) -> str:
        """The same for people."""
        usage, budget = self.usage(), self.budget
        cost = f", {usage.cost:.4g} at {budget.price_per_hour:g} an hour" if budget.price_per_hour else ""
        limits = [f"{budget.max_hours:g} hours"] if budget.max_hours else []
        limits += [f"{budget.max_cost:g}"] if budget.max_cost else []
        return f"used so far: {duration(usage.seconds)}{cost}" + (f"; budget {' or '.join(limits)}" if limits else "")

    def facts(self) -> dict[str, Any]:
        """What another machine needs to count on."""
        return {"usage": asdict(self.usage())}

    def _watch(self) -> None:
        while not self._ended.is_set():
            usage = self.usage()
            reason = self.budget.spent(usage)
            if reason is not None:
                self._stop.ask(reason)
            self._note()
            left = self.budget.seconds_left(usage)
            self._ended.wait(min(_NOTE_SECONDS, left + 0.01) if left else _NOTE_SECONDS)

    def _note(self) -> None:
        assert self._run is not None
        with suppress(OSError):  # a full disk is told by what needs it more
            self._run.write_json(NOTE, {**asdict(self.usage()), "time": now_utc()})


def seconds_at_work(events: Sequence[Event]) -> float:
    """Time from each worker's start to the last event that it left."""
    return sum(max((_moment(own[-1]) - _moment(own[0])).total_seconds(), 0.0) for own in of_workers(events))


def _moment(event: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(event["time"])


def _used(run: Run) -> Usage:
    """By the note in the run folder; where that is lost, or older than what a worker did, by the events too."""
    note, events = read_side_file(run, NOTE), run.events()
    noted = _usage_of(note)
    if noted != Usage() and str(note.get("time", "")) >= last_sign(events):
        return noted
    return max(noted, Usage(seconds_at_work(events)), key=lambda usage: usage.seconds)


def _usage_of(note: Mapping[str, Any]) -> Usage:
    try:
        return Usage(float(note["seconds"]), float(note["priced_seconds"]), float(note["cost"]))
    except (KeyError, TypeError, ValueError):
        return Usage()
