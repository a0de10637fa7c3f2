"""One machine a run: a note in the store that says who is at work, renewed while it is.

Clocks of machines differ, so a note is judged by whether it changes, not by the time in it: a machine that finds
another's note waits for some missed renewals and takes over when there were none.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backend.errors import ConfigError
from backend.files import write_atomic
from training.clock import now_utc
from training.sync.stores import Store, StoreError

NOTE = "owner.json"
RENEW_SECONDS = 30.0
STALE_SECONDS = 150.0
_POLL_SECONDS = 5.0
_LONG_AGO_SECONDS = 3600.0  # whatever the clocks say: nobody waits for such a note
AT_WORK, LEFT = "at work", "left"


class Lease:
    """This machine's claim on a run in a store."""

    def __init__(self, store: Store, path: str, worker: str) -> None:
        self.store, self.path, self.worker = store, path, worker
        self.facts: Callable[[], Mapping[str, Any]] = dict  # what stands with the note, such as the hours used
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, say: Callable[[str], None], pause: Callable[[float], None]) -> dict[str, Any]:
        """Claim the run; what the note before said.

        Raises:
            ConfigError: another machine is at work on it.
            StoreError: the store cannot be reached.
        """
        before = self._read()
        if (
            before.get("worker", self.worker) != self.worker
            and before.get("state") == AT_WORK
            and not _long_ago(before)
        ):
            say(
                f"{before.get('host')} was at work on this run at {before.get('time')}; waiting up to "
                f"{STALE_SECONDS:.0f} s to see whether it still is"
            )
            self._wait_for_its_end(before, pause)
        told = {"usage": before["usage"]} if "usage" in before else {}
        self.facts = lambda: told  # until this machine has facts of its own
        self._write(AT_WORK)
        return before

    def keep(self, lost: Callable[[str], None]) -> None:
        """Renew the note in the background; ``lost(host)`` is called once another machine has taken the run over."""
        self._ended.clear()
        self._thread = threading.Thread(target=self._renew, args=(lost,), name="lease", daemon=True)
        self._thread.start()

    def leave(self, seconds: float) -> None:
        """Tell others that the run is free, if that takes no longer than ``seconds``."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(seconds)
        leaving = threading.Thread(target=self._say_left, name="lease", daemon=True)
        leaving.start()
        leaving.join(seconds)

    def _say_left(self) -> None:
        with suppress(StoreError):
            if self._read().get("worker") == self.worker:
                self._write(LEFT)

    def _wait_for_its_end(self, before: Mapping[str, Any], pause: Callable[[float], None]) -> None:
        end = time.monotonic() + STALE_SECONDS
        while time.monotonic() < end:
            pause(min(_POLL_SECONDS, STALE_SECONDS))
            now = self._read()
            if now.get("state") != AT_WORK or now.get("worker") == self.worker:
                return
            if now != before:
                raise ConfigError(
                    f"{self.store.shown}: {now.get('host')} is at work on this run (last sign of life "
                    f"{now.get('time')}); stop it there, or start a run of its own with --run-name or --resume never"
                )

    def _renew(self, lost: Callable[[str], None]) -> None:
        pause = 0.0
        while not self._ended.wait(pause):
            pause = RENEW_SECONDS
            with suppress(StoreError):  # the pushing says that the store is out of reach
                owner = self._read()
                if owner.get("worker", self.worker) != self.worker:
                    lost(str(owner.get("host")))
                    return
                if not self._ended.is_set():
                    self._write(AT_WORK)

    def _read(self) -> dict[str, Any]:
        """The note as it is; nothing where there is none or it is damaged."""
        try:
            found = json.loads(self.store.read(self.path) or b"{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self, state: str) -> None:
        note = {
            "worker": self.worker,
            "host": socket.gethostname(),
            "state": state,
            "time": now_utc(),
            "pid": os.getpid(),
            "sign": uuid.uuid4().hex[:8],  # so that every renewal changes it
            **self.facts(),
        }
        self.store.write(self.path, json.dumps(note, indent=1).encode())


def worker_id(output: Path) -> str:
    """This machine's name for itself, the same after a restart: it is kept beside the runs."""
    path = output / ".worker-id"
    with suppress(OSError):
        return path.read_text("ascii").strip()
    output.mkdir(parents=True, exist_ok=True)
    write_atomic(path, uuid.uuid4().hex)
    return path.read_text("ascii").strip()


def _long_ago(note: Mapping[str, Any]) -> bool:
    try:
        told = datetime.fromisoformat(str(note["time"]))
        return (datetime.now(UTC) - told).total_seconds() > _LONG_AGO_SECONDS
    except (KeyError, ValueError, TypeError):
        return False
