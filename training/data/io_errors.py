"""Turns what the operating system says into one line for the user: the disk's fault or the dataset's."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backend.errors import BadDataError, DiskError


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turns an OSError inside the block into a DiskError that names the file or ``folder``."""
    try:
        yield
    except OSError as error:
        raise DiskError(f"{error.filename or folder}: {error.strerror or error}. {_remedy(folder)}") from error


def _remedy(folder: Path) -> str:
    return f"Free space or mend the disk, or point data.cache_dir elsewhere (now {folder}), and run the same again."


@contextmanager
def source_errors(path: Path) -> Iterator[None]:
    """Turns an OSError on a source file into a DiskError or a BadDataError that names it."""
    try:
        yield
    except OSError as error:
        line = f"{path} cannot be read: {error.strerror or error}"
        if error.errno in (errno.EIO, errno.ESTALE, errno.ENOTCONN):
            raise DiskError(f"{line}. Check the disk or the mount and run the same again.") from error
        raise BadDataError(f"{line}. The dataset must stay as it is, and readable, while it is prepared.") from error
