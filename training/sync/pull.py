"""Fetches a run from its store, so that this machine goes on where another one ended.

What comes from a store is checked before it is used: names before anything is written, checkpoints by their hashes.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from backend.artifact import MANIFEST, STEP_PREFIX, DamagedCheckpointError, checkpoints, read_state, step_of, verify
from backend.errors import ConfigError
from backend.files import fsync_file, fsync_folder, replacing
from training.runs.run import METADATA, Run
from training.sync.lease import NOTE
from training.sync.remote_run import CHECKPOINTS, RemoteRun
from training.sync.stores import Store
from training.yaml_core import parse_yaml

Say = Callable[[str], None]
Staged = tuple[Path, Path]  # a verified checkpoint's present and future place; the same where it was here before


@dataclass(frozen=True, order=True)
class Standing:
    """How far a run is: its newest checkpoint's step (-1 for no run), and whether it is finished."""

    step: int = -1
    finished: bool = False


def find_remote(store: Store, task: str, say: Say, known: Mapping[str, Any], is_sample: bool) -> str | None:
    """The id of the newest run of ``task`` in the store whose metadata hold ``known``."""
    for run_id in sorted(store.folders(task), reverse=True):
        if re.fullmatch(r"\w[\w.-]*", run_id):
            metadata = _metadata(store, f"{task}/{run_id}/{METADATA}", say)
            same_kind = bool((metadata.get("data") or {}).get("is_sample")) == is_sample
            if known.items() <= metadata.items() and same_kind:
                return run_id
    return None


def remote_finished(remote: RemoteRun, say: Say) -> bool:
    """Whether a run is finished, by the store."""
    return _metadata(remote.store, remote.path(METADATA), say).get("state") == "finished"


def local_standing(run: Run | None) -> Standing:
    """How far a run is here, by its newest checkpoint that verifies."""
    if run is None:
        return Standing()
    sound = next(filter(_is_sound, reversed(checkpoints(run.path(CHECKPOINTS)))), None)
    return Standing(step_of(sound), run.metadata.get("state") == "finished") if sound else Standing(0)


def _is_sound(folder: Path) -> bool:
    try:
        verify(folder)
    except DamagedCheckpointError:
        return False
    return True


def remote_standing(remote: RemoteRun, finished: bool) -> Standing:
    """How far a run is in its store, before anything of it is verified."""
    names = remote.checkpoints()
    return Standing(step_of(Path(names[-1])) if names else 0, finished)


def pull(remote: RemoteRun, parent: Path, beyond: Standing, say: Say) -> Path | None:
    """Fetch the run into ``parent``; its folder, or None where nothing beyond ``beyond`` is sound there.

    A run folder that is there already is brought up to date; a new one appears whole. Raises StoreError, and OSError
    as it comes.
    """
    final = parent / remote.run_id
    folder = final if final.is_dir() else parent / f".pull-{remote.run_id}"
    if folder != final:
        shutil.rmtree(folder, ignore_errors=True)
    (folder / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    staged = _stage_newest(remote, folder, beyond, say)
    if staged is None and beyond.step > 0:
        return None
    _pull_records(remote, folder)
    for temporary, place in staged or []:
        shutil.rmtree(place, ignore_errors=True)  # a damaged one of the same step
        temporary.rename(place)
    fsync_folder(folder / CHECKPOINTS)
    if folder != final:
        folder.rename(final)
    fsync_folder(parent)
    return final


def _stage_newest(remote: RemoteRun, folder: Path, beyond: Standing, say: Say) -> list[Staged] | None:
    """The newest sound checkpoint and the best that it names; None where nothing beyond ``beyond`` is sound."""
    names = remote.checkpoints()
    for name in reversed(names):
        if step_of(Path(name)) <= beyond.step and not _only_finish_is_new(name, beyond):
            break
        newest = _stage(remote, folder, name, say)
        if newest is None:
            continue
        best = read_state(newest[0])["progress"].get("best")
        best_name = f"{STEP_PREFIX}{best['step']:08d}" if best else name
        wanted = [newest, _stage(remote, folder, best_name, say) if best_name in names and best_name != name else None]
        return [found for found in wanted if found is not None and found[0] != found[1]]
    return None


def _only_finish_is_new(name: str, beyond: Standing) -> bool:
    """At the same step: the other machine went on to the scores and the report."""
    return step_of(Path(name)) == beyond.step and not beyond.finished


def _stage(remote: RemoteRun, folder: Path, name: str, say: Say) -> Staged | None:
    """One checkpoint, downloaded beside its place and verified; None, and a line, when it is damaged."""
    place = folder / CHECKPOINTS / name
    if place.is_dir() and _is_sound(place):
        return place, place
    temporary = place.with_name(f".tmp-pull-{name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        _download(remote, name, temporary)
        verify(temporary)
    except DamagedCheckpointError as error:
        shutil.rmtree(temporary)
        remote.damaged.add(name)
        reason = str(error).replace(str(temporary), name)
        say(f"{remote.store.shown}/{remote.path(CHECKPOINTS, name)} is damaged and left out ({reason})")
        return None
    for path in temporary.iterdir():
        fsync_file(path)
    return temporary, place


def _download(remote: RemoteRun, name: str, into: Path) -> None:
    place = remote.path(CHECKPOINTS, name)
    there = remote.store.files(place)
    manifest = remote.store.read(f"{place}/{MANIFEST}") or b""
    (into / MANIFEST).write_bytes(manifest)
    for file, entry in _listed(manifest, into).items():
        if file not in there or there[file].size != entry["size"]:
            found = f"has {there[file].size} bytes" if file in there else "is missing"
            raise DamagedCheckpointError(f"{into / file}: {found}, expected {entry['size']} bytes")
        remote.store.download(f"{place}/{file}", into / file)


def _listed(manifest: bytes, folder: Path) -> dict[str, dict[str, Any]]:
    """The files of a manifest from elsewhere: plain names only."""
    try:
        files = json.loads(manifest)["files"]
        if all(_is_plain(name) and "/" not in name and entry["size"] >= 0 for name, entry in files.items()):
            return files
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise DamagedCheckpointError(f"{folder / MANIFEST}: no list of files with their sizes")


def _pull_records(remote: RemoteRun, folder: Path) -> None:
    for name in remote.store.files(remote.path()):
        parts = PurePosixPath(name).parts
        if not _is_plain(name) or name == NOTE or (parts[0] == CHECKPOINTS and len(parts) > 2):
            continue
        path = folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            remote.store.download(remote.path(name), temporary)


def _is_plain(name: str) -> bool:
    """A relative path that stays where it is put and is not hidden."""
    return bool(name) and not name.startswith("/") and not any(p.startswith(".") for p in name.split("/"))


def _metadata(store: Store, path: str, say: Say) -> dict[str, Any]:
    content = store.read(path)
    if content is None:
        return {}
    try:
        found = parse_yaml(content.decode("utf-8"), f"{store.shown}/{path}")
    except (UnicodeDecodeError, ConfigError) as error:
        say(f"{store.shown}/{path}: not readable, so that run is left out ({error})")
        return {}
    return found if isinstance(found, dict) else {}
