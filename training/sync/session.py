"""A run's life with its store: found there, claimed, pushed while work goes on, and complete in the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from backend.artifact import checkpoints
from backend.errors import BudgetSpentError, InterruptedRunError, SourceUnavailableError, TakenOverError
from training.engine.interruption import StopReason, StopRequest
from training.runs.run import Run
from training.sync.lease import NOTE, Lease, worker_id
from training.sync.own_place import own_place, place_is_taken
from training.sync.pull import find_remote, local_standing, pull, remote_finished, remote_standing
from training.sync.push import Pusher
from training.sync.remote_run import CHECKPOINTS, RemoteRun
from training.sync.stores import Store, StoreError

Say = Callable[[str], None]
SECONDS_AFTER_A_SIGNAL = 4.0  # docker stop kills after ten, and the checkpoint was written before
SECONDS_AFTER_A_FAILURE = 60.0
_TRIES_AT_THE_START = 5


class Sync:
    """What one `train` command does with the store."""

    def __init__(self, store: Store, task: str, output: Path, stop: StopRequest) -> None:
        self.store, self._task, self._output, self._stop = store, task, output, stop
        self._remotes: dict[str, RemoteRun] = {}
        self._leases: dict[str, Lease] = {}
        self._known: dict[str, Any] = {}
        self._pusher: Pusher | None = None
        self._complete = False  # the newest push brought everything over

    def remote(self, run: Run) -> RemoteRun:
        """Where ``run`` lies in the store."""
        return self._remote(run.metadata.get("task", self._task), run.run_id)

    def _remote(self, task: str, run_id: str) -> RemoteRun:
        return self._remotes.setdefault(f"{task}/{run_id}", RemoteRun(self.store, task, run_id))

    # --- before ------------------------------------------------------------------------------------------------------

    def find(self, local: Run | None, known: Mapping[str, Any], is_sample: bool, say: Say) -> Run | None:
        """The run to continue: ``local``, or the store's newest with the same identity when that is further on.

        Raises:
            ConfigError: another machine is at work on it.
            StoreError: the store cannot be reached, and there is no ``local``.
        """

        def found() -> Run | None:
            run_id = find_remote(self.store, self._task, say, known, is_sample)
            return self._further(run_id, local, say) if run_id else local

        return self._patiently(found, local, say)

    def update(self, local: Run, say: Say) -> Run:
        """``local``, brought to where the store has the same run. Raises ConfigError as `find` does."""
        return self._patiently(lambda: self._further(local.run_id, local, say), local, say) or local

    def _further(self, run_id: str, local: Run | None, say: Say) -> Run | None:
        remote = self._remote(local.metadata["task"] if local is not None else self._task, run_id)
        if local is not None and local.run_id == run_id and remote.is_another(local.metadata.get("token")):
            return local  # two machines that began in one second: `own_place` parts them
        finished = remote_finished(remote, say)
        here, there = local_standing(local), remote_standing(remote, finished)
        if there <= here:
            if there.step > 0:
                say(f"sync: {self.store.shown} has {run_id} at step {there.step}; the one here is at step {here.step}")
            return local
        parent = self._output / remote.task
        parent.mkdir(parents=True, exist_ok=True)
        with FileLock(parent / ".pull.lock"):
            if not finished:
                self._take(remote, say)
            folder = pull(remote, parent, here, say)
        if folder is None:
            say(f"sync: nothing sound beyond step {here.step} in {self.store.shown}; the run here goes on")
            return local
        beside = f"; the run here is at step {here.step}" if local is not None else ""
        say(f"sync: fetched {run_id} from {self.store.shown}, at step {local_standing(Run(folder)).step}{beside}")
        return Run(folder)

    def _patiently(self, action: Callable[[], Run | None], local: Run | None, say: Say) -> Run | None:
        for attempt in range(_TRIES_AT_THE_START):
            try:
                return action()
            except StoreError as error:
                if attempt + 1 < _TRIES_AT_THE_START:
                    say(f"sync: {error}; trying again")
                    self._pause(2.0**attempt)
                elif local is None:
                    raise
                else:
                    say(f"sync: {error}; going on with {local.run_id} as it is here")
        return local

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._stop.check()
            time.sleep(min(left, 0.2))

    def own_place(self, run: Run, say: Say) -> Run:
        """``run``, under an id that no other run has in the store. Raises ConfigError where it cannot have one."""
        return own_place(self.remote, run, self._pause, say)

    # --- while -------------------------------------------------------------------------------------------------------

    def claim(self, run: Run, say: Say) -> Mapping[str, Any]:
        """Take the run's lease; what the last owner's note said.

        A store that is out of reach does not stop a training that has begun.

        Raises:
            ConfigError: another machine is at work on it.
            StoreError: nothing is trained yet, and nothing can be written there.
        """
        remote = self.remote(run)
        if remote.prefix not in self._leases:
            try:
                self._take(remote, say)
            except StoreError as error:
                if not checkpoints(run.path(CHECKPOINTS)):
                    raise
                say(f"sync: {error}; the training goes on and is pushed once that works")
                self._leases[remote.prefix] = self._lease(remote)
        return self._known

    def push(self, run: Run, say: Say, facts: Callable[[], Mapping[str, Any]]) -> None:
        """Keep the store's copy of a claimed run up to date from now on, and its lease with ``facts()``."""

        def tell(event: str, facts: dict[str, Any]) -> None:
            run.event(event, **facts)
            if event == "sync failing":
                say(f"sync: {facts['error']}; the training goes on, and it is tried again")
            elif event == "sync works again":
                say(f"sync: {self.store.shown} works again")

        self._pusher = Pusher(self.remote(run), run.folder, tell)
        self._pusher.start()
        lease = self._leases[self.remote(run).prefix]
        lease.facts = facts
        lease.keep(self._taken_over)

    def _take(self, remote: RemoteRun, say: Say) -> None:
        lease = self._lease(remote)
        self._known = lease.take(say, self._pause)
        self._leases[remote.prefix] = lease

    def _lease(self, remote: RemoteRun) -> Lease:
        return Lease(remote.store, remote.path(NOTE), worker_id(self._output))

    def _taken_over(self, host: str) -> None:
        what, then = f"{host} has taken this run over", "it goes on there, and nothing more is pushed from here"
        self._stop.ask(StopReason(what, then, TakenOverError))

    # --- after -------------------------------------------------------------------------------------------------------

    def end(self, run: Run, error: BaseException | None) -> None:
        """Push a last time, as long as ``error`` allows, and leave the run to others."""
        if self._pusher is not None:
            patient = (lambda: False) if isinstance(error, TakenOverError) else self._patience(error)
            self._complete = self._pusher.finish(patient)
            self._pusher = None
        self._leave(run, 0.5 if error is not None else SECONDS_AFTER_A_FAILURE)

    def _leave(self, run: Run, seconds: float) -> None:
        lease = self._leases.pop(self.remote(run).prefix, None)
        if lease is not None:
            lease.leave(seconds)

    def _patience(self, error: BaseException | None) -> Callable[[], bool]:
        """Whether the last push may go on: as long as it needs, unless something presses."""
        started = time.monotonic()
        done = error is None or isinstance(error, BudgetSpentError)
        pressed = started if isinstance(error, InterruptedRunError) and not done else None

        def patient() -> bool:
            nonlocal pressed
            now = time.monotonic()
            if self._stop.signal_name is not None and pressed is None:
                pressed = now
            if pressed is not None:
                return now - pressed < SECONDS_AFTER_A_SIGNAL
            return done or now - started < SECONDS_AFTER_A_FAILURE

        return patient

    def complete(self, run: Run, say: Say) -> None:
        """See to it that the store has all of a run that nobody works on.

        Raises:
            SourceUnavailableError: it could not be brought there.
            ConfigError: another run has its id there.
        """
        if self._complete:
            return
        with suppress(StoreError):  # out of reach: told below
            if self.remote(run).is_another(run.metadata.get("token")):
                raise place_is_taken(self.remote(run))
        self.claim(run, say)
        reason = "the sync is not complete"

        def tell(event: str, facts: dict[str, Any]) -> None:
            nonlocal reason
            reason = str(facts.get("error", reason))

        pusher = Pusher(self.remote(run), run.folder, tell)
        pusher.start()
        self._complete = pusher.finish(self._patience(None))
        self._leave(run, SECONDS_AFTER_A_FAILURE)
        if not self._complete:
            raise SourceUnavailableError(
                f"{run.folder} is whole here, but not in {self.store.shown}: {reason}; run the same command again"
            )

    def verify(self, run: Run, say: Say) -> int:
        """Compare all of the store's copy by content; what differs goes there again, once. The number of files.

        Raises:
            SourceUnavailableError: it differs still.
        """
        remote = self.remote(run)
        for name in remote.differing(run.folder):
            say(f"sync: {name} is not there as it is here; it goes there again")
            remote.forget(name)
            self._complete = False
        self.complete(run, say)
        differing = remote.differing(run.folder)
        if differing:
            raise SourceUnavailableError(f"{self.store.shown}: {differing[0]} is still not there as it is here")
        return remote.count(run.folder)

    def close(self) -> None:
        """End what is under way."""
        self.store.close()
