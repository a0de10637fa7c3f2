"""Downloads from whatever fsspec can open: object storage, ftp, sftp, Hugging Face, …"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fsspec.core import url_to_fs
from fsspec.registry import known_implementations

from training.fetching.download import Job, Received, SourceError, Voice, disk_error, without_secrets
from training.fetching.download_stream import Opened, blocks, receive

_MARKS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "updated")  # what file systems call it


def download(job: Job, voice: Voice) -> Received:
    """The file at the fsspec URL ``job.address``. Raises SourceError, and OSError when the disk fails."""

    @contextmanager
    def open_from(offset: int, validator: str | None) -> Iterator[Opened]:
        with _faults(job):
            system, path = url_to_fs(job.address)
            info = system.info(path)
            file = system.open(path, "rb")
        with file:
            mark, goes_on = _mark(info), offset > 0 and validator == _mark(info)
            if goes_on:
                file.seek(offset)
            yield Opened(_guarded(file, job), offset if goes_on else 0, info.get("size"), mark)

    return receive(job, open_from, voice)


def _mark(info: Mapping[str, Any]) -> str | None:
    known = next((str(info[name]) for name in _MARKS if info.get(name)), None)
    return known and f"{known} {info.get('size')}"


def _guarded(file: Any, job: Job) -> Iterator[bytes]:
    reading = blocks(file)
    while True:
        with _faults(job):
            chunk = next(reading, b"")
        if not chunk:
            return
        yield chunk


@contextmanager
def _faults(job: Job) -> Iterator[None]:
    """Turns what a file system raises into a SourceError."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError) as error:
        raise SourceError("there is no such file: it was deleted or moved, or the address is wrong") from error
    except PermissionError as error:
        raise SourceError("access is refused: it is private, or the credentials are missing or wrong") from error
    except (ImportError, ValueError) as error:
        raise SourceError(_missing(job.address, error)) from error
    except Exception as error:  # each file system has its own classes
        said = without_secrets(f"{type(error).__name__}: {error}", job.address)
        is_disk = disk_error(error) is not None and getattr(error, "errno", None) != errno.EIO
        raise SourceError(f"it cannot be read ({said})", retry=isinstance(error, OSError) and not is_disk) from error


def _missing(url: str, error: Exception) -> str:
    protocol = url.partition("://")[0].rpartition("::")[2]
    known = known_implementations.get(protocol)
    if known is None:
        return f"fsspec knows no protocol {protocol}"
    if isinstance(error, ImportError):
        return f"the protocol {protocol} needs a package that is not installed ({known.get('err', error)})"
    return f"it cannot be read ({without_secrets(str(error), url)})"
