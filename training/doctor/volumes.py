"""Checks of the folders that are mounted: can they really be written, do they outlive the container."""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from backend.errors import IO_ERROR
from backend.files import write_atomic
from training.doctor.disk import existing
from training.doctor.finding import Finding, failed, note, ok

MOUNTS = Path("/proc/self/mountinfo")
_VANISHING = ("tmpfs", "ramfs", "devtmpfs")
UNMOUNTED_OK = "TRAIN_WORKER_UNMOUNTED_OK"


@dataclass(frozen=True)
class Mount:
    """Where a folder lies: the mount point and its kind of file system."""

    point: Path
    kind: str

    @property
    def lasts(self) -> bool:
        """Whether what is written there is there when the container is gone."""
        return self.point != Path("/") and self.kind not in _VANISHING


def check_output(folder: Path) -> Finding:
    """The output folder must take files durably: write, fsync, rename, really done."""
    problem = try_to_write(folder)
    if problem is None:
        return ok("output", f"{folder} is writable ({_who(folder)})")
    told = f"output folder {folder} cannot be written: {problem.strerror}"
    return failed("output", told, _remedy(problem, folder), code=IO_ERROR)


def check_datasets(folder: Path, must_write: bool) -> Finding:
    """The datasets folder is written where data are fetched; else prepared data go to the output folder."""
    problem = try_to_write(folder)
    if problem is None:
        return ok("datasets", f"{folder} is writable ({_who(folder)})")
    told = f"datasets folder {folder} cannot be written: {problem.strerror}"
    if must_write:
        return failed("datasets", told, _remedy(problem, folder), code=IO_ERROR)
    return note("datasets", told, "prepared data go to the output folder")


def check_mounted(name: str, folder: Path, mount: Mount, unmounted_ok: bool, must_last: bool) -> Finding:
    """In a container: whether the folder lies on a volume, which outlives the container."""
    place = folder.absolute()
    option = f'-v "$PWD/{place.name}:{place}"'
    if mount.lasts:
        return ok(name, f"{folder} is on a volume ({mount.point}, {mount.kind})")
    where = f"{folder} lies in memory ({mount.kind})" if mount.kind in _VANISHING else f"{folder} is not a volume"
    told = f"{where}: what is written there is lost with the container"
    if not must_last or unmounted_ok:
        return note(name, told, f"docker run {option} keeps it")
    return failed(name, told, f"add {option} to docker run, or allow it with -e {UNMOUNTED_OK}=1")


def mount_of(folder: Path, mounts: Path = MOUNTS) -> Mount:
    """The deepest mount that holds ``folder``; of several on one point the last one counts."""
    place, found = Path(os.path.realpath(folder)), Mount(Path("/"), "unknown")
    for line in mounts.read_text("utf-8", "replace").splitlines():
        before, _, after = line.partition(" - ")
        point = Path(_unescaped(before.split()[4]))
        if place.is_relative_to(point) and len(point.parts) >= len(found.point.parts):
            found = Mount(point, after.split()[0])
    return found


def try_to_write(folder: Path) -> OSError | None:
    """Write, fsync and rename a file where ``folder`` is or will be made; what went wrong, or None."""
    place = existing(folder)
    if not place.is_dir():
        return NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
    probe = place / f".writable-{os.getpid()}"
    try:
        write_atomic(probe, "may be deleted\n")
        probe.unlink()
    except OSError as error:
        with suppress(OSError):
            probe.unlink()
        return error
    return None


def _remedy(problem: OSError, folder: Path) -> str:
    place = existing(folder)
    if problem.errno == errno.EROFS:
        return "mount it writable (docker's -v without :ro), or name another with --output"
    if problem.errno in (errno.EACCES, errno.EPERM):
        owner = place.stat()
        return (
            f"it belongs to {owner.st_uid}:{owner.st_gid} and this process is {os.getuid()}:{os.getgid()}; run as "
            f"--user {owner.st_uid}:{owner.st_gid}, or chown it"
        )
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space, or name another with --output"
    return "name a folder on a sound disk with --output"


def _who(folder: Path) -> str:
    owner = existing(folder).stat()
    return f"owner {owner.st_uid}:{owner.st_gid}, this process {os.getuid()}:{os.getgid()}"


def _unescaped(point: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point)
