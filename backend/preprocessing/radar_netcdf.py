"""Reads one radar volume from one NetCDF file: its time, its grid and its reflectivity.

A value that the file calls missing becomes NaN once, here, and nowhere else. Rows and columns are handed on in the
order of ascending y and x, whatever the file's order, so that a model sees every file the same way up;
`Grid.ascending` turns a field back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import netCDF4
import numpy as np

from backend.errors import BadDataError, DiskError
from backend.preprocessing.cf import AXIS_HELP, Packing, axis_of, length_units, projection_of, unix_seconds
from backend.preprocessing.grid import Grid

__all__ = ["Grid", "Volume", "VolumeHeader", "look_up", "read_header", "read_volume"]

SENSIBLE_DBZ = 150.0  # no weather radar reports anything beyond; -999 and -9999 do lie beyond
_MAGIC = (b"CDF\x01", b"CDF\x02", b"CDF\x05", b"\x89HDF")


@dataclass(frozen=True, eq=False)
class VolumeHeader:
    """What a file says about its volume."""

    path: Path
    time: float  # seconds since 1970-01-01 UTC
    levels: np.ndarray  # [Z] heights, km where the file gives km or m; 0, 1, … where it gives none
    grid: Grid


@dataclass(frozen=True, eq=False)
class Volume:
    """One volume. One-byte files stay as they are stored until a level is asked for: that is less to move."""

    header: VolumeHeader
    stored: np.ndarray  # [Z, Y, X] float32 dBZ with NaN for fill or, with a `table`, uint8 codes
    table: np.ndarray | None = None  # [256] float32 dBZ of each code, NaN for fill

    @cached_property
    def dbz(self) -> np.ndarray:
        """Reflectivity in dBZ, float32 [Z, Y, X], NaN where the file has fill; -inf is a reflectivity of zero."""
        if self.table is None:
            return self.stored
        return np.stack([look_up(self.table, level) for level in self.stored])

    @property
    def is_all_fill(self) -> bool:
        """Whether no level holds a single value: a clear sky where fill means no echo, else a broken file."""
        if self.table is None:
            return all(bool(np.isnan(level).all()) for level in self.stored)
        fill = np.isnan(self.table).astype(np.uint8)
        return all(bool(look_up(fill, level).all()) for level in self.stored)

    def require_data(self) -> None:
        """Raise BadDataError when every value is fill; for those to whom fill means no data."""
        if self.is_all_fill:
            raise BadDataError(
                f"{self.header.path}: every value is fill, which means no data here; remove the file, "
                "or set data.fill_means to no_echo if fill stands for a clear sky"
            )


def look_up(table: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """``table[codes]`` for one level of uint8 codes [Y, X]; seven times faster than numpy's indexing."""
    return cv2.LUT(np.ascontiguousarray(codes), table)


def read_header(path: str | Path, variable: str = "DBZ") -> VolumeHeader:
    """Time, levels and grid of ``path``, without its reflectivity. Raises BadDataError and DiskError."""
    path = Path(path)
    with _reading(path), path.open("rb") as file:
        _check_magic(path, file.read(4))
        size = path.stat().st_size
    with _dataset(path, None) as dataset:
        _check_size(dataset, path, size)
        return _Field(dataset, path, variable).header()


def read_volume(path: str | Path, variable: str = "DBZ", content: bytes | None = None) -> Volume:
    """The whole volume of ``path``; ``content`` are the file's bytes where they were read already.

    Raises BadDataError for anything that is not one complete volume with sensible dBZ, DiskError when the file
    cannot be read. A volume of nothing but fill is returned as it is: see `Volume.require_data`.
    """
    path = Path(path)
    if content is None:
        with _reading(path):
            content = path.read_bytes()
    _check_magic(path, content[:4])
    # From memory netCDF sees where a classic file ends; from disk it reads zeros beyond the end of a truncated one.
    with _dataset(path, content) as dataset:
        _check_size(dataset, path, len(content))
        field = _Field(dataset, path, variable)
        header = field.header()
        raw = header.grid.ascending(field.stored_numbers())
        packing = Packing.of(field.variable)
    return _volume(header, raw, packing, variable)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except IsADirectoryError:
        raise BadDataError(f"{path}: is a folder; expected a NetCDF file") from None
    except OSError as error:
        raise DiskError(f"{path}: cannot be read ({error.strerror}); check that it exists and may be read") from error


@contextmanager
def _dataset(path: Path, content: bytes | None) -> Iterator[Any]:
    """The open file, raw (no masking, no scaling), with the library's errors turned into ours."""
    try:
        with netCDF4.Dataset(str(path), memory=content) as dataset:
            dataset.set_auto_maskandscale(False)
            yield dataset
    except (OSError, RuntimeError, IndexError, UnicodeError) as error:
        # the library's own words mislead: of a classic file cut short it says "Operation not permitted"
        raise BadDataError(f"{path}: is a truncated or damaged NetCDF file; copy it again") from error


def _check_magic(path: Path, start: bytes) -> None:
    if start not in _MAGIC:
        found = f"begins with {start!r}" if start else "is empty"
        raise BadDataError(f"{path}: is not a NetCDF file ({found}); expected NetCDF classic or NetCDF4")


def _check_size(dataset: Any, path: Path, size: int) -> None:
    """A classic file holds every variable in full, so it cannot be smaller than their sum."""
    if not dataset.data_model.startswith("NETCDF3"):
        return
    needed = sum(math.prod(v.shape) * np.dtype(v.dtype).itemsize for v in dataset.variables.values())
    if size <= needed:
        raise BadDataError(f"{path}: is truncated: {size} bytes, expected more than {needed}; copy it again")


class _Field:
    """The reflectivity variable of an open file, and which of its dimensions is time, height, y and x."""

    def __init__(self, dataset: Any, path: Path, name: str) -> None:
        if name not in dataset.variables:
            there = ", ".join(dataset.variables) or "none"
            raise BadDataError(f"{path}: has no variable {name!r}; it has {there}: set data.variable to one of them")
        self.path, self.name = path, name
        self.variables = dataset.variables
        self.variable = dataset.variables[name]
        if np.dtype(self.variable.dtype).kind not in "iuf":
            raise self._error(f"holds {self.variable.dtype}, expected numbers")
        self.dimensions = self._dimensions_by_axis(dataset)

    def header(self) -> VolumeHeader:
        return VolumeHeader(self.path, self._time(), self._levels(), self._grid())

    def stored_numbers(self) -> np.ndarray:
        """As stored, [Z, Y, X] in the file's order of rows and columns."""
        raw = self.variable[...]
        order = [self.variable.dimensions.index(self.dimensions[a]) for a in "TZYX" if a in self.dimensions]
        return raw.transpose(order).reshape(-1, *(raw.shape[axis] for axis in order[-2:]))

    def _error(self, what: str) -> BadDataError:
        return BadDataError(f"{self.path}: variable {self.name!r} {what}")

    def _dimensions_by_axis(self, dataset: Any) -> dict[str, str]:
        found: dict[str, str] = {}
        for dimension in self.variable.dimensions:
            axis = axis_of(dataset, dimension)
            if axis is None:
                raise self._error(f"has a dimension {dimension!r} that is none of time, z, y and x; {AXIS_HELP}")
            if axis in found:
                raise self._error(f"has two {axis.lower()} dimensions, {found[axis]!r} and {dimension!r}; {AXIS_HELP}")
            found[axis] = dimension
        for axis in "YX":
            if axis not in found:
                there = ", ".join(self.variable.dimensions) or "none"
                raise self._error(f"has no {axis.lower()} dimension among its dimensions ({there}); {AXIS_HELP}")
        return found

    def _size_along(self, axis: str) -> int:
        name = self.dimensions.get(axis)
        return 1 if name is None else self.variable.shape[self.variable.dimensions.index(name)]

    def _levels(self) -> np.ndarray:
        name = self.dimensions.get("Z")
        if name is None:
            return np.zeros(1)
        if name not in self.variables:
            return np.arange(float(self._size_along("Z")))
        return self._coordinate("Z")[0]

    def _grid(self) -> Grid:
        (y, y_units), (x, x_units) = self._coordinate("Y"), self._coordinate("X")
        if y_units != x_units:
            raise self._error(f"has y in {y_units or 'no units'} but x in {x_units or 'no units'}")
        return Grid.from_axes(y, x, y_units, projection_of(self.variables, self.variable))

    def _coordinate(self, axis: str) -> tuple[np.ndarray, str]:
        """Coordinate values in float64, and their units."""
        name = self.dimensions[axis]
        if name not in self.variables:
            raise self._error(f"has a dimension {name!r} without a coordinate variable of that name")
        variable = self.variables[name]
        values = Packing.of(variable).decode(np.atleast_1d(variable[...]), np.float64)
        if not values.size or not np.isfinite(values).all():
            raise BadDataError(
                f"{self.path}: coordinate {name!r} has NaN, infinite or missing values, expected a number for "
                "each cell; mend or remove the file"
            )
        steps = np.diff(values)
        if not ((steps > 0).all() or (steps < 0).all()):
            raise BadDataError(f"{self.path}: coordinate {name!r} is not monotonic; it must rise or fall throughout")
        factor, units = length_units(variable)
        return values * factor, units

    def _time(self) -> float:
        """Seconds since 1970-01-01 UTC of the file's only time."""
        variable = self._time_variable()
        values = np.ravel(np.asarray(variable[...], dtype=np.float64))
        times = max(values.size, self._size_along("T"), key=lambda size: abs(size - 1))
        if times != 1:
            raise BadDataError(f"{self.path}: holds {times} times, expected one time in a file; split it by time")
        units, calendar = str(getattr(variable, "units", "")), str(getattr(variable, "calendar", "standard"))
        seconds = unix_seconds(float(values[0]), units, calendar)
        if not math.isfinite(seconds):
            raise BadDataError(
                f"{self.path}: time {values[0]:g} with units {units!r} is no time; expected a number with CF units "
                "such as 'seconds since 1970-01-01'"
            )
        return seconds

    def _time_variable(self) -> Any:
        """The time dimension's own variable, else one called time, else one whose standard_name is time."""
        of_dimension = [v for name, v in self.variables.items() if name == self.dimensions.get("T")]
        named = [v for name, v in self.variables.items() if name.lower() == "time"]
        standard = [v for v in self.variables.values() if getattr(v, "standard_name", "") == "time"]
        found = of_dimension + named + standard
        if not found:
            raise BadDataError(f"{self.path}: has no time; expected a variable 'time' with CF units")
        return found[0]


def _volume(header: VolumeHeader, raw: np.ndarray, packing: Packing, variable: str) -> Volume:
    if raw.dtype.itemsize > 1:
        dbz = packing.decode(raw)
        _check_sense(dbz, header.path, variable)
        return Volume(header, dbz)
    table = packing.decode(np.arange(256, dtype=np.uint8).view(raw.dtype))
    codes = raw.view(np.uint8)
    if _senseless(table).any():  # only then does it matter which codes the file uses
        _check_sense(table[np.bincount(codes.ravel(), minlength=256) > 0], header.path, variable)
    return Volume(header, codes, table)


def _check_sense(dbz: np.ndarray, path: Path, variable: str) -> None:
    lowest, highest = np.fmin.reduce(dbz, axis=None), np.fmax.reduce(dbz, axis=None)
    if not (lowest < -SENSIBLE_DBZ or highest > SENSIBLE_DBZ):  # false as well when all is NaN
        return
    wrong = dbz[_senseless(dbz)]
    if wrong.size:
        raise BadDataError(
            f"{path}: variable {variable!r} has the value {wrong[0]:g}, expected dBZ between -{SENSIBLE_DBZ:g} and "
            f"{SENSIBLE_DBZ:g}; if it marks missing values, declare it as _FillValue"
        )


def _senseless(dbz: np.ndarray) -> np.ndarray:
    """Beyond the range; not -inf, which is the decibel of a reflectivity of zero."""
    return (dbz > SENSIBLE_DBZ) | ((dbz < -SENSIBLE_DBZ) & (dbz != -np.inf))
