"""Stopping when asked to: SIGTERM (docker stop, a scheduler) and SIGINT (Ctrl-C) set a flag that every stage polls.

Other parts may ask too, such as a budget that is spent; then the run ends in the same way with an error of its own.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
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

    Args:
        alive: told at each poll. Loops poll between two pieces of work, so a poll is a sign of life.
    """

    def __init__(self, alive: Callable[[], None] = lambda: None) -> None:
        self._alive = alive
        self.signal_name: str | None = None
        self._reason: StopReason | None = None
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether to stop."""
        self._alive()
        return self.signal_name is not None or self._reason is not None

    def ask(self, reason: StopReason) -> None:
        """Ask for a stop from any thread; the first reason holds."""
        self._reason = self._reason or reason

    def check(self) -> None:
        """Raise the error of `error` when a stop was asked for."""
        if self.requested:
            raise self.error()

    def check_waiting(self) -> None:
        """The same from a loop that waits for others, which is no sign of life."""
        if self.signal_name is not None or self._reason is not None:
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


def heed_only_the_parent() -> None:
    """For helper processes: the parent decides when to stop, whoever else signals the whole process group.

    A helper that died of the signal would raise in the parent at an arbitrary instruction, perhaps inside an
    optimizer step. One that is deaf to its parent too would be waited for without end: a process that exits first
    terminates its helpers, then joins them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_leave_when_told, args=(os.getppid(),), daemon=True, name="parent").start()


def _leave_when_told(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
