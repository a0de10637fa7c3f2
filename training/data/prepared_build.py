"""Building a prepared cache: in parallel, each source read once, continued after any interruption.

The work happens in ``<cache_dir>/.building-<key>/`` under a lock. Workers write blocks straight into their places;
the parent adds a line to ``journal.jsonl`` for each. When all are there the folder is renamed to its fingerprint.
A journal line is a claim, not a proof: on continuing, each block is hashed again, so a torn line, a block that never
reached the disk and a source that changed are simply done again.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout
from xxhash import xxh3_64_hexdigest

from backend.errors import DiskError
from backend.files import fsync_file, fsync_folder, write_atomic
from training.data import prepared
from training.data.io_errors import disk_errors
from training.data.prepared import BLOCKS, INDEX, DamagedCacheError, PreparedCache, Request
from training.data.prepared_blocks import (
    Done,
    Job,
    Make,
    check_block,
    hash_source,
    journal_line,
    make_block,
    parse_line,
)
from training.data.workers import WorkerPool
from training.files import canonical_json, digest

if TYPE_CHECKING:
    from training.tasks.protocol import PrepareContext

JOURNAL = "journal.jsonl"
_LOCK_POLL_SECONDS = 0.5
_SPARE_BYTES = 16 << 20  # index, journal, and room for the file system itself


@dataclass(frozen=True)
class Plan:
    """How to make the blocks; asked for only when there is no cache to reuse."""

    shape: tuple[int, ...]
    dtype: str
    block_sources: Sequence[int]  # block i is made from this source
    make: Make  # pickled to the workers
    recipe: Mapping[str, Any]  # all that shapes a block besides its source: blocks of equal recipes may be copied
    extra: Mapping[str, Any] = field(default_factory=dict)  # kept in the index, JSON types only
    known_hashes: Mapping[int, str] = field(default_factory=dict)  # sha256 of sources already read
    check: Callable[[Sequence[Any]], None] | None = None  # told each block's facts once all are made; may raise

    @property
    def block_bytes(self) -> int:
        """The size of one block."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


def open_or_build(
    cache_dir: Path, request: Request, plan: Callable[[WorkerPool], Plan], context: PrepareContext, workers: int
) -> PreparedCache:
    """The cache for ``request``: found again, or built under a lock.

    Raises BadDataError (a source), DiskError (space, permission, I/O) and InterruptedRunError (asked to stop;
    finished blocks are kept).
    """
    with disk_errors(cache_dir):
        cache_dir.mkdir(parents=True, exist_ok=True)
    found = _find(cache_dir, request)
    if found is not None:
        return found
    with _locked(cache_dir, request, context), WorkerPool(workers, context.check_stop) as pool:
        _set_damaged_aside(cache_dir, request, context)
        found = _find(cache_dir, request) or _find_by_content(cache_dir, request, context, pool)
        return found or _Building(cache_dir, request, plan(pool), context, pool).run()


def _find(cache_dir: Path, request: Request) -> PreparedCache | None:
    for folder, stamps in prepared.candidates(cache_dir, request.key):
        if request.stamp in stamps:
            with suppress(DamagedCacheError):
                return prepared.open_cache(folder)
    return None


def _set_damaged_aside(cache_dir: Path, request: Request, context: PrepareContext) -> None:
    """Only under the lock: two processes that see the damage must not both move the folder."""
    for folder, _ in prepared.candidates(cache_dir, request.key):
        try:
            prepared.open_cache(folder)
        except DamagedCacheError as error:
            _set_aside(folder, str(error), context)


def _find_by_content(
    cache_dir: Path, request: Request, context: PrepareContext, pool: WorkerPool
) -> PreparedCache | None:
    for folder, _ in prepared.candidates(cache_dir, request.key):
        cache = prepared.open_cache(folder)
        if _contents_equal(cache, request, context, pool):
            with disk_errors(folder):
                prepared.add_stamp(folder, request.stamp)
            return cache
    return None


def _contents_equal(cache: PreparedCache, request: Request, context: PrepareContext, pool: WorkerPool) -> bool:
    """Whether the sources whose times differ from the index's still have the content that it was built from."""
    kept = cache.index["sources"]
    touched = [i for i, source in enumerate(request.sources) if source.mtime_ns != kept["mtimes_ns"][i]]
    jobs = [(i, request.sources[i].path) for i in touched]
    for done, (i, content) in enumerate(pool.run(hash_source, jobs), 1):
        context.progress("comparing touched files", done, len(jobs))
        if content != kept["sha256"][i]:
            return False
    return True


def _set_aside(folder: Path, why: str, context: PrepareContext) -> None:
    target = folder.with_name(f".damaged-{folder.name}-{time.time_ns()}")
    with disk_errors(folder):
        folder.rename(target)
    context.say(f"{why.split('. ')[0]}; set aside as {target.name}, preparing anew.")


@contextmanager
def _locked(cache_dir: Path, request: Request, context: PrepareContext) -> Iterator[None]:
    lock = prepared.lock_of(cache_dir, request.key)
    if not _acquired(lock, cache_dir, 0):
        context.say(f"Another process is preparing this dataset in {cache_dir}; waiting for it.")
        while not _acquired(lock, cache_dir, _LOCK_POLL_SECONDS):
            context.check_stop()
    try:
        yield
    finally:
        lock.release()


def _acquired(lock: FileLock, cache_dir: Path, timeout: float) -> bool:
    with disk_errors(cache_dir):
        try:
            lock.acquire(timeout=timeout)
        except Timeout:  # is an OSError, but no disk error
            return False
    return True


class _Building:
    """One building of one cache, under the lock."""

    def __init__(
        self, cache_dir: Path, request: Request, plan: Plan, context: PrepareContext, pool: WorkerPool
    ) -> None:
        self.cache_dir, self.request, self.plan, self.context, self.pool = cache_dir, request, plan, context, pool
        self.folder = cache_dir / f".building-{request.key}"
        self.header = digest([plan.shape, plan.dtype, plan.recipe, self._names()])

    def _names(self) -> list[str]:
        return [self.request.sources[i].relative for i in self.plan.block_sources]

    def run(self) -> PreparedCache:
        """Continue or begin, finish all blocks, publish."""
        claimed = self._claimed()
        with disk_errors(self.cache_dir):
            self._open_blocks(fresh=not claimed)
        done = self._verified(claimed)
        if done:
            self.context.say(f"Continuing the preparation: {len(done)} of {len(self.plan.block_sources)} are done.")
        with disk_errors(self.folder):
            self._rewrite_journal(done.values())
        self._make_missing(done)
        if self.plan.check is not None:
            self.plan.check([done[block].facts for block in range(len(self.plan.block_sources))])
        return self._publish(done)

    def _claimed(self) -> list[Done]:
        try:
            lines = (self.folder / JOURNAL).read_bytes().splitlines()
        except OSError:
            return []
        if not lines or lines[0] != self.header.encode():
            return []
        return [done for line in lines[1:] if (done := parse_line(line)) and self._is_current(done)]

    def _is_current(self, done: Done) -> bool:
        if not 0 <= done.block < len(self.plan.block_sources):
            return False
        return self.request.sources[self.plan.block_sources[done.block]].mtime_ns == done.mtime_ns

    def _open_blocks(self, fresh: bool) -> None:
        if fresh and self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir(exist_ok=True)
        size = len(self.plan.block_sources) * self.plan.block_bytes
        with (self.folder / BLOCKS).open("ab") as file:
            missing = size - os.fstat(file.fileno()).st_blocks * 512
            free = shutil.disk_usage(self.cache_dir).free
            if missing + _SPARE_BYTES > free:
                raise DiskError(
                    f"{self.cache_dir} has {free / 1e9:.2f} GB free, the prepared dataset needs "
                    f"{(missing + _SPARE_BYTES) / 1e9:.2f} GB. Free space, set data.cache_dir to a larger disk, "
                    "or delete caches no longer needed with prepare --prune."
                )
            _reserve(file.fileno(), size)

    def _verified(self, claimed: Sequence[Done]) -> dict[int, Done]:
        jobs = [(self.folder / BLOCKS, self.plan.block_bytes, done) for done in claimed]
        done: dict[int, Done] = {}
        for number, (claim, holds) in enumerate(self.pool.run(check_block, jobs), 1):
            self.context.progress("checking finished frames", number, len(jobs))
            if holds:
                done[claim.block] = claim
        return done

    def _rewrite_journal(self, done: Iterable[Done]) -> None:
        lines = [self.header.encode(), *(journal_line(entry) for entry in done)]
        write_atomic(self.folder / JOURNAL, b"\n".join(lines) + b"\n")

    def _make_missing(self, done: dict[int, Done]) -> None:
        total = len(self.plan.block_sources)
        missing = [block for block in range(total) if block not in done]
        journal = os.open(self.folder / JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            self.context.progress("preparing", len(done), total)
            for entry in self.pool.run(make_block, (self._job(block) for block in missing)):
                with disk_errors(self.folder):
                    os.write(journal, journal_line(entry) + b"\n")
                done[entry.block] = entry
                self.context.progress("preparing", len(done), total)
        finally:
            os.close(journal)

    def _job(self, block: int) -> Job:
        source = self.request.sources[self.plan.block_sources[block]]
        return Job(block, source, self.folder / BLOCKS, self.plan.shape, self.plan.dtype, self.plan.make)

    def _contents(self, done: Mapping[int, Done]) -> list[str]:
        """The sha256 of every source, also of those that no block was made from."""
        known = dict(self.plan.known_hashes)
        known.update({self.plan.block_sources[block]: entry.sha256 for block, entry in done.items()})
        jobs = [(i, source.path) for i, source in enumerate(self.request.sources) if i not in known]
        known.update(self.pool.run(hash_source, jobs))
        return [known[i] for i in range(len(self.request.sources))]

    def _publish(self, done: Mapping[int, Done]) -> PreparedCache:
        contents = self._contents(done)
        fingerprint = self.request.fingerprint(contents)
        text = canonical_json(self._index(done, contents, fingerprint))
        target = self.cache_dir / fingerprint
        if target.exists():
            _set_aside(target, f"Prepared cache {target} was not to be found by its lookup", self.context)
        with disk_errors(self.folder):
            fsync_file(self.folder / BLOCKS)
            write_atomic(self.folder / INDEX, text)
            prepared.write_lookup(self.folder, self.request.key, [self.request.stamp], xxh3_64_hexdigest(text))
            self.folder.rename(target)
            fsync_folder(self.cache_dir)
            (target / JOURNAL).unlink()
        return prepared.open_cache(target)

    def _index(self, done: Mapping[int, Done], contents: Sequence[str], fingerprint: str) -> dict[str, Any]:
        sources = self.request.sources
        entries = [done[block] for block in range(len(self.plan.block_sources))]
        learned = any(entry.facts is not None for entry in entries)
        return {
            "format": prepared.FORMAT,
            "fingerprint": fingerprint,
            "settings": self.request.settings,
            "recipe": self.plan.recipe,
            "shape": list(self.plan.shape),
            "dtype": self.plan.dtype,
            "block_sources": list(self.plan.block_sources),
            "block_hashes": [entry.xxh3 for entry in entries],
            "sources": {
                "paths": [source.relative for source in sources],
                "sizes": [source.size for source in sources],
                "mtimes_ns": [source.mtime_ns for source in sources],
                "sha256": list(contents),
            },
            "extra": self.plan.extra,
            **({"block_facts": [entry.facts for entry in entries]} if learned else {}),
        }


def _reserve(file: int, size: int) -> None:
    """Takes the space now, so that a full disk shows before the work and not at its end."""
    if size == 0:
        return
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        os.ftruncate(file, size)
