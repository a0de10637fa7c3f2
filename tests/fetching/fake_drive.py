"""A web of our own on loopback: Google Drive and any other https host, behind a proxy, with every fault that they have.

Nothing in the code under test is replaced. `HTTPS_PROXY` leads every connection through a CONNECT proxy to one TLS
server, whose certificate (by a throw-away authority, named in `REQUESTS_CA_BUNDLE`) holds the names of the real hosts.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseRequestHandler, StreamRequestHandler, ThreadingTCPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme

HOSTS = ("drive.google.com", "docs.google.com", "drive.usercontent.google.com", "accounts.google.com", "files.example")
NOWHERE = "no-such-host.example"  # the proxy cannot reach it
HTML = "text/html; charset=utf-8"
FORM = (
    '<!DOCTYPE html><html><body><p>Too large to scan for viruses</p><form id="download-form" '
    'action="https://drive.usercontent.google.com/download" method="get"><input type="hidden" name="id" value="{id}">'
    '<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="0-1"></form></body></html>'
)
QUOTA = (
    "<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body>"
    '<p class="uc-error-caption">Sorry, you cannot view or download this file at this time.</p>\n'
    '<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently. Please try later.</p>'
    "</body></html>"
)
PAGE = "<!DOCTYPE html><html><body><h1>{words}</h1></body></html>"


@dataclass
class File:
    """What the web has under one Drive id or one path, and how it misbehaves."""

    content: bytes = b""
    page: str = ""  # Drive: "", form, quota, signin, loop, untyped; "" answers with the file at once
    status: int = 200  # a page with this status in place of the file…
    status_times: int = 1 << 30  # …so many times
    retry_after: str | None = None
    etag: str | None = '"1"'
    ranges: bool = True  # False ignores Range
    cuts: list[int] = field(default_factory=list)  # bytes of the body after which each next answer breaks off
    always_cut: int | None = None  # every answer does
    stall_after: int | None = None  # bytes after which nothing comes any more
    step: int = 1 << 16  # bytes written at once
    chunked: bool = False  # no length is told
    location: str | None = None  # leads elsewhere
    kind: str = "application/octet-stream"
    sent: int = 0  # bytes of bodies, over all answers
    asked: list[str] = field(default_factory=list)  # the Range of each request for the body


class Web:
    """The hosts, what they have, and who asked for it."""

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, File] = {}
        self.requests: list[str] = []
        self.proxy_mode = "works"  # works, hangs, refuses
        self.released = threading.Event()  # ends every stall
        authority = trustme.CA()
        self.bundle = folder / "authority.pem"
        authority.cert_pem.write_to_path(self.bundle)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*HOSTS, "127.0.0.1").configure_cert(self.context)
        self.secure = _Server(self, _Pages, self.context)
        self.plain = _Server(self, _Pages, None)
        self.proxy = _Proxy(self)
        self._servers = (self.secure, self.plain, self.proxy)
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    def reset(self) -> None:
        self.released.set()
        self.files, self.requests, self.proxy_mode = {}, [], "works"
        self.released = threading.Event()

    def close(self) -> None:
        self.released.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def environment(self) -> dict[str, str]:
        return {
            "HTTPS_PROXY": f"http://127.0.0.1:{self.proxy.server_address[1]}",
            "REQUESTS_CA_BUNDLE": str(self.bundle),
        }

    def plain_url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.plain.server_address[1]}{path}"

    def enter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Lead this process, and those that it starts, into this web."""
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "CURL_CA_BUNDLE"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.lower(), raising=False)
        for name, value in self.environment().items():
            monkeypatch.setenv(name, value)


@contextmanager
def web_in(folder: Path) -> Iterator[Web]:
    web = Web(folder)
    try:
        yield web
    finally:
        web.close()


class _Quiet:
    """Clients that go away in the middle are what these tests are about."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class _Server(_Quiet, ThreadingHTTPServer):
    def __init__(self, web: Web, handler: type[BaseRequestHandler], context: ssl.SSLContext | None) -> None:
        self.web, self.context = web, context
        super().__init__(("127.0.0.1", 0), handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """The handshake, in the connection's own thread."""
        if self.context is not None:
            request = self.context.wrap_socket(request, server_side=True)
        try:
            super().finish_request(request, client_address)
        finally:
            if self.context is not None:
                with suppress(OSError):
                    request.close()


class _Pages(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        web, host, url = self.server.web, self.headers["Host"], urlsplit(self.path)
        web.requests.append(f"{host}{self.path}")
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if host == "accounts.google.com":
            self._page(200, PAGE.format(words="Sign in"))
        elif host in HOSTS[:3]:
            self._drive(host, url.path, query)
        elif url.path in web.files:
            self._file(web.files[url.path])
        else:
            self._page(404, PAGE.format(words="Not found"))

    def _drive(self, host: str, path: str, query: dict[str, str]) -> None:
        file = self.server.web.files.get(query.get("id", ""))
        if file is None:
            self._page(404, PAGE.format(words="Sorry, the file you have requested does not exist."))
        elif file.page == "quota":
            self._page(200, QUOTA)
        elif file.page == "signin":
            self._redirect("https://accounts.google.com/ServiceLogin")
        elif file.page == "loop" or (file.page == "form" and path == "/uc"):
            self._page(200, FORM.format(id=query["id"]))
        elif file.page == "untyped":
            self._answer(200, b"?", {"Content-Type": None})
        elif path == "/uc":
            self._redirect(f"https://drive.usercontent.google.com/download?id={query['id']}")
        else:
            self._file(file, {"Content-Disposition": 'attachment; filename="events.tar.gz"'})

    def _redirect(self, location: str) -> None:
        self._answer(303, b"", {"Location": location})

    def _page(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        self._answer(status, text.encode(), {"Content-Type": HTML, **(headers or {})})

    def _answer(self, status: int, body: bytes, headers: dict[str, str | None]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _file(self, file: File, headers: dict[str, str] | None = None) -> None:
        if file.location:
            self._redirect(file.location)
        elif file.status != 200 and file.status_times > 0:
            file.status_times -= 1
            self._page(
                file.status, PAGE.format(words="Not now"), {"Retry-After": file.retry_after} if file.retry_after else {}
            )
        else:
            self._body(file, headers or {})

    def _body(self, file: File, headers: dict[str, str]) -> None:
        wanted = self.headers.get("Range", "")
        file.asked.append(wanted)
        condition = self.headers.get("If-Range")
        follows = bool(wanted) and file.ranges and condition in (None, file.etag)
        first = int(wanted.removeprefix("bytes=").rstrip("-")) if follows else 0
        total = len(file.content)
        if first >= total > 0:
            self._answer(416, b"", {"Content-Range": f"bytes */{total}"})
            return
        self.send_response(206 if follows else 200)
        facts = {"Content-Type": file.kind, **headers}
        facts |= {"ETag": file.etag} if file.etag else {}
        facts |= {"Content-Range": f"bytes {first}-{total - 1}/{total}"} if follows else {}
        facts |= {"Transfer-Encoding": "chunked"} if file.chunked else {"Content-Length": str(total - first)}
        for name, value in facts.items():
            self.send_header(name, value)
        self.end_headers()
        self._send(file, file.content[first:])

    def _send(self, file: File, rest: bytes) -> None:
        cut = file.cuts.pop(0) if file.cuts else file.always_cut
        whole = rest if cut is None else rest[:cut]
        for start in range(0, len(whole), file.step):
            piece = whole[start : start + file.step]
            if file.stall_after is not None and file.sent + len(piece) > file.stall_after:
                self.server.web.released.wait(60)
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if file.chunked else piece)
            file.sent += len(piece)
        if len(whole) < len(rest):
            self.close_connection = True
        elif file.chunked:
            self.wfile.write(b"0\r\n\r\n")


class _Proxy(_Quiet, ThreadingTCPServer):
    def __init__(self, web: Web) -> None:
        self.web = web
        super().__init__(("127.0.0.1", 0), _Connect)


class _Connect(StreamRequestHandler):
    """Leads every CONNECT to the one TLS server."""

    server: _Proxy

    def handle(self) -> None:
        web = self.server.web
        target = self.rfile.readline().decode().split(" ")[1]
        while self.rfile.readline().strip():
            pass
        if web.proxy_mode == "hangs":
            web.released.wait(60)
            return
        if web.proxy_mode == "refuses" or target.startswith(NOWHERE):
            self.wfile.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            return
        with socket.create_connection(web.secure.server_address[:2]) as there:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_pump, args=(there, self.connection), daemon=True)
            back.start()
            _pump(self.connection, there)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while block := source.recv(1 << 16):
            target.sendall(block)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
