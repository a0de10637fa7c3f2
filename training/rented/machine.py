"""What a machine that may vanish, and that costs, adds to a training: sync, budget, and what becomes of it at the end.

`RentedMachine` is all that the pipeline sees of it. Nothing here changes what is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from backend.errors import BudgetSpentError, SourceUnavailableError
from training.engine.interruption import StopRequest
from training.rented.budget import Budget, Meter
from training.rented.on_finish import instance_for
from training.reporting.log import RunLog
from training.requests import TrainRequest
from training.runs.run import Run
from training.sync.session import Sync
from training.sync.stores import open_store

Say = Callable[[str], None]


class RentedMachine:
    """Sync, budget and end of one `train` command. Use as a context manager around it.

    Flags that cannot work raise ConfigError at once. On leaving, after a run that finished or whose budget is spent,
    the copy in the store is completed, and where the instance is to be stopped or destroyed, verified before that.
    """

    def __init__(self, request: TrainRequest, environ: Mapping[str, str], stop: StopRequest) -> None:
        budget = Budget(request.max_hours, request.max_cost, request.price_per_hour)
        budget.check()
        self._action, self._more_follow = request.on_finish, request.more_follow
        self._instance = instance_for(request.on_finish, request.sync_to, environ)
        self._meter = Meter(budget, stop)
        self._sync = Sync(open_store(request.sync_to), request.task, request.output, stop) if request.sync_to else None
        self._run: Run | None = None
        self._say = RunLog(None).say  # the run's own log is synced, and changes no more

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sync is None:
            return
        try:
            if self._run is not None and (error is None or isinstance(error, BudgetSpentError)):
                self._conclude(self._sync, self._run, error)
        finally:
            self._sync.close()

    def find(self, local: Run | None, known: Mapping[str, Any], is_sample: bool, say: Say) -> Run | None:
        """The run to continue, ``local`` or one with the same identity (``known``) that is further on in the store."""
        return local if self._sync is None else self._sync.find(local, known, is_sample, say)

    def update(self, run: Run, say: Say) -> Run:
        """A run that was named, brought to where the store has it."""
        return run if self._sync is None else self._sync.update(run, say)

    def own_place(self, run: Run, say: Say) -> Run:
        """``run``, under an id that no other run has in the store."""
        return run if self._sync is None else self._sync.own_place(run, say)

    def keep(self, run: Run) -> Run:
        """``run`` is what the end is about."""
        self._run = run
        return run

    @contextmanager
    def at_work(self, run: Run, say: Say) -> Iterator[None]:
        """While the locked ``run`` is prepared, trained and scored: its time counts, its newest state is pushed.

        Raises:
            ConfigError: another machine is at work on it.
            BudgetSpentError: nothing is left to spend.
        """
        self.keep(run)
        try:
            known = self._sync.claim(run, say) if self._sync is not None else {}
            self._meter.begin(run, known.get("usage") or {})
            say(self._meter.line())
            if self._sync is not None:
                self._sync.push(run, say, self._meter.facts)
            yield
        except BaseException as error:
            self._end(run, error)
            raise
        self._end(run, None)

    def _end(self, run: Run, error: BaseException | None) -> None:
        self._meter.end()
        if self._sync is not None:
            self._sync.end(run, error)

    def _conclude(self, sync: Sync, run: Run, error: BaseException | None) -> None:
        try:
            sync.complete(run, self._say)
        except SourceUnavailableError as failure:
            if error is None or self._instance is not None:
                raise
            self._say(f"warning: {failure}")
            return
        self._say(f"synced to {sync.store.shown}/{sync.remote(run).prefix}")
        if self._instance is None:
            return
        files = sync.verify(run, self._say)
        if self._more_follow and error is None:
            self._say(f"{files} files there are what they are here; the instance is needed for what follows")
            return
        self._say(f"{files} files there are what they are here; now the instance is to {self._action}")
        self._instance.end(self._action)
