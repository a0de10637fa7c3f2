"""A store behind an fsspec URL: s3://, gs://, file:// and whatever else fsspec knows."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from backend.errors import ConfigError
from training.shown import without_secrets
from training.sync.stores import Store, Stored, StoreError

_CHUNK_BYTES = 8 * 2**20
_PARTIAL = ".partial"
_BUCKETS = {
    "s3",
    "s3a",
    "gs",
    "gcs",
    "abfs",
    "abfss",
    "az",
    "adl",
    "oss",
    "r2",
}  # no folders; making one makes a bucket
_RENAMING = {"file", "local", "sftp", "ssh"}  # a file appears there while it is written; elsewhere, when it is whole


class FsspecStore(Store):
    """Files under an fsspec URL. Credentials come from where the protocol's own package looks for them."""

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        self.shown = without_secrets(url).rstrip("/")
        try:
            self._fs, root = url_to_fs(url, skip_instance_cache=True)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"--sync-to {self.shown}: {without_secrets(str(error))}; install what this protocol needs (pip install "
                "s3fs, gcsfs, …), or use an rclone remote"
            ) from error
        except Exception as error:  # each protocol has failures of its own
            raise ConfigError(f"--sync-to {self.shown}: cannot be opened ({_text(error)})") from error
        self._root = root.rstrip("/")
        kinds = {self._fs.protocol} if isinstance(self._fs.protocol, str) else set(self._fs.protocol)
        self._renames, self._makes_folders = bool(kinds & _RENAMING), not kinds & _BUCKETS

    def folders(self, folder: str) -> list[str]:
        with self._told(folder), suppress(FileNotFoundError):
            self._fs.invalidate_cache()
            found = self._fs.ls(self._full(folder), detail=True)
            return [_name(entry["name"]) for entry in found if entry["type"] == "directory"]
        return []

    def files(self, folder: str) -> dict[str, Stored]:
        full = self._full(folder)
        with self._told(folder), suppress(FileNotFoundError):
            self._fs.invalidate_cache()
            found = self._fs.find(full, detail=True)
            names = {path: path[len(full) :].lstrip("/") for path in found if not path.endswith(_PARTIAL)}
            return {name: Stored(found[path]["size"], _hashes(found[path])) for path, name in names.items()}
        return {}

    def read(self, path: str) -> bytes | None:
        with self._told(path), suppress(FileNotFoundError):
            return self._fs.cat_file(self._full(path))
        return None

    def chunks(self, path: str) -> Iterator[bytes]:
        with self._told(path):
            self._fs.invalidate_cache()
            with self._fs.open(self._full(path), "rb", block_size=_CHUNK_BYTES, cache_type="readahead") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk

    def write(self, path: str, content: bytes) -> None:
        with self._told(path):
            self._put(path, lambda full: self._fs.pipe_file(full, content))

    def upload(self, local: Path, path: str) -> None:
        with self._told(path):
            self._put(path, lambda full: self._fs.put_file(str(local), full))

    def download(self, path: str, local: Path) -> None:
        with self._told(path):
            self._fs.get_file(self._full(path), str(local))

    def remove_file(self, path: str) -> None:
        with self._told(path), suppress(FileNotFoundError):
            self._fs.rm_file(self._full(path))

    def remove_folder(self, path: str) -> None:
        with self._told(path), suppress(FileNotFoundError):
            self._fs.rm(self._full(path), recursive=True)

    def close(self) -> None:
        return

    def _put(self, path: str, put: Callable[[str], None]) -> None:
        full = self._full(path)
        place = f"{full}.{uuid4().hex[:8]}{_PARTIAL}" if self._renames else full
        try:
            put(place)
        except FileNotFoundError:
            if not self._makes_folders:
                raise
            self._fs.makedirs(full.rpartition("/")[0], exist_ok=True)
            put(place)
        if self._renames:
            self._fs.mv(place, full)

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}".rstrip("/")

    @contextmanager
    def _told(self, path: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each protocol has failures of its own
            raise StoreError(f"{self.shown}/{path}: {_text(error)}") from error


def _name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _text(error: Exception) -> str:
    text = without_secrets(str(error)).split("\n")[0].strip()
    return f"there is no such place or file ({text})" if isinstance(error, FileNotFoundError) else text or repr(error)


def _hashes(info: dict[str, Any]) -> dict[str, str]:
    """The MD5 that Google's store tells, and S3's where a file went up in one piece."""
    with suppress(ValueError, TypeError):
        if info.get("md5Hash"):
            return {"md5": base64.b64decode(info["md5Hash"]).hex()}
    tag = str(info.get("ETag", "")).strip('"')
    return {"md5": tag} if re.fullmatch(r"[0-9a-f]{32}", tag) else {}
