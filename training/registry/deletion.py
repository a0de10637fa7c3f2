"""Deletes a run: its folder, whole or not at all as others see it, and its entry."""

from __future__ import annotations

import shutil
from pathlib import Path

from backend.errors import ConfigError, DiskError
from training.registry.entry import Entry, key_of
from training.registry.folders import is_there
from training.registry.index import Registry
from training.registry.lock import LOCK

_TRASH = ".deleted-"


def delete_run(registry: Registry, entry: Entry) -> None:
    """Delete the run's folder, if it is there, and take the run off the list.

    Raises:
        ConfigError: a worker is at work on it.
        DiskError: the folder or the registry cannot be written.
    """
    if is_there(entry["folder"]):
        _delete_folder(Path(entry["folder"]))
    registry.file.remove([key_of(entry)])


def size_of(folder: Path) -> int:
    """Bytes of all files in a run's folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _delete_folder(folder: Path) -> None:
    from filelock import FileLock, Timeout

    trash = folder.with_name(f"{_TRASH}{folder.name}")
    try:
        with FileLock(folder / LOCK, timeout=0.2, poll_interval=0.02):
            if folder.is_symlink():
                folder.unlink()
                return
            shutil.rmtree(trash, ignore_errors=True)  # of a deletion that was cut short
            folder.rename(trash)
        shutil.rmtree(trash)
    except Timeout:
        raise ConfigError(f"{folder}: a worker is at work on this run; stop it first") from None
    except OSError as error:
        raise DiskError(f"{folder}: cannot be deleted ({error.strerror or error})") from error
