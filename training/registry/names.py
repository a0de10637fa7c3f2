"""Which run a person means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from backend.errors import UsageError
from training.registry.entry import Entry
from training.registry.folders import is_run, real_place
from training.registry.index import Registry


def named_run(registry: Registry, entries: Sequence[Entry], named: str) -> Entry:
    """The run that is named as everywhere: a folder (or one inside it), a run id or its unique beginning.

    ``task/run id`` tells apart what two tasks call the same. A folder need not be on the list.

    Raises:
        UsageError: nothing, or more than one run, answers to the name.
    """
    folder = _run_folder(Path(named))
    if folder is not None:
        known = next((entry for entry in entries if entry["folder"] == str(folder)), None)
        return known or registry.look_at(folder)
    found = matching(entries, named)
    if len(found) == 1:
        return found[0]
    if not found:
        newest = f" (the newest is {entries[0]['run_id']})" if entries else ""
        raise UsageError(
            f"{named}: no such run in {registry.path}{newest}; name a run id, its beginning, or a run folder"
        )
    ids = [entry["run_id"] for entry in found]
    shown = ids if len(set(ids)) == len(ids) else [f"{entry['task']}/{entry['run_id']}" for entry in found]
    more = "…" if len(shown) > 4 else ""
    raise UsageError(f"{named}: matches {len(found)} runs ({', '.join(shown[:4])}{more}); name more of it")


def matching(entries: Sequence[Entry], named: str) -> list[Entry]:
    """The runs of that id, else those whose id begins so."""
    task, slash, run_id = named.rpartition("/")
    of_task = [entry for entry in entries if not slash or entry["task"] == task]
    exact = [entry for entry in of_task if entry["run_id"] == run_id]
    return exact or [entry for entry in of_task if run_id and entry["run_id"].startswith(run_id)]


def _run_folder(path: Path) -> Path | None:
    """The run folder that ``path`` is or lies in, three levels up at most as in `training.run.resolve_run`."""
    if not path.exists():
        return None
    return next((place for place in map(real_place, (path, *path.absolute().parents[:3])) if is_run(str(place))), None)
