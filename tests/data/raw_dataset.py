"""A dataset of small raw files and its prepared cache, for the tests of the cache itself."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np

from tests.data.blocks import SHAPE, make
from tests.data.world import World
from training.data.prepared import Request, SourceFile
from training.data.prepared_build import Plan, open_or_build


class Dataset:
    """Files of one repeated byte, and what was done with them."""

    def __init__(self, folder: Path, count: int = 12) -> None:
        self.root, self.log, self.cache = folder / "raw", folder / "log", folder / "cache"
        self.root.mkdir(parents=True)
        for i in range(count):
            (self.root / f"{i:03d}").write_bytes(bytes([i]) * 50)
        self.world = World(self.root, self.cache)
        self.plans = 0
        self.make = make

    def request(self, settings=None) -> Request:
        paths = sorted(self.root.iterdir())
        facts = [path.stat() for path in paths]
        sources = [SourceFile(p.name, p, f.st_size, f.st_mtime_ns) for p, f in zip(paths, facts, strict=True)]
        return Request(settings or {"a": 1}, sources)

    def plan(self, pool) -> Plan:
        self.plans += 1
        count = len(list(self.root.iterdir()))
        return Plan(SHAPE, "uint8", list(reversed(range(count))), functools.partial(self.make, self.log), {}, {"x": 1})

    def open(self, settings=None, workers=1):
        return open_or_build(self.cache, self.request(settings), self.plan, self.world.context, workers)

    def made(self) -> list[str]:
        names = self.log.read_text().split() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return sorted(names)

    def touch(self, name: str, content: bytes | None = None) -> None:
        path = self.root / name
        if content is not None:
            path.write_bytes(content)
        os.utime(path, ns=(1, path.stat().st_mtime_ns + 1_000_000_000))


def read(cache, start=0, count=None):
    count = len(cache.index["block_sources"]) - start if count is None else count
    out = np.zeros((SHAPE[0], count, *SHAPE[1:]), np.uint8)
    cache.reader().read_run(start, out)
    return out


def expected(numbers):
    block = np.arange(24, dtype=np.uint8).reshape(SHAPE)
    return np.stack([block + np.uint8(n) for n in numbers], axis=1)


MISSING = ["000", "001", "002", "003"]


def check_continued(dataset, made):
    cache = dataset.open()
    assert dataset.made() == made
    assert np.array_equal(read(cache), expected(range(11, -1, -1)))
