"""Compressed data taken apart in this process, in pieces that fit into memory whatever the data are.

The file objects of gzip, bz2, lzma and zstandard each let something pass in silence (bytes after the end, a missing
end), so the decompressors beneath them are driven here, by one loop for all four.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Generator, Iterator
from typing import Any, BinaryIO

from training.unpacking.formats import ArchiveError

PIECE_BYTES = 1 << 20
_READ_BYTES = {"gz": 1 << 18, "bz2": 1 << 18, "xz": 1 << 18, "zst": 1 << 12}  # 4 KiB of zst become 128 MiB at most
_PADDED = {"gz", "bz2", "xz"}  # zeros after the end are padding there, as their own programs see it
_XZ_MEMORY_BYTES = 512 << 20  # xz -9 needs 65 MiB


def pieces(file: BinaryIO, kind: str) -> Iterator[bytes]:
    """The content of ``file``: one compressed stream, or several one after another.

    Args:
        file: where reading begins.
        kind: ``gz``, ``zst``, ``bz2`` or ``xz``.

    Raises:
        ArchiveError: it ends inside a stream, something else follows a stream, or a checksum is wrong.
    """
    data, streams = file.read(_READ_BYTES[kind]), 0
    while data:
        if streams and kind in _PADDED:
            data = data.lstrip(b"\0")
        if data:
            data = yield from _one_stream(file, kind, data, streams)
            streams += 1
        data = data or file.read(_READ_BYTES[kind])


def _one_stream(file: BinaryIO, kind: str, data: bytes, streams: int) -> Generator[bytes, None, bytes]:
    """Yields one stream's content; returns what was read beyond its end."""
    decoder, errors = _decoder(kind)
    begun = False
    while True:
        try:
            piece = decoder.decompress(data) if kind == "zst" else decoder.decompress(data, PIECE_BYTES)
        except errors as error:
            if streams and not begun:
                raise ArchiveError(f"holds something else after the end of its {kind} data; fetch it again") from error
            raise ArchiveError(f"is damaged ({kind}: {error}); fetch it again") from error
        if piece:
            begun = True
            yield piece
        if decoder.eof:
            unused: bytes = decoder.unused_data
            return unused
        data = getattr(decoder, "unconsumed_tail", b"")
        if not data and len(piece) < PIECE_BYTES:  # else more may come of what it has
            data = file.read(_READ_BYTES[kind])
            if not data:
                raise ArchiveError(f"ends in the middle of its {kind} data; fetch it again")


def _decoder(kind: str) -> tuple[Any, tuple[type[Exception], ...]]:
    """A decompressor, and the errors by which it says that the data are not sound."""
    if kind == "gz":
        return zlib.decompressobj(wbits=31), (zlib.error,)
    if kind == "bz2":
        return bz2.BZ2Decompressor(), (OSError, ValueError)
    if kind == "xz":
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES), (lzma.LZMAError,)
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj(), (zstandard.ZstdError,)
