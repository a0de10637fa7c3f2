"""What a run remembers of where its data came from, and how a later command finds them again."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from backend.errors import BadDataError
from training.data.source import DataSource
from training.fetching.fetch import expected_sha256, fetched_record, labels
from training.requests import PrepareRequest
from training.runs.run import Run

AnyRequest = TypeVar("AnyRequest", bound=PrepareRequest)


def data_record(folder: Path, source: DataSource) -> dict[str, Any]:
    """For metadata.yaml, with the path relative to the run's ``folder``; `fetched` is added once the data are there."""
    path = os.path.relpath(source.path.resolve(), folder.resolve()) if source.path else None
    record: dict[str, Any] = {"path": path, "is_sample": source.is_sample}
    if source.manifest is None:
        return record
    record["manifest"] = {"name": source.manifest.name, "sources": labels(source.manifest)}
    if source.drive_id is not None:
        record["drive_id"] = source.drive_id
    return record


def dataset_name(source: DataSource) -> dict[str, str | None]:
    """Name and version: a manifest's, else the folder's name, whose content only the fingerprint tells.

    A file that stands for its folder is called as the folder where its own name is no name, as `data.yaml` is none.
    """
    if source.manifest is not None:
        return {"name": source.manifest.name, "version": source.manifest.version}
    if source.path is None:
        return {"name": "built-in sample", "version": None}
    path = source.path.resolve()
    if path.is_file():
        path = path.parent if path.stem in ("data", "dataset") else path.with_suffix("")
    return {"name": path.name, "version": None}


def note_fetched(run: Run, source: DataSource) -> None:
    """Keep which archive the data came from."""
    if source.path is not None and source.manifest is not None:
        run.update(data={**run.metadata.get("data", {}), "fetched": fetched_record(source.path)})


def data_of(run: Run) -> str | None:
    """The data that a run was trained on: ``sample``, or a folder, which may be gone."""
    kept = run.metadata.get("data", {})
    if kept.get("is_sample"):
        return "sample"
    return str(run.path(kept["path"]).resolve()) if kept.get("path") else None


def with_data_of(run: Run, request: AnyRequest) -> AnyRequest:
    """``request`` on the run's own data, unless it names others.

    Data that were fetched and are gone are left to the run's manifest (in its config.yaml) or Drive id.
    """
    if request.data is not None:
        return request
    kept, data = run.metadata.get("data", {}), data_of(run)
    if "manifest" in kept and not (data and Path(data).is_dir()):
        return replace(request, drive_id=request.drive_id or kept.get("drive_id"))
    return replace(request, data=data)


def check_data_there(run: Run, request: PrepareRequest, named: str | None) -> None:
    """Refuse to look for the run's own dataset where it is not any more; ``named`` is what the command names instead.

    Raises:
        BadDataError: it is gone.
    """
    gone = named is None and request.data not in (None, "sample") and not Path(str(request.data)).exists()
    if gone:
        raise BadDataError(f"{run.run_id}: its dataset is not at {request.data} any more; name it with --data FOLDER")


def is_away(source: DataSource) -> bool:
    """Whether the dataset would have to be fetched before anything can be said about its files."""
    return source.manifest is not None and source.path is not None and not source.path.exists()


def fetched_alike(run: Run, source: DataSource) -> bool:
    """Whether fetching would bring the archive that the run was trained on, as far as its manifest tells."""
    assert source.manifest is not None
    kept = run.metadata.get("data", {})
    sha256 = expected_sha256(source.manifest, source.path.parent) if source.path else None
    if sha256 is not None:
        return sha256 == kept.get("fetched", {}).get("sha256")
    return labels(source.manifest) == kept.get("manifest", {}).get("sources")
