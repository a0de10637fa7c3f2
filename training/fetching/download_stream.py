"""Downloads of sources that can be read from any byte on: a cut is continued, if it is still the same file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.fetching.download import DATA, Job, Received, SourceError, Voice, digest_of, is_html, persistently
from training.files import read_json, write_json

BLOCK = 1 << 18
_PART, _STATE = "data.part", "state.json"


@dataclass(frozen=True)
class Opened:
    """What a source gives from ``offset`` on."""

    chunks: Iterator[bytes]
    offset: int  # 0 where it cannot or must not go on from where it was asked to
    total: int | None  # bytes of the whole file
    validator: str | None  # as long as it stays, so does the content


Opener = Callable[[int, str | None], AbstractContextManager[Opened]]  # from (offset, validator of what is there) on


def receive(job: Job, open_from: Opener, voice: Voice) -> Received:
    """The whole file, from what is in ``job.folder`` on; the network's faults are tried again.

    Raises SourceError, and OSError when the disk fails.
    """
    partial = _Partial(job)
    return persistently(lambda: partial.complete(open_from, voice), job, voice)


class _Partial:
    """The part of a file that is there, and what it was a part of."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.path = job.folder / _PART
        state = job.folder / _STATE
        self.known: dict[str, Any] = read_json(state) if state.exists() else {}
        self.size = self.path.stat().st_size if self.path.exists() else 0
        self.digest = hashlib.sha256()
        self.digested = 0  # bytes that are in it

    def complete(self, open_from: Opener, voice: Voice) -> Received:
        finished = self.job.folder / DATA
        if self._offset() not in (0, self.digested):
            self.digest, self.digested = digest_of(self.path, voice.reading), self.size
        with open_from(self._offset(), self.known.get("validator")) as opened:
            self._begin(opened)
            if opened.offset != self.size:
                self._drop()
                raise SourceError("it sends other bytes than it was asked for", retry=True)
            self._append(opened, voice)
        if opened.total is not None and self.size < opened.total:
            raise SourceError(f"it was cut off after {self.size:,} of {opened.total:,} bytes", retry=True)
        if self.size == 0:
            raise SourceError("it is an empty file")
        if opened.total is None:
            voice.received(self.size, self.size)
        self.path.replace(finished)
        return Received(finished, self.size, self.digest.hexdigest())

    def _offset(self) -> int:
        """Where to go on: only what a validator or a sha256 will vouch for is continued."""
        return self.size if self.known.get("validator") or self.job.pinned else 0

    def _begin(self, opened: Opened) -> None:
        expected = self.job.size
        if None not in (opened.total, expected) and opened.total != expected:
            self._drop()
            raise SourceError(f"it has {opened.total:,} bytes, the manifest says {expected:,}")
        if opened.offset == 0 and self.size:
            self._drop()
        self.known = {"validator": opened.validator}
        write_json(self.job.folder / _STATE, self.known)

    def _drop(self) -> None:
        remove(self.job.folder)
        self.size, self.digested, self.digest = 0, 0, hashlib.sha256()

    def _append(self, opened: Opened, voice: Voice) -> None:
        voice.received(self.size, opened.total)
        with self.path.open("ab", buffering=0) as file:
            for chunk in opened.chunks:
                if self.size == 0 and is_html(chunk[:1024]):
                    self._drop()
                    raise SourceError("it sends a web page (HTML) in place of the archive")
                _write(file, chunk)
                self.digest.update(chunk)
                self.size += len(chunk)
                self.digested = self.size
                if self.job.size is not None and self.size > self.job.size:
                    self._drop()
                    raise SourceError(f"it sends more than the {self.job.size:,} bytes that the manifest says")
                voice.received(self.size, opened.total)


def _write(file: Any, chunk: bytes) -> None:
    """All of ``chunk``: a raw file may take less, and does where the disk is nearly full."""
    rest = memoryview(chunk)
    while rest:
        rest = rest[file.write(rest) :]


def blocks(file: Any) -> Iterator[bytes]:
    """The rest of a binary file."""
    return iter(lambda: file.read(BLOCK), b"")


def remove(folder: Path) -> None:
    """Delete what was received from a source, such as a file of the wrong content."""
    for path in (*folder.glob(f"{DATA}*"), folder / _STATE):
        path.unlink(missing_ok=True)
