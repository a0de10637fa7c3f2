"""From a manifest to a dataset's folder: each source in turn, checked, unpacked, published whole; never done twice.

``<datasets>/.downloads/<name>/`` holds what is under way. Whatever ends this process, the same call goes on from there.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from backend.errors import BadDataError, DiskError, SourceUnavailableError
from backend.files import fsync_file
from training.clock import now_utc
from training.data import unpack as unpacking
from training.data.download import Job, Received, SourceError
from training.data.download_process import OutOfTimeError, Watch, download
from training.data.download_stream import remove
from training.data.fetch_content import ChangedError, FirstSeen, check_content
from training.data.manifest import Manifest, Source
from training.files import read_json, write_json
from training.reporting.units import size_in_words

DOWNLOADS = ".downloads"
_VERIFIED = "verified.json"
_POLL_SECONDS = 0.2
_MARGIN = 64 * 1024**2  # bytes that stay free


class ShowProgress(Protocol):
    """`Progress.update`, with bytes."""

    def __call__(self, what: str, done: int, total: int | None, *, unit: str = "") -> None: ...


@dataclass(frozen=True)
class Tellers:
    """Who is told of a fetch, and who may stop it."""

    say: Callable[[str], None]
    progress: ShowProgress
    check_stop: Callable[[], None]
    stage: Callable[[str], None] = lambda name: None  # "download", "unpack": as each begins


@dataclass(frozen=True)
class _Archive:
    """A checked archive on this disk."""

    received: Received
    source: Source
    format: str


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
        with _locked(downloads / f"{manifest.name}.lock", manifest.name, tell):
            if not is_there(manifest, target):
                _Fetch(manifest, datasets, tell, backoff).run()
    except OSError as error:
        raise DiskError(
            f"{error.filename or datasets}: {error.strerror or error} while fetching {manifest.name}; mend that, or "
            "name another place with --datasets, and run the same command"
        ) from error
    return target


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


@contextmanager
def _locked(path: Path, name: str, tell: Tellers) -> Iterator[None]:
    """Hold the dataset; wait for another process that fetches it."""
    lock = FileLock(path)
    told = False
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except Timeout:
            if not told:
                tell.say(f"{name}: another process is fetching it; waiting for that")
                told = True
            tell.check_stop()
            time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()


class _Fetch:
    """One dataset being fetched, under its lock."""

    def __init__(self, manifest: Manifest, datasets: Path, tell: Tellers, backoff: float) -> None:
        self.manifest, self.tell, self.backoff = manifest, tell, backoff
        self.target = datasets / manifest.name
        self.staging = datasets / DOWNLOADS / manifest.name
        self.first_seen = FirstSeen(datasets / DOWNLOADS, manifest.name)
        self.deadline = time.monotonic() + manifest.timeouts.total

    def run(self) -> None:
        self.staging.mkdir(exist_ok=True)
        unpacking.sweep(self.target.parent, self.target.name)
        archive = self._kept_archive() or self._from_sources()
        self.tell.stage("unpack")
        self._unpack(archive)
        self.first_seen.record(archive.received, archive.source)
        self._tell_hash(archive)
        self._clean_up()

    # --- the archive

    def _from_sources(self) -> _Archive:
        self.tell.stage("download")
        sources, reasons, changed = self.manifest.sources, [], False
        for number, source in enumerate(sources, 1):
            try:
                if time.monotonic() > self.deadline:
                    raise OutOfTimeError
                self.tell.say(f"fetching {self.manifest.name}: source {number} of {len(sources)}, {source.label}")
                return self._from_source(source)
            except OutOfTimeError:
                reasons.append(f"({number}) {source.label}: not done within timeouts.total")
                break
            except SourceError as fault:
                changed = changed or isinstance(fault, ChangedError)
                reasons.append(f"({number}) {source.label}: {fault}")
                if number < len(sources):
                    self.tell.say(f"  {fault}; going on with the next source")
        raise self._given_up(reasons, changed)

    def _given_up(self, reasons: list[str], changed: bool) -> Exception:
        told = f"{self.manifest.name}: none of its {len(self.manifest.sources)} sources gives it: {'; '.join(reasons)}"
        if changed:
            return BadDataError(
                f"{told}. If the change is meant, put the new sha256 into the manifest, or "
                f"delete {self.first_seen.path}"
            )
        return SourceUnavailableError(f"{told}. Run the same command later, or add another source to the manifest")

    def _from_source(self, source: Source) -> _Archive:
        if source.kind == "file":
            received = self._local_file(Path(source.address))
            return _Archive(received, source, check_content(self.manifest, source, received, self.first_seen))
        job = self._job(source)
        job.folder.mkdir(exist_ok=True)
        self._require_space(self._still_to_come(job.folder, self.manifest.size), self.manifest.size)
        received = download(job, self._watch(job))
        self.tell.progress("download", received.size, received.size, unit="B")
        try:
            found = check_content(self.manifest, source, received, self.first_seen)
        except SourceError:
            remove(job.folder)
            raise
        return self._keep(received, source, found)

    def _job(self, source: Source) -> Job:
        manifest, times = self.manifest, self.manifest.timeouts
        pinned = manifest.sha256 is not None
        folder = self.staging / source.key
        return Job(source.kind, source.address, folder, manifest.size, pinned, times.connect, times.read, self.backoff)

    def _watch(self, job: Job) -> Watch:
        checked: set[int | None] = {None, self.manifest.size}

        def received(done: int, total: int | None) -> None:
            if total not in checked:
                checked.add(total)
                self._require_space((total or 0) - done, total)
            self.tell.progress("download", done, total, unit="B")

        return Watch(self.manifest.timeouts.stall, self.deadline, received, self.tell.say, self.tell.check_stop)

    def _local_file(self, path: Path) -> Received:
        """A file on this machine is read where it is, without a copy."""
        try:
            size = path.stat().st_size
            if not path.is_file():
                raise SourceError("it is no file, expected one archive")
            return Received(path, size, self._sha256(path, size))
        except OSError as error:
            raise SourceError(f"it cannot be read ({error.strerror})") from error

    def _sha256(self, path: Path, size: int) -> str:
        """Hex sha256 of a file, with progress, and stopped when asked to."""
        digest, done = hashlib.sha256(), 0
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
                done += len(block)
                self.tell.check_stop()
                self.tell.progress("verifying", done, size, unit="B")
        return digest.hexdigest()

    def _keep(self, received: Received, source: Source, found: str) -> _Archive:
        """Give the checked file its place, from where unpacking goes on also after an interruption."""
        place = self.staging / f"{self.manifest.name}.{found}"
        fsync_file(received.path)
        facts = {
            "file": place.name,
            "sha256": received.sha256,
            "size": received.size,
            "mtime_ns": received.path.stat().st_mtime_ns,
            "source": source.key,
        }
        write_json(self.staging / _VERIFIED, facts)
        received.path.replace(place)
        return _Archive(Received(place, received.size, received.sha256), source, found)

    def _kept_archive(self) -> _Archive | None:
        """The archive that was checked before this process began, when the manifest still asks for it."""
        note = self.staging / _VERIFIED
        facts = read_json(note) if note.is_file() else {}
        place = self.staging / str(facts.get("file", ""))
        if not place.is_file():
            return None
        now = place.stat()
        source = next((one for one in self.manifest.sources if one.key == facts.get("source")), None)
        unchanged = (facts.get("size"), facts.get("mtime_ns")) == (now.st_size, now.st_mtime_ns)
        if source is None or not unchanged or self.manifest.sha256 not in (None, facts.get("sha256")):
            place.unlink()
            return None
        received = Received(place, now.st_size, str(facts["sha256"]))
        try:
            return _Archive(received, source, check_content(self.manifest, source, received, self.first_seen))
        except SourceError:
            place.unlink()
            return None

    # --- space

    def _still_to_come(self, folder: Path, size: int | None) -> int:
        there = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        return max(0, (size or 0) - there)

    def _require_space(self, to_come: int, archive: int | None) -> None:
        """Room for what is still to come and for its content, which is rarely smaller than the archive."""
        unpacked = self.manifest.unpacked_size or archive or 0
        needed = to_come + unpacked + _MARGIN
        free = shutil.disk_usage(self.staging).free
        if (to_come or unpacked) and free < needed:
            raise DiskError(
                f"{self.staging.parent.parent}: {size_in_words(free)} free, but {self.manifest.name} needs "
                f"{size_in_words(needed)} ({size_in_words(to_come)} to download, at least {size_in_words(unpacked)} "
                "unpacked); free some space, or name another place with --datasets"
            )

    # --- the folder

    def _unpack(self, archive: _Archive) -> None:
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

    def _record(self, archive: _Archive) -> Mapping[str, Any]:
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

    def _bad_archive(self, error: BadDataError, archive: _Archive) -> BadDataError:
        """Without a sha256 the source may have sent half of it: then it is not kept."""
        if archive.source.kind == "file" or self.manifest.sha256 is not None:
            return error
        archive.received.path.unlink(missing_ok=True)
        return BadDataError(f"{error} (from {archive.source.label}; deleted, the same command downloads it again)")

    def _tell_hash(self, archive: _Archive) -> None:
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
