"""Files that a kill at any instant leaves as they were or whole and new, never something between."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
