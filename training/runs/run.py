"""The run folder: identity, lock, events, metadata. Everything in it is relative, so the folder can move.

A run is known by (task, config hash, dataset fingerprint, run name). The same command finds its unfinished run and
continues it, whatever had ended it.
"""

from __future__ import annotations

import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from backend.errors import BadDataError, ConfigError, DiskError, UsageError
from backend.files import write_atomic
from training.clock import now_utc
from training.files import JsonLines, read_json, read_json_lines, write_json
from training.registry.lock import LOCK, at_work
from training.runs.metadata_shape import what_is_wrong
from training.yaml_core import read_yaml, write_yaml

UNFINISHED = ("running", "interrupted", "failed", "diverged")
IMPORTED = "imported"  # the state of a run that only holds weights of another program
METADATA = "metadata.yaml"
_NEW = ".new-"
_NEW_FOR_SECONDS = 60.0  # between its making and its lock; both take milliseconds


class Run:
    """One run folder, opened for reading or, inside ``locked()``, for work."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metadata: dict[str, Any] = read_yaml(folder / METADATA) if (folder / METADATA).exists() else {}
        self._events: JsonLines | None = None

    @property
    def run_id(self) -> str:
        """The folder's name."""
        return self.folder.name

    def path(self, *parts: str) -> Path:
        return self.folder.joinpath(*parts)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for work.

        Raises:
            ConfigError: another worker holds it.
        """
        lock = FileLock(self.path(LOCK))
        try:
            lock.acquire(timeout=0.5, poll_interval=0.02)  # a look at whether it is held holds it for an instant
        except Timeout as error:
            raise ConfigError(
                f"{self.folder}: another worker is at work on this run; wait for it, stop it, or start a run of "
                "its own with --run-name or --resume never"
            ) from error
        try:
            self.metadata = read_yaml(self.path(METADATA)) if self.path(METADATA).exists() else self.metadata
            self._events = JsonLines(self.path("events.jsonl"))
            yield
        finally:
            if self._events is not None:
                self._events.close()
                self._events = None
            lock.release()

    def event(self, name: str, **facts: Any) -> None:
        """Append to events.jsonl, durably."""
        assert self._events is not None, "the run is not locked"
        self._events.append({"time": now_utc(), "event": name, **facts}, durable=True)

    def events(self) -> list[dict[str, Any]]:
        """Everything that `event` recorded, oldest first."""
        return read_json_lines(self.path("events.jsonl"))

    def update(self, **facts: Any) -> None:
        """Change metadata.yaml, atomically."""
        self.metadata.update(facts)
        write_yaml(self.path(METADATA), self.metadata)

    def read_json(self, name: str) -> dict[str, Any]:
        """What ``write_json`` wrote under ``name``; empty where there is none."""
        return read_json(self.path(name)) if self.path(name).exists() else {}

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """A JSON object in the run folder, atomically; ``name`` may have folders in it."""
        write_json(self.path(name), value)


def check_run_name(name: str) -> str:
    """``name``, which becomes part of a run's id. Raises ConfigError where it could not be part of a folder's name."""
    if not name or name.startswith(".") or not all(character.isalnum() or character in "-_." for character in name):
        raise ConfigError(
            f"--run-name {name!r}: use letters, digits, '-', '_' and '.', since it becomes a folder's name"
        )
    return name


def create_run(output: Path, task: str, run_name: str, config_yaml: str, metadata: Mapping[str, Any]) -> Run:
    """Make a new run folder, its config and metadata in it from the first moment that it has its name.

    Raises:
        DiskError: ``output`` cannot be written.
    """
    parent = output / task
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent)
        with _building(parent) as building:
            write_atomic(building / "config.yaml", config_yaml)
            return _publish(building, parent, run_name, metadata)
    except OSError as error:
        raise DiskError(
            f"{parent}: the output folder cannot be written ({error.strerror or error}); mount it writable or name "
            "another with --output"
        ) from error


@contextmanager
def _building(parent: Path) -> Iterator[Path]:
    """A new folder that nobody else has, not even a process with this one's number in another container."""
    building = Path(tempfile.mkdtemp(prefix=_NEW, dir=parent))
    try:
        building.chmod(0o755)  # mkdtemp's are for their owner alone
        with FileLock(building / LOCK):  # says that somebody is at it
            yield building
    finally:
        shutil.rmtree(building, ignore_errors=True)  # where it did not get its name


def _sweep(parent: Path) -> None:
    """Delete what killed starts left: a folder that has no run's name yet, that nobody holds and that is no new one."""
    for building in parent.glob(f"{_NEW}*"):
        with suppress(OSError):
            if time.time() - building.stat().st_mtime > _NEW_FOR_SECONDS and not at_work(str(building)):
                shutil.rmtree(building, ignore_errors=True)


def _publish(building: Path, parent: Path, run_name: str, metadata: Mapping[str, Any]) -> Run:
    """Rename to a free run id: two runs that start in one second get different ones.

    The token tells runs apart that begin in one second on machines that do not see each other.
    """
    token = uuid.uuid4().hex[:12]
    stamp = datetime.now(UTC).strftime("%Y%m%d_%H%M%S")
    number = 1
    while True:
        run_id = f"{stamp}_{run_name}" + (f"_{number}" if number > 1 else "")
        known = {"run_id": run_id, "run_name": run_name, "token": token, "state": "running"}
        write_yaml(building / METADATA, {**known, **metadata})
        try:
            building.rename(parent / run_id)
            return Run(parent / run_id)
        except OSError:
            if not (parent / run_id).exists():
                raise
            number += 1


def move_to_free_id(run: Run) -> Run:
    """Give ``run``, whose id is taken elsewhere, the next one that is free here.

    Raises:
        ConfigError: another worker holds the run.
    """
    stamp = "_".join(run.run_id.split("_")[:2])
    with run.locked():
        for number in count(2):
            folder = run.folder.parent / f"{stamp}_{run.metadata['run_name']}_{number}"
            if not folder.exists():
                run.update(run_id=folder.name)
                run.folder.rename(folder)
                break
    return Run(folder)


def find_runs(output: Path, task: str) -> list[Run]:
    """All readable runs of a task, newest first."""
    runs = []
    for metadata in (output / task).glob(f"*/{METADATA}"):
        if not metadata.parent.name.startswith("."):
            try:
                runs.append(Run(metadata.parent))
            except UsageError:
                continue
    return sorted(runs, key=lambda run: run.run_id, reverse=True)


def matching_run(output: Path, task: str, known: Mapping[str, Any], same_data: Callable[[Run], bool]) -> Run | None:
    """The run that a command continues: of those whose metadata hold ``known`` the newest that began on ``same_data``.

    Where there is none, the newest that had its dataset prepared and that nobody works on: the data may have moved,
    which their fingerprint will tell. A run that never came so far says nothing about which data it was for.
    """
    found = [run for run in find_runs(output, task) if known.items() <= run.metadata.items() and not is_imported(run)]
    prepared = (run for run in found if run.metadata.get("dataset") and not at_work(str(run.folder)))
    return next((run for run in found if same_data(run)), None) or next(prepared, None)


def is_split_told(run: Run) -> bool:
    """Whether somebody only said on which split it was trained (`import --split-known`): nothing can check it."""
    return bool(run.metadata.get("imported", {}).get("split_told"))


def is_imported(run: Run) -> bool:
    """Whether a run was made of old weights: there is nothing to continue in it."""
    return run.metadata.get("state") == IMPORTED


def resolve_run(output: Path, named: str) -> Run:
    """The run that a user names: a folder (or one inside it), a run id or its unique beginning.

    Raises:
        UsageError: nothing, or more than one run, answers to the name.
        BadDataError: its metadata are not what a run writes.
    """
    from training.registry.names import run_folder

    run = Run(run_folder(output, named))
    wrong = what_is_wrong(run.metadata)
    if wrong is not None:
        raise BadDataError(f"{run.path(METADATA)}: {wrong}; mend it, or bring the file back from a copy of the run")
    return run
