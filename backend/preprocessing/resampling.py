"""Brings a field to fewer cells. Fields are float32 [Y, X] with NaN where there are no data."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

Size = tuple[int, int]  # rows, columns
METHODS = ("area", "area_linear_z", "linear", "maximum")
_HALF = 0.5 - 1e-5  # of a cell; float32 sums of weights may fall short of one half by rounding

_NEPERS = np.float32(10.0 / np.log(10.0))  # ln Z = dBZ / _NEPERS


def downsample(field: np.ndarray, size: Size, method: str) -> np.ndarray:
    """``field`` in dBZ on a grid of ``size``, which is no larger than its own, as a new array.

    * ``area``: mean of the dBZ over each new cell, source cells weighted by the part of them that lies in it.
    * ``area_linear_z``: the same mean of the reflectivity factor Z = 10^(dBZ/10), given back in dBZ.
    * ``linear``: bilinear interpolation at points spread evenly from the first source point to the last.
    * ``maximum``: the largest value of all source cells that touch the new one.

    A new cell of which less than half is covered by data is NaN; the others take their value from the data they have.
    """
    if field.shape == tuple(size):
        return field.copy()
    if method == "area_linear_z":
        mean_z = downsample(np.exp(field / _NEPERS), size, "area")  # exp and log are several times faster than powers
        return np.log(mean_z) * _NEPERS
    known = ~np.isnan(field)
    if known.all():
        return _REDUCTIONS[method](field, size)
    if method == "maximum":
        covered = _area(known.astype(np.float32), size) > _HALF
        reduced = _maximum(np.where(known, field, np.float32(-np.inf)), size)
    else:
        coverage = _REDUCTIONS[method](known.astype(np.float32), size)
        covered = coverage > _HALF
        reduced = _REDUCTIONS[method](np.where(known, field, np.float32(0.0)), size)
        reduced /= np.where(covered, coverage, np.float32(1.0))
    reduced[~covered] = np.nan
    return reduced


def positions(count: int, new_count: int, method: str) -> np.ndarray:
    """Where the centres of ``new_count`` cells lie along an axis of ``count``: in old cells, from the first centre."""
    if method == "linear":
        return np.linspace(0.0, count - 1.0, new_count)
    return (np.arange(new_count) + 0.5) * (count / new_count) - 0.5


def _area(field: np.ndarray, size: Size) -> np.ndarray:
    # OpenCV drops weights below a thousandth of a source cell. That matters (by 0.1 dBZ at most) only where a side of
    # more than 1000 cells shrinks by less than a thousandth; elsewhere it is exact to float32's rounding.
    return cv2.resize(field, (size[1], size[0]), interpolation=cv2.INTER_AREA)


def _linear(field: np.ndarray, size: Size) -> np.ndarray:
    for axis in (0, 1):
        where = positions(field.shape[axis], size[axis], "linear")
        low = np.minimum(where.astype(np.intp), max(field.shape[axis] - 2, 0))
        high = np.minimum(low + 1, field.shape[axis] - 1)
        weight = (where - low).astype(np.float32).reshape((-1, 1) if axis == 0 else (1, -1))
        field = field.take(low, axis) * (1 - weight) + field.take(high, axis) * weight
    return field


def _maximum(field: np.ndarray, size: Size) -> np.ndarray:
    for axis in (0, 1):
        count, cells = field.shape[axis], np.arange(size[axis])
        first = cells * count // size[axis]
        last = -((cells + 1) * -count // size[axis]) - 1  # of the source cells that touch the new one
        reduced = field.take(first, axis)
        for step in range(1, int((last - first).max()) + 1):
            np.maximum(reduced, field.take(np.minimum(first + step, last), axis), out=reduced)
        field = reduced
    return field


_REDUCTIONS: dict[str, Callable[[np.ndarray, Size], np.ndarray]] = {
    "area": _area,
    "linear": _linear,
    "maximum": _maximum,
}
