"""Unpacks a dataset's archive: plain files and folders only, within limits, all of it or nothing.

`tarfile` and `zipfile` extract nothing here: members are read, checked, and written by hand. The files go into a
temporary sibling of the target, with a record of what they are; then they are made durable and the sibling takes the
target's name. So a folder with a record is a whole dataset, whatever happened on the way.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from backend.errors import BadDataError, DiskError
from backend.files import fsync_folder
from training.files import to_json
from training.unpacking.durable import Durable
from training.unpacking.formats import (
    FORMATS,
    HEAD_BYTES,
    ArchiveError,
    Contents,
    Member,
    check_head,
    format_of,
    sniff,
)
from training.unpacking.limits import Limits, Watch
from training.unpacking.paths import Paths, checked_parts
from training.unpacking.streams import decompressed
from training.unpacking.tar import tar_members
from training.unpacking.zip import zip_contents

__all__ = ["FORMATS", "Limits", "Unpacked", "format_of", "is_complete", "sniff", "sweep", "unpack"]

RECORD = ".complete.json"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)


@dataclass(frozen=True)
class Unpacked:
    """What came out of an archive."""

    files: int
    bytes: int
    skipped: int = 0  # members left out: what macOS adds to archives, and an earlier unpacking's record


def unpack(
    archive: Path,
    target: Path,
    *,
    format: str,  # noqa: A002 - the word that manifests use
    limits: Limits,
    record: Mapping[str, Any],
    progress: Callable[[str, int, int], None],
    check_stop: Callable[[], None],
) -> Unpacked:
    """Unpack ``archive`` into the new folder ``target``, durably. On any error nothing of it is left.

    Args:
        archive: the file; it stays.
        target: must not exist. Its parents are made where they are missing.
        format: one of ``FORMATS``.
        limits: what the archive may hold at most.
        record: what `is_complete` will give, with ``files`` and ``bytes`` added.
        progress: told what is going on, the bytes of the archive read so far, and all of them.
        check_stop: called with every MiB and every member; raises InterruptedRunError when the work shall end.

    Raises:
        BadDataError: the archive is not whole, holds what is not unpacked, or is beyond the limits.
        DiskError: the disk is full, read-only or failing.
    """
    if format not in FORMATS:
        raise BadDataError(f"{archive}: the format {format!r} is not known; expected one of {', '.join(FORMATS)}")
    if os.path.lexists(target):
        raise BadDataError(f"{target}: is there already and no whole dataset; move it away and run the same again")
    tell = lambda done, total: progress(f"unpacking {archive.name}", done, total)  # noqa: E731
    with _opened_archive(archive) as file, _explained(archive, target), _published(target) as folder:
        watch = Watch(file, limits, target.parent, tell, check_stop)
        return _fill(folder, file, format, watch, record)


def is_complete(target: Path) -> dict[str, Any] | None:
    """The record of the whole dataset in ``target``; None for anything else."""
    try:
        record = json.loads((target / RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(record, dict) and all(isinstance(record.get(key), int) for key in ("files", "bytes"))
    return record if whole else None


def sweep(parent: Path, name: str) -> None:
    """Remove what a killed unpacking of ``parent/name`` left. The caller holds the lock of that dataset.

    Raises DiskError when it cannot be removed.
    """
    left_behind = re.compile(re.escape(_sibling_prefix(name)) + r"\d+-[0-9a-f]{8}")
    try:
        for entry in parent.iterdir() if parent.is_dir() else ():
            if left_behind.fullmatch(entry.name):
                shutil.rmtree(entry)
    except OSError as error:
        raise DiskError(
            f"{error.filename or parent}: left by an unpacking that was killed, cannot be removed ({error.strerror}); "
            "remove it by hand"
        ) from error


def _sibling_prefix(name: str) -> str:
    return f".{name}.unpacking-"


def _opened_archive(archive: Path) -> FileIO:
    try:
        return archive.open("rb", buffering=0)
    except OSError as error:
        raise DiskError(f"{archive}: cannot be read ({error.strerror}); fetch it again") from error


@contextmanager
def _published(target: Path) -> Iterator[Path]:
    """A new folder beside ``target`` that takes its name after the block, or is gone with all that is in it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = target.with_name(f"{_sibling_prefix(target.name)}{os.getpid()}-{secrets.token_hex(4)}")
    folder.mkdir(mode=0o700)
    try:
        yield folder
        folder.rename(target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    fsync_folder(target.parent)


@contextmanager
def _explained(archive: Path, target: Path) -> Iterator[None]:
    """Turns what goes wrong into the one line for people."""
    try:
        yield
    except ArchiveError as error:
        raise BadDataError(f"{archive}: {error}") from error
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            raise DiskError(
                f"{target}: the disk is full ({reason}), nothing of {archive.name} was kept; free space or name a "
                "larger disk's folder"
            ) from error
        if error.errno in _NOT_WRITABLE:
            raise DiskError(f"{error.filename or target}: no access ({reason}); mount it writable") from error
        raise DiskError(
            f"{error.filename or target}: unpacking {archive.name} failed ({reason}); check the disk"
        ) from error


def _fill(folder: Path, file: FileIO, archive_format: str, watch: Watch, record: Mapping[str, Any]) -> Unpacked:
    check_head(file.read(HEAD_BYTES), archive_format)
    file.seek(0)
    with Durable(folder) as durable:
        with _contents(file, archive_format, watch) as contents:
            watch.expect(contents.expected_bytes)
            unpacked = _write_all(folder, contents.members, watch, durable)
        if not unpacked.files:
            raise ArchiveError("holds no file; expected a dataset")
        full = {**record, "files": unpacked.files, "bytes": unpacked.bytes}
        _write_file(folder, RECORD, [(to_json(full, indent=1) + "\n").encode()], durable)
        folder.chmod(0o755)
        durable.finish(watch.check_stop)
    watch.finish()
    return unpacked


@contextmanager
def _contents(file: FileIO, archive_format: str, watch: Watch) -> Iterator[Contents]:
    if archive_format == "zip":
        yield zip_contents(file, watch.limits.members, watch.flow)
        return
    kind = archive_format.removeprefix("tar.")
    with decompressed(file, kind, watch.check_stop) as stream:
        yield Contents(tar_members(stream, watch.flow), None)


def _write_all(folder: Path, members: Iterable[Member], watch: Watch, durable: Durable) -> Unpacked:
    paths, files, count, skipped = Paths(), 0, 0, 0
    for member in members:
        parts = checked_parts(member.name, member.is_folder)
        if _is_left_out(parts):
            watch.count(1)
            skipped += 1
            continue
        fresh = paths.add_folder(parts) if member.is_folder else paths.add_file(parts)
        watch.count(len(fresh) + 1)
        for path in fresh:
            _make_folder(folder, path)
        if not member.is_folder:
            watch.admit(member)
            _write_file(folder, "/".join(parts), member.pieces, durable)
            files, count = files + 1, count + member.size
    return Unpacked(files, count, skipped)


def _is_left_out(parts: tuple[str, ...]) -> bool:
    """Whether macOS added it to the archive (as shadows of the real files), or an earlier unpacking its record."""
    return bool(parts) and (parts[0] in (RECORD, "__MACOSX") or parts[-1].startswith("._"))


def _make_folder(folder: Path, path: str) -> None:
    place = f"{folder}/{path}"
    os.mkdir(place)  # noqa: PTH102 - a million of them
    os.chmod(place, 0o755)  # noqa: PTH101


def _write_file(folder: Path, path: str, pieces: Iterable[bytes | memoryview], durable: Durable) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(f"{folder}/{path}", flags, 0o644)
    try:
        os.fchmod(descriptor, 0o644)  # whatever the umask is
        for piece in pieces:
            left = memoryview(piece)
            while left:
                left = left[os.write(descriptor, left) :]
            durable.wrote(len(piece))
    finally:
        os.close(descriptor)
