"""Opens a trained model: verified weights, its config and its preprocessing. The read side of a checkpoint.

A checkpoint is a folder ``step-00001200`` with safetensors files, ``state.json`` and ``manifest.json`` (size and
sha256 of every other file, written last). safetensors notices truncation only: a flipped bit loads as a wrong weight,
so every hash is checked before anything is used.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from backend.errors import BadDataError, DiskError
from backend.files import sha256_of

FORMAT = 1
STEP_PREFIX = "step-"
MANIFEST = "manifest.json"
STATE = "state.json"


class DamagedCheckpointError(BadDataError):
    """A checkpoint folder is incomplete or its content is not what was written."""


@dataclass(frozen=True)
class Artifact:
    """A verified checkpoint: where it is, what its state says, and the weights to use (EMA where EMA was on)."""

    folder: Path
    state: dict[str, Any]
    weights: dict[str, Tensor]

    @property
    def config(self) -> dict[str, Any]:
        return self.state["config"]

    @property
    def preprocessing(self) -> dict[str, Any]:
        return self.state["preprocessing"]

    @property
    def facts(self) -> dict[str, Any]:
        return self.state["facts"]


def is_checkpoint(path: Path) -> bool:
    """Whether ``path`` names a checkpoint folder, sound or not."""
    return path.name.startswith(STEP_PREFIX) and path.name.removeprefix(STEP_PREFIX).isdecimal() and path.is_dir()


def step_of(folder: Path) -> int:
    """The optimizer step that a checkpoint folder's name tells."""
    return int(folder.name.removeprefix(STEP_PREFIX))


def checkpoints(root: Path) -> list[Path]:
    """Published checkpoint folders under ``root``, oldest first; ordered by step, never by name."""
    return sorted(filter(is_checkpoint, root.glob(f"{STEP_PREFIX}*")), key=step_of)


def verify(folder: Path, only: str | None = None) -> None:
    """Check every file of a checkpoint, or ``only`` one, against its manifest.

    Raises:
        DamagedCheckpointError: with the file and what is wrong with it.
        DiskError: a file cannot be read.
    """
    for name, (size, digest) in _manifest(folder).items():
        if only not in (None, name):
            continue
        path = folder / name
        if not path.is_file():
            raise DamagedCheckpointError(f"{path}: missing; the checkpoint is damaged")
        if path.stat().st_size != size:
            raise DamagedCheckpointError(
                f"{path}: has {path.stat().st_size} bytes, {size} were written; the checkpoint is damaged"
            )
        if _readable_sha256(path) != digest:
            raise DamagedCheckpointError(
                f"{path}: its content is not what was written (sha256 differs); the checkpoint is damaged"
            )


def _manifest(folder: Path) -> dict[str, tuple[int, str]]:
    """Size and sha256 of every file."""
    path = folder / MANIFEST
    try:
        listed = json.loads(path.read_bytes())["files"]
        files = {name: (entry["size"], entry["sha256"]) for name, entry in listed.items()}
    except PermissionError as error:
        raise DiskError(_unreadable(path, error)) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpointError(f"{path}: missing or unreadable, so the checkpoint is incomplete") from error
    if STATE not in files:
        raise DamagedCheckpointError(f"{path}: lists no {STATE}, so the checkpoint is incomplete")
    return files


def _readable_sha256(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise DiskError(_unreadable(path, error)) from error


def _unreadable(path: Path, error: OSError) -> str:
    return f"{path}: cannot be read ({error.strerror}); check the disk and that this user may read it"


def read_state(folder: Path) -> dict[str, Any]:
    """The ``state.json`` of a checkpoint (verify it first).

    Raises:
        BadDataError: it was written by a version of the worker that this one does not know.
    """
    state = json.loads((folder / STATE).read_text("utf-8"))
    if state["format"] != FORMAT:
        raise BadDataError(
            f"{folder / STATE}: is of format {state['format']}, this version reads format {FORMAT}; use the version "
            "of the worker that wrote it"
        )
    return state


def open_checkpoint(folder: Path) -> Artifact:
    """Verify and load one checkpoint folder.

    Raises:
        DamagedCheckpointError: the folder's content is not what was written.
        BadDataError: it was written by another version.
        DiskError: a file cannot be read.
    """
    verify(folder)
    state = read_state(folder)
    return Artifact(folder, state, load_file(folder / _weights_file(state)))


def _weights_file(state: dict[str, Any]) -> str:
    return "ema.safetensors" if state["weights"] == "ema" else "model.safetensors"


@dataclass(frozen=True)
class Identity:
    """What a checkpoint is, told without reading its weights."""

    state: dict[str, Any]
    checkpoint_id: str  # sha256 of its manifest, and so of all its content
    weights_id: str  # sha256 of the file with the weights to use


def read_identity(folder: Path) -> Identity:
    """Verify and read the state of a checkpoint; its weights are left to `open_checkpoint`.

    Raises:
        DamagedCheckpointError: the state is not what was written, or there is no manifest.
        BadDataError: it was written by another version.
        DiskError: a file cannot be read.
    """
    verify(folder, STATE)
    state = read_state(folder)
    name = _weights_file(state)
    files = _manifest(folder)
    if name not in files:
        raise DamagedCheckpointError(f"{folder / MANIFEST}: lists no {name}, so the checkpoint is incomplete")
    return Identity(state, sha256_of(folder / MANIFEST), files[name][1])


def best_checkpoint(run: Path) -> Path:
    """The best checkpoint of a run folder.

    It is what the hint ``best`` names or, where that names none, what the newest checkpoint calls the best; the newest
    itself before anything was validated.

    Raises:
        BadDataError: the run has no checkpoint.
    """
    found = {folder.name: folder for folder in checkpoints(run / "checkpoints")}
    if not found:
        raise BadDataError(f"{run}: holds no checkpoint; train first, or name a run folder that has checkpoints/step-*")
    with suppress(OSError):
        hint = (run / "checkpoints" / "best").read_text("utf-8", errors="replace").strip()
        if hint in found:
            return found[hint]
    newest = list(found.values())[-1]
    verify(newest)
    best = read_state(newest)["progress"]["best"]
    return next((folder for folder in found.values() if best and step_of(folder) == best["step"]), newest)


def open_artifact(path: Path) -> Artifact:
    """Open the model that ``path`` names: a run folder (its best checkpoint) or one checkpoint folder.

    Raises:
        BadDataError: ``path`` holds no checkpoint, or a damaged one.
        DiskError: a file cannot be read.
    """
    if not path.is_dir():
        raise BadDataError(f"{path}: not a folder; expected a run folder or a checkpoint folder (step-…)")
    is_one = is_checkpoint(path) or (path / MANIFEST).exists()  # the second: under a name of the user's own
    return open_checkpoint(path if is_one else best_checkpoint(path))
