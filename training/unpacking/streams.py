"""The bytes of a compressed file, made by a program where one is installed and else in this process.

Either way the file must be sound compressed data to its last byte: checksums right, no end missing, nothing after it.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from typing import IO, Protocol

from backend.errors import DiskError
from training.unpacking.codecs import pieces
from training.unpacking.formats import ArchiveError

_PROGRAMS = {"gz": ("pigz", "-dc"), "zst": ("zstd", "-dc", "--no-progress")}
_OPTIONS_IN_ENVIRONMENT = ("GZIP", "PIGZ")
_PIPE_BYTES = 1 << 20  # what an unprivileged process may have
_POLL_MILLISECONDS = 250  # how long a stop can go unnoticed while a program says nothing


class Stream(Protocol):
    """Bytes to read once, in order."""

    def readinto(self, view: memoryview, /) -> int:
        """Fill the beginning of ``view`` and tell with how many bytes. 0 is the end, and says that all was sound."""
        ...


@contextmanager
def decompressed(file: FileIO, kind: str, check_stop: Callable[[], None]) -> Iterator[Stream]:
    """The content of ``file``; no program outlives the block.

    Args:
        file: unbuffered and at its beginning; its offset then shows how far it was read.
        kind: ``gz``, ``zst``, ``bz2``, ``xz``, or ``tar`` for a file that is not compressed.
        check_stop: called while waiting for a program.

    Raises:
        ArchiveError: by ``readinto``, where the data are not sound.
        DiskError: a program was killed.
    """
    program = _PROGRAMS.get(kind)
    if kind == "tar":
        yield _Plain(file)
    elif program and shutil.which(program[0]):
        with _Program(program, file, check_stop) as stream:
            yield _CheckedGzip(stream, file, check_stop) if kind == "gz" else stream
    else:
        yield _InProcess(pieces(file, kind))


class _Plain:
    """A file as it is."""

    def __init__(self, file: FileIO) -> None:
        self._file = file

    def readinto(self, view: memoryview, /) -> int:
        return self._file.readinto(view) or 0


class _InProcess:
    """Pieces as they come, cut to what is asked for."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece = memoryview(b"")

    def readinto(self, view: memoryview, /) -> int:
        if not self._piece:
            self._piece = memoryview(next(self._pieces, b""))
        count = min(len(view), len(self._piece))
        view[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count


class _Program:
    """A child process that reads the file and writes its content to a pipe."""

    def __init__(self, command: tuple[str, ...], file: FileIO, check_stop: Callable[[], None]) -> None:
        self._name = command[0]
        self._check_stop = check_stop
        self._child = subprocess.Popen(
            command,
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env={name: value for name, value in os.environ.items() if name not in _OPTIONS_IN_ENVIRONMENT},
            start_new_session=True,  # Ctrl-C is for this process, which then ends the child
        )
        assert self._child.stdout is not None and self._child.stderr is not None
        self._pipe: IO[bytes] = self._child.stdout
        self._complaints: IO[bytes] = self._child.stderr
        with suppress(OSError):  # faster when larger, no more
            fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._readable = select.poll()
        self._readable.register(self._pipe, select.POLLIN)

    def __enter__(self) -> _Program:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.wait()
        self._pipe.close()
        self._complaints.close()

    def readinto(self, view: memoryview, /) -> int:
        while not self._readable.poll(_POLL_MILLISECONDS):
            self._check_stop()
        count: int = self._pipe.readinto(view)  # type: ignore[attr-defined]
        if not count:
            self._check_exit()
        return count

    def _check_exit(self) -> None:
        self._check_stop()  # who asked this process to stop may have ended the child too
        code = self._child.wait()
        if code < 0:
            raise DiskError(
                f"{self._name} was ended by {signal.Signals(-code).name} while unpacking, most likely because memory "
                "ran out; run the same command again"
            )
        if code:
            raise ArchiveError(
                f"is damaged or cut off ({self._complaint() or f'{self._name}: exit {code}'}); fetch it again"
            )

    def _complaint(self) -> str:
        lines = self._complaints.read(4096).decode("utf-8", "replace").split("\n")
        return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")


class _CheckedGzip:
    """What pigz makes of a gzip file, and whether that was all of it.

    pigz stops in silence at whatever is not a gzip member, a cut-off second one included. A file of one member ends
    with the length of its content, modulo 2**32: where that is what came, the file was whole. Else it is read again.
    """

    def __init__(self, stream: Stream, file: FileIO, check_stop: Callable[[], None]) -> None:
        self._stream, self._file, self._check_stop = stream, file, check_stop
        self._count = 0

    def readinto(self, view: memoryview, /) -> int:
        count = self._stream.readinto(view)
        self._count += count
        if not count:
            self._check_end()
        return count

    def _check_end(self) -> None:
        self._file.seek(-4, os.SEEK_END)
        if int.from_bytes(self._file.read(4), "little") == self._count & 0xFFFFFFFF:
            return
        self._file.seek(0)
        for _ in pieces(self._file, "gz"):
            self._check_stop()
