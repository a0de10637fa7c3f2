"""The archive of a dataset: from the sources in turn, checked, in its place on this disk."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from backend.errors import BadDataError, DiskError, SourceUnavailableError
from training.fetching.content import ChangedError, FirstSeen, check_content
from training.fetching.download import Job, Received, SourceError, digest_of
from training.fetching.download_process import OutOfTimeError, Watch, download
from training.fetching.download_stream import remove
from training.fetching.manifest import Manifest, Source
from training.files import read_json, write_json
from training.reporting.units import size_in_words

_VERIFIED = "verified.json"
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


def _boot() -> str:
    """Which start of which machine this is: within one, what was written is there, whatever was killed."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


@dataclass(frozen=True)
class Archive:
    """A checked archive on this disk."""

    received: Received
    source: Source
    format: str


class ArchiveFetch:
    """Brings a manifest's archive into ``staging``; the caller holds the dataset's lock.

    ``backoff`` is the longest first pause between two tries, in seconds.
    """

    def __init__(self, manifest: Manifest, staging: Path, first_seen: FirstSeen, tell: Tellers, backoff: float) -> None:
        self.manifest, self.staging, self.first_seen = manifest, staging, first_seen
        self.tell, self.backoff = tell, backoff
        self.deadline = time.monotonic() + manifest.timeouts.total

    def get(self) -> Archive:
        """The archive, as it was checked before or from the first source that gives it.

        Raises SourceUnavailableError when none does, BadDataError when only changed content came, and DiskError.
        """
        return self._kept_archive() or self._from_sources()

    def _from_sources(self) -> Archive:
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

    def _from_source(self, source: Source) -> Archive:
        if source.kind == "file":
            received = self._local_file(Path(source.address))
            return Archive(received, source, check_content(self.manifest, source, received, self.first_seen))
        job = self._job(source)
        job.folder.mkdir(exist_ok=True)
        self._require_space(self._still_to_come(job.folder, self.manifest.size), self.manifest.size)
        received = download(job, self._watch(job))
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

        stall, tell = self.manifest.timeouts.stall, self.tell
        return Watch(stall, self.deadline, received, self._reading, tell.say, tell.check_stop)

    def _reading(self, done: int, total: int) -> None:
        self.tell.check_stop()
        self.tell.progress("verifying", done, total, unit="B")

    def _local_file(self, path: Path) -> Received:
        """A file on this machine is read where it is, without a copy."""
        try:
            size = path.stat().st_size
            if not path.is_file():
                raise SourceError("it is no file, expected one archive")
            return Received(path, size, digest_of(path, self._reading).hexdigest())
        except OSError as error:
            raise SourceError(f"it cannot be read ({error.strerror})") from error

    def _keep(self, received: Received, source: Source, found: str) -> Archive:
        """Give the checked file its place, from where unpacking goes on also after an interruption."""
        place = self.staging / f"{self.manifest.name}.{found}"
        facts = {
            "file": place.name,
            "sha256": received.sha256,
            "size": received.size,
            "mtime_ns": received.path.stat().st_mtime_ns,
            "source": source.key,
            "boot": _boot(),
        }
        write_json(self.staging / _VERIFIED, facts)
        received.path.replace(place)
        return Archive(Received(place, received.size, received.sha256), source, found)

    def _kept_archive(self) -> Archive | None:
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
        if facts.get("boot") != _boot() and digest_of(place, self._reading).hexdigest() != facts["sha256"]:
            place.unlink()  # power was lost before it was on the disk
            return None
        received = Received(place, now.st_size, str(facts["sha256"]))
        try:
            return Archive(received, source, check_content(self.manifest, source, received, self.first_seen))
        except SourceError:
            place.unlink()
            return None

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
