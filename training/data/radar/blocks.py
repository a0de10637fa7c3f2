"""What preparation's workers do with radar volumes. Imports no torch, so that they start quickly."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from xxhash import xxh3_128

from backend.errors import BadDataError
from backend.preprocessing.radar import RadarPreprocessing
from backend.preprocessing.radar_netcdf import read_volume
from training.data.io_errors import source_errors
from training.data.radar.events import Listing, some
from training.data.workers import WorkerPool


@dataclass(frozen=True)
class MakeBlock:
    """One file's content to packed codes [L, h, w]; the same functions as in serving."""

    preprocessing: RadarPreprocessing

    def __call__(self, path: Path, content: bytes) -> np.ndarray:
        """The block of one file. Raises BadDataError naming ``path``."""
        return self.preprocessing.apply_packed(read_volume(path, self.preprocessing.variable, content))


@dataclass(frozen=True)
class Duplicates:
    """Frames that stand in two events."""

    kept: dict[int, int]  # source -> the source with the same frame that is used in its place
    hashes: dict[int, str]  # sha256 of the sources that were read to find out


def find_duplicates(listing: Listing, groups: list[list[int]], make: MakeBlock, pool: WorkerPool) -> Duplicates:
    """Compares sources of equal time by content: of the file, else of what becomes of it. Raises BadDataError."""
    found = Duplicates({}, {})
    different = []
    jobs = [([(i, listing.sources[i].path) for i in group], make) for group in groups]
    for hashes, unlike in pool.run(_compare, jobs):
        found.hashes.update(hashes)
        kept, *others = hashes
        found.kept.update(dict.fromkeys(others, kept))
        different += [f"{listing.sources[kept].relative} and {listing.sources[i].relative}" for i in unlike]
    if different:
        raise BadDataError(
            f"Two folders hold different frames of the same time: {some(sorted(different))}. "
            "A frame that stands in two folders must be the same in both; keep the right one."
        )
    return found


def _compare(job: tuple[list[tuple[int, Path]], MakeBlock]) -> tuple[dict[int, str], list[int]]:
    """In a worker: the files' sha256, and those whose frame is not that of the first."""
    files, make = job
    hashes, unlike = {}, []
    for source, path in files:
        with source_errors(path):
            content = path.read_bytes()
        hashes[source] = hashlib.sha256(content).hexdigest()
        if hashes[source] == hashes[files[0][0]]:
            first = content
        elif _codes_hash(make, path, content) != _codes_hash(make, files[0][1], first):
            unlike.append(source)
    return hashes, unlike


def _codes_hash(make: MakeBlock, path: Path, content: bytes) -> tuple[tuple[int, ...], bytes]:
    codes = make(path, content)
    return codes.shape, xxh3_128(codes.tobytes()).digest()
