"""Stopping when asked to: SIGTERM (docker stop, a scheduler) and SIGINT (Ctrl-C) set a flag that every stage polls.

Other parts may ask too, such as a budget that is spent; then the run ends in the same way with an error of its own.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Self

from backend.errors import InterruptedRunError

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class StopReason:
    """Why to stop and what to do then, in words, and the error whose exit code says the same to machines."""

    what: str
    then: str = "run the same command to continue"
    error: type[InterruptedRunError] = InterruptedRunError


class StopRequest:
    """Turns the first signal into a flag; a second one ends the process at once with 128 + its number.

    Use as a context manager around a run: handlers are installed on entry and put back on exit.
    """

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._reason: StopReason | None = None
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        return self.signal_name is not None or self._reason is not None

    def ask(self, reason: StopReason) -> None:
        """Ask for a stop from any thread; the first reason holds."""
        self._reason = self._reason or reason

    def check(self) -> None:
        """Raise InterruptedRunError when a stop was asked for."""
        if self.requested:
            raise self.error()

    def error(self, where: str = "") -> InterruptedRunError:
        """The error that ends the run after a stop was asked for; ``where`` says what is saved."""
        reason = self._reason or StopReason(f"stopped by {self.signal_name}")
        return reason.error(f"{reason.what}{where}; {reason.then}")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal_name is not None:
            os._exit(128 + number)
        self.signal_name = signal.Signals(number).name

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def ignore_signals() -> None:
    """For helper processes: only the parent decides when to stop.

    A helper that died of the signal would raise in the parent at an arbitrary instruction, perhaps inside an
    optimizer step.
    """
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
