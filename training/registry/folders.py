"""Run folders as a registry of ten thousand looks at them: by text paths, a few microseconds each."""

# ruff: noqa: PTH110, PTH112, PTH116, PTH118, PTH119

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

METADATA = "metadata.yaml"
STARTED = re.compile(r"(\d{8}_\d{6})_")  # how a run's folder begins


def stamp_of(folder: str) -> str:
    """What changes when the run's metadata or its own scores do; empty where it has no metadata."""
    try:
        found = os.stat(f"{folder}/{METADATA}")
    except OSError:
        return ""
    return f"{found.st_mtime_ns}:{found.st_size}:{_scored(folder, 'val')}:{_scored(folder, 'test')}"


def _scored(folder: str, split: str) -> int:
    """When a split was evaluated; 0 for never."""
    try:
        return os.stat(f"{folder}/evaluations/{split}/metrics.json").st_mtime_ns
    except OSError:
        return 0


def is_there(folder: str) -> bool:
    """Whether the folder exists."""
    return os.path.isdir(folder)


def is_run(folder: str) -> bool:
    """Whether a folder is a run's, by its metadata or, where those are lost, by its name."""
    return os.path.exists(f"{folder}/{METADATA}") or (is_there(folder) and has_runs_name(folder))


def has_runs_name(folder: str) -> bool:
    """Whether a folder is called as runs are."""
    return STARTED.match(os.path.basename(folder)) is not None


def absolute(base: str, path: str) -> str:
    """``path``, relative to ``base``, as an absolute one; the usual kind, which only goes down, is merely joined."""
    if path and path[0] not in "./" and "/." not in path:
        return f"{base}/{path}"
    return os.path.normpath(os.path.join(base, path))


def real_place(folder: Path) -> Path:
    """``folder`` with no symbolic link on the way to it; it may be one itself."""
    return folder.absolute().parent.resolve() / folder.absolute().name


def folders_under(output: str) -> Iterator[str]:
    """The folders where runs lie: ``<output>/<task>/<run>``, whatever is in them."""
    for task in _folders_in(output):
        yield from _folders_in(os.path.realpath(task))


def _folders_in(place: str) -> list[str]:
    """The folders in ``place`` that are not hidden, by names of letters; none where it cannot be looked into."""
    try:
        with os.scandir(place) as found:
            named = [entry for entry in found if entry.name.isprintable() and not entry.name.startswith(".")]
            return [entry.path for entry in named if entry.is_dir()]
    except OSError:
        return []
