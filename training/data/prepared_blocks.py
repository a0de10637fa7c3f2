"""The work on single blocks and sources of a prepared cache, as it is done in preparation's workers. No torch here."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from xxhash import xxh3_64_hexdigest

from backend.errors import BadDataError
from backend.files import sha256_of
from training.data.io_errors import disk_errors, source_errors
from training.data.prepared import SourceFile
from training.files import canonical_json

# (path, its content) -> one block, or one block and what else was learned of the source (JSON types)
Make = Callable[[Path, bytes], np.ndarray | tuple[np.ndarray, Any]]


@dataclass(frozen=True)
class Done:
    """One finished block, as the journal claims it."""

    block: int
    mtime_ns: int  # of the source, when it was listed
    sha256: str  # of the source's content
    xxh3: str  # of the block
    facts: Any = None  # what else was learned of the source: JSON types


@dataclass(frozen=True, slots=True)
class Job:
    """One block to make, as it travels to a worker."""

    block: int
    source: SourceFile
    file: Path
    shape: tuple[int, ...]
    dtype: str
    make: Make


def make_block(job: Job) -> Done:
    """In a worker: read the source once, hash it, decode it from memory, write the block into its place."""
    with source_errors(job.source.path):
        content = job.source.path.read_bytes()
    if len(content) != job.source.size:
        raise BadDataError(
            f"{job.source.path} changed while the dataset was prepared: it had {job.source.size} bytes, "
            f"now {len(content)}. Leave the dataset alone meanwhile, and run the same again."
        )
    made = job.make(job.source.path, content)
    block, facts = made if isinstance(made, tuple) else (made, None)
    if block.shape != job.shape or block.dtype != np.dtype(job.dtype):
        raise BadDataError(
            f"{job.source.path} gives {block.dtype} {block.shape}, the other files {job.dtype} {job.shape}."
        )
    flat = memoryview(block.tobytes())
    with disk_errors(job.file.parent):
        _write_at(job.file, flat, job.block * flat.nbytes)
    return Done(job.block, job.source.mtime_ns, hashlib.sha256(content).hexdigest(), xxh3_64_hexdigest(flat), facts)


def _write_at(path: Path, left: memoryview, offset: int) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        while left:
            written = os.pwrite(file, left, offset)
            left, offset = left[written:], offset + written
    finally:
        os.close(file)


def check_block(job: tuple[Path, int, Done]) -> tuple[Done, bool]:
    """In a worker: whether a block that the journal claims is really there."""
    path, size, done = job
    with disk_errors(path.parent), path.open("rb") as file:
        content = os.pread(file.fileno(), size, done.block * size)
    return done, xxh3_64_hexdigest(content) == done.xxh3


def hash_source(job: tuple[int, Path]) -> tuple[int, str]:
    """In a worker: a source's number and its sha256. Raises BadDataError or DiskError naming it."""
    number, path = job
    with source_errors(path):
        return number, sha256_of(path)


def journal_line(done: Done) -> bytes:
    """A finished block as a line of the journal."""
    facts = [] if done.facts is None else [done.facts]
    return canonical_json([done.block, done.mtime_ns, done.sha256, done.xxh3, *facts])


def parse_line(line: bytes) -> Done | None:
    """What a line of the journal claims, or None where it is torn."""
    try:
        return Done(*json.loads(line))
    except (ValueError, TypeError):
        return None
