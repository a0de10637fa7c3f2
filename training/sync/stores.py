"""What a remote store can do for a run, and which one an address means.

Paths in a store are relative to the address, with ``/`` between their parts. Every failure of a store is a
`StoreError` whose text shows no credentials.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from backend.errors import ConfigError, SourceUnavailableError


class StoreError(SourceUnavailableError):
    """A remote store refused or could not be reached; a later try may succeed."""


@dataclass(frozen=True)
class Stored:
    """A file as the store lists it: its size, and by hashlib's names the checksums that the store keeps itself."""

    size: int
    hashes: Mapping[str, str] = field(default_factory=dict)


class Store(Protocol):
    """A place for files. Removing what is not there is no error; reading it gives None."""

    shown: str  # the address for people

    def folders(self, folder: str) -> list[str]:
        """Names of the folders directly in ``folder``; none where it is missing."""
        ...

    def files(self, folder: str) -> dict[str, Stored]:
        """All files under ``folder``, by path relative to it; none where it is missing."""
        ...

    def read(self, path: str) -> bytes | None:
        """A small file's content."""
        ...

    def chunks(self, path: str) -> Iterator[bytes]:
        """A file's content as it lies in the store now, piece by piece."""
        ...

    def write(self, path: str, content: bytes) -> None:
        """Put a small file in place of what is there."""
        ...

    def upload(self, local: Path, path: str) -> None: ...

    def download(self, path: str, local: Path) -> None: ...

    def remove_file(self, path: str) -> None: ...

    def remove_folder(self, path: str) -> None:
        """A folder with all that is in it."""
        ...

    def close(self) -> None:
        """End what is under way; the store is not used after it."""
        ...


def open_store(address: str) -> Store:
    """The store at ``address``: an fsspec URL (``s3://bucket/runs``), or an rclone remote (``remote:path``).

    Raises:
        ConfigError: it is neither, or what it needs is not installed.
    """
    if "://" in address and not address.startswith(":"):
        from training.sync.fsspec_store import FsspecStore

        return FsspecStore(address)
    if ":" in address.partition("/")[0]:
        from training.sync.rclone_store import RcloneStore

        return RcloneStore(address)
    raise ConfigError(
        f"--sync-to {address}: expected an rclone remote (remote:path) or a URL such as s3://bucket/runs; for a folder "
        f"write file://{Path(address).absolute()}"
    )


def holds(store: Store, path: str, stored: Stored, local: Path, size: int, sha256: str | None = None) -> bool:
    """Whether the store holds the content of ``local`` (or, where given, of that sha256) under ``path``.

    A checksum that the store keeps itself is believed where it fits; else the content is read back.
    """
    if stored.size != size:
        return False
    known = {} if sha256 is None else {"sha256": sha256}
    for algorithm, digest in stored.hashes.items():
        if digest == (known.get(algorithm) or _digest(local, algorithm)):
            return True
    found = hashlib.sha256()
    for chunk in store.chunks(path):
        found.update(chunk)
    return found.hexdigest() == (known.get("sha256") or _digest(local, "sha256"))


def _digest(local: Path, algorithm: str) -> str:
    with local.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
