"""One run a place: two machines may begin runs of one name in one second, and then choose one id for both.

Which of them has the place is seen by the metadata that lie there: each puts its own, waits for the other's to arrive,
and looks whose they are. The one that finds the other's moves on to the next number.
"""

from __future__ import annotations

from collections.abc import Callable

from backend.artifact import checkpoints
from backend.errors import ConfigError
from training.run import METADATA, Run, move_to_free_id
from training.sync.remote_run import CHECKPOINTS, RemoteRun
from training.sync.stores import StoreError

SECONDS_TO_ARRIVE = 2.0  # between another machine's look at the store and its own record there
_CONFIG = "config.yaml"


def own_place(
    remote_of: Callable[[Run], RemoteRun], run: Run, pause: Callable[[float], None], say: Callable[[str], None]
) -> Run:
    """``run``, under an id that no other run has in the store; ``remote_of`` gives a run's place there.

    Raises:
        ConfigError: the id is another run's, and this one has checkpoints under it already.
    """
    try:
        while not _is_its_own(remote_of(run), run, pause):
            if checkpoints(run.path(CHECKPOINTS)):
                raise place_is_taken(remote_of(run))
            where, run = remote_of(run), move_to_free_id(run)
            say(f"sync: {where.store.shown} has another run {where.run_id}; this one is {run.run_id}")
    except StoreError as error:
        say(f"sync: {error}; whether another run has its id there is seen later")
    return run


def place_is_taken(remote: RemoteRun) -> ConfigError:
    """The place is another run's."""
    return ConfigError(
        f"{remote.store.shown}/{remote.prefix} is another run of the same id, begun in the same second; keep this one "
        "elsewhere, with another --sync-to"
    )


def _is_its_own(remote: RemoteRun, run: Run, pause: Callable[[float], None]) -> bool:
    if remote.token() is None:
        for name in (_CONFIG, METADATA):  # what makes it a run comes last
            remote.put_record(run.folder, run.path(name))
        pause(SECONDS_TO_ARRIVE)
        remote.forget(_CONFIG)  # the other's may have come over it: the first push brings it again
    return not remote.is_another(run.metadata.get("token"))
