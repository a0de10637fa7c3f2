"""A horizontal grid: where the cells of a field lie."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

KM_PER_DEGREE = 111.195  # along a meridian of a sphere of 6371 km

# Of a cell's size: crops round to whole cells, and degrees are measured at the grid's centre.
_SPACING_TOLERANCE = 0.02


@dataclass(frozen=True, eq=False)
class Grid:
    """A horizontal grid, rows along ascending y and columns along ascending x."""

    shape: tuple[int, int]  # (ny, nx)
    y: np.ndarray  # [ny] cell centres, in `units`
    x: np.ndarray  # [nx]
    units: str  # "km" (metres are converted), "degrees", or what the file says
    spacing_km: tuple[float, float] | None  # (dy, dx), for degrees at the centre's latitude; None for other units
    reversed_axes: tuple[bool, bool] = (False, False)  # whether the file's own (y, x) descend
    projection: Mapping[str, str | float] = field(default_factory=dict)  # where on Earth, as far as the file says

    @classmethod
    def from_axes(
        cls, y: np.ndarray, x: np.ndarray, units: str, projection: Mapping[str, str | float] | None = None
    ) -> Grid:
        """The grid of a file's coordinates, which may descend."""
        descending = (bool(y[0] > y[-1]), bool(x[0] > x[-1]))
        y, x = y[:: _direction(descending[0])], x[:: _direction(descending[1])]
        return cls((y.size, x.size), y, x, units, _spacing_km(y, x, units), descending, projection or {})

    def ascending(self, field: np.ndarray) -> np.ndarray:
        """A view of ``field`` [..., ny, nx] from the file's order of rows and columns to this grid's, or back."""
        return field[..., :: _direction(self.reversed_axes[0]), :: _direction(self.reversed_axes[1])]

    def same_as(self, other: Grid) -> bool:
        """Whether both have the same cells, to a hundredth of their spacing.

        Two radars may have the same distances from different places: where both say which, these must agree.
        """
        if self.shape != other.shape or self.units != other.units:
            return False
        told = self.projection.keys() & other.projection.keys()
        if any(not _same_place(self.projection[name], other.projection[name]) for name in told):
            return False
        axes = ((self.y, other.y), (self.x, other.x))
        return all(float(np.abs(mine - its).max()) <= 0.01 * _step(mine) for mine, its in axes)

    def describe(self) -> str:
        """For people: "500x500 cells of 1.00x1.00 km"."""
        cells = f"{self.shape[0]}x{self.shape[1]} cells"
        if self.spacing_km is None:
            return f"{cells} of unknown size"
        return f"{cells} of {self.spacing_km[0]:.2f}x{self.spacing_km[1]:.2f} km"


def same_spacing(one: Sequence[float] | None, other: Sequence[float] | None) -> bool:
    """Whether cells of these heights and widths in km are the same to a model; None is unknown."""
    if one is None or other is None:
        return one is other
    return bool(np.allclose(one, other, rtol=_SPACING_TOLERANCE))


def _same_place(mine: str | float, its: str | float) -> bool:
    if isinstance(mine, str) or isinstance(its, str):
        return mine == its
    return math.isclose(mine, its, rel_tol=1e-5, abs_tol=1e-5)


def _direction(descending: bool) -> int:
    return -1 if descending else 1


def _step(values: np.ndarray) -> float:
    """Mean distance between neighbours; 1 for a single cell, which has none."""
    return float(abs(values[-1] - values[0])) / (values.size - 1) if values.size > 1 else 1.0


def _spacing_km(y: np.ndarray, x: np.ndarray, units: str) -> tuple[float, float] | None:
    if min(y.size, x.size) < 2 or units not in ("km", "degrees"):
        return None
    if units == "km":
        return _step(y), _step(x)
    return _step(y) * KM_PER_DEGREE, _step(x) * KM_PER_DEGREE * math.cos(math.radians(float(y.mean())))
