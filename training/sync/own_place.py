"""One run a place: two machines may begin runs of one name in one second, and then choose one id for both.

Each puts a claim there, a file of its own name, and looks only then who else is there: of two, the one whose claim
arrives last finds the other's, however long either takes. Who finds a lower token's claim, or metadata, moves on to the
next number; who finds higher ones waits until they are gone, looks for metadata, and puts its own where there are none.
A claim is withdrawn after that, never before. So no two runs have one place, by the order of what each does alone and
without clocks: Lamport's bakery (Communications of the ACM 17(8), 1974), with the tokens as numbers.

It rests on stores that show what was put as soon as putting it has returned. Where a listing lags behind, `Pusher`
still looks before each push whose metadata lie there, and stops at another's.
"""

from __future__ import annotations

from collections.abc import Callable

from backend.artifact import checkpoints
from backend.errors import ConfigError
from training.runs.run import METADATA, Run, move_to_free_id
from training.sync.remote_run import CHECKPOINTS, RemoteRun
from training.sync.stores import StoreError

_CONFIG = "config.yaml"
_POLL_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 20.0  # for claims of machines that may be dead: then this one moves on


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
    token = run.metadata.get("token")
    if remote.token() is not None or not token:
        return not remote.is_another(token)
    remote.claim(token)
    try:
        is_free = _is_first(remote, token, pause) and remote.token() is None
        if is_free:
            for name in (_CONFIG, METADATA):  # what makes it a run comes last
                remote.put_record(run.folder, run.path(name))
        return is_free
    finally:
        remote.withdraw(token)


def _is_first(remote: RemoteRun, token: str, pause: Callable[[float], None]) -> bool:
    """Whether no other run wants the place any more; of some the one with the lowest token waits for the others."""
    waited = 0.0
    while others := remote.claims() - {token}:
        if min(others) < token or waited >= _LONGEST_WAIT_SECONDS:
            return False
        pause(_POLL_SECONDS)
        waited += _POLL_SECONDS
    return True
