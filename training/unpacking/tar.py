"""Members of a tar stream, read header by header in one pass.

`tarfile.TarInfo` reads the numbers of one header; which header may follow which is decided here, because
`tarfile.TarFile` ends in silence at a header that it cannot read, and takes a header's word for how much to hold in
memory and where to go next.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from tarfile import AREGTYPE, BLOCKSIZE, CONTTYPE, DIRTYPE, NUL, REGTYPE, HeaderError, TarInfo

from training.unpacking.formats import ArchiveError, Member
from training.unpacking.paths import shown
from training.unpacking.streams import Stream

_BUFFER_BYTES = 1 << 20
_EXTRA_BYTES = 1 << 20  # of one pax header or long name; real ones have some hundred
_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL = b"L", b"K", b"x", b"g"
_REFUSED = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a named pipe",
    b"S": "a sparse file",
    b"M": "the continuation of another volume",
}
_SPARSE_KEYS = ("GNU.sparse.", "SCHILY.realsize", "SUN.holesdata")
_RECORD = re.compile(rb"([1-9][0-9]{0,7}) ([^=]+)=")
_CUT_OFF = "ends in the middle of the archive; fetch it again"


def tar_members(stream: Stream, flow: Callable[[int], None]) -> Iterator[Member]:
    """The files and folders of a tar stream. A file's pieces are to be taken, or left, before the next member.

    ``flow`` is told of the bytes read from the stream, as they are.

    Raises:
        ArchiveError: a header is damaged, a member is neither file nor folder, the end mark is missing, or something
            follows it.
    """
    source = _Source(stream, flow)
    extra = _Extra()
    while (block := source.exactly(BLOCKSIZE)).strip(NUL):
        header = _header(block)
        if header.kind in (_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL):
            extra = _extended(extra, header, source)
            continue
        member = _member(header, extra, source)
        extra = _Extra()
        yield member
        for _ in member.pieces:
            pass
        source.skip(-member.size % BLOCKSIZE)
    _check_end(source, extra)


@dataclass(frozen=True, slots=True)
class _Header:
    name: bytes
    kind: bytes
    size: int


@dataclass(frozen=True, slots=True)
class _Extra:
    """What extension headers say of the member that follows them."""

    path: bytes | None = None
    long_name: bytes | None = None
    size: int | None = None
    begun: bool = False


class _Source:
    """A stream through a buffer, from which files are written without another copy."""

    def __init__(self, stream: Stream, flow: Callable[[int], None]) -> None:
        self._stream, self._flow = stream, flow
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._left = self._buffer[:0]

    def some(self, most: int) -> memoryview:
        """Between 1 and ``most`` bytes, none at the end."""
        if not self._left:
            count = self._stream.readinto(self._buffer)
            self._flow(count)
            self._left = self._buffer[:count]
        piece, self._left = self._left[:most], self._left[most:]
        return piece

    def pieces(self, size: int) -> Iterator[memoryview]:
        """The next ``size`` bytes."""
        while size:
            piece = self.some(size)
            if not piece:
                raise ArchiveError(_CUT_OFF)
            size -= len(piece)
            yield piece

    def exactly(self, size: int) -> bytes:
        """The next ``size`` bytes at once."""
        return b"".join(bytes(piece) for piece in self.pieces(size))  # copied before the buffer is filled again

    def skip(self, size: int) -> None:
        """Leave the next ``size`` bytes."""
        for _ in self.pieces(size):
            pass


def _header(block: bytes) -> _Header:
    try:
        info = TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (HeaderError, ValueError) as error:
        raise ArchiveError(f"has a damaged tar header ({error}); fetch it again") from error
    if info.size < 0:
        raise ArchiveError("has a tar header with a size below zero; fetch it again")
    name, prefix = _field(block[:100]), _field(block[345:500])
    if prefix and block[257:263] == b"ustar\0":  # GNU's own headers keep times there
        name = prefix + b"/" + name
    return _Header(name, block[156:157], info.size)


def _field(field: bytes) -> bytes:
    return field.partition(NUL)[0]


def _extended(extra: _Extra, header: _Header, source: _Source) -> _Extra:
    """``extra`` with what one more extension header says."""
    if header.size > _EXTRA_BYTES:
        raise ArchiveError(f"has a tar header of {header.size:,} bytes, more than {_EXTRA_BYTES:,}; pack it anew")
    data = source.exactly(header.size)
    source.skip(-header.size % BLOCKSIZE)
    if header.kind == _LONG_NAME:
        return _Extra(extra.path, _field(data), extra.size, True)
    if header.kind == _LONG_LINK:
        return _Extra(extra.path, extra.long_name, extra.size, True)  # its member is a link, and refused as such
    records = _pax_records(data)
    if header.kind == _PAX_GLOBAL:
        if not {"path", "size"}.isdisjoint(records):
            raise ArchiveError("has a tar header that gives many members one path or size; pack it anew")
        return extra
    path, size = records.get("path", extra.path), extra.size
    if "size" in records:
        size = _decimal(records["size"])
    return _Extra(path, extra.long_name, size, True)


def _pax_records(data: bytes) -> dict[str, bytes]:
    """The records of a pax header, ``length key=value\\n`` each."""
    records, place = {}, 0
    while place < len(data):
        match = _RECORD.match(data, place)
        end = place + int(match[1]) if match else 0
        if match is None or not match.end() < end <= len(data) or data[end - 1 : end] != b"\n":
            raise ArchiveError("has a damaged pax header; fetch it again")
        key = match[2].decode("utf-8", "replace")
        if key.startswith(_SPARSE_KEYS):
            raise ArchiveError("holds a sparse file, and only plain ones are unpacked; pack it anew without --sparse")
        records[key] = data[match.end() : end - 1]
        place = end
    return records


def _decimal(digits: bytes) -> int:
    if not re.fullmatch(rb"[0-9]{1,19}", digits):
        raise ArchiveError("has a pax header with a size that is no number; fetch it again")
    return int(digits)


def _member(header: _Header, extra: _Extra, source: _Source) -> Member:
    raw = next((name for name in (extra.path, extra.long_name) if name is not None), header.name)
    name = raw.decode("utf-8", "surrogateescape")
    size = header.size if extra.size is None else extra.size
    folder = header.kind == DIRTYPE or (header.kind == AREGTYPE and name.endswith("/"))
    if not folder and header.kind not in (REGTYPE, AREGTYPE, CONTTYPE):
        kind = _REFUSED.get(header.kind, f"of the unknown type {header.kind.decode('latin-1')!a}")
        raise ArchiveError(
            f"the member {shown(name)} is {kind}, and only files and folders are unpacked; pack the files themselves "
            "(tar --dereference --hard-dereference)"
        )
    if folder and size:
        raise ArchiveError(f"the folder {shown(name)} has {size:,} bytes of content; pack it anew")
    return Member(name, folder, size, source.pieces(size))


def _check_end(source: _Source, extra: _Extra) -> None:
    """After the first block of zeros: another, and nothing but zeros to the end of the stream."""
    if extra.begun:
        raise ArchiveError(_CUT_OFF)
    if source.exactly(BLOCKSIZE).strip(NUL):
        raise ArchiveError("has an empty block between its members; fetch it again or pack it anew")
    while rest := source.some(_BUFFER_BYTES):
        if bytes(rest).strip(NUL):
            raise ArchiveError("goes on after its end mark; pack its parts into one archive")
