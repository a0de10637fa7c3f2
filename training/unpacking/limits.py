"""How much an archive may hold, counted while it is read; and who is told meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from backend.errors import DiskError
from training.unpacking.formats import ArchiveError, Member
from training.unpacking.paths import shown

_SMALL_BYTES = 1 << 20  # what tar's padding alone comes to must not look like a bomb
_SPARE_BYTES, _SPARE_SHARE = 64 << 20, 0.01  # of the disk, left for others: the smaller of the two


@dataclass(frozen=True)
class Limits:
    """What an archive may hold at most. The first excess ends the unpacking."""

    total_bytes: int | None = None  # of all files together; None: what the disk has free
    file_bytes: int | None = None  # of one file
    members: int = 1_000_000  # files and folders, those that are only in their paths too
    ratio: float = 200.0  # unpacked / packed bytes


class Watch:
    """Counts what comes out of an archive against the limits, and lets a stop through.

    Args:
        file: the archive, whose offset shows how far it was read.
        place: an existing folder on the disk that takes the files.
    """

    def __init__(
        self,
        file: FileIO,
        limits: Limits,
        place: Path,
        progress: Callable[[int, int], None],
        check_stop: Callable[[], None],
    ) -> None:
        self.limits = limits
        self.check_stop = check_stop
        self._file, self._place, self._progress = file, place, progress
        self._packed = os.fstat(file.fileno()).st_size
        self._free = _free_bytes(place)
        self._members = self._bytes = self._flowed = 0

    def expect(self, total: int | None) -> None:
        """Before anything is written: all files together will have ``total`` bytes, or it is not known.

        Raises ArchiveError beyond a limit, DiskError where the disk has less free.
        """
        if total is not None:
            self._check_total(total)
            self._check_ratio(total)
        least = self._packed if total is None else total
        if least > self._free:
            raise self._disk_full(least)

    def count(self, members: int) -> None:
        """So many more files and folders. Raises ArchiveError when they are too many."""
        self.check_stop()
        self._members += members
        if self._members > self.limits.members:
            raise ArchiveError(f"holds more than {self.limits.members:,} files and folders, the limit 'members'")

    def admit(self, member: Member) -> None:
        """A file is about to be written. Raises ArchiveError, or DiskError, when it is too large."""
        most = self.limits.file_bytes
        if most is not None and member.size > most:
            raise ArchiveError(
                f"the member {shown(member.name)} has {size_text(member.size)}, more than the {size_text(most)} of the "
                "limit 'file_bytes'"
            )
        self._bytes += member.size
        self._check_total(self._bytes)

    def flow(self, count: int) -> None:
        """So many more bytes came out of the compressed data, headers and padding among them.

        Raises ArchiveError when they are too many for so small an archive.
        """
        self.check_stop()
        self._flowed += count
        self._check_ratio(self._flowed)
        self._progress(min(self._file.tell(), self._packed - 1), self._packed)

    def finish(self) -> None:
        """Tell that all is done."""
        self._progress(self._packed, self._packed)

    def _check_total(self, total: int) -> None:
        most = self.limits.total_bytes
        if most is not None and total > most:
            raise ArchiveError(f"holds more than the {size_text(most)} of the limit 'total_bytes'")
        if most is None and total > self._free:
            raise self._disk_full(total)

    def _check_ratio(self, unpacked: int) -> None:
        if unpacked > max(_SMALL_BYTES, self.limits.ratio * self._packed):
            raise ArchiveError(
                f"unpacks to more than {self.limits.ratio:g} times its {size_text(self._packed)}, the limit 'ratio': "
                "raise it if you know why"
            )

    def _disk_full(self, needed: int) -> DiskError:
        return DiskError(
            f"{self._place}: unpacking {self._file.name} needs {size_text(needed)} or more, and the disk has "
            f"{size_text(self._free)} to give; free space or name a larger disk's folder"
        )


def size_text(count: int) -> str:
    """``1,234.5 MB``, or bytes where there are few."""
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count:,} bytes"


def _free_bytes(folder: Path) -> int:
    disk = os.statvfs(folder)
    spare = min(_SPARE_BYTES, int(_SPARE_SHARE * disk.f_blocks * disk.f_frsize))
    return max(0, disk.f_bavail * disk.f_frsize - spare)
