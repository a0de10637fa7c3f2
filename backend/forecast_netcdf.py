"""Writes a forecast as CF NetCDF on the grid of the radar's own files: their axes, their order, their projection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import xarray as xr

from backend.errors import DiskError
from backend.files import replacing
from backend.preprocessing.cf import axis_of
from backend.preprocessing.radar_netcdf import VolumeHeader

# A hundredth of a dBZ, whatever range the model was trained on; a byte, as the radar's files have it, would round to
# half a dBZ and end at -30.
_STORAGE = {"dtype": "int16", "scale_factor": 0.01, "_FillValue": np.int16(-32768)}
_SECONDS = {"units": "seconds since 1970-01-01T00:00:00Z", "calendar": "standard"}
_INHERITED = ("institution", "attribution", "license", "licence", "references")  # of the radar's files
_SAMPLE_NOTE = "made by a model of the built-in sample: a demonstration, not a forecast"


@dataclass(frozen=True)
class Forecast:
    """What is forecast, and from what."""

    dbz: np.ndarray  # [steps, levels, ny, nx] on the ascending grid of `newest`; NaN is no data
    lead_seconds: np.ndarray  # [steps]
    newest: VolumeHeader  # the newest input: its time is the forecast's reference
    variable: str
    levels: str | tuple[int, ...]  # which of `newest`'s levels: "all", indices, or "max" over them
    source: str
    is_sample: bool
    model: Mapping[str, str]  # facts of the model, as global attributes
    no_echo_dbz: float | None  # the value that stands for no echo; None where fill means no data


def write_forecast(path: Path, forecast: Forecast) -> None:
    """Write ``forecast`` to ``path``, whole or not at all.

    Raises:
        DiskError: the file cannot be written.
    """
    content = dataset(forecast)
    try:
        with replacing(path) as temporary:
            content.to_netcdf(temporary, format="NETCDF3_64BIT", engine="netcdf4")
    except (OSError, RuntimeError) as error:  # netCDF4 reports some failures of the disk as RuntimeError
        remedy = "free space or choose another --out"
        raise DiskError(f"{path}: the forecast cannot be written ({error}); {remedy}") from error


def dataset(forecast: Forecast) -> xr.Dataset:
    """The forecast with coordinates and attributes after the CF conventions."""
    newest, name = forecast.newest, forecast.variable
    with netCDF4.Dataset(newest.path) as source:
        source.set_auto_maskandscale(False)
        field = source[name]
        axes = {axis_of(source, dimension): dimension for dimension in field.dimensions}
        z, y, x = axes.get("Z", "z0"), axes["Y"], axes["X"]
        heights = _levels(source, z, forecast)
        mapping = _mapping(source, field)
        horizontal = _horizontal(source, (y, x))
        auxiliary = _auxiliary(source, field, {y, x})
        inherited = {name: str(source.getncattr(name)) for name in _INHERITED if name in source.ncattrs()}
    attributes = {
        "long_name": "forecast radar reflectivity",
        **_comment(forecast.no_echo_dbz),
        "standard_name": "equivalent_reflectivity_factor",
        "units": "dBZ",
        "coordinates": " ".join(["forecast_reference_time", "lead_time", *auxiliary]),
        **({"grid_mapping": next(iter(mapping))} if mapping else {}),
        **({"cell_methods": f"{z}: maximum"} if forecast.levels == "max" else {}),
    }
    dbz = xr.Variable(("time", z, y, x), newest.grid.ascending(forecast.dbz), attributes, _STORAGE)
    times = _times(forecast)
    return xr.Dataset(
        {**times, **heights, **horizontal, **auxiliary, **mapping, name: dbz}, attrs={**inherited, **_about(forecast)}
    )


def _comment(no_echo_dbz: float | None) -> dict[str, str]:
    return {} if no_echo_dbz is None else {"comment": f"{no_echo_dbz:g} dBZ, the lowest value, stands for no echo"}


def _times(forecast: Forecast) -> dict[str, xr.Variable]:
    reference, lead = forecast.newest.time, forecast.lead_seconds
    when = {"long_name": "time of the newest volume", "standard_name": "forecast_reference_time", **_SECONDS}
    ahead = {"long_name": "lead time", "standard_name": "forecast_period", "units": "minutes"}
    return {
        "time": _variable(("time",), reference + lead, {"standard_name": "time", "axis": "T", **_SECONDS}),
        "lead_time": _variable(("time",), lead / 60, ahead),
        "forecast_reference_time": _variable((), reference, when),
    }


def _levels(source: Any, z: str, forecast: Forecast) -> dict[str, xr.Variable]:
    """The heights that were forecast, as the source has them; of a maximum, what it was taken over."""
    if z not in source.variables:
        return {}
    heights = _kept(source[z])
    if forecast.levels == "max":
        values = np.sort(np.ravel(heights.values))
        middle = _variable((z,), [values.mean()], {**heights.attrs, "bounds": f"{z}_bounds"})
        return {z: middle, f"{z}_bounds": _variable((z, "bounds"), [[values[0], values[-1]]], {})}
    heights.attrs.pop("bounds", None)
    chosen = slice(None) if isinstance(forecast.levels, str) else list(forecast.levels)
    return {z: heights[chosen]}


def _horizontal(source: Any, axes: tuple[str, str]) -> dict[str, xr.Variable]:
    """The axes of the grid, and the cells' bounds where the source has them."""
    names = [name for axis in axes for name in (axis, *_words(source[axis], "bounds"))]
    return {name: _kept(source[name]) for name in names if name in source.variables}


def _auxiliary(source: Any, field: Any, dimensions: set[str]) -> dict[str, xr.Variable]:
    """Coordinates besides the axes, such as a latitude for each cell."""
    there = [source[name] for name in _words(field, "coordinates") if name in source.variables]
    return {v.name: _kept(v) for v in there if v.dimensions and set(v.dimensions) <= dimensions}


def _mapping(source: Any, field: Any) -> dict[str, xr.Variable]:
    """The variable whose attributes tell the projection; its value means nothing."""
    named = [word.rstrip(":") for word in _words(field, "grid_mapping")]
    return {n: xr.Variable((), np.int32(0), _attributes(source[n])) for n in named[:1] if n in source.variables}


def _words(variable: Any, attribute: str) -> list[str]:
    return str(getattr(variable, attribute, "")).split()


def _kept(variable: Any) -> xr.Variable:
    """A variable as it is stored."""
    return _variable(variable.dimensions, variable[...], _attributes(variable))


def _attributes(variable: Any) -> dict[str, Any]:
    return {name: variable.getncattr(name) for name in variable.ncattrs()}


def _variable(dimensions: tuple[str, ...], values: Any, attributes: Mapping[str, Any]) -> xr.Variable:
    encoding = {} if "_FillValue" in attributes else {"_FillValue": None}  # else xarray declares one
    return xr.Variable(dimensions, values, dict(attributes), encoding)


def _about(forecast: Forecast) -> dict[str, str]:
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    about = {
        "Conventions": "CF-1.8",
        "title": "Radar nowcast",
        "source": forecast.source,
        "history": f"{now} forecast from volumes up to {forecast.newest.path.name}",
    }
    about |= {f"model_{name}": text for name, text in forecast.model.items()}
    return about | ({"comment": _SAMPLE_NOTE} if forecast.is_sample else {})
