"""Which run a person means: one rule for every command."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from backend.errors import DiskError, UsageError
from training.registry.entry import Entry
from training.registry.folders import METADATA, is_run, is_there, real_place
from training.registry.index import Registry
from training.registry.place import registry_place
from training.registry.results import text


def named_run(registry: Registry, entries: Sequence[Entry], named: str) -> Entry:
    """The entry of the run that is ``named`` as for `run_folder`. A folder need not be on the list.

    Raises:
        UsageError: nothing, or more than one run, answers to the name.
    """
    folder = _folder_at(named) or _find(registry, entries, named)
    known = next((entry for entry in entries if entry["folder"] == folder), None)
    return known or registry.look_at(Path(folder))


def run_folder(output: Path, named: str) -> Path:
    """The folder of a run named by itself (or a path inside it), by its run id or a unique beginning of it.

    Ids are looked for under ``output`` and among the runs that were registered from elsewhere; ``task/run id`` tells
    apart what two tasks call the same.

    Raises:
        UsageError: nothing, or more than one run, answers to the name, or the run has lost its metadata.
    """
    folder = _folder_at(named)
    if folder is None:
        registry = Registry(registry_place(output, os.environ), output)
        entries: list[Entry] = []
        with suppress(DiskError):  # then there are the folders
            entries = registry.stored()
        folder = _find(registry, entries, named)
    if not is_there(folder):
        raise UsageError(f"{named}: its folder {folder} is gone; `runs list` shows which runs there are")
    if not Path(folder, METADATA).is_file():
        raise UsageError(f"{folder}: {METADATA} is missing, so nothing is known of this run; `runs delete` deletes it")
    return Path(folder)


def matching(entries: Iterable[Mapping[str, Any]], named: str) -> list[Any]:
    """The runs of that id, else those whose id begins so; each has ``task`` and ``run_id``."""
    task, slash, run_id = named.rpartition("/")
    of_task = [entry for entry in entries if not slash or entry["task"] == task]
    exact = [entry for entry in of_task if entry["run_id"] == run_id]
    return exact or [entry for entry in of_task if run_id and entry["run_id"].startswith(run_id)]


def _folder_at(named: str) -> str | None:
    """The run folder that the path ``named`` is or lies in, three levels up at most."""
    if not named or not os.path.exists(named):  # noqa: PTH110 - a name too long for a path is none
        return None
    path = Path(named)
    places = map(str, map(real_place, (path, *path.absolute().parents[:3])))
    return next(filter(is_run, places), None)


def _find(registry: Registry, entries: Sequence[Entry], named: str) -> str:
    """The folder of the only run with that id or beginning, on the list or not."""
    known = {entry["folder"]: entry for entry in entries}
    others = [_unlisted(folder) for folder in registry.folders() if folder not in known]
    found = _without_doubles(matching([*entries, *others], named), known)
    folders = [one["folder"] for one in found]
    if len(found) == 1:
        return str(folders[0])
    if not found:
        newest = f" (the newest is {entries[0]['run_id']})" if entries else ""
        where = registry.output or registry.path
        raise UsageError(
            f"{named[:99] or 'an empty name'}: no such run under {where}{newest}; name a run id, its beginning, or a "
            "run folder"
        )
    ids = [one["run_id"] for one in found]
    shown = ids if len(set(ids)) == len(ids) else [f"{one['task']}/{one['run_id']}" for one in found]
    more = "…" if len(shown) > 4 else ""
    raise UsageError(f"{named}: matches {len(found)} runs ({', '.join(shown[:4])}{more}); name more of it")


def _unlisted(folder: str) -> dict[str, str]:
    task, run_id = folder.rsplit("/", 2)[-2:]
    return {"task": task, "run_id": run_id, "folder": folder}


def _without_doubles(found: Sequence[Mapping[str, Any]], known: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Only runs, newest first, and of a run and its copies or its former place only the run."""
    runs = [one for one in found if one["folder"] in known or is_run(one["folder"])]
    if len(runs) < 2:
        return runs
    there = {(_task(one), one["run_id"]) for one in runs if is_there(one["folder"])}
    kept: dict[tuple[str, str], Mapping[str, Any]] = {}
    for one in runs:  # those on the list come first
        key = (_task(one), one["run_id"])
        if is_there(one["folder"]) or key not in there:
            kept.setdefault(key, one)
    return sorted(kept.values(), key=lambda one: (one["run_id"], one["task"]), reverse=True)


def _task(one: Mapping[str, Any]) -> str:
    """As its metadata tell, where it is not on the list yet."""
    from training.reporting.run_folder import RunFolder

    if "state" in one:
        return str(one["task"])
    return text(RunFolder(Path(one["folder"])).metadata.get("task")) or str(one["task"])
