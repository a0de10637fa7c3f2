"""`status.json` of a run: what its worker does right now, for people and watching programs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from training.clock import now_utc
from training.files import to_json

FILE = "status.json"
_SECONDS = 1.0


class Status:
    """Written at most once a second, whole, but not made durable: it is old a second later, and no reason to fail."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._next = 0.0

    def write(self, facts: Mapping[str, Any]) -> bool:
        """Say ``facts``: `stage`, and what else is known of it; whether a second had passed."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _SECONDS
        fresh = self._folder / ".status.tmp"
        with suppress(OSError, ValueError):  # a loss that is no number has no JSON
            fresh.write_text(to_json({**facts, "time": now_utc()}) + "\n", "utf-8")
            fresh.replace(self._folder / FILE)
        return True

    def clear(self) -> None:
        """Nobody is at work any more."""
        with suppress(OSError):
            (self._folder / FILE).unlink(missing_ok=True)
