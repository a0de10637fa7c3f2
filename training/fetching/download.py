"""What every download shares: its job, its faults in words, its voice, and how often it tries again.

A download runs in a process of its own (`download_process.py`). It leaves what it has in ``job.folder``, from where
the next one goes on.
"""

from __future__ import annotations

import errno
import hashlib
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

DATA = "data"  # a finished file in a job's folder
TRIES = 5  # in a row without a new byte
LONGEST_PAUSE = 30.0  # between two tries, seconds
LONGEST_WAIT = 120.0  # what a server may ask for with Retry-After, seconds
_TELL_SECONDS = 0.1
_BLOCK = 1 << 22
DISK_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}

Result = TypeVar("Result")


@dataclass(frozen=True)
class Job:
    """One source to download, and what is known of its content."""

    kind: str
    address: str
    folder: Path  # its own: what is there is from this source
    size: int | None  # bytes, where the manifest says it
    pinned: bool  # whether a sha256 will tell if the bytes are right
    connect: float  # seconds
    read: float
    backoff: float  # seconds; the first pause is at most so long


@dataclass(frozen=True)
class Received:
    """A whole file as its source sent it; not yet checked against the manifest."""

    path: Path
    size: int
    sha256: str


class SourceError(Exception):
    """Why a source gives nothing, as one clause for people.

    Args:
        retry: the network's fault, so that trying again helps.
        after: seconds that the server asks to wait.
    """

    def __init__(self, clause: str, *, retry: bool = False, after: float | None = None) -> None:
        super().__init__(clause)
        self.retry, self.after = retry, after


class Voice:
    """What a download tells its parent: what it does, at most ten times a second, and each pause."""

    def __init__(self, send: Callable[[tuple[Any, ...]], None]) -> None:
        self._send = send
        self._next = self._next_reading = 0.0
        self.most = 0  # bytes, the most that there ever were: by it a try is told from going on

    def received(self, done: int, total: int | None) -> None:
        self.most = max(self.most, done)
        now = time.monotonic()
        if now >= self._next or done == total:  # the last one ends the stage
            self._next = now + _TELL_SECONDS
            self._send(("bytes", done, total))

    def reading(self, done: int, total: int) -> None:
        """What is there is being read, for its sha256: not a new byte, but no stall either."""
        now = time.monotonic()
        if now >= self._next_reading:
            self._next_reading = now + _TELL_SECONDS
            self._send(("reading", done, total))

    def waiting(self, seconds: float, why: str) -> None:
        self._send(("waiting", seconds, why))


def persistently(once: Callable[[], Result], job: Job, voice: Voice) -> Result:
    """``once()``, again after each fault of the network, until `TRIES` in a row have brought no new byte."""
    tries, most = 0, voice.most
    while True:
        try:
            return once()
        except SourceError as fault:
            tries = 1 if voice.most > most else tries + 1
            most = voice.most
            if not fault.retry or tries >= TRIES:
                raise
            pause = _pause(fault, job.backoff, tries)
            voice.waiting(pause, str(fault))
            time.sleep(pause)


def _pause(fault: SourceError, backoff: float, tries: int) -> float:
    """Seconds until the next try: what the server asks for, else full jitter. Raises ``fault`` if that is too long."""
    if fault.after is None:
        return random.uniform(0, min(LONGEST_PAUSE, backoff * 2.0**tries))
    if fault.after > LONGEST_WAIT:
        raise SourceError(f"{fault}; it asks to come back in {fault.after:,.0f} s") from fault
    return fault.after


def digest_of(path: Path, tell: Callable[[int, int], None]) -> hashlib._Hash:
    """The sha256 of a file so far; ``tell`` is told (done, total) bytes along the way. Raises OSError as it comes."""
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            done += len(block)
            tell(done, total)
    return digest


def is_html(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is a web page."""
    return (
        re.match(rb"(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body)\b", head, re.I | re.S)
        is not None
    )


def without_secrets(text: str, address: str = "") -> str:
    """One line of what another program said, without user, password and query of any URL in it, or ``address``."""
    text = " ".join(text.split())
    text = text.replace(address, "…") if address else text
    return re.sub(r"\?[^\s'\")]*", "", re.sub(r"://[^/\s@]*@", "://", text))[:200]


def disk_error(error: BaseException) -> OSError | None:
    """``error`` when it is this machine's disk that failed, not the network."""
    plain = isinstance(error, OSError) and type(error).__module__ == "builtins"
    return error if plain and isinstance(error, OSError) and error.errno in DISK_ERRNOS else None
