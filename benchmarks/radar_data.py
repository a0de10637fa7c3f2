"""Speed of radar preparation and of reading windows, beside xarray and netCDF4 on the same files and cores.

    python benchmarks/radar_data.py --volumes 100 --workers 2

Makes full-size volumes (18x500x500 bytes, NetCDF classic, as radar software writes them), prepares them at 250x250,
and prints medians. The page cache is warm unless a line says cold; cold means that posix_fadvise(DONTNEED) has
dropped the prepared file just before.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import netCDF4
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from training.data.workers import WorkerPool

if TYPE_CHECKING:  # worker processes import this file too, and neither torch nor xarray should delay them
    from training.data.radar.prepare import RadarWindows
    from training.tasks.protocol import Prepared

SHAPE = (18, 500, 500)
FILL = -128


def main() -> None:
    """Make, prepare, read, print."""
    arguments = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="radar_data_", dir=arguments.folder))
    try:
        files = make_volumes(folder / "data", arguments.volumes)
        measure_preparation(folder, files, arguments.workers, arguments.repeats)
        measure_windows(folder, files, arguments.repeats)
        measure_reuse(folder / "many", arguments.many, arguments.workers, arguments.repeats)
    finally:
        shutil.rmtree(folder)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=int, default=100, help="files of 4.5 MB to make, in four events; from 100 on")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes")
    parser.add_argument("--many", type=int, default=10000, help="small files, to see how fast all are found unchanged")
    parser.add_argument("--repeats", type=int, default=3, help="repetitions; medians are printed")
    parser.add_argument("--folder", type=Path, help="where to work; default is the system's temporary folder")
    return parser.parse_args()


def make_volumes(folder: Path, count: int) -> list[Path]:
    """Moving cells over a tenth of the area, fill elsewhere; four events ten hours apart."""
    rng = np.random.default_rng(1)
    coarse = rng.normal(size=(SHAPE[0], 51, 51))
    cells = np.kron(coarse, np.ones((1, 10, 10)))[:, : SHAPE[1], : SHAPE[2]] + rng.normal(0, 0.2, SHAPE)
    codes = np.where(cells > 1.2, np.clip(cells * 25 - 60, -120, 60), FILL).astype(np.int8)
    return [_write(folder, np.roll(codes, 2 * i, axis=2), i * 4 // count, i) for i in range(count)]


def _time(event: int, number: int) -> float:
    return 1.2e9 + 180 * number + 36000 * event


def _write(folder: Path, codes: np.ndarray, event: int, number: int) -> Path:
    path = folder / "sample" / f"event_{event}" / f"{number:06d}.nc"
    path.parent.mkdir(parents=True, exist_ok=True)
    with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC") as dataset:
        for name, values in (
            ("z0", np.arange(1.0, codes.shape[0] + 1)),
            ("y0", np.arange(codes.shape[1]) - 249.5),
            ("x0", np.arange(codes.shape[2]) - 249.5),
        ):
            dataset.createDimension(name, len(values))
            dataset.createVariable(name, "f4", (name,))[:] = values
            dataset[name].units = "km"
        dataset.createDimension("time", 1)
        dataset.createVariable("time", "f8", ("time",))[:] = _time(event, number)
        dataset["time"].units = "seconds since 1970-01-01T00:00:00Z"
        field = dataset.createVariable("DBZ", "i1", ("time", "z0", "y0", "x0"), fill_value=FILL)
        field.scale_factor, field.add_offset, field.units = np.float32(0.5), np.float32(33.5), "dBZ"
        field.set_auto_maskandscale(False)
        field[0] = codes
    return path


def prepare(folder: Path, workers: int) -> Prepared:
    """The default settings, with a stride that gives windows enough to any number of volumes."""
    from training.data.radar.prepare import prepare_radar
    from training.schemas.convlstm import RadarDataSection
    from training.tasks.protocol import PrepareContext

    quiet = lambda *_: None  # noqa: E731
    context = PrepareContext(folder / "data", folder / "cache", workers, quiet, quiet, quiet)
    return prepare_radar(RadarDataSection.model_validate({"stride": 1}), context)


def measure_preparation(folder: Path, files: list[Path], workers: int, repeats: int) -> None:
    """Each rate includes starting the processes."""

    def prepare_anew() -> None:
        shutil.rmtree(folder / "cache", ignore_errors=True)
        prepare(folder, workers)

    actions = {
        "netCDF4, masked and scaled (only decoding)": partial(_decode_all, files, workers, True),
        "netCDF4, raw (only decoding)": partial(_decode_all, files, workers, False),
        "preparation (headers, reading, sha256, decoding, downsampling, packing, writing, fsync)": prepare_anew,
    }
    # In turns, so that whatever else the machine does meets all of them alike.
    rounds = [[_timed(action) for action in actions.values()] for _ in range(repeats)]
    rates = {name: len(files) / statistics.median(seconds) for name, *seconds in zip(actions, *rounds, strict=True)}
    for name, rate in rates.items():
        print(f"{rate:8.1f} volumes/s  {name}")
    masked, raw, ours = rates.values()
    print(f"{ours / masked:8.2f} x masked decoding, {ours / raw:.2f} x raw decoding; {workers} processes")


def measure_reuse(folder: Path, count: int, workers: int, repeats: int) -> None:
    """Small files, as only their number matters here."""
    template = _write(folder, np.full((1, 250, 250), FILL, np.int8), 0, 0)
    content = template.read_bytes()
    time_of_template = struct.pack(">d", _time(0, 0))
    for number in range(count):
        path = folder / "data" / f"event_{number // 1000}" / f"{number:06d}.nc"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.replace(time_of_template, struct.pack(">d", _time(number // 1000, number))))
    prepare(folder, workers)
    seconds = median_seconds(lambda: prepare(folder, workers), repeats)
    print(f"{seconds * 1e3:8.0f} ms to find an unchanged dataset of {count} files prepared, windows and split made")


def _decode_all(files: list[Path], workers: int, masked: bool) -> None:
    with WorkerPool(workers, lambda: None) as pool:
        for _ in pool.run(partial(_decode, masked), files):
            pass


def _decode(masked: bool, path: Path) -> None:
    with netCDF4.Dataset(path) as dataset:
        dataset.set_auto_maskandscale(masked)
        dataset["DBZ"][...]


def measure_windows(folder: Path, files: list[Path], repeats: int) -> None:
    """A window as packed bytes in a contiguous tensor, against opening and interpolating its files."""
    train = _fresh_windows(folder)
    blocks = next((folder / "cache").glob("*/blocks.bin"))
    indices = [i % len(train) for i in range(10 * repeats)]

    for i in indices:
        train.item(i, None)
    warm = statistics.median(_timed(partial(train.item, i, None)) for i in indices)
    first = statistics.median(_timed(partial(_fresh_windows(folder).item, i, None)) for i in indices)
    cold = statistics.median(_cold(blocks, partial(train.item, i, None)) for i in indices)
    reference = median_seconds(partial(_interpolate, files[:25]), repeats)
    shape = tuple(train.item(0, None)["frames"].shape)
    print(f"a window of {shape} bytes, one core:")
    for name, seconds in (("warm", warm), ("warm, first reading with its hashes checked", first), ("cold", cold)):
        print(f"{seconds * 1e3:8.2f} ms  {name}: {reference / seconds:.0f} x as fast as xarray")
    print(f"{reference * 1e3:8.0f} ms  xarray: open 25 files, interpolate linearly to 250x250, stack (files warm)")


def _fresh_windows(folder: Path) -> RadarWindows:
    """The training windows, none of whose hashes has been checked."""
    return prepare(folder, 1).splits["train"]  # type: ignore[return-value]


def _interpolate(files: Iterable[Path]) -> np.ndarray:
    import xarray

    frames = []
    for path in files:
        with xarray.open_dataset(path, engine="netcdf4") as dataset:
            field = dataset["DBZ"][0]
            axes = {name: np.linspace(*field[name].values[[0, -1]], 250) for name in ("y0", "x0")}
            frames.append(field.interp(axes, method="linear").values)
    return np.stack(frames, axis=1)


def _cold(path: Path, action: Callable[[], object]) -> float:
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)
    return _timed(action)


def _timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def median_seconds(action: Callable[[], object], repeats: int) -> float:
    """The median over ``repeats`` calls."""
    return statistics.median(_timed(action) for _ in range(repeats))


if __name__ == "__main__":
    main()
