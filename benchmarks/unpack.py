"""How fast archives are unpacked beside GNU tar: gz and zst, with and without bringing the files to the disk.

    python benchmarks/unpack.py [--place FOLDER] [--megabytes 300] [--rounds 7]

Volumes of 18x500x500 bytes in the radar's own format, with noise in the lowest bits as measured ones have, and many
small files beside them. Every way unpacks the same archive in turns, into a folder of its own that is deleted again;
archives stay in the page cache. Needs GNU tar, gzip and zstd; pigz where it shall be measured. Processor time (of all
processes of a way) is what to compare on a machine that others use too.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training.samples.radar import make_radar_sample
from training.unpacking.unpack import Limits, format_of, unpack

VOLUME_BYTES = 18 * 500 * 500
Way = Callable[[Path, Path], None]
Times = dict[str, list[tuple[float, float]]]  # seconds by the clock, of processors


def make_files(folder: Path, megabytes: int) -> None:
    """Volumes of ``megabytes`` in all, and thirty files of 2 kB for each of them."""
    frames = max(1, megabytes * 10**6 // VOLUME_BYTES)
    make_radar_sample(folder, events=1, frames=frames, levels=18, size=500, spacing_km=1.0)
    rng = np.random.default_rng(0)
    for number, path in enumerate(sorted(folder.glob("*/*"))):
        values = np.fromfile(path, np.uint8)
        values[4096:] ^= rng.integers(0, 4, len(values) - 4096, np.uint8)
        values.tofile(path)
        small = folder / "small" / f"{number:04d}"
        small.mkdir(parents=True)
        for part in range(30):
            (small / f"{part:02d}.txt").write_bytes(values[4096 + 2000 * part :][:2000].tobytes())


def pack(source: Path, place: Path) -> list[Path]:
    """The archives of ``source``."""
    commands = {"radar.tar.gz": "-czf", "radar.tar.zst": "--zstd -cf"}
    for name, options in commands.items():
        subprocess.run(["tar", *options.split(), place / name, "-C", source, "."], check=True)
    return [place / name for name in commands]


def tar(*options: str, sync: bool = False) -> Way:
    """GNU tar, followed by a sync of the filesystem where asked for."""

    def run(archive: Path, target: Path) -> None:
        target.mkdir()
        subprocess.run(["tar", *options, "-xf", archive, "-C", target], check=True)
        if sync:
            subprocess.run(["sync", "-f", target], check=True)

    return run


def ours(*, sync: bool, programs: bool = True) -> Way:
    """This worker's own way: durable as it always is, or not; with pigz and zstd, or without."""

    def run(archive: Path, target: Path) -> None:
        with _without_sync(not sync), _without_programs(not programs):
            unpack(
                archive,
                target,
                format=format_of(archive.name) or "",
                limits=Limits(),
                record={},
                progress=lambda what, done, total: None,
                check_stop=lambda: None,
            )

    return run


@contextmanager
def _without_sync(apply: bool) -> Iterator[None]:
    name = "training.unpacking.durable._sync_filesystem"
    with mock.patch(name, (lambda descriptor: None)) if apply else mock.patch.dict({}):
        yield


@contextmanager
def _without_programs(apply: bool) -> Iterator[None]:
    with mock.patch("shutil.which", (lambda name: None)) if apply else mock.patch.dict({}):
        yield


def measure(ways: dict[str, Way], archive: Path, place: Path, rounds: int) -> Times:
    """Seconds of every way, in turns, after a round to warm up."""
    times: Times = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            target = place / "out"
            subprocess.run(["sync", "-f", place], check=True)
            start, used = time.perf_counter(), sum(os.times()[:4])
            way(archive, target)
            if number:
                times[name].append((time.perf_counter() - start, sum(os.times()[:4]) - used))
            shutil.rmtree(target)
    return times


def report(archive: Path, size: int, times: Times, pairs: list[tuple[str, str]]) -> None:
    """Medians, rates of unpacked bytes, and how the pairs compare."""
    packed = archive.stat().st_size
    print(f"\n{archive.name}: {packed / 1e6:.0f} MB of {size / 1e6:.0f} MB ({size / packed:.2f} to 1)")
    medians = {}
    for name, rows in times.items():
        clock, processors = ([row[kind] for row in rows] for kind in (0, 1))
        medians[name] = statistics.median(clock), statistics.median(processors)
        spread = f"{min(clock):.2f} to {max(clock):.2f}"
        rate = size / 1e6 / medians[name][0]
        print(
            f"  {name:30} {medians[name][0]:6.2f} s ({spread}), processors {medians[name][1]:5.2f} s, {rate:5.0f} MB/s"
        )
    for mine, other in pairs:
        clock, processor = (medians[other][kind] / medians[mine][kind] for kind in (0, 1))
        print(f"  {mine}: {clock:.2f} times the speed of {other}; by processor time {processor:.2f}", flush=True)


def compare(archive: Path, size: int, place: Path, rounds: int) -> None:
    """All ways on one archive."""
    option, other = ("-z", "gzip") if archive.suffix == ".gz" else ("--zstd", "zstd")
    ways = {f"tar {option}": tar(option), "ours, not synced": ours(sync=False)}
    ways |= {f"tar {option}, synced": tar(option, sync=True), "ours": ours(sync=True)}
    if archive.suffix == ".gz" and shutil.which("pigz"):
        ways["tar -I pigz"] = tar("-I", "pigz")
    ways["ours, in process, not synced"] = ours(sync=False, programs=False)
    pairs = [("ours, not synced", f"tar {option}"), ("ours", f"tar {option}, synced"), ("ours", f"tar {option}")]
    pairs += [("ours, in process, not synced", f"tar {option}")]
    if "tar -I pigz" in ways:
        pairs.append(("ours, not synced", "tar -I pigz"))
    if shutil.which(other):
        report(archive, size, measure(ways, archive, place, rounds), pairs)


def main() -> None:
    """Make the files, pack them, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--place", type=Path, help="a folder on the disk to measure; else the system's temporary one")
    parser.add_argument("--megabytes", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.place) as text:
        place = Path(text)
        make_files(place / "source", options.megabytes)
        files = [path for path in (place / "source").rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        print(f"{len(files)} files; pigz {'is' if shutil.which('pigz') else 'is not'} there")
        for archive in pack(place / "source", place):
            compare(archive, size, place, options.rounds)


if __name__ == "__main__":
    main()
