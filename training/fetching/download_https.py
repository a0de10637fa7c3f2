"""Downloads over https with requests: Range and If-Range to continue, no cookies, no step down to plain http."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from urllib.parse import urljoin, urlsplit

import requests
from requests.utils import select_proxy
from urllib3.exceptions import HTTPError as StreamError
from urllib3.exceptions import NameResolutionError, NewConnectionError

from training.fetching.download import Job, Received, SourceError, Voice
from training.fetching.download_stream import BLOCK, Opened, receive
from training.fetching.manifest import is_loopback

_BUSY = {408, 425, 429, 500, 502, 503, 504}


def download(job: Job, voice: Voice) -> Received:
    """The file at ``job.address``. Raises SourceError, and OSError when the disk fails."""

    @contextmanager
    def open_from(offset: int, validator: str | None) -> Iterator[Opened]:
        with _Session(job) as session:
            session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
            with closing(_answer(session, job, offset, validator)) as answer:
                yield _opened(job, answer, offset)

    return receive(job, open_from, voice)


class _Session(requests.Session):
    """Follows redirects, but not down to plain http, where anybody on the way could change the bytes unseen."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._job = job

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target = super().get_redirect_target(resp)
        url = urljoin(resp.url, target or "")
        if urlsplit(url).scheme == "http" and not is_loopback(url) and not self._job.pinned:
            _close(resp)
            raise SourceError("it leads on to plain http, which anybody on the way can change; give the sha256")
        return target


def _answer(session: requests.Session, job: Job, offset: int, validator: str | None) -> requests.Response:
    headers = {"Accept-Encoding": "identity"}  # offsets count the bytes that are kept
    if offset:
        headers["Range"] = f"bytes={offset}-"
        headers |= {"If-Range": validator} if validator else {}
    try:
        answer = session.get(job.address, headers=headers, stream=True, timeout=(job.connect, job.read))
    except (requests.RequestException, StreamError, UnicodeError) as error:
        _close(getattr(error, "response", None))
        raise network_fault(error, job) from error
    try:
        if answer.status_code != 416:
            refuse_status(answer.status_code, answer.headers.get("Retry-After"))
    except SourceError:
        answer.close()
        raise
    return answer


def _close(answer: requests.Response | None) -> None:
    if answer is not None:
        answer.close()


def refuse_status(status: int, retry_after: str | None = None) -> None:
    """Raise the SourceError of an HTTP status that brings no file."""
    if status in (200, 206):
        return
    if status in (404, 410):
        raise SourceError(f"there is no such file ({status}): it was deleted or moved, or the address is wrong")
    if status in (401, 403):
        raise SourceError(f"access is refused ({status}): it is private, or its link has run out")
    if status == 407:
        raise SourceError("the proxy asks for a user and a password (407)")
    if status in _BUSY:
        words = "there are too many requests (429)" if status == 429 else f"the server is out of order ({status})"
        raise SourceError(words, retry=True, after=_seconds(retry_after))
    raise SourceError(f"the server answers {status}")


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After's seconds or date; None where there is none, or nothing that can be read."""
    if retry_after is None:
        return None
    if retry_after.strip().isdigit():
        return float(retry_after)
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _opened(job: Job, answer: requests.Response, asked: int) -> Opened:
    validator = _validator(answer)
    if answer.status_code == 416:
        return _beyond_the_end(answer, asked, validator)
    length = answer.headers.get("Content-Length", "")
    total = int(length) if length.isdigit() and "chunked" not in answer.headers.get("Transfer-Encoding", "") else None
    if answer.status_code == 200:
        return Opened(_chunks(job, answer), 0, total, validator)
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != asked:
        return Opened(iter(()), -1, None, validator)
    return Opened(_chunks(job, answer), asked, None if match[3] == "*" else int(match[3]), validator)


def _beyond_the_end(answer: requests.Response, asked: int, validator: str | None) -> Opened:
    """416: what is there is all there is, or belongs to another, shorter file."""
    match = re.fullmatch(r"bytes \*/(\d+)", answer.headers.get("Content-Range", ""))
    is_whole = match is not None and int(match[1]) == asked
    return Opened(iter(()), asked if is_whole else -1, asked, validator)


def _validator(answer: requests.Response) -> str | None:
    etag = answer.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified")


def _chunks(job: Job, answer: requests.Response) -> Iterator[bytes]:
    """The body as it is on the wire, each piece as soon as it is there: a slow link is not taken for a dead one."""
    while True:
        try:
            chunk = answer.raw.read1(BLOCK, decode_content=False)
        except (requests.RequestException, StreamError, OSError) as error:
            raise network_fault(error, job) from error
        if not chunk:
            return
        yield chunk


def network_fault(error: BaseException, job: Job, url: str | None = None) -> SourceError:
    """An error of requests or urllib3 in words. Their own texts may hold secrets and are never shown."""
    kinds = {type(one) for one in _causes(error)}
    if issubclass_any(kinds, UnicodeError, requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema):
        return SourceError("its address cannot be used: no valid URL")
    through = _proxy(url or job.address)
    if issubclass_any(kinds, requests.exceptions.ProxyError):
        return SourceError(f"the proxy {through} does not work", retry=True)
    if issubclass_any(kinds, requests.exceptions.SSLError):
        return SourceError(
            "its certificate cannot be verified (REQUESTS_CA_BUNDLE names the certificates of a company's proxy)"
        )
    if issubclass_any(kinds, NameResolutionError):
        return SourceError("its name cannot be resolved: no network, or no DNS", retry=True)
    behind = f" through the proxy {through}" if through else ""
    if issubclass_any(kinds, requests.exceptions.ConnectTimeout):
        return SourceError(f"no connection{behind} within {job.connect:g} s", retry=True)
    if issubclass_any(kinds, TimeoutError, requests.exceptions.Timeout) or "timed out" in str(error):
        return SourceError(f"not a byte{behind} for {job.read:g} s", retry=True)
    if issubclass_any(kinds, NewConnectionError, ConnectionRefusedError):
        return SourceError(f"no connection{behind}: refused or unreachable", retry=True)
    if issubclass_any(kinds, requests.exceptions.TooManyRedirects):
        return SourceError("it leads from one address to the next without end")
    return SourceError(f"the connection{behind} was cut", retry=True)


def issubclass_any(kinds: set[type], *wanted: type) -> bool:
    """Whether any of ``kinds`` is one of ``wanted``."""
    return any(issubclass(kind, wanted) for kind in kinds)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """``error`` and what stands behind it, as requests and urllib3 nest it."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]


def _proxy(url: str) -> str:
    """The proxy that requests to ``url`` take, as host and port; empty where there is none."""
    proxies = requests.utils.get_environ_proxies(url)
    proxy = select_proxy(url, proxies) or ""
    return proxy.rpartition("@")[2].rpartition("/")[2] if "@" in proxy else urlsplit(proxy).netloc
