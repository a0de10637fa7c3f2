"""Brings a run folder's newest state to its store, in the background, and never in the training's way.

What to do next is decided anew before each checkpoint, so that a slow store gets the newest one rather than all. The
best checkpoint that the newest one names goes first: a machine that goes on from there needs both.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from backend.artifact import STEP_PREFIX, checkpoints, read_state
from backend.errors import WorkerError
from training.runs.run import Run
from training.sync.remote_run import CHECKPOINTS, RemoteRun
from training.sync.stores import StoreError

_POLL_SECONDS = 1.0
_RECORDS_SECONDS = 300.0  # records go with every checkpoint, and at least so often
_LONGEST_PAUSE_SECONDS = 300.0
_TRIES_AT_THE_END = 8  # with pauses of 1, 2, 4 … s: about four minutes
Tell = Callable[[str, dict[str, Any]], None]


class Pusher:
    """Keeps ``remote`` like ``folder``. ``tell(event, facts)`` hears of successes and failures."""

    def __init__(self, remote: RemoteRun, folder: Path, tell: Tell) -> None:
        self.remote, self.folder = remote, folder
        self.complete = False  # everything of the folder was there when the pushing ended
        self._tell_others = tell
        self._there: set[str] = set()  # checkpoints known to be there, whole
        self._pruned_to: set[str] = set()
        self._records_at = 0.0
        self._failures = 0
        self._closing, self._given_up = threading.Event(), threading.Event()
        self._telling = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="sync", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self, patient: Callable[[], bool]) -> bool:
        """A last push of everything, given up when ``patient()`` is false; whether all of it is there."""
        self._closing.set()
        while self._thread.is_alive() and patient():
            self._thread.join(0.1)
        with self._telling:  # after this nothing is told any more: the run folder is about to be closed
            self._given_up.set()
        return self.complete

    def _work(self) -> None:
        while not self._given_up.is_set():
            closing = self._closing.is_set()
            pause = _POLL_SECONDS
            try:
                self._round(everything=closing)
                if self._recovered():
                    continue  # what was told of it belongs there too
                if closing:
                    self.complete = not self._given_up.is_set()
                    return
            except Exception as error:  # a training is worth more than its copy
                pause = self._failed(error)
                if closing and self._failures >= _TRIES_AT_THE_END:
                    return
            (self._given_up if closing else self._closing).wait(pause)

    def _round(self, everything: bool) -> None:
        pushed = False
        while not self._given_up.is_set() and (folder := self._next()) is not None:
            pushed |= self._push(folder)
        names = {folder.name for folder in checkpoints(self.folder / CHECKPOINTS)}
        if pushed or everything or names != self._pruned_to:
            self._check_place()
            self._prune()
            self._pruned_to = names
        if everything or pushed or time.monotonic() >= self._records_at:
            self._check_place()
            self._push_records()
            self._records_at = time.monotonic() + _RECORDS_SECONDS

    def _next(self) -> Path | None:
        """The checkpoint whose absence in the store costs most."""
        found = checkpoints(self.folder / CHECKPOINTS)
        best = _progress(found).get("best")
        named = [folder for folder in found[:-1] if best and int(folder.name.removeprefix(STEP_PREFIX)) == best["step"]]
        for folder in [*named, *found[-1:], *found[:-1]]:
            if folder.name not in self._there and not self._is_there(folder):
                return folder
        return None

    def _is_there(self, folder: Path) -> bool:
        try:
            if self.remote.has_checkpoint(folder):
                self._there.add(folder.name)
                return True
        except OSError:  # deleted meanwhile, as old checkpoints are
            return True
        return False

    def _check_place(self) -> None:
        """Before each push: two runs of one id may find each other late, where a store's listing lags behind."""
        if self.remote.is_another(Run(self.folder).metadata.get("token")):
            raise StoreError(
                f"{self.remote.store.shown}/{self.remote.prefix} is another run of the same id; nothing of this one "
                "goes there"
            )

    def _push(self, folder: Path) -> bool:
        self._check_place()
        started = time.monotonic()
        try:
            size = self.remote.put_checkpoint(folder, before_it_counts=self._push_small_records)
        except (OSError, StoreError):
            if folder.is_dir():
                raise
            self.remote.remove_checkpoint(folder.name)  # deleted here while it was on its way
            return False
        self._there.add(folder.name)
        seconds = round(time.monotonic() - started, 2)
        self._tell("synced", {"checkpoint": folder.name, "bytes": size, "seconds": seconds})
        return True

    def _prune(self) -> None:
        """Delete there what is no longer here, milestones aside, once the newest is safe."""
        found = checkpoints(self.folder / CHECKPOINTS)
        if not found or found[-1].name not in self._there:
            return
        keep = {folder.name for folder in found}
        keep |= {f"{STEP_PREFIX}{step:08d}" for step in _progress(found).get("milestones", [])}
        for name in self.remote.begun_checkpoints():
            if name not in keep:
                self.remote.remove_checkpoint(name)
                self._there.discard(name)

    def _push_small_records(self) -> None:
        self._push_records(but=".pth")

    def _push_records(self, but: str | None = None) -> None:
        for path in self.remote.unsent(self.folder):
            if path.suffix == but or self._given_up.is_set():
                continue
            try:
                self.remote.put_record(self.folder, path)
            except OSError:
                if path.exists():
                    raise

    def _failed(self, error: Exception) -> float:
        """Tell the first of a row of failures; the seconds to wait."""
        self._failures += 1
        if self._failures == 1:
            self._tell("sync failing", {"error": str(error) if isinstance(error, WorkerError) else repr(error)})
        return min(2.0 ** (self._failures - 1), _LONGEST_PAUSE_SECONDS)

    def _recovered(self) -> bool:
        if not self._failures:
            return False
        failures, self._failures = self._failures, 0
        self._tell("sync works again", {"failures": failures})
        return True

    def _tell(self, event: str, facts: dict[str, Any]) -> None:
        with self._telling:
            if not self._given_up.is_set():
                self._tell_others(event, facts)


def _progress(found: Sequence[Path]) -> dict[str, Any]:
    """What the newest of some checkpoints says of the training; nothing when it was deleted since, as old ones are."""
    try:
        return read_state(found[-1])["progress"] if found else {}
    except FileNotFoundError:
        return {}
