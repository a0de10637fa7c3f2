"""The prepared cache: blocks of one shape and dtype in one file, found again in a moment and never trusted blindly.

``<cache_dir>/<fingerprint>/`` holds

* ``blocks.bin``: the blocks in C order, one after another;
* ``index.json``: settings, sources (path relative to the dataset, size, mtime, sha256), the xxh3_64 of every block,
  shape, dtype, whatever the caller keeps beside them (``extra``) and what making the blocks told (``block_facts``);
* ``lookup.json``: the few facts by which the folder is found without reading the index, and the index's own hash.

The fingerprint covers the settings and the sources' relative paths and contents: neither where the dataset lies nor
its modification times. Building is in `training/data/prepared_build.py`. Nothing here imports torch, because
preparation's workers import this module.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from xxhash import xxh3_64, xxh3_64_intdigest

from backend.errors import DiskError
from backend.files import write_atomic
from training.data.io_errors import disk_errors
from training.files import canonical_json, digest

FORMAT = 1
BLOCKS, INDEX, LOOKUP, DAMAGED = "blocks.bin", "index.json", "lookup.json", "damaged"
_MAX_BUFFERS = os.sysconf("SC_IOV_MAX")
_MAX_STAMPS = 32


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One source file as a listing found it. ``relative`` is its POSIX path from the dataset's folder."""

    relative: str
    path: Path
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Request:
    """What a cache is asked for: the settings that shape the blocks, and the sources."""

    settings: Mapping[str, Any]
    sources: Sequence[SourceFile]
    key: str = field(init=False)  # settings, paths and sizes: the same dataset, as far as a listing can tell
    stamp: str = field(init=False)  # the key and the modification times: certainly unchanged

    def __post_init__(self) -> None:
        files = [[source.relative, source.size] for source in self.sources]
        key = digest([FORMAT, self.settings, files])
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "stamp", digest([key, [source.mtime_ns for source in self.sources]]))

    def fingerprint(self, contents: Sequence[str]) -> str:
        """The cache's name, from the sha256 of every source."""
        files = [[source.relative, content] for source, content in zip(self.sources, contents, strict=True)]
        return digest([FORMAT, self.settings, files])


class DamagedCacheError(DiskError):
    """A prepared cache does not hold what was written to it."""


class BlockReader:
    """Reads runs of blocks. Opens its file lazily, so that pickling it into a loader process costs little.

    Each block's hash is checked when a process reads it for the first time.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: np.dtype, hashes: np.ndarray) -> None:
        self.folder, self.shape, self.dtype = folder, shape, dtype
        self._hashes = hashes
        self._block_bytes = int(np.prod(shape)) * dtype.itemsize
        self._file: int | None = None
        self._unchecked = np.ones(len(hashes), bool)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_unchecked": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._unchecked = np.ones(len(self._hashes), bool)

    def __del__(self) -> None:
        file = getattr(self, "_file", None)
        if file is not None:
            os.close(file)

    def __len__(self) -> int:
        return len(self._hashes)

    def read_run(self, start: int, out: np.ndarray) -> None:
        """Fills ``out`` [shape[0], n, *shape[1:]] with n blocks from ``start`` on: ``out[:, i]`` is block start + i.

        Every plane goes from the page cache straight to its place. Raises DamagedCacheError.
        """
        planes, count = out.shape[:2]
        if out.shape != (self.shape[0], count, *self.shape[1:]) or out.dtype != self.dtype:
            raise ValueError(f"out is {out.dtype} {out.shape}, blocks are {self.dtype} {self.shape}")
        if not 0 <= start <= start + count <= len(self):
            raise IndexError(f"blocks {start} to {start + count} of {len(self)}")
        flat = out.reshape(planes, count, -1).view(np.uint8)
        buffers = [memoryview(flat[plane, block]) for block in range(count) for plane in range(planes)]
        with disk_errors(self.folder):
            self._fill(buffers, start * self._block_bytes)
        for block in np.flatnonzero(self._unchecked[start : start + count]):
            self._check(start + int(block), flat[:, block])

    def _fill(self, buffers: list[memoryview], offset: int) -> None:
        if self._file is None:
            self._file = os.open(self.folder / BLOCKS, os.O_RDONLY | os.O_CLOEXEC)
        for first in range(0, len(buffers), _MAX_BUFFERS):
            batch = buffers[first : first + _MAX_BUFFERS]
            wanted = sum(buffer.nbytes for buffer in batch)
            if os.preadv(self._file, batch, offset) != wanted:
                self._fill_one_by_one(batch, offset)
            offset += wanted

    def _fill_one_by_one(self, buffers: list[memoryview], offset: int) -> None:
        assert self._file is not None
        for buffer in buffers:
            done = 0
            while done < buffer.nbytes:
                got = os.preadv(self._file, [buffer[done:]], offset + done)
                if got == 0:
                    raise damaged(self.folder, f"{BLOCKS} ends early")
                done += got
            offset += done

    def _check(self, block: int, planes: np.ndarray) -> None:
        state = xxh3_64()
        for plane in planes:
            state.update(plane)
        if state.intdigest() != int(self._hashes[block]):
            with contextlib.suppress(OSError):  # the next start then rebuilds it by itself
                (self.folder / DAMAGED).touch()
            raise damaged(self.folder, f"block {block} is not what was written")
        self._unchecked[block] = False


@dataclass(frozen=True)
class PreparedCache:
    """An opened prepared cache: its place, its index, and how to read it."""

    folder: Path
    index: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """The cache's name: of settings and content, not of paths or times."""
        return str(self.index["fingerprint"])

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one block."""
        return tuple(self.index["shape"])

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the blocks."""
        return np.dtype(self.index["dtype"])

    @property
    def extra(self) -> Mapping[str, Any]:
        """What the caller kept beside the blocks."""
        return self.index["extra"]

    @property
    def block_facts(self) -> Sequence[Any]:
        """What making each block told besides; empty where it told nothing."""
        return self.index.get("block_facts", ())

    def reader(self) -> BlockReader:
        """A reader over all blocks, to be pickled into loader processes."""
        hashes = np.array([int(text, 16) for text in self.index["block_hashes"]], np.uint64)
        return BlockReader(self.folder, self.shape, self.dtype, hashes)


def damaged(folder: Path, what: str) -> DamagedCacheError:
    """The error for a damaged cache, with what the user can do."""
    return DamagedCacheError(
        f"Prepared cache {folder} is damaged: {what}. Run the same command again and it is prepared anew; "
        "if that happens repeatedly, check the disk."
    )


def read_lookup(folder: Path) -> dict[str, Any] | None:
    """The lookup facts of one cache folder, or None where there are none to be trusted."""
    try:
        lookup = json.loads((folder / LOOKUP).read_bytes())
        return lookup if isinstance(lookup["stamps"], list) and lookup["key"] and lookup["index_xxh3"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_lookup(folder: Path, key: str, stamps: Sequence[str], index_xxh3: str) -> None:
    """Write the lookup facts of one cache folder, durably."""
    lookup = {"key": key, "stamps": list(stamps)[-_MAX_STAMPS:], "index_xxh3": index_xxh3}
    write_atomic(folder / LOOKUP, canonical_json(lookup))


def add_stamp(folder: Path, stamp: str) -> None:
    """Remember that the sources with these modification times have the cache's content."""
    lookup = read_lookup(folder)
    if lookup is not None:
        write_lookup(folder, lookup["key"], [*lookup["stamps"], stamp], lookup["index_xxh3"])


def candidates(cache_dir: Path, key: str) -> list[tuple[Path, list[str]]]:
    """Folders of caches with this key, each with the stamps it is known under."""
    if not cache_dir.is_dir():
        return []
    with disk_errors(cache_dir):
        folders = sorted(path for path in cache_dir.iterdir() if not path.name.startswith(".") and path.is_dir())
    found = [(folder, lookup) for folder in folders if (lookup := read_lookup(folder)) and lookup["key"] == key]
    return [(folder, lookup["stamps"]) for folder, lookup in found]


def open_cache(folder: Path) -> PreparedCache:
    """Open one cache folder. Raises DamagedCacheError for what a quick look can see: marks, index hash, file size."""
    lookup = read_lookup(folder)
    with disk_errors(folder.parent):
        if lookup is None or not (folder / INDEX).is_file() or not (folder / BLOCKS).is_file():
            raise damaged(folder, "a file is missing or unreadable")
        if (folder / DAMAGED).exists():
            raise damaged(folder, "a block was not what was written")
        text = (folder / INDEX).read_bytes()
        size = (folder / BLOCKS).stat().st_size
    if f"{xxh3_64_intdigest(text):016x}" != lookup["index_xxh3"]:
        raise damaged(folder, f"{INDEX} is not what was written")
    cache = PreparedCache(folder, json.loads(text))
    expected = len(cache.index["block_hashes"]) * int(np.prod(cache.shape)) * cache.dtype.itemsize
    if size != expected:
        raise damaged(folder, f"{BLOCKS} has {size} bytes, expected {expected}")
    return cache


def unchanged_cache(cache_dir: Path, request: Request) -> PreparedCache | None:
    """The cache of exactly these sources, without a look into them; None where there is none, or a damaged one."""
    try:
        found = [folder for folder, stamps in candidates(cache_dir, request.key) if request.stamp in stamps]
        return open_cache(found[0]) if found else None
    except DiskError:  # it will be prepared anew
        return None


def lock_of(cache_dir: Path, key: str) -> FileLock:
    """The lock held while the cache with this key is built."""
    return FileLock(cache_dir / f".lock-{key}")


def prune(cache_dir: Path, keep: str | None) -> int:
    """Deletes every cache but the one with fingerprint ``keep``, and leftovers; returns the bytes freed.

    What another process is building now stays. Not for use while a training reads one of the others.
    """
    if not cache_dir.is_dir():
        return 0
    return sum(_prune_folder(folder) for folder in sorted(cache_dir.iterdir()) if _is_prunable(folder, keep))


def _is_prunable(folder: Path, keep: str | None) -> bool:
    if not folder.is_dir() or folder.is_symlink() or folder.name == keep:
        return False
    return folder.name.startswith((".building-", ".damaged-")) or (folder / LOOKUP).is_file()


def _prune_folder(folder: Path) -> int:
    with disk_errors(folder.parent):
        if not folder.name.startswith(".building-"):
            return _delete(folder)
        try:
            with lock_of(folder.parent, folder.name.removeprefix(".building-")).acquire(timeout=0):
                return _delete(folder)
        except Timeout:
            return 0


def _delete(folder: Path) -> int:
    freed = sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
    (folder / LOOKUP).unlink(missing_ok=True)  # first: a half-deleted folder is never found as a cache
    shutil.rmtree(folder)
    return freed
