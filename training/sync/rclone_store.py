"""A store behind an rclone remote: whatever the `rclone` command on this machine is configured for."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backend.errors import ConfigError, WorkerError
from training.shown import without_secrets
from training.sync.stores import Store, Stored, StoreError

_CHUNK_BYTES = 2**20
_ABSENT = (3, 4)  # rclone's exit codes for a folder, a file that is not there
_OPTIONS = ("--ask-password=false", "--retries=1", "--low-level-retries=3", "--contimeout=15s", "--timeout=60s")
_STAMP = re.compile(r"^[\d/]+ [\d:]+ \w+ *: ")
_HASHES = {"md5": "md5", "sha1": "sha1", "sha-1": "sha1", "sha256": "sha256", "sha-256": "sha256"}


class _AbsentError(Exception):
    """What was asked for is not there."""


class RcloneStore(Store):
    """Files under ``remote:path``. Each call is a process of its own, ended by `close`."""

    def __init__(self, remote: str) -> None:
        self.shown = without_secrets(remote).rstrip("/")
        self._root = remote if remote.endswith((":", "/")) else f"{remote}/"
        program = shutil.which("rclone")
        if program is None:
            raise ConfigError(
                f"--sync-to {self.shown}: the rclone command is not installed here; install it, or give a URL such as "
                "s3://bucket/runs"
            )
        self._command = [program, *_OPTIONS]
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._closed = False

    def folders(self, folder: str) -> list[str]:
        return [entry["Path"] for entry in self._list(folder, "--dirs-only")]

    def files(self, folder: str) -> dict[str, Stored]:
        found = self._list(folder, "--recursive", "--files-only", "--hash")
        return {entry["Path"]: Stored(entry["Size"], _known(entry.get("Hashes") or {})) for entry in found}

    def read(self, path: str) -> bytes | None:
        try:
            return b"".join(self._output("cat", self._root + path))
        except _AbsentError:
            return None

    def chunks(self, path: str) -> Iterator[bytes]:
        try:
            yield from self._output("cat", self._root + path)
        except _AbsentError as error:
            raise StoreError(f"{self.shown}/{path}: is gone") from error

    def write(self, path: str, content: bytes) -> None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            self.upload(Path(file.name), path)

    def upload(self, local: Path, path: str) -> None:
        self._copy(str(local), self._root + path)

    def download(self, path: str, local: Path) -> None:
        self._copy(self._root + path, str(local))

    def remove_file(self, path: str) -> None:
        try:
            self._do("deletefile", self._root + path)
        except _AbsentError:
            return
        except StoreError:  # rclone 1.60 calls it a failure that nothing was there
            if self._list(path):
                raise

    def remove_folder(self, path: str) -> None:
        try:
            self._do("purge", self._root + path)
        except (_AbsentError, StoreError):  # some stores call it a failure that nothing was there
            if self.files(path):
                raise

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for process in self._running:
                process.kill()

    def _list(self, folder: str, *options: str) -> list[dict[str, Any]]:
        try:
            found = b"".join(self._output("lsjson", "--no-modtime", "--no-mimetype", *options, self._root + folder))
        except _AbsentError:
            return []
        return json.loads(found)

    def _copy(self, source: str, target: str) -> None:
        try:
            self._do("copyto", "--ignore-times", source, target)
        except _AbsentError as error:
            raise StoreError(f"{without_secrets(source)}: is gone") from error

    def _do(self, *words: str) -> None:
        for _ in self._output(*words):
            pass

    def _output(self, *words: str) -> Iterator[bytes]:
        """What a command prints, as it comes. Raises StoreError with rclone's last word, or _AbsentError."""
        with tempfile.TemporaryFile() as said:
            process = self._start(words, said)
            try:
                with process:  # waits for the end
                    assert process.stdout is not None
                    while chunk := process.stdout.read(_CHUNK_BYTES):
                        yield chunk
            finally:
                with self._lock:
                    self._running.discard(process)
            code = process.returncode
            if code in _ABSENT:
                raise _AbsentError
            if code:
                said.seek(0)
                raise self._failure(words[0], _last_line(said.read()))

    def _failure(self, verb: str, reason: str) -> WorkerError:
        if "didn't find section" in reason:
            return ConfigError(
                f"--sync-to {self.shown}: rclone knows no such remote here (rclone listremotes shows which); write its "
                "section into rclone.conf, or give it by RCLONE_CONFIG_… variables"
            )
        return StoreError(f"{self.shown}: rclone {verb} failed ({reason})")

    def _start(self, words: tuple[str, ...], said: Any) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise StoreError(f"{self.shown}: is closed")
            process = subprocess.Popen(
                [*self._command, *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                start_new_session=True,  # Ctrl-C is for the worker, which ends this itself
            )
            self._running.add(process)
            return process


def _known(hashes: dict[str, str]) -> dict[str, str]:
    return {_HASHES[name.lower()]: digest for name, digest in hashes.items() if name.lower() in _HASHES and digest}


def _last_line(said: bytes) -> str:
    lines = without_secrets(said.decode("utf-8", "replace")).strip().splitlines()
    return _STAMP.sub("", lines[-1].strip()) if lines else "no reason given"
