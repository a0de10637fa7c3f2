"""A tracker's own process: ``python -m training.reporting.trackers.live NAME RUN_FOLDER WANDB_MODE``.

Nothing that a library does there (hang, crash, print, wait for a server) reaches the training. Lines of JSON on the
standard output tell what happened; the standard input says how the run ended, and ends when the training is gone.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any, TextIO

from training.reporting.trackers.choice import make_tracker
from training.reporting.trackers.delivery import Delivery
from training.reporting.trackers.tracker import Tracker, shown

_POLL_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 60.0
_SECONDS_AFTER_THE_TRAINING = 10.0  # when that was killed: time to close what is open


class Ending:
    """How the training ended, once it did."""

    def __init__(self, lines: TextIO) -> None:
        self.state: str | None = None
        self.orphaned = False
        self._lines, self._ended = lines, threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        self.state = self._lines.readline().strip() or None
        if self.state is None:
            self.state, self.orphaned = "interrupted", True
            timer = threading.Timer(_SECONDS_AFTER_THE_TRAINING, os._exit, (1,))
            timer.daemon = True
            timer.start()
        self._ended.set()

    def wait(self, seconds: float) -> None:
        """Until the training ends, no longer than ``seconds``."""
        self._ended.wait(seconds)


class Live:
    """Follows a run folder until its training ends."""

    def __init__(self, folder: Path, tracker: Tracker, ending: Ending, messages: TextIO) -> None:
        self._delivery, self._ending, self._messages = Delivery(folder, tracker), ending, messages
        self._failures = 0

    def follow(self) -> None:
        """Deliver, and try again what failed, with growing pauses."""
        while True:
            state = self._ending.state
            try:
                if self._step(state):
                    return
                pause = _POLL_SECONDS
            except Exception as error:
                pause = self._failed(error)
                if self._ending.orphaned:
                    return
            (threading.Event() if state else self._ending).wait(pause)

    def _step(self, state: str | None) -> bool:
        """One round; whether all is done."""
        if not self._delivery.opened:
            self._delivery.begin()
        if state is not None:
            self._tell(event="tracked", where=shown_where(self._delivery.finish(state)))
            return True
        while self._delivery.round() and self._ending.state is None:
            pass
        if self._failures:
            self._failures = 0
            self._tell(event="tracking works again")
        return False

    def _failed(self, error: Exception) -> float:
        self._failures += 1
        if self._failures == 1:
            self._tell(event="tracking failing", error=shown(error))
        return min(2.0 ** (self._failures - 1), _LONGEST_PAUSE_SECONDS)

    def _tell(self, **message: Any) -> None:
        self._messages.write(json.dumps(message) + "\n")
        self._messages.flush()


def shown_where(where: str) -> str:
    """A place in one line."""
    return " ".join(where.split())


def main(argv: list[str]) -> None:
    """Follow the run; messages go where standard output went, and what libraries print goes nowhere."""
    name, folder, wandb_mode = argv
    os.nice(10)  # the training goes first
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    path = Path(folder)
    Live(path, make_tracker(name, path, wandb_mode), Ending(sys.stdin), messages).follow()


if __name__ == "__main__":
    main(sys.argv[1:])
