"""From a manifest to a dataset's folder: each source in turn, checked, unpacked, published whole; never done twice.

``<datasets>/.downloads/<name>/`` holds what is under way. Whatever ends this process, the same call goes on from there.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backend.errors import BadDataError, DiskError
from training.clock import now_utc
from training.fetching.archive import Archive, ArchiveFetch, Tellers
from training.fetching.content import FirstSeen
from training.fetching.manifest import Manifest
from training.fetching.turn import turn
from training.reporting.units import size_in_words
from training.unpacking import unpack as unpacking

__all__ = ["Tellers", "bytes_to_come", "expected_sha256", "fetch", "fetched_record", "is_there", "labels"]

DOWNLOADS = ".downloads"


def fetch(manifest: Manifest, datasets: Path, tell: Tellers, backoff: float = 1.0) -> Path:
    """The dataset's folder, ``datasets/<name>``: as it is when it is complete, else downloaded and unpacked.

    ``backoff`` is the longest first pause between two tries, in seconds. Raises SourceUnavailableError when no source
    gives the archive, BadDataError when what is there or what came is not this dataset, DiskError, and what
    ``tell.check_stop`` raises.
    """
    target = datasets / manifest.name
    if is_there(manifest, target):
        return target
    try:
        downloads = datasets / DOWNLOADS
        downloads.mkdir(parents=True, exist_ok=True)
        with turn(downloads / f"{manifest.name}.lock", manifest.name, tell):
            if not is_there(manifest, target):
                _Fetch(manifest, datasets, tell, backoff).run()
    except OSError as error:
        raise DiskError(
            f"{error.filename or datasets}: {error.strerror or error} while fetching {manifest.name}; mend that, or "
            "name another place with --datasets, and run the same command"
        ) from error
    return target


def bytes_to_come(manifest: Manifest, datasets: Path) -> int | None:
    """What fetching and unpacking will still write below ``datasets``; None where the manifest gives no sizes."""
    if unpacking.is_complete(datasets / manifest.name) is not None:
        return 0
    first = manifest.sources[0]
    local = Path(first.address) if first.kind == "file" else None
    size = local.stat().st_size if local is not None and local.is_file() else manifest.size
    unpacked = manifest.unpacked_size or size  # content is rarely smaller than its archive
    if size is None or unpacked is None:
        return None
    staging = datasets / DOWNLOADS / manifest.name
    there = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file())
    return (0 if local else max(0, size - there)) + unpacked


def labels(manifest: Manifest) -> list[str]:
    """The sources for people and records, without credentials."""
    return [source.label for source in manifest.sources]


def expected_sha256(manifest: Manifest, datasets: Path) -> str | None:
    """What the archive has to be: by the manifest, else by the first one seen; None where nobody knows."""
    return manifest.sha256 or FirstSeen(datasets / DOWNLOADS, manifest.name).sha256


def fetched_record(target: Path) -> dict[str, Any]:
    """Which archive the files in ``target`` came from."""
    record = unpacking.is_complete(target) or {}
    return {key: record.get(key) for key in ("name", "version", "license", "source", "sha256", "size")}


def is_there(manifest: Manifest, target: Path) -> bool:
    """Whether ``target`` is this dataset, complete.

    Raises BadDataError when something else is there: it is never overwritten.
    """
    record = unpacking.is_complete(target)
    if record is None:
        _refuse_foreign(target)
        return False
    there, wanted = record.get("sha256"), manifest.sha256
    if wanted is not None and there != wanted:
        raise BadDataError(
            f"{target} holds the dataset with sha256 {there}, the manifest asks for {wanted}: delete or move the "
            "folder, or give the dataset another name in the manifest"
        )
    known = record.get("sources", [])
    if wanted is None and not set(labels(manifest)) & set(known):
        raise BadDataError(
            f"{target} was fetched from {', '.join(known) or 'elsewhere'}, not from {manifest.sources[0].label}: "
            "delete or move the folder, or give the dataset another name in a manifest"
        )
    return True


def _refuse_foreign(target: Path) -> None:
    if not target.is_dir():
        if target.exists() or target.is_symlink():
            raise BadDataError(f"{target}: is no folder; the dataset is to be there: move it away")
        return
    found = sorted(entry.name for entry in target.iterdir())
    if found:
        raise BadDataError(
            f"{target} holds {', '.join(found[:3])}{' and more' if len(found) > 3 else ''}, which was not fetched here "
            f"and is never overwritten: train on it with --data {target}, or move it away to fetch the dataset"
        )


class _Fetch:
    """One dataset being fetched, under its lock."""

    def __init__(self, manifest: Manifest, datasets: Path, tell: Tellers, backoff: float) -> None:
        self.manifest, self.tell = manifest, tell
        self.target = datasets / manifest.name
        self.staging = datasets / DOWNLOADS / manifest.name
        self.first_seen = FirstSeen(datasets / DOWNLOADS, manifest.name)
        self.archive = ArchiveFetch(manifest, self.staging, self.first_seen, tell, backoff)

    def run(self) -> None:
        self.staging.mkdir(exist_ok=True)
        unpacking.sweep(self.target.parent, self.target.name)
        archive = self.archive.get()
        self.tell.stage("unpack")
        self._unpack(archive)
        self.first_seen.record(archive.received, archive.source)
        self._tell_hash(archive)
        self._clean_up()

    def _unpack(self, archive: Archive) -> None:
        def progress(what: str, done: int, total: int) -> None:
            self.tell.progress(what, done, total, unit="B")

        if self.target.is_dir():
            self.target.rmdir()  # it is empty, as was seen
        limits = unpacking.Limits(**self.manifest.limits.model_dump())
        self.tell.say(f"unpacking {self.manifest.name} ({archive.format}, {size_in_words(archive.received.size)})")
        try:
            unpacked = unpacking.unpack(
                archive.received.path,
                self.target,
                format=archive.format,
                limits=limits,
                record=self._record(archive),
                progress=progress,
                check_stop=self.tell.check_stop,
            )
        except BadDataError as error:
            raise self._bad_archive(error, archive) from error
        size = size_in_words(unpacked.bytes)
        self.tell.say(f"{self.manifest.name}: {unpacked.files:,} files, {size}, in {self.target}")

    def _record(self, archive: Archive) -> Mapping[str, Any]:
        manifest = self.manifest
        return {
            "name": manifest.name,
            "version": manifest.version,
            "license": manifest.license,
            "sha256": archive.received.sha256,
            "size": archive.received.size,
            "source": archive.source.label,
            "sources": labels(manifest),
            "fetched": now_utc(),
        }

    def _bad_archive(self, error: BadDataError, archive: Archive) -> BadDataError:
        """Without a sha256 the source may have sent half of it: then it is not kept."""
        if archive.source.kind == "file" or self.manifest.sha256 is not None:
            return error
        archive.received.path.unlink(missing_ok=True)
        return BadDataError(f"{error} (from {archive.source.label}; deleted, the same command downloads it again)")

    def _tell_hash(self, archive: Archive) -> None:
        if self.manifest.sha256 is None:
            self.tell.say(
                f"no sha256 was given: this content is now what {self.manifest.name} has to be. To hold others to it "
                f"too, put into the manifest:\n  size: {archive.received.size}\n  sha256: {archive.received.sha256}"
            )

    def _clean_up(self) -> None:
        for folder in self.staging.iterdir():
            if folder.is_dir():
                shutil.rmtree(folder)
        if not self.manifest.keep_archive:
            shutil.rmtree(self.staging)
