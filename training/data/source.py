"""Which data a command works on, and why: one decision, told in one line."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock

from backend.errors import BadDataError, ConfigError
from training.fetching.manifest import Manifest, drive_manifest, load_manifest
from training.tasks import TASKS

SAMPLE = "sample"
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST}


@dataclass(frozen=True)
class DataSource:
    """The chosen dataset. ``path`` is None for the built-in sample, which `sample_folder` makes.

    With a ``manifest``, ``path`` is where `fetch` brings it, and may not be there yet.
    """

    path: Path | None
    kind: Literal["flag", "environment", "manifest", "datasets", "sample"]
    reason: str  # one line for the user
    manifest: Manifest | None = None
    drive_id: str | None = None  # what ``manifest`` was made of, where there is no file of it

    @property
    def is_sample(self) -> bool:
        """Whether numbers made with it are about the built-in sample."""
        return self.kind == "sample"


def choose_source(
    task: str,
    data_flag: str | None,
    environ: Mapping[str, str],
    manifest: str | None,
    datasets_dir: Path,
    gpu_at_work: bool,
    drive_id: str | None = None,
) -> DataSource:
    """``--data`` > TRAIN_WORKER_DATA > ``data.manifest`` or a Drive id > datasets/<task>/ > the built-in sample.

    A Drive id comes by ``--drive-id`` > TRAIN_WORKER_DRIVE_ID. The word ``sample`` (a folder of that name is
    ``./sample``) asks for the sample; by itself it is taken only when nothing is configured, ``datasets_dir`` holds
    nothing and no GPU is at work. Raises BadDataError for a folder that is missing, empty or no folder, and where the
    sample would have to be asked for, ConfigError for a wrong manifest or id.
    """
    if data_flag is not None:
        return _named(task, data_flag, "flag", "--data")
    if environ.get("TRAIN_WORKER_DATA"):
        return _named(task, environ["TRAIN_WORKER_DATA"], "environment", "TRAIN_WORKER_DATA")
    fetched = _to_fetch(task, environ, manifest, datasets_dir, drive_id)
    if fetched is not None:
        return fetched
    if _holds_something(datasets_dir / task):
        return DataSource(datasets_dir / task, "datasets", f"data: {datasets_dir / task} (what is there for {task})")
    _refuse_half_there(task, datasets_dir)
    if gpu_at_work:
        raise BadDataError(
            f"no dataset: {datasets_dir / task} holds nothing and no --data is given. With a GPU at work the built-in "
            "sample is not taken by itself; ask for it with --data sample"
        )
    return DataSource(
        None,
        "sample",
        f"data: the built-in sample, because {datasets_dir / task} holds nothing and no --data is given. It is made "
        "up and says nothing about your data; train on your own with --data FOLDER",
    )


def _to_fetch(
    task: str, environ: Mapping[str, str], manifest: str | None, datasets_dir: Path, drive_id: str | None
) -> DataSource | None:
    """The dataset of a manifest or a Drive id, where one is given."""
    origin = "--drive-id" if drive_id is not None else "TRAIN_WORKER_DRIVE_ID"
    drive_id = drive_id if drive_id is not None else environ.get("TRAIN_WORKER_DRIVE_ID") or None
    if drive_id is not None and manifest is not None:
        raise ConfigError(
            f"data.manifest ({manifest}) and {origin} ({drive_id}) both say what to fetch; drop one of them "
            "(--set data.manifest=null, or no Drive id)"
        )
    if drive_id is not None:
        what = drive_manifest(drive_id, task, origin)
    elif manifest is not None:
        origin = f"data.manifest {manifest}"
        what = load_manifest(Path(manifest).expanduser())
    else:
        return None
    folder = datasets_dir / what.name
    return DataSource(folder, "manifest", f"data: {folder} (from {origin})", what, drive_id)


def sample_folder(task: str, datasets_dir: Path, output_dir: Path, make: Callable[[Path], None]) -> Path:
    """The folder of ``task``'s built-in sample, made by ``make(empty folder)`` when it is not there yet.

    It lies in ``datasets_dir``/.samples/, or under ``output_dir`` where ``datasets_dir`` cannot be written.
    It is complete or absent: it is made beside its place and renamed.
    """
    try:
        return _sample_in(datasets_dir / ".samples", task, make)
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
    return _sample_in(output_dir / ".samples", task, make)


def _sample_in(samples: Path, task: str, make: Callable[[Path], None]) -> Path:
    folder = samples / task
    if folder.is_dir():
        return folder
    samples.mkdir(parents=True, exist_ok=True)
    with FileLock(samples / f".{task}.lock"):
        if folder.is_dir():  # another process made it meanwhile
            return folder
        for left_behind in samples.glob(f".{task}.tmp-*"):
            shutil.rmtree(left_behind)
        fresh = Path(tempfile.mkdtemp(prefix=f".{task}.tmp-", dir=samples))
        fresh.chmod(0o755)
        make(fresh)
        fresh.rename(folder)
    return folder


def _named(task: str, text: str, kind: Literal["flag", "environment"], origin: str) -> DataSource:
    if text == SAMPLE:
        return DataSource(None, "sample", f"data: the built-in sample, because {origin} asks for it")
    path = Path(text).expanduser()
    if not os.path.lexists(path):
        raise BadDataError(f"{origin} {path}: no such folder")
    if not path.is_dir():
        _check_stands_for_folder(task, path, origin)
    elif not _holds_something(path):
        raise BadDataError(f"{origin} {path}: holds nothing, expected a dataset")
    return DataSource(path, kind, f"data: {path} (from {origin})")


def _check_stands_for_folder(task: str, path: Path, origin: str) -> None:
    """Raise BadDataError where the file ``path`` names no dataset of ``task``, as a data.yaml does."""
    endings = TASKS[task].data_files
    if path.suffix.lower() not in endings:
        or_file = f", or a file in it that ends in {' or '.join(endings)}" if endings else ""
        raise BadDataError(f"{origin} {path}: is no folder, expected the dataset's folder{or_file}")


def _holds_something(folder: Path) -> bool:
    """Whether anything lies in ``folder`` besides a README and hidden files. Raises BadDataError when it is a file."""
    if not os.path.lexists(folder):
        return False
    if not folder.is_dir():
        raise BadDataError(f"{folder}: is no folder, expected the dataset's folder")
    return any(_is_content(entry) for entry in folder.iterdir())


def _is_content(entry: Path) -> bool:
    return not entry.name.startswith((".", "README", "__pycache__"))


def _refuse_half_there(task: str, datasets_dir: Path) -> None:
    """Raise BadDataError when ``datasets_dir`` holds something that no task claims: it is rarely meant as nothing."""
    if not datasets_dir.is_dir():
        return
    found = sorted(entry.name for entry in datasets_dir.iterdir() if _is_content(entry) and entry.name not in TASKS)
    if found:
        raise BadDataError(
            f"{datasets_dir} holds {', '.join(found[:3])}{' and more' if len(found) > 3 else ''}, but "
            f"{datasets_dir / task} holds nothing: name the dataset with --data {datasets_dir / found[0]}, move it to "
            f"{datasets_dir / task}, or ask for the built-in sample with --data sample"
        )
