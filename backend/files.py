"""Files that a kill at any instant leaves as they were or whole and new, never something between."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backend.errors import DiskError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary sibling to write; after the block it is made durable and takes the name ``path``.

    When the block fails the sibling is deleted and ``path`` is what it was. Raises OSError as it comes.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        fsync_file(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file whole and durably, or not at all; text as UTF-8. Raises OSError as it comes."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def fsync_file(path: Path) -> None:
    """Make the content of a written file durable."""
    _fsync(path)


def fsync_folder(folder: Path) -> None:
    """Make renames and new names in ``folder`` durable."""
    _fsync(folder)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's content. Raises OSError as it comes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def writable_folder(out: Path) -> None:
    """Make the folder ``out`` where it is missing; asked before the work, so that none is done for nothing.

    Raises:
        DiskError: it cannot be made or written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise DiskError(f"{out}: cannot be written ({error.strerror}); choose another --out") from error
