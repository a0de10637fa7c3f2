"""Small radar datasets in the real storage form, made in the test's own folder."""

from __future__ import annotations

from pathlib import Path

import netCDF4
import numpy as np
import pytest

from backend.errors import InterruptedRunError
from tests.data.raw_dataset import Dataset
from tests.data.world import World

START = 1_282_780_800.0  # 2010-08-26T00:00:00Z
CADENCE = 180.0


def write_volume(
    path: Path, time: float, codes: np.ndarray | None = None, *, shape=(2, 12, 10), spacing=1.0, seed=0, levels=None
) -> Path:
    """A NetCDF classic file with byte dBZ [z0, y0, x0]; each time has its own content unless ``codes`` are given."""
    if codes is None:
        codes = np.random.default_rng([int(time), seed]).integers(-125, 127, shape).astype(np.int8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC") as dataset:
        axes = {
            "z0": np.arange(1.0, codes.shape[0] + 1) if levels is None else levels,
            "y0": (np.arange(codes.shape[1]) + 0.5) * spacing,
            "x0": (np.arange(codes.shape[2]) + 0.5) * spacing,
        }
        for name, values in axes.items():
            dataset.createDimension(name, len(values))
            dataset.createVariable(name, "f4", (name,))[:] = values
            dataset[name].units = "km"
        dataset.createDimension("time", 1)
        dataset.createVariable("time", "f8", ("time",))[:] = time
        dataset["time"].units = "seconds since 1970-01-01T00:00:00Z"
        field = dataset.createVariable("DBZ", "i1", ("time", "z0", "y0", "x0"), fill_value=-128)
        field.scale_factor, field.add_offset = np.float32(0.5), np.float32(33.5)
        field.set_auto_maskandscale(False)
        field[0] = codes
    return path


def write_event(root: Path, name: str, start: float, frames: int, *, cadence=CADENCE, first_number=0, **kind) -> Path:
    """A folder of ``frames`` files whose names sort against their times."""
    for i in range(frames):
        write_volume(root / "sample" / name / f"{999 - first_number - i:03d}.nc", start + i * cadence, **kind)
    return root / "sample" / name


@pytest.fixture
def events(tmp_path) -> Path:
    """Three events of 12 frames, a day apart."""
    root = tmp_path / "radar"
    for day in range(3):
        write_event(root, f"day{day}", START + day * 86400, 12)
    return root


@pytest.fixture
def world(events, tmp_path) -> World:
    return World(events, tmp_path / "cache")


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    return Dataset(tmp_path)


@pytest.fixture
def interrupted(dataset):
    """A dataset whose preparation stopped after eight blocks: 011 to 004."""

    def stop():
        if ("preparing", 8, 12) in dataset.world.progress:
            raise InterruptedRunError("stop")

    dataset.world.check_stop = stop
    with pytest.raises(InterruptedRunError):
        dataset.open()
    dataset.world.check_stop = lambda: None
    assert len(dataset.made()) == 8
    (building,) = dataset.cache.glob(".building-*")
    return dataset, building
