"""Raw reflectivity to what the model sees. Training and serving go through the same `RadarPreprocessing`."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backend.errors import BadDataError, ConfigError
from backend.preprocessing import resampling
from backend.preprocessing.grid import Grid
from backend.preprocessing.radar_netcdf import Volume, VolumeHeader, look_up
from backend.preprocessing.record import from_record

if TYPE_CHECKING:  # preparation's worker processes never need torch
    from torch import Tensor

__all__ = ["RadarPreprocessing"]


class _Codes(NamedTuple):
    """Integers that stand for dBZ: ``lowest`` for min_dbz to ``highest`` for max_dbz, evenly between."""

    dtype: type[np.integer[Any]]
    lowest: int
    highest: int
    no_data: int


_CODES = {8: _Codes(np.uint8, 0, 254, 255), 16: _Codes(np.int16, -32767, 32767, -32768)}


@dataclass(frozen=True)
class RadarPreprocessing:
    """Every choice between a file's dBZ and the model's input. Raises ConfigError for impossible values.

    The order is: crop, no echo to ``min_dbz``, clip to [``min_dbz``, ``max_dbz``], levels, downsample, pack.
    """

    variable: str = "DBZ"
    fill_means: str = "no_echo"  # fill is no echo, the lowest dBZ, which counts; or "no_data", which is masked
    levels: str | tuple[int, ...] = "all"  # "all", "max" over the levels, or indices
    crop_km: tuple[float, float] | None = None  # (height, width) kept around the centre
    downsample_size: tuple[int, int] | None = None  # (rows, columns); None keeps the grid
    downsample_method: str = "area"  # see `resampling.downsample`
    min_dbz: float = -29.0
    max_dbz: float = 65.0
    bits: int = 8  # of a packed value: 8 or 16

    def __post_init__(self) -> None:
        for name in ("levels", "crop_km", "downsample_size"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        _check_choice("fill_means", self.fill_means, ("no_echo", "no_data"))
        _check_choice("downsample_method", self.downsample_method, resampling.METHODS)
        _check_choice("bits", self.bits, tuple(_CODES))
        if not self.min_dbz < self.max_dbz:
            raise ConfigError(f"min_dbz is {self.min_dbz:g}, expected less than max_dbz, which is {self.max_dbz:g}")
        if isinstance(self.levels, str):
            _check_choice("levels", self.levels, ("all", "max"), "or a list of level indices")
        elif not self.levels or min(self.levels) < 0:
            raise ConfigError(f"levels is {list(self.levels)}, expected 'all', 'max' or level indices from 0")
        _check_pair("crop_km", self.crop_km)
        _check_pair("downsample_size", self.downsample_size)

    # --- as data -------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """JSON types only; goes into every checkpoint."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> RadarPreprocessing:
        """What `to_dict` gave. Raises BadDataError when keys are missing or unknown."""
        return from_record(cls, "radar", record)

    # --- a volume ------------------------------------------------------------------------------------------------

    def apply(self, volume: Volume) -> np.ndarray:
        """dBZ as the model will see it, float32 [L, h, w] within [min_dbz, max_dbz], NaN for no data.

        Raises ConfigError when the size asked for exceeds the volume's or a level is not there, BadDataError when
        the volume is smaller than ``crop_km`` or holds no data at all (with ``fill_means`` no_data).
        """
        return np.stack(list(self._levels_after(volume)))

    def apply_packed(self, volume: Volume) -> np.ndarray:
        """`apply`, packed: uint8 or int16 codes [L, h, w]."""
        return np.stack([self.pack(level) for level in self._levels_after(volume)])

    def grid_after(self, header: VolumeHeader) -> Grid:
        """The grid of what `apply` gives: shape, coordinates of the new cells' centres, spacing. Raises as `apply`."""
        grid = header.grid
        rows, columns = self.window(grid)
        size = self._size_after(rows, columns)
        axes = [
            np.interp(resampling.positions(part.size, count, self.downsample_method), np.arange(part.size), part)
            for part, count in zip((grid.y[rows], grid.x[columns]), size, strict=True)
        ]
        spacing = self._spacing_after(grid, rows, columns)
        return Grid(size, axes[0], axes[1], grid.units, spacing, grid.reversed_axes, grid.projection)

    def fill(self, dbz: np.ndarray) -> np.ndarray:
        """Clipped to [min_dbz, max_dbz]; NaN becomes min_dbz where fill means no echo, else it stays.

        It must come before any mean or maximum: the mean of an echo and of no echo lies between the two.
        """
        lowest, highest = np.float32(self.min_dbz), np.float32(self.max_dbz)
        raised = np.fmax(dbz, lowest) if self.fill_means == "no_echo" else np.maximum(dbz, lowest)
        return np.minimum(raised, highest, out=raised)

    # --- packing -------------------------------------------------------------------------------------------------

    @property
    def packing_error_dbz(self) -> float:
        """The most that packing can move a value: half the distance between two codes."""
        codes = _CODES[self.bits]
        return (self.max_dbz - self.min_dbz) / (codes.highest - codes.lowest) / 2

    def pack(self, dbz: np.ndarray) -> np.ndarray:
        """dBZ within [min_dbz, max_dbz] as the nearest codes, NaN as the code for no data."""
        codes = _CODES[self.bits]
        scale = (codes.highest - codes.lowest) / (self.max_dbz - self.min_dbz)
        numbers = np.rint((dbz - np.float32(self.min_dbz)) * np.float32(scale)) + np.float32(codes.lowest)
        return np.where(np.isnan(numbers), np.float32(codes.no_data), numbers).astype(codes.dtype)

    def unpack(self, packed: np.ndarray) -> np.ndarray:
        """float32 dBZ of codes, NaN for no data."""
        codes = _CODES[self.bits]
        step = (self.max_dbz - self.min_dbz) / (codes.highest - codes.lowest)
        dbz = ((packed.astype(np.float64) - codes.lowest) * step + self.min_dbz).astype(np.float32)
        dbz[packed == codes.no_data] = np.nan
        return dbz

    def as_stored(self, dbz: float) -> float:
        """The reflectivity that ``dbz`` is after packing; outside the range nothing is stored, so that it stays."""
        if not self.min_dbz <= dbz <= self.max_dbz:
            return dbz
        return float(self.unpack(self.pack(np.array([dbz], np.float32)))[0])

    def normalise(self, packed: Tensor) -> tuple[Tensor, Tensor]:
        """Codes to the model's float32 in [0, 1] (0 for no data as well), and where data are valid (bool)."""
        codes = _CODES[self.bits]
        valid = packed != codes.no_data
        normalised = (packed.float() - codes.lowest) / (codes.highest - codes.lowest)
        return normalised.masked_fill_(~valid, 0.0), valid

    def to_dbz(self, normalised: Tensor) -> Tensor:
        """What the model puts out, in dBZ. Numpy arrays are welcome too."""
        return normalised * (self.max_dbz - self.min_dbz) + self.min_dbz

    # --- levels and sizes ----------------------------------------------------------------------------------------

    def _levels_after(self, volume: Volume) -> Iterator[np.ndarray]:
        """The levels one at a time, because a level stays in the processor's cache and a volume does not."""
        if self.fill_means == "no_data":
            volume.require_data()
        rows, columns = self.window(volume.header.grid)
        size = self._size_after(rows, columns)
        stored = volume.stored[self._level_indices(volume.stored.shape[0]), rows, columns]
        levels = self._filled_levels(stored, volume.table)
        if self.levels == "max":
            levels = iter([functools.reduce(np.fmax, levels)])  # NaN only where every level is NaN
        return (resampling.downsample(level, size, self.downsample_method) for level in levels)

    def _filled_levels(self, stored: np.ndarray, table: np.ndarray | None) -> Iterator[np.ndarray]:
        if table is None:
            return (self.fill(level) for level in stored)
        filled = self.fill(table)  # 256 numbers instead of a volume
        return (look_up(filled, level) for level in stored)

    def _level_indices(self, count: int) -> slice | list[int]:
        if isinstance(self.levels, str):
            return slice(None)
        if max(self.levels) >= count:
            raise ConfigError(f"levels asks for level {max(self.levels)}, but the volume has levels 0 to {count - 1}")
        return list(self.levels)

    def window(self, grid: Grid) -> tuple[slice, slice]:
        """Rows and columns that the crop keeps."""
        if self.crop_km is None:
            return slice(0, grid.shape[0]), slice(0, grid.shape[1])
        if grid.spacing_km is None:
            raise BadDataError(f"a crop in km needs coordinates in km, m or degrees, but they are in {grid.units!r}")
        keep = [round(km / step) for km, step in zip(self.crop_km, grid.spacing_km, strict=True)]
        wanted = "x".join(f"{km:g}" for km in self.crop_km)
        if keep[0] > grid.shape[0] or keep[1] > grid.shape[1]:
            raise BadDataError(f"a crop to {wanted} km needs a larger grid than {grid.describe()}")
        if 0 in keep:
            raise ConfigError(f"crop_km is {wanted} km, less than one of {grid.describe()}")
        starts = [(count - kept) // 2 for count, kept in zip(grid.shape, keep, strict=True)]
        return slice(starts[0], starts[0] + keep[0]), slice(starts[1], starts[1] + keep[1])

    def _size_after(self, rows: slice, columns: slice) -> tuple[int, int]:
        source = (rows.stop - rows.start, columns.stop - columns.start)
        size = self.downsample_size
        if size is None:
            return source
        if size[0] > source[0] or size[1] > source[1]:
            raise ConfigError(
                f"downsample_size is {size[0]}x{size[1]}, larger than the source of {source[0]}x{source[1]}; "
                "choose a smaller size, or null to keep the grid"
            )
        return size

    def _spacing_after(self, grid: Grid, rows: slice, columns: slice) -> tuple[float, float] | None:
        if grid.spacing_km is None:
            return None
        dy, dx = (
            step * _stretch(part.stop - part.start, count, self.downsample_method)
            for step, part, count in zip(grid.spacing_km, (rows, columns), self._size_after(rows, columns), strict=True)
        )
        return dy, dx


def _stretch(count: int, new_count: int, method: str) -> float:
    """How many old cells lie between two neighbouring new centres."""
    where = resampling.positions(count, new_count, method)
    return float(where[1] - where[0]) if new_count > 1 else count / new_count


def _check_choice(name: str, value: Any, choices: tuple[Any, ...], more: str = "") -> None:
    if value not in choices:
        expected = ", ".join(str(choice) for choice in choices)
        raise ConfigError(f"{name} is {value!r}, expected one of {expected}{' ' + more if more else ''}")


def _check_pair(name: str, value: Any) -> None:
    if value is not None and (len(value) != 2 or min(value) <= 0):
        raise ConfigError(f"{name} is {list(value)}, expected two positive numbers, height and width, or null")
