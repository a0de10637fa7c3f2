"""Writes volume files of every form that the reader must take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import netCDF4
import numpy as np
import pytest

PACKED = {"_FillValue": np.int8(-128), "scale_factor": np.float32(0.5), "add_offset": np.float32(33.5)}
UNITS = {"z": "km", "y": "km", "x": "km", "time": "seconds since 1970-01-01T00:00:00Z"}


def _default_axis(name: str, size: int) -> np.ndarray:
    return np.arange(size) + 1.0 if name.startswith("z") else np.arange(size) - (size - 1) / 2


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """``write(stored, …)`` writes one file and returns its path; None leaves a coordinate or an attribute out."""

    def write_file(
        stored: np.ndarray,
        *,
        name: str = "volume.nc",
        form: str = "NETCDF3_CLASSIC",
        dims: tuple[str, ...] = ("time", "z0", "y0", "x0"),
        attributes: dict | None = None,
        axes: dict | None = None,
        axis_attributes: dict | None = None,
        time: object = 1_200_000_000.0,
        time_dims: tuple[str, ...] = ("time",),
        time_attributes: dict | None = None,
        variable: str = "DBZ",
    ) -> Path:
        attributes = dict(PACKED if attributes is None else attributes)
        path = tmp_path / name
        with netCDF4.Dataset(path, "w", format=form) as dataset:
            for dim, size in zip(dims, stored.shape, strict=True):
                dataset.createDimension(dim, size)
                values = (axes or {}).get(dim, _default_axis(dim, size))
                if dim != "time" and values is not None:
                    coordinate = dataset.createVariable(dim, "f8", (dim,))
                    given = (axis_attributes or {}).get(dim, {"units": UNITS.get(dim[0], "km")})
                    coordinate.setncatts(given)
                    coordinate[:] = values
            if time is not None:
                clock = dataset.createVariable("time", "f8", tuple(d for d in time_dims if d in dims))
                clock.setncatts({"units": UNITS["time"]} if time_attributes is None else time_attributes)
                clock[...] = time
            fill = attributes.pop("_FillValue", None)
            field = dataset.createVariable(variable, stored.dtype, dims, fill_value=fill)
            field.setncatts(attributes)
            field.set_auto_maskandscale(False)
            field[...] = stored
        return path

    return write_file


@pytest.fixture
def codes() -> np.ndarray:
    """Stored bytes [1, 3, 20, 24] with a third of them fill."""
    rng = np.random.default_rng(7)
    stored = rng.integers(-120, 60, (1, 3, 20, 24)).astype(np.int8)
    stored[rng.random(stored.shape) < 1 / 3] = -128
    return stored
