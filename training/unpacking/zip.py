"""Members of a zip file, by its table of contents, in the order in which they lie.

`zipfile` reads the table and takes the members' data apart; what they claim is checked here and by who takes them.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader, FileIO
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo, sizeFileHeader  # type: ignore[attr-defined]

from training.unpacking.formats import ArchiveError, Contents, Member
from training.unpacking.paths import shown

_PIECE_BYTES = 1 << 20
_TABLE_BYTES_PER_MEMBER = 256  # 46, the name, times and owners
_END_MARK, _END_BYTES = b"PK\x05\x06", 22
_ENCRYPTED = 0x1 | 0x40
_UNIX_PLAIN = (0, stat.S_IFREG, stat.S_IFDIR)
_READ_ERRORS = (BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, zlib.error, struct.error)


def zip_contents(file: FileIO, most_members: int, flow: Callable[[int], None]) -> Contents:
    """The files and folders of a zip file, which its table must tell of truly.

    ``flow`` is told of the bytes taken out, as they are.

    Raises:
        ArchiveError: it is damaged, encrypted, cut off or followed by something, two members share bytes, or one is
            neither file nor folder or packed by a method other than deflate; also while the members are taken.
    """
    table_bytes = most_members * _TABLE_BYTES_PER_MEMBER + (1 << 16)
    with _damage():
        archive = ZipFile(_SmallReads(file, table_bytes))
    _check_end(file, archive)
    found = sorted(archive.infolist(), key=lambda info: info.header_offset)
    for info in found:
        _check(info)
    _check_overlap(found, archive.start_dir)
    return Contents((_member(archive, info, flow) for info in found), sum(info.file_size for info in found))


class _SmallReads(BufferedReader):
    """Reads no more at once than a table of contents may have, whatever a file says of its own."""

    def __init__(self, file: FileIO, most_bytes: int) -> None:
        super().__init__(file)
        self._most_bytes = most_bytes

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > max(self._most_bytes, _PIECE_BYTES):
            raise ArchiveError(f"has a table of contents of {size:,} bytes, too many for the members allowed")
        return super().read(size)

    def close(self) -> None:
        """The file belongs to the caller."""


@contextmanager
def _damage() -> Iterator[None]:
    """Turns the ways in which zipfile gives up into an ArchiveError."""
    try:
        yield
    except _READ_ERRORS as error:
        raise ArchiveError(
            f"is a damaged or cut off zip file ({error or type(error).__name__}); fetch it again"
        ) from error
    except OSError as error:
        if error.filename is not None or error.errno not in (None, errno.EINVAL):  # a place before the beginning
            raise
        raise ArchiveError(f"is a damaged zip file ({error}); fetch it again") from error


def _check_end(file: FileIO, archive: ZipFile) -> None:
    """The end record, with its comment, is the last thing in the file."""
    size = os.fstat(file.fileno()).st_size
    file.seek(size - _END_BYTES - len(archive.comment))
    if file.read(len(_END_MARK)) != _END_MARK:
        raise ArchiveError("goes on after the end of its zip data, or its comment is cut off; fetch it again")


def _check(info: ZipInfo) -> None:
    name, kind = info.orig_filename, stat.S_IFMT(info.external_attr >> 16)
    folder = name.endswith("/")
    if info.flag_bits & _ENCRYPTED:
        raise ArchiveError(f"the member {shown(name)} is encrypted; pack it anew without a password")
    if kind not in _UNIX_PLAIN or (kind == stat.S_IFDIR) != (folder and kind != 0):
        what = "a symbolic link" if kind == stat.S_IFLNK else "neither a file nor a folder"
        raise ArchiveError(
            f"the member {shown(name)} is {what}, and only files and folders are unpacked; pack the files"
        )
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise ArchiveError(
            f"the member {shown(name)} is packed by method {info.compress_type}; pack it anew by deflate"
        )
    if info.compress_type == ZIP_STORED and info.file_size != info.compress_size:
        raise ArchiveError(f"the member {shown(name)} has two different sizes; fetch it again")
    if folder and info.file_size:
        raise ArchiveError(f"the folder {shown(name)} has {info.file_size:,} bytes of content; pack it anew")


def _check_overlap(found: list[ZipInfo], end: int) -> None:
    """No byte belongs to two members: bombs of some megabytes are made in that way."""
    limits = [info.header_offset for info in found[1:]] + [end]
    for info, limit in zip(found, limits, strict=False):
        if info.header_offset + sizeFileHeader + len(info.orig_filename) + info.compress_size > limit:
            raise ArchiveError(f"the member {shown(info.orig_filename)} overlaps what follows it; fetch it again")


def _member(archive: ZipFile, info: ZipInfo, flow: Callable[[int], None]) -> Member:
    return Member(info.orig_filename, info.orig_filename.endswith("/"), info.file_size, _pieces(archive, info, flow))


def _pieces(archive: ZipFile, info: ZipInfo, flow: Callable[[int], None]) -> Iterator[bytes]:
    count = 0
    with _damage(), archive.open(info) as member:
        while piece := member.read(_PIECE_BYTES):
            count += len(piece)
            flow(len(piece))
            yield piece
        if count != info.file_size:
            raise ArchiveError(f"the member {shown(info.orig_filename)} has fewer bytes than it says; fetch it again")
