"""How long one radar volume takes from its file to the packed levels that the prepared cache keeps, on one core.

    OMP_NUM_THREADS=1 python benchmarks/radar_volume.py [--levels 18] [--size 500] [--rounds 15]

Synthetic NETCDF3 byte volumes of the real size are written to a temporary folder and stay in the page cache.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import netCDF4
import numpy as np
import xarray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from backend.preprocessing.radar import RadarPreprocessing
from backend.preprocessing.radar_netcdf import read_header, read_volume
from training.samples.radar import make_radar_sample

FULL_SIZE = 500  # the real radar's cells a side, of 1 km


def decode(path: Path, masked: bool) -> np.ndarray:
    """What netCDF4 does by itself, with or without masking and scaling."""
    with netCDF4.Dataset(path) as dataset:
        dataset.set_auto_maskandscale(masked)
        return dataset["DBZ"][:]


def interpolate(path: Path, size: int) -> np.ndarray:
    """Open with xarray and interpolate linearly."""
    with xarray.open_dataset(path) as dataset:
        field = dataset["DBZ"]
        axes = {name: np.linspace(float(field[name].min()), float(field[name].max()), size) for name in ("y0", "x0")}
        return field.interp(axes, method="linear").values


def median_ms(function: Callable[[Path], object], paths: list[Path], rounds: int) -> float:
    """Median time of one file over ``rounds`` files, after one to warm up."""
    function(paths[0])
    times = []
    for i in range(rounds):
        start = time.perf_counter()
        function(paths[i % len(paths)])
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def main() -> None:
    """Print medians, and each as a multiple of masked decoding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--levels", type=int, default=18)
    parser.add_argument("--size", type=int, default=FULL_SIZE)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    half = (args.size // 2, args.size // 2)
    ours = {
        f"ours, {name}": RadarPreprocessing(downsample_size=half, **settings)
        for name, settings in {
            "area": {},
            "area, 16 bits": {"bits": 16},
            "area, fill is no data": {"fill_means": "no_data"},
            "area, maximum over levels": {"levels": "max"},
            "area in linear Z": {"downsample_method": "area_linear_z"},
            "linear": {"downsample_method": "linear"},
            "maximum": {"downsample_method": "maximum"},
        }.items()
    }
    ways: dict[str, Callable[[Path], object]] = {
        "netCDF4, masked and scaled": lambda path: decode(path, True),
        "netCDF4, raw": lambda path: decode(path, False),
        "xarray, open and interp": lambda path: interpolate(path, half[0]),
        "ours, header alone": read_header,
    }
    ways |= {name: lambda path, p=p: p.apply_packed(read_volume(path)) for name, p in ours.items()}
    with tempfile.TemporaryDirectory() as folder:
        make_radar_sample(Path(folder), events=1, frames=4, levels=args.levels, size=args.size, spacing_km=1.0)
        paths = sorted(Path(folder).rglob("*.nc"))
        print(f"{args.levels}x{args.size}x{args.size} to {args.levels}x{half[0]}x{half[1]}, {args.rounds} rounds")
        reference = 0.0
        for name, way in ways.items():
            took = median_ms(way, paths, args.rounds)
            reference = reference or took
            print(f"{name:38s} {took:9.2f} ms   {reference / took:7.2f} times the speed of masked decoding")


if __name__ == "__main__":
    main()
