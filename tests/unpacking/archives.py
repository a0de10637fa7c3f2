"""Archives made byte by byte for the tests of unpacking, good ones and evil ones."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import zstandard

from backend.errors import BadDataError, WorkerError
from training.unpacking.unpack import FORMATS, Limits, Unpacked, unpack

END = bytes(10240)
FILES = {"events/a.nc": bytes(range(256)) * 900, "events/deep/er/b.nc": b"b" * 100_001, "empty.txt": b"", "é.txt": b"e"}
PACK: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tar.gz": lambda data: gzip.compress(data, mtime=0),
    "tar.zst": lambda data: zstandard.ZstdCompressor(write_checksum=True).compress(data),
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
}


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "", **fields: Any) -> bytes:
    """A header of the tar format (GNU, so that any name and number can be in it) and what follows it."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + padded(content)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def raw(kind: bytes, content: bytes, size: int | None = None) -> bytes:
    """An extension header, such as pax or a long name."""
    return member("extension", content, kind, **({} if size is None else {"size": size}))


def pax(*records: tuple[str, bytes], kind: bytes = tarfile.XHDTYPE) -> bytes:
    data = b""
    for key, value in records:
        body = b" " + key.encode() + b"=" + value + b"\n"
        length = len(body) + 1
        while len(str(length)) + len(body) != length:
            length += 1
        data += str(length).encode() + body
    return raw(kind, data)


def tar_of(files: dict[str, bytes]) -> bytes:
    """As Python's own tarfile packs them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(files: Iterable[tuple[str | zipfile.ZipInfo, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files:
            archive.writestr(name, content, compress_type=method)
    return buffer.getvalue()


def packed(files: dict[str, bytes], archive_format: str) -> bytes:
    return zip_of(files.items()) if archive_format == "zip" else PACK[archive_format](tar_of(files))


def content_of(folder: Path) -> dict[str, bytes]:
    """All files below ``folder`` but the record."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name != ".complete.json"}


@dataclass
class Bench:
    """A place where an archive's bytes are unpacked, and where nothing else may appear."""

    place: Path

    @property
    def target(self) -> Path:
        return self.place / "sets" / "radar"

    def write(self, data: bytes, archive_format: str = "tar") -> Path:
        archive = self.place / f"radar.{archive_format}"
        archive.write_bytes(data)
        return archive

    def unpack(self, data: bytes, archive_format: str = "tar", limits: Limits | None = None, **more: Any) -> Unpacked:
        words: dict[str, Any] = {
            "format": archive_format,
            "record": {"sha256": "1" * 64},
            "progress": lambda what, done, total: None,
            "check_stop": lambda: None,
        }
        archive = self.write(data, archive_format)
        return unpack(archive, self.target, limits=limits or Limits(), **words | more)

    def refusal(
        self, data: bytes, archive_format: str = "tar", kind: type[WorkerError] = BadDataError, **more: Any
    ) -> str:
        """The one line of the error; checks that nothing is left of the attempt."""
        with pytest.raises(kind) as caught:
            self.unpack(data, archive_format, **more)
        assert self.left_behind() == []
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def left_behind(self) -> list[str]:
        """Whatever lies in the place besides the archive."""
        found = {str(path.relative_to(self.place)) for path in self.place.rglob("*")}
        return sorted(found - {"sets", *(f"radar.{archive_format}" for archive_format in FORMATS)})


def without_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that has neither pigz nor zstd."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
