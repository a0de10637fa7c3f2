"""Downloads from Google Drive with gdown, which knows Drive's pages; which fault it met is read off its requests.

gdown tells a quota page, a deleted file and a busy server in nearly the same words and can follow a confirmation page
that leads to itself for ever. Its requests, which urllib3 logs with host and status, tell them apart.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gdown
import requests
from gdown.exceptions import DownloadCancelled, DownloadError, FileURLRetrievalError
from urllib3.exceptions import HTTPError as StreamError

from training.fetching.download import DATA, Job, Received, SourceError, Voice, digest_of, disk_error, persistently
from training.fetching.download_https import network_fault, refuse_status
from training.fetching.download_stream import remove
from training.files import read_json, write_json

_MOST_REQUESTS = 20  # without a byte of the file; a download with confirmation and redirects takes six
_STATE = "state.json"
_DRIVE = "https://drive.google.com/"


def download(job: Job, voice: Voice) -> Received:
    """The Drive file with the id ``job.address``. Raises SourceError, and OSError when the disk fails.

    Cookies are neither read nor kept, so nothing is written outside ``job.folder``.
    """
    return persistently(lambda: _once(job, voice), job, voice)


def _once(job: Job, voice: Voice) -> Received:
    finished = job.folder / DATA
    part = _part(job.folder)
    if not finished.exists() and part is not None and part.stat().st_size == _known_size(job):
        part.replace(finished)  # killed between its last byte and its name
    if not finished.exists():
        with _requests_watched() as seen:
            _call_gdown(job, voice, seen, finished)
    finished.chmod(0o644)
    digest = digest_of(finished, voice.reading)
    return Received(finished, finished.stat().st_size, digest.hexdigest())


def _call_gdown(job: Job, voice: Voice, seen: _Requests, finished: Path) -> None:
    def progress(done: int, total: int | None) -> None:
        seen.count = 0
        _refuse_change(job, total)
        voice.received(done, total)

    try:
        gdown.download(
            id=job.address,
            output=str(finished),
            quiet=True,
            use_cookies=False,
            resume=True,
            timeout=(job.connect, job.read),
            progress=progress,
            cancel=seen.cancel,
        )
    except Exception as error:
        if isinstance(error, SourceError) or disk_error(error):
            raise
        raise _fault(error, job, seen) from error


def _part(folder: Path) -> Path | None:
    """What gdown has of the file. Of two, which it would refuse, only the larger is left."""
    parts = sorted(folder.glob(f"{DATA}*.part"), key=lambda path: path.stat().st_size)
    for smaller in parts[:-1]:
        smaller.unlink()
    return parts[-1] if parts else None


def _known_size(job: Job) -> int | None:
    state = job.folder / _STATE
    known = read_json(state).get("size") if state.exists() else None
    return known if known is not None else job.size


def _refuse_change(job: Job, total: int | None) -> None:
    """Of another size than before, it is another file: what is there must not be continued with it."""
    if total is None:
        return
    if job.size not in (None, total):
        remove(job.folder)
        raise SourceError(f"it has {total:,} bytes, the manifest says {job.size:,}")
    known = _known_size(job)
    if known is None:
        write_json(job.folder / _STATE, {"size": total})
    elif known != total:
        remove(job.folder)
        raise SourceError("the file has changed since its download began", retry=True)


class _Requests(logging.Handler):
    """Hosts and statuses of gdown's requests. Too many without a byte of the file cancel it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.cancel = threading.Event()
        self.hosts: list[str] = []
        self.status: int | None = None
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Note a line of urllib3: scheme, host, port, method, path, version, status, length."""
        if not isinstance(record.args, tuple) or len(record.args) != 8:
            return
        host, status = record.args[1], record.args[6]
        self.hosts.append(str(host))
        self.status = status if isinstance(status, int) else None
        self.count += 1
        if self.count > _MOST_REQUESTS:
            self.cancel.set()


@contextmanager
def _requests_watched() -> Iterator[_Requests]:
    logger, seen = logging.getLogger("urllib3.connectionpool"), _Requests()
    before = logger.level, logger.propagate
    logger.addHandler(seen)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield seen
    finally:
        logger.removeHandler(seen)
        logger.level, logger.propagate = before


def _fault(error: Exception, job: Job, seen: _Requests) -> SourceError:
    """An error of gdown in words."""
    if isinstance(error, DownloadCancelled):
        return SourceError("Drive's confirmation page leads to itself")
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return _refused(error.response.status_code, error.response.headers.get("Retry-After"))
    if isinstance(error, (requests.RequestException, StreamError)):
        return network_fault(error, job, _DRIVE)
    if isinstance(error, FileURLRetrievalError):
        return _page(str(error), seen)
    if isinstance(error, DownloadError):
        return _broken(str(error), job)
    return SourceError(f"Drive sends an answer that gdown cannot read ({type(error).__name__})")


def _refused(status: int | None, retry_after: str | None = None) -> SourceError:
    try:
        refuse_status(status or 200, retry_after)
    except SourceError as fault:
        return fault
    return SourceError(
        "Drive sends a page without a download link: the file is not shared with everyone, or was asked for too often"
    )


def _page(text: str, seen: _Requests) -> SourceError:
    """What Drive's page in place of the file means."""
    if "accounts.google.com" in seen.hosts:
        return SourceError("Drive asks to sign in: the file is not shared with 'anyone with the link'")
    words = text.lower()
    if "too many users" in words or "quota" in words:
        return SourceError(
            "Drive's quota page: too many downloads of this file lately; try again in up to 24 hours, or copy it to "
            "another Drive"
        )
    return _refused(seen.status)


def _broken(text: str, job: Job) -> SourceError:
    if "byte range" in text:  # what is there cannot be continued: from the beginning, next time
        remove(job.folder)
        return SourceError("Drive does not continue a file where it was cut", retry=True)
    if "incomplete" in text:
        return SourceError("the connection was cut in the middle of the file", retry=True)
    return SourceError(f"gdown gives up: {text.splitlines()[0][:120]}")
