"""Makes a small radar dataset: event folders of volumes, in the form in which LROSE's Mdv2NetCDF writes real ones.

What is in it can be learned and is not trivial: convective cells travel with the event's steering flow (each a
little off it), grow, reach their peak, decay, and new ones are born. So a forecast that moves and ages the cells
beats one that repeats the newest frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import netCDF4
import numpy as np

from backend.errors import DiskError

SCALE, OFFSET, FILL = 0.5, 33.5, -128  # dBZ = code * SCALE + OFFSET; FILL is no echo
WEAKEST_DBZ = 3.0  # anything weaker is no echo
_DECIBEL = 10.0 / np.log(10.0)  # dBZ = _DECIBEL * ln Z
_CELL_DENSITY = 1.0 / 1700.0  # living cells per km²
_CLUSTER_KM = 22.0  # spread of the cells of one cluster
_FIRST_DAY = datetime(2007, 10, 1, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def make_radar_sample(
    folder: Path,
    seed: int = 42,
    *,
    events: int = 24,
    frames: int = 24,
    levels: int = 2,
    size: int = 64,
    spacing_km: float = 2.0,
) -> None:
    """Write ``events`` folders, each on a day of its own, of ``frames`` volumes [levels, size, size] into ``folder``.

    The same arguments give the same bytes. Full-size volumes as a real radar makes them: ``levels=18, size=500,
    spacing_km=1``. Raises DiskError where the folder cannot be written.
    """
    day = _FIRST_DAY
    for event in range(events):
        rng = np.random.default_rng([seed, event])
        start = day + timedelta(seconds=int(rng.integers(15 * 3600, 21 * 3600)))
        times = _frame_times(rng, frames)
        storm = _Storm(rng, float(times[-1]), _axis(size, spacing_km), _heights(levels))
        _write_event(folder / f"{start:%Y%m%d_%H%M}", start, times, storm)
        day += timedelta(days=int(rng.integers(1, 4)))


def _frame_times(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Whole seconds since the first frame; about 185 s apart, now and then up to 240, as real scans are."""
    usual = rng.triangular(169, 185, 200, frames)
    late = rng.uniform(200, 240, frames)
    steps = np.where(rng.random(frames) < 0.85, usual, late).astype(int)
    return np.cumsum(steps) - steps[0]


def _axis(size: int, spacing_km: float) -> np.ndarray:
    """Cell centres in km, the radar in the middle."""
    return ((np.arange(size) - (size - 1) / 2) * spacing_km).astype(np.float32)


def _heights(levels: int) -> np.ndarray:
    """1, 2, … km; where there are few levels they are spread over the lowest 6 km."""
    return (1.0 + np.arange(levels) * max(1.0, 6.0 / levels)).astype(np.float32)


# --- the storm ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cells:
    """Convective cells: one number each."""

    born: np.ndarray  # s since the first frame
    lifetime: np.ndarray  # s
    x: np.ndarray  # km, at birth, in the frame that moves with the flow
    y: np.ndarray
    u: np.ndarray  # km/s, deviation from the flow
    v: np.ndarray
    peak: np.ndarray  # dBZ
    radius: np.ndarray  # km, from the core to 20 dBZ below a strong peak
    top: np.ndarray  # km, height of the echo at its peak
    stretch: np.ndarray  # length over width
    angle: np.ndarray  # rad, of the long axis


class _Storm:
    """One event: reflectivity as a function of time."""

    def __init__(self, rng: np.random.Generator, duration: float, axis: np.ndarray, heights: np.ndarray) -> None:
        self.axis, self.heights, self.duration = axis, heights, duration
        self.flow = _steering_flow(rng)
        self.cells = _born_cells(rng, duration, float(np.ptp(axis)), self.flow)
        self.texture = _Texture(rng, axis.size, float(axis[1] - axis[0]) if axis.size > 1 else 1.0)

    def dbz(self, time: float) -> np.ndarray:
        """float32 [Z, Y, X] in dBZ, far below `WEAKEST_DBZ` where there is no echo."""
        z = np.full((self.heights.size, self.axis.size, self.axis.size), 1e-4, np.float32)
        for blob in self._blobs(time):
            blob.add_to(z, self.axis)
        np.log(z, out=z)
        z *= np.float32(_DECIBEL)
        z += self.texture.at(time, self.flow)
        return z

    def _blobs(self, time: float) -> Iterator[_Blob]:
        """Two bells of reflectivity for each living cell: its core, and the weak rain that trails it."""
        c = self.cells
        age = (time - c.born) / c.lifetime
        for i in np.flatnonzero((age > 0) & (age < 1)):
            vigour = float(np.sin(np.pi * age[i] ** 0.8) ** 0.6)  # 0 at birth and death, 1 at 42 % of the life
            x = c.x[i] + c.u[i] * (time - c.born[i]) + self.flow[0] * (time - self.duration / 2)
            y = c.y[i] + c.v[i] * (time - c.born[i]) + self.flow[1] * (time - self.duration / 2)
            width = float(c.radius[i]) * (0.55 + 0.45 * vigour) / 2.6
            top = 2.5 + (c.top[i] - 2.5) * vigour
            core = _profile(self.heights, c.peak[i] - 32.0 * (1.0 - vigour), 0.35 * top, top)
            yield _Blob(x, y, width, float(c.stretch[i]), float(c.angle[i]), core)
            rain = _profile(self.heights, 12.0 + 0.32 * c.peak[i] * vigour, 0.5 * top, 0.9 * top)
            behind = 900.0 * min(1.0, age[i] * 2.0)  # s of travel
            x, y = x - self.flow[0] * behind * 0.6, y - self.flow[1] * behind * 0.6
            yield _Blob(x, y, 1.9 * width, float(c.stretch[i]), float(c.angle[i]), rain)


@dataclass(frozen=True)
class _Blob:
    """A bell of reflectivity Z: elliptic in the horizontal, ``dbz`` over height at its centre."""

    x: float
    y: float
    width: float  # km
    stretch: float
    angle: float
    dbz: np.ndarray  # [Z]

    def add_to(self, z: np.ndarray, axis: np.ndarray) -> None:
        """Add to the reflectivity factor ``z`` [Z, Y, X] on the square grid of ``axis``, where it matters."""
        reach = 3.6 * self.width * self.stretch
        rows, columns = (slice(*np.searchsorted(axis, (at - reach, at + reach))) for at in (self.y, self.x))
        dy, dx = (axis[rows] - np.float32(self.y))[:, None], (axis[columns] - np.float32(self.x))[None, :]
        cosine, sine = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        along, across = (cosine * dx + sine * dy) / np.float32(self.stretch), cosine * dy - sine * dx
        bell = np.exp(-(along**2 + across**2) / np.float32(self.width**2))
        z[:, rows, columns] += np.exp(self.dbz / _DECIBEL).astype(np.float32)[:, None, None] * bell


def _profile(heights: np.ndarray, dbz: float, core: float, top: float) -> np.ndarray:
    """dBZ over height: strongest at ``core`` km, a little weaker below, and 25 dB weaker at ``top``."""
    above = np.maximum(heights - core, 0.0) / (top - core)
    below = np.maximum(core - heights, 0.0)
    return dbz - 25.0 * above**2 - 0.8 * below


def _steering_flow(rng: np.random.Generator) -> tuple[float, float]:
    """(u, v) in km/s: westerly on the whole, 25 to 50 km/h."""
    speed, towards = rng.uniform(25, 50) / 3600, rng.normal(0.2, 0.5)
    return speed * np.cos(towards), speed * np.sin(towards)


def _born_cells(rng: np.random.Generator, duration: float, extent: float, flow: tuple[float, float]) -> _Cells:
    """Cells born at random times in clusters, over all that drifts through the domain."""
    mean_life, longest = 3000.0, 5400.0
    sides = [extent + abs(speed) * duration + 4 * _CLUSTER_KM for speed in flow]
    count = rng.poisson(_CELL_DENSITY * sides[0] * sides[1] * (duration + longest) / mean_life)
    clusters = max(1, count // 8)
    member = rng.integers(clusters, size=count)
    x, y = (rng.uniform(-side / 2, side / 2, clusters)[member] + rng.normal(0, _CLUSTER_KM, count) for side in sides)
    deviation = 0.07 * np.hypot(*flow)
    return _Cells(
        born=rng.uniform(-longest, duration, count),
        lifetime=rng.triangular(1500, 2100, longest, count),
        x=x,
        y=y,
        u=rng.normal(0, deviation, count),
        v=rng.normal(0, deviation, count),
        peak=np.clip(rng.normal(46, 6, count), 32, 55),
        radius=rng.triangular(4, 8, 15, count),
        top=rng.uniform(7, 15, count),
        stretch=rng.uniform(1.0, 2.0, count),
        angle=rng.uniform(0, np.pi, count),
    )


class _Texture:
    """Fine structure in dB that drifts with the flow and slowly changes: noise with a power-law spectrum."""

    def __init__(self, rng: np.random.Generator, size: int, spacing_km: float, amplitude: float = 3.5) -> None:
        self.ky = np.fft.fftfreq(size, spacing_km)[:, None]
        self.kx = np.fft.rfftfreq(size, spacing_km)[None, :]
        wavenumber = np.hypot(self.ky, self.kx)
        gain = np.where(wavenumber > 1 / 40, 1 / np.maximum(wavenumber, 1 / 40) ** 1.4, 0.0)
        self.spectra = [np.fft.rfft2(rng.standard_normal((size, size))) * gain for _ in range(2)]
        self.scale = amplitude / max(float(np.fft.irfft2(self.spectra[0], s=(size, size)).std()), 1e-9)
        self.period = rng.uniform(5000, 9000)
        self.size = size

    def at(self, time: float, flow: tuple[float, float]) -> np.ndarray:
        """float32 [Y, X]."""
        phase = 2 * np.pi * time / self.period
        spectrum = np.cos(phase) * self.spectra[0] + np.sin(phase) * self.spectra[1]
        drift = np.exp(-2j * np.pi * (self.kx * flow[0] + self.ky * flow[1]) * time)
        return (np.fft.irfft2(spectrum * drift, s=(self.size, self.size)) * self.scale).astype(np.float32)


# --- the files ---------------------------------------------------------------------------------------------------


def _write_event(folder: Path, start: datetime, times: np.ndarray, storm: _Storm) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for seconds in times:
            time = start + timedelta(seconds=int(seconds))
            content = _volume_file(time, storm.axis, storm.heights, _encode(storm.dbz(float(seconds))))
            (folder / f"ncfdata{time:%Y%m%d_%H%M%S}.nc").write_bytes(content)
    except OSError as error:
        raise DiskError(f"{folder}: the sample cannot be written ({error.strerror})") from error


def _encode(dbz: np.ndarray) -> np.ndarray:
    """Stored bytes, `FILL` where there is no echo."""
    codes = np.rint((dbz - np.float32(OFFSET)) * np.float32(1 / SCALE))
    codes[dbz < WEAKEST_DBZ] = FILL
    return codes.astype(np.int8)


def _volume_file(time: datetime, axis: np.ndarray, heights: np.ndarray, codes: np.ndarray) -> memoryview:
    """The bytes of one NETCDF3 classic file."""
    dataset = netCDF4.Dataset("volume", "w", format="NETCDF3_CLASSIC", memory=1)
    for name, length in (("time", 1), ("bounds", 2), ("x0", axis.size), ("y0", axis.size), ("z0", heights.size)):
        dataset.createDimension(name, length)
    _write_times(dataset, (time - _EPOCH).total_seconds())
    _write_axes(dataset, axis, heights)
    field = dataset.createVariable("DBZ", "i1", ("time", "z0", "y0", "x0"), fill_value=np.int8(FILL))
    field.setncatts(
        {
            "scale_factor": np.float32(SCALE),
            "add_offset": np.float32(OFFSET),
            "valid_min": np.int8(-127),
            "valid_max": np.int8(127),
            "long_name": "DBZ",
            "standard_name": "DBZ",
            "units": "dBZ",
            "grid_mapping": "grid_mapping_0",
        }
    )
    field.set_auto_maskandscale(False)
    field[0] = codes
    dataset.setncatts(
        {
            "Conventions": "CF-1.6",
            "title": "SYNTHETIC RADAR SAMPLE",
            "source": "synthetic: moving, growing and decaying convective cells",
            "comment": "made by a program; not an observation",
        }
    )
    return dataset.close()


def _write_times(dataset: netCDF4.Dataset, seconds: float) -> None:
    for name, offset in (("time", 0), ("start_time", -90), ("stop_time", 90)):
        variable = dataset.createVariable(name, "f8", ("time",))
        variable.setncatts({"standard_name": "time", "units": "seconds since 1970-01-01T00:00:00Z"})
        variable[0] = seconds + offset
    dataset["time"].setncatts({"axis": "T", "bounds": "time_bounds", "calendar": "gregorian"})
    bounds = dataset.createVariable("time_bounds", "f8", ("time", "bounds"))
    bounds.units = "seconds since 1970-01-01T00:00:00Z"
    bounds[0] = (seconds - 90, seconds + 90)


def _write_axes(dataset: netCDF4.Dataset, axis: np.ndarray, heights: np.ndarray) -> None:
    names = {"x0": "projection_x_coordinate", "y0": "projection_y_coordinate", "z0": "altitude"}
    for (name, standard_name), values in zip(names.items(), (axis, axis, heights), strict=True):
        variable = dataset.createVariable(name, "f4", (name,))
        variable.setncatts({"standard_name": standard_name, "units": "km", "axis": name[0].upper()})
        variable[:] = values
    dataset["z0"].positive = "up"
    mapping = dataset.createVariable("grid_mapping_0", "i4", ())
    mapping.setncatts(
        {
            "grid_mapping_name": "azimuthal_equidistant",
            "latitude_of_projection_origin": -34.648,
            "longitude_of_projection_origin": -68.017,
            "earth_radius": 6378137.0,
        }
    )
