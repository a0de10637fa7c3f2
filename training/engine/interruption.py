"""Stopping when asked to: SIGTERM (docker stop, a scheduler) and SIGINT (Ctrl-C) set a flag that every stage polls."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from backend.errors import InterruptedRunError

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Turns the first signal into a flag; a second one ends the process at once with 128 + its number.

    Use as a context manager around a run: handlers are installed on entry and put back on exit.

    Args:
        alive: told at each poll. Loops poll between two pieces of work, so a poll is a sign of life.
    """

    def __init__(self, alive: Callable[[], None] = lambda: None) -> None:
        self._alive = alive
        self.signal_name: str | None = None
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether to stop."""
        self._alive()
        return self.signal_name is not None

    def check(self) -> None:
        """Raise InterruptedRunError when a stop was asked for."""
        self._alive()
        self.check_waiting()

    def check_waiting(self) -> None:
        """The same from a loop that waits for others, which is no sign of life."""
        if self.signal_name is not None:
            raise InterruptedRunError(f"stopped by {self.signal_name}; run the same command to continue")

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
