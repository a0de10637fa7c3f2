"""What the registry says of one run, read from the run's folder alone.

An entry is a dict of JSON values:

* who it is: ``run_id, task, run_name, subtask, config_hash, dataset_fingerprint, dataset_name,
  dataset_version, is_sample``
* how it stands: ``state`` (running, killed, interrupted, failed, diverged, finished, imported; ``damaged`` where its
  metadata cannot be read), ``error``, ``timestamp`` (its start), ``updated`` (when the entry was made)
* what came out: ``metrics`` (``val/…``, ``test/…`` and, as ``best_val_metric``, the one that chose the best checkpoint)
  and ``selection`` (that metric's real name, ``mode``, value, step, and on how many items)
* where it is: ``folder`` and ``checkpoint_path`` (None before there is one), relative to the registry's folder
* ``loss_hash``: of the settings that say what the loss measures; losses compare only where it is the same
* ``page``: what only the page of all runs shows, such as the verdict against the baseline
* ``metadata``: versions, commit, seed, device; ``stamp``: by which a change of the folder is seen
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.clock import now_utc
from training.registry.folders import METADATA, STARTED, stamp_of
from training.registry.results import best_validation, loss_hash, mapping, of_validation, results_of, text

if TYPE_CHECKING:
    from training.reporting.run_folder import RunFolder

Entry = dict[str, Any]
Key = tuple[str, str]  # task, run id: two tasks may begin runs of one name in the same second

BEST = "best_val_metric"
DAMAGED = "damaged"
_TEXTS = ("run_id", "task", "state", "timestamp", "folder", "stamp")
_GROUPS = ("metrics", "selection", "metadata")


def key_of(entry: Entry) -> Key:
    """By what the registry tells entries apart."""
    return entry["task"], entry["run_id"]


def is_entry(value: Any) -> bool:
    """Whether ``value`` has what every entry has, of the right types."""
    if not isinstance(value, dict):
        return False
    metrics: Any = value.get("metrics")
    return (
        {*map(type, map(value.get, _TEXTS))} == {str}
        and {*map(type, map(value.get, _GROUPS))} == {dict}
        and type(value.get("checkpoint_path")) in (str, type(None))
        and {*map(type, metrics.values())} <= {int, float}
        and math.isfinite(sum(metrics.values()))
    )


def is_complete(entry: Entry) -> bool:
    """Whether an entry has what this version keeps; one of an earlier version is read anew."""
    return type(entry.get("page")) is dict and "loss_hash" in entry


def read_entry(folder: Path, base: Path) -> Entry:
    """The entry of the run in ``folder``, its paths relative to ``base``; never fails for what is in the folder.

    ``base`` is without symbolic links, and so is where ``folder`` lies.
    """
    from training.reporting.run_folder import RunFolder

    run, stamp = RunFolder(folder), stamp_of(str(folder))
    metadata = run.metadata
    problem = _problem(folder, metadata)
    entry = {
        "run_id": folder.name,
        "task": text(metadata.get("task")) or folder.parent.name,
        "run_name": text(metadata.get("run_name")),
        "subtask": text(metadata.get("subtask")),
        "state": DAMAGED if problem else text(metadata.get("state")) or "unknown",
        "error": problem or text(metadata.get("error")),
        "timestamp": _started(folder),
        "updated": now_utc(),
        "config_hash": text(metadata.get("config_hash")),
        **_dataset(metadata),
        "folder": _relative(folder, base),
        "checkpoint_path": _checkpoint(folder, base),
        "metadata": _origins(metadata),
        "loss_hash": loss_hash(run.config),
        "page": _page(run),
        "stamp": stamp,
    }
    selection, metrics = results_of(run)
    value = selection.get("value")
    headline = {BEST: value} if value is not None else {}
    return {**entry, "selection": selection, "metrics": {**headline, **metrics}}


def with_progress(entry: Entry, folder: Path) -> Entry:
    """``entry`` with the newest results and hours of a run whose metadata are as they were."""
    from training.reporting.run_folder import RunFolder

    run, chosen = RunFolder(folder), entry["selection"]
    entry = {**entry, "page": _page(run)}
    best = best_validation(run, chosen.get("metric"), chosen.get("mode"))
    if best is None or best["step"] == chosen.get("step"):
        return entry
    selection, metrics = of_validation(chosen["metric"], chosen["mode"], best)
    tested = {name: value for name, value in entry["metrics"].items() if name.startswith("test/")}
    return {**entry, "selection": selection, "metrics": {BEST: selection["value"], **metrics, **tested}}


def _problem(folder: Path, metadata: Mapping[str, Any]) -> str | None:
    if not (folder / METADATA).is_file():
        return f"{METADATA} is missing"
    return None if metadata else f"{METADATA} is not readable"


def _page(run: RunFolder) -> dict[str, Any]:
    from training.reporting.page_facts import page_facts

    try:
        return page_facts(run)
    except (AttributeError, KeyError, TypeError, ValueError):  # damaged records cost the page a few words
        return {}


def _dataset(metadata: Mapping[str, Any]) -> dict[str, Any]:
    dataset, data = mapping(metadata.get("dataset")), mapping(metadata.get("data"))
    manifest = mapping(data.get("manifest"))
    return {
        "dataset_fingerprint": text(dataset.get("fingerprint")),
        "dataset_name": text(dataset.get("name")) or text(manifest.get("name")),
        "dataset_version": text(dataset.get("version")),
        "is_sample": bool(dataset.get("is_sample") or data.get("is_sample")),
    }


def _origins(metadata: Mapping[str, Any]) -> dict[str, Any]:
    versions, git = mapping(metadata.get("versions")), mapping(metadata.get("git"))
    device = mapping(metadata.get("device"))
    found = {
        "python_version": versions.get("python"),
        "pytorch_version": versions.get("torch"),
        "git_commit": git.get("commit"),
        "git_dirty": git.get("dirty"),
        "seed": metadata.get("seed"),
        "preset": metadata.get("preset"),
        "device": device.get("name"),
        "parameters": mapping(metadata.get("parameters")).get("total"),
        "seconds": mapping(metadata.get("usage")).get("seconds"),
    }
    told = {name: text(value) or value for name, value in found.items()}
    return {name: value for name, value in told.items() if isinstance(value, str | int | float)}


def _checkpoint(folder: Path, base: Path) -> str | None:
    path = folder / "best_model.pth"
    return _relative(path, base) if path.is_file() else None


def _relative(path: Path, base: Path) -> str:
    return Path(os.path.relpath(path, base)).as_posix()


def _started(folder: Path) -> str:
    """The start (UTC) that the folder's name tells; else when the folder was changed."""
    match = STARTED.match(folder.name)
    try:
        begun = datetime.strptime(match[1] if match else "", "%Y%m%d_%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        begun = datetime.fromtimestamp(folder.stat().st_mtime if folder.exists() else 0, UTC)
    return begun.strftime("%Y-%m-%dT%H:%M:%SZ")
