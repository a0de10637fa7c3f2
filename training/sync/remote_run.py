"""A run in a store: the same files under the same names, below ``<task>/<run id>/``.

A checkpoint counts there from the moment that its ``manifest.json`` lies beside its files. That is written last, after
every file was found in the store with the size and the content that the manifest tells.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from backend.artifact import MANIFEST, STEP_PREFIX, checkpoints
from backend.errors import ConfigError
from training.sync.stores import Store, Stored, StoreError, holds
from training.yaml_core import parse_yaml

CHECKPOINTS = "checkpoints"
METADATA = "metadata.yaml"
CLAIMS = ".claims"  # a file for each run that wants this place, see `own_place`
_LIVE = {"status.json"}  # of interest only where it is written
_IN_ONE_PIECE_BYTES = 64 * 2**20  # files that are appended to stay far below; they are read as they are at one moment


class RemoteRun:
    """One run folder's place in a store. Methods raise StoreError."""

    def __init__(self, store: Store, task: str, run_id: str) -> None:
        self.store, self.task, self.run_id = store, task, run_id
        self.prefix = f"{task}/{run_id}"
        self.damaged: set[str] = set()  # checkpoints that were found so: they do not count, whatever lies beside them
        self._sent: dict[str, tuple[int, int]] = {}  # size and time of each record that was put there

    def path(self, *parts: str) -> str:
        return "/".join((self.prefix, *parts))

    def token(self) -> str | None:
        """The token of the run that is there: empty where it has none, None where there is no run."""
        content = self.store.read(self.path(METADATA))
        if content is None:
            return None
        try:
            found = parse_yaml(content.decode("utf-8"), self.path(METADATA))
        except (UnicodeDecodeError, ConfigError):
            return None
        return str(found.get("token", "")) if isinstance(found, dict) else None

    def is_another(self, token: str | None) -> bool:
        """Whether the run that is there is not the one with ``token``; unknown for runs that have none themselves."""
        return bool(token) and self.token() not in (None, token)

    def claim(self, token: str) -> None:
        """Let others see that the run with ``token`` wants this place."""
        self.store.write(self.path(CLAIMS, token), token.encode())  # some stores keep no empty files

    def claims(self) -> set[str]:
        """The tokens of the runs that want this place."""
        return set(self.store.files(self.path(CLAIMS)))

    def withdraw(self, token: str) -> None:
        """Take a claim back."""
        self.store.remove_file(self.path(CLAIMS, token))

    def checkpoints(self) -> list[str]:
        """Names of the checkpoints that count, oldest first."""
        found = self.store.files(self.path(CHECKPOINTS))
        whole = [name.split("/")[0] for name in found if name.endswith(f"/{MANIFEST}")]
        return sorted((name for name in whole if _step(name) is not None), key=lambda name: _step(name) or 0)

    def begun_checkpoints(self) -> list[str]:
        """Names of all checkpoints there, also of those that never became whole."""
        return [name for name in self.store.folders(self.path(CHECKPOINTS)) if _step(name) is not None]

    def has_checkpoint(self, folder: Path) -> bool:
        """Whether this very checkpoint was put there before."""
        if folder.name in self.damaged:
            return False
        there = self.store.read(self.path(CHECKPOINTS, folder.name, MANIFEST))
        return there == (folder / MANIFEST).read_bytes()

    def put_checkpoint(self, folder: Path, before_it_counts: Callable[[], None]) -> int:
        """Upload, check what arrived, then make it count; the bytes that went.

        ``before_it_counts`` puts there what a machine that goes on from this checkpoint needs beside it.
        Raises OSError when ``folder`` goes away meanwhile.
        """
        manifest = (folder / MANIFEST).read_bytes()
        listed = json.loads(manifest)["files"]
        place = self.path(CHECKPOINTS, folder.name)
        self.store.remove_file(f"{place}/{MANIFEST}")
        for name in listed:
            self.store.upload(folder / name, f"{place}/{name}")
        self._check_arrived(folder, listed)
        before_it_counts()
        self.store.write(f"{place}/{MANIFEST}", manifest)
        self.damaged.discard(folder.name)
        return sum(entry["size"] for entry in listed.values())

    def _check_arrived(self, folder: Path, listed: dict[str, dict[str, str | int]]) -> None:
        place = self.path(CHECKPOINTS, folder.name)
        found = self.store.files(place)
        for name, entry in listed.items():
            stored = found.get(name, Stored(-1))
            size, sha256 = int(entry["size"]), str(entry["sha256"])
            if not holds(self.store, f"{place}/{name}", stored, folder / name, size, sha256):
                raise StoreError(f"{self.store.shown}/{place}/{name}: what arrived is not what was sent")

    def remove_checkpoint(self, name: str) -> None:
        """The manifest first, so that a half-deleted one never counts."""
        self.store.remove_file(self.path(CHECKPOINTS, name, MANIFEST))
        self.store.remove_folder(self.path(CHECKPOINTS, name))

    def unsent(self, folder: Path) -> list[Path]:
        """Records of the run folder that are not there as they are now; copies of weights last."""
        changed = [path for path in records(folder) if self._sent.get(_name(folder, path)) != _version(path)]
        return sorted(changed, key=lambda path: (path.suffix == ".pth", path))

    def put_record(self, folder: Path, path: Path) -> None:
        """Upload one file of the run folder as it is now. Raises OSError when it goes away."""
        name, version = _name(folder, path), _version(path)
        if version is None:
            raise FileNotFoundError(path)
        if version[0] <= _IN_ONE_PIECE_BYTES:
            self.store.write(self.path(name), path.read_bytes())
        else:
            self.store.upload(path, self.path(name))
        self._sent[name] = version

    def differing(self, folder: Path) -> list[str]:
        """Checkpoints and records of the run folder that the store does not hold with the same content."""
        there = self.store.files(self.prefix)
        wrong = [
            f"{CHECKPOINTS}/{checkpoint.name}"
            for checkpoint in checkpoints(folder / CHECKPOINTS)
            if not all(self._holds(there, folder, path) for path in sorted(checkpoint.iterdir()))
        ]
        return wrong + [_name(folder, path) for path in records(folder) if not self._holds(there, folder, path)]

    def forget(self, name: str) -> None:
        """Take away what `differing` named, so that the next push brings it anew."""
        self._sent.pop(name, None)
        if name.startswith(f"{CHECKPOINTS}/{STEP_PREFIX}"):
            self.damaged.add(name.partition("/")[2])

    def count(self, folder: Path) -> int:
        """How many files of the run folder the store is to hold."""
        inside = [path for checkpoint in checkpoints(folder / CHECKPOINTS) for path in checkpoint.iterdir()]
        return len(inside) + len(records(folder))

    def _holds(self, there: dict[str, Stored], folder: Path, path: Path) -> bool:
        name = _name(folder, path)
        stored = there.get(name, Stored(-1))
        return holds(self.store, self.path(name), stored, path, path.stat().st_size)


def records(folder: Path) -> list[Path]:
    """The files of a run folder besides its checkpoints: settings, logs, scores, figures, hints, copies of weights."""
    found = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") for part in parts) or path.name in _LIVE
        in_checkpoint = parts[0] == CHECKPOINTS and len(parts) > 2
        if path.is_file() and not hidden and not in_checkpoint:
            found.append(path)
    return found


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _version(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _step(name: str) -> int | None:
    number = name.removeprefix(STEP_PREFIX)
    return int(number) if name.startswith(STEP_PREFIX) and number.isdecimal() else None
