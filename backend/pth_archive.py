"""The zip that a ``.pth`` file is: a pickle as bytes, storages as flat tensors, each checked before it is read."""

from __future__ import annotations

import sys
import zipfile
from dataclasses import dataclass

import torch
from torch import Tensor

_MAX_PICKLE_BYTES = 64 << 20


class RefusedError(Exception):
    """The file asks for something that plain weights never need, or contradicts itself."""


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage that the pickle refers to, not read yet."""

    key: str
    dtype: torch.dtype
    numel: int


class Archive:
    """The members of a weight file, each checked before it is read."""

    def __init__(self, archive: zipfile.ZipFile, file_bytes: int) -> None:
        self._archive = archive
        self._file_bytes = file_bytes
        pickles = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise RefusedError(f"the zip holds {len(pickles) or 'no'} data.pkl, where torch.save writes one")
        self._root = pickles[0].removesuffix("data.pkl")
        order = self._read("byteorder", 16).decode() if f"{self._root}byteorder" in archive.namelist() else "little"
        if order != sys.byteorder:
            raise RefusedError(f"its numbers are {order[:16]!r}-endian and this machine's are {sys.byteorder}-endian")

    def pickle(self) -> bytes:
        return bytes(self._read("data.pkl", _MAX_PICKLE_BYTES))

    def storage(self, storage: Storage) -> Tensor:
        """The storage as a flat tensor that owns its memory."""
        size = storage.numel * storage.dtype.itemsize
        content = self._read(f"data/{storage.key}", self._file_bytes)
        if len(content) != size:
            raise RefusedError(f"storage {storage.key!r} has {len(content)} bytes, where {size} are declared")
        if not size:
            return torch.empty(0, dtype=storage.dtype)
        if storage.dtype == torch.bool and max(content) > 1:
            raise RefusedError(f"storage {storage.key!r} holds truth values other than 0 and 1")
        return torch.frombuffer(content, dtype=storage.dtype)

    def _read(self, name: str, limit: int) -> bytearray:
        info = self._archive.getinfo(self._root + name)
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise RefusedError(f"member {name!r} is compressed or encrypted, which torch.save never does")
        if info.file_size > min(limit, self._file_bytes):
            raise RefusedError(f"member {name!r} declares {info.file_size} bytes, more than there can be")
        content = bytearray(info.file_size)
        with self._archive.open(info) as member:
            view = memoryview(content)
            while view and (count := member.readinto(view)):  # type: ignore[attr-defined]
                view = view[count:]
            if view or member.read(1):  # the last read also compares the checksum
                raise RefusedError(f"member {name!r} is not as long as declared")
        return content
