"""What the CF conventions and the NetCDF User Guide say of a variable: which axis it is, how its numbers are packed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import netCDF4
import numpy as np

AXIS_HELP = (
    "expected the CF attributes axis, standard_name or units, or the names time, z0/z/altitude, y0/y/latitude, "
    "x0/x/longitude"
)
_AXIS_BY_NAME = {
    **dict.fromkeys(("time", "t"), "T"),
    **dict.fromkeys(("z0", "z", "altitude", "height", "level"), "Z"),
    **dict.fromkeys(("y0", "y", "latitude", "lat"), "Y"),
    **dict.fromkeys(("x0", "x", "longitude", "lon"), "X"),
}
_AXIS_BY_STANDARD_NAME = {
    "time": "T",
    **dict.fromkeys(("altitude", "height"), "Z"),
    **dict.fromkeys(("projection_y_coordinate", "latitude", "grid_latitude"), "Y"),
    **dict.fromkeys(("projection_x_coordinate", "longitude", "grid_longitude"), "X"),
}
_AXIS_BY_UNITS = {
    **dict.fromkeys(("degrees_north", "degree_north"), "Y"),
    **dict.fromkeys(("degrees_east", "degree_east"), "X"),
}
_PROJECTION = {  # what says where on Earth a grid lies
    "grid_mapping_name",
    "latitude_of_projection_origin",
    "longitude_of_projection_origin",
    "longitude_of_central_meridian",
    "straight_vertical_longitude_from_pole",
    "grid_north_pole_latitude",
    "grid_north_pole_longitude",
    "false_easting",
    "false_northing",
}
_KM = {"km", "kilometer", "kilometers", "kilometre", "kilometres"}
_METRES = {"m", "meter", "meters", "metre", "metres"}


def axis_of(dataset: Any, dimension: str) -> str | None:
    """T, Z, Y or X by the attributes of the dimension's coordinate variable, else by the dimension's name."""
    variable = dataset.variables.get(dimension)
    axis = str(getattr(variable, "axis", "")).upper()
    if axis in ("T", "Z", "Y", "X"):
        return axis
    units = str(getattr(variable, "units", "")).lower()
    return (
        _AXIS_BY_STANDARD_NAME.get(str(getattr(variable, "standard_name", "")))
        or _AXIS_BY_UNITS.get(units)
        or ("T" if " since " in units else None)
        or _AXIS_BY_NAME.get(dimension.lower())
    )


def length_units(variable: Any) -> tuple[float, str]:
    """A coordinate's units as (factor, units): metres become km, all degrees "degrees", others stay as they are."""
    units = str(getattr(variable, "units", "")).strip().lower()
    if units in _METRES:
        return 0.001, "km"
    if units in _KM:
        return 1.0, "km"
    return 1.0, "degrees" if units.startswith("degree") else units


def projection_of(variables: Mapping[str, Any], field: Any) -> dict[str, str | float]:
    """What the variable that ``field`` names as its ``grid_mapping`` says of the projection: CF's words and numbers."""
    named = str(getattr(field, "grid_mapping", "")).split()
    mapping = variables.get(named[0].rstrip(":")) if named else None
    if mapping is None:
        return {}
    found = {name: mapping.getncattr(name) for name in mapping.ncattrs() if name in _PROJECTION}
    return {name: value if isinstance(value, str) else float(np.ravel(value)[0]) for name, value in found.items()}


def unix_seconds(value: float, units: str, calendar: str) -> float:
    """A CF time as seconds since 1970-01-01 UTC; NaN where it is none."""
    try:
        date = netCDF4.num2date(np.array(value), units, calendar)
        return float(netCDF4.date2num(date, "seconds since 1970-01-01", calendar))
    except (ValueError, OverflowError, TypeError, AttributeError):
        return math.nan


@dataclass(frozen=True)
class Packing:
    """How stored numbers become values: stored * scale + offset, NaN where missing or outside the valid range."""

    scale: float
    offset: float
    missing: tuple[Any, ...]  # in the stored type
    valid: tuple[float, float]
    valid_is_packed: bool  # whether `valid` speaks of stored numbers or of values
    unsigned: bool  # signed integers that are meant unsigned

    @classmethod
    def of(cls, variable: Any) -> Packing:
        """The packing that a NetCDF variable declares."""
        attributes = {name: variable.getncattr(name) for name in variable.ncattrs()}
        dtype = np.dtype(variable.dtype)
        low, high = attributes.get("valid_range", (attributes.get("valid_min"), attributes.get("valid_max")))
        limits = [np.asarray(limit) for limit in (low, high) if limit is not None]
        return cls(
            scale=float(attributes.get("scale_factor", 1.0)),
            offset=float(attributes.get("add_offset", 0.0)),
            missing=_missing_values(attributes, dtype),
            valid=(-math.inf if low is None else float(low), math.inf if high is None else float(high)),
            # The User Guide: limits in a wider type than the packed data are in the units of the unpacked values.
            valid_is_packed=not (dtype.kind in "iu" and any(limit.dtype.kind == "f" for limit in limits)),
            unsigned=dtype.kind == "i" and str(attributes.get("_Unsigned", "false")).lower() == "true",
        )

    def decode(self, stored: np.ndarray, dtype: Any = np.float32) -> np.ndarray:
        """Values of the stored numbers as floats of ``dtype``."""
        numbers = stored.view(f"u{stored.dtype.itemsize}") if self.unsigned else stored
        if self.scale == 1.0 and self.offset == 0.0:
            values = numbers.astype(dtype)
        else:
            values = (numbers * np.float64(self.scale) + self.offset).astype(dtype)
        for missing in self.missing:
            values[stored == missing] = np.nan
        judged = numbers if self.valid_is_packed else values
        if self.valid != (-math.inf, math.inf):
            values[(judged < self.valid[0]) | (judged > self.valid[1])] = np.nan
        return values


def _missing_values(attributes: dict[str, Any], dtype: np.dtype) -> tuple[Any, ...]:
    """Every number that stands for a missing value, in the stored type; NaN is missing anyway."""
    declared = [np.ravel(attributes[name]) for name in ("_FillValue", "missing_value") if name in attributes]
    # What netCDF itself writes where nothing was written, except for bytes, whose every code is meant.
    code = f"{dtype.kind}{dtype.itemsize}"
    if "_FillValue" not in attributes and dtype.itemsize > 1 and code in netCDF4.default_fillvals:
        declared.append(np.ravel(netCDF4.default_fillvals[code]))
    return tuple(number for values in declared for number in _in_stored_type(values, dtype) if number == number)


def _in_stored_type(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """``values`` as numbers of ``dtype``, without those that it cannot hold: they stand for nothing in the file."""
    with np.errstate(all="ignore"):
        stored = values.astype(dtype)
    return stored[(stored.astype(values.dtype) == values) | np.isnan(stored)] if dtype.kind in "iu" else stored
