"""From the newest radar volumes to a forecast in dBZ on their own grid; no future needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from backend.artifact import Artifact
from backend.errors import BadDataError, UsageError, WorkerError
from backend.files import writable_folder
from backend.forecast_netcdf import Forecast, write_forecast
from backend.models import build
from backend.preprocessing.grid import Grid, same_spacing
from backend.preprocessing.radar import RadarPreprocessing
from backend.preprocessing.radar_netcdf import Volume, VolumeHeader, read_header, read_volume
from backend.preprocessing.resampling import positions
from backend.weights import load_matching

_OTHER_PACE = 1.5  # times faster than what the model has learned: the motion between two frames is another one


def write_nowcast(artifact: Artifact, inputs: Sequence[Path], out: Path) -> Path:
    """Write the forecast that follows the newest volumes as ``<time of the newest>_forecast.nc`` into ``out``.

    Raises:
        UsageError: ``out`` is one of the ``inputs``.
        BadDataError: see `nowcast`.
        DiskError: something cannot be read or written.
    """
    if out.resolve() in {path.resolve() for path in inputs}:
        raise UsageError(f"--out {out}: the next forecast would take this one for a volume; name another folder")
    writable_folder(out)
    forecast = nowcast(artifact, inputs)
    stamp = np.datetime64(round(forecast.newest.time), "s").item().strftime("%Y%m%d_%H%M%S")
    path = out / f"{stamp}_forecast.nc"
    write_forecast(path, forecast)
    return path


def nowcast(artifact: Artifact, inputs: Sequence[Path]) -> Forecast:
    """The forecast that follows the newest volumes among ``inputs`` (files, or folders that directly hold them).

    Raises:
        BadDataError: too few volumes, a hole or another pace among the newest ones, grids that differ, or a grid
            that the model was not trained on.
    """
    settings = artifact.preprocessing
    radar = RadarPreprocessing.from_dict(settings["radar"])
    headers = newest_volumes(inputs, radar.variable, settings["input_steps"])
    _check_pace(headers, settings["cadence_seconds"], settings["gap_tolerance"])
    _check_grids(headers, radar, artifact)
    volumes = [read_volume(header.path, radar.variable) for header in headers]
    dbz = model_forecast(artifact, radar, volumes)
    newest = headers[-1]
    return Forecast(
        dbz=_without_coverage(_onto_source_grid(dbz, radar, newest.grid), radar, volumes[-1]),
        lead_seconds=settings["cadence_seconds"] * np.arange(1.0, len(dbz) + 1),
        newest=newest,
        variable=radar.variable,
        levels=radar.levels,
        source=f"ConvLSTM, run {artifact.state['run_id']}, checkpoint {artifact.folder.name}",
        is_sample=artifact.state["dataset"]["is_sample"],
        model=_model_facts(artifact),
        no_echo_dbz=radar.min_dbz if radar.fill_means == "no_echo" else None,
    )


def _model_facts(artifact: Artifact) -> dict[str, str]:
    """What a reader must know of the model: the grid that it computed on, and by what it can be found again."""
    state = artifact.state
    known = {
        "grid": artifact.facts["grid"],
        "config_hash": state.get("config_hash"),
        "dataset_fingerprint": state["dataset"].get("fingerprint"),
    }
    return {name: str(value) for name, value in known.items() if value is not None}


def newest_volumes(inputs: Sequence[Path], variable: str, count: int) -> list[VolumeHeader]:
    """The ``count`` newest volumes by their time variable, whatever their names, oldest first.

    Raises:
        BadDataError: fewer volumes, or two with the same time.
    """
    files = list(dict.fromkeys(file.resolve() for path in inputs for file in _volume_files(path)))
    headers = sorted((read_header(file, variable) for file in files), key=lambda header: header.time)
    if len(headers) < count:
        raise BadDataError(f"{', '.join(map(str, inputs))}: holds {len(headers)} volumes, the model needs {count}")
    for before, after in pairwise(headers[-count - 1 :]):  # a twin of the oldest one would make it ambiguous
        if after.time == before.time:
            raise BadDataError(f"{before.path} and {after.path}: two volumes of the same time; keep the right one")
    return headers[-count:]


def _volume_files(path: Path) -> list[Path]:
    """What preparation takes for volumes: visible files whose names end in .nc."""
    if not path.exists():
        raise BadDataError(f"{path}: no such file or folder; expected NetCDF volumes, or a folder of them")
    if not path.is_dir():
        return [path]
    found = sorted(
        file for file in path.iterdir() if file.name.lower().endswith(".nc") and file.name[0] != "." and file.is_file()
    )
    if not found:
        raise BadDataError(f"{path}: holds no .nc files; expected the folder that directly holds the volumes")
    return found


def _check_pace(headers: Sequence[VolumeHeader], cadence: float, tolerance: float) -> None:
    """Refuse a hole, as windows of training have none, and a radar that scans at quite another pace."""
    for before, after in pairwise(headers):
        gap = after.time - before.time
        if gap > cadence * (1 + tolerance):
            raise BadDataError(
                f"{before.path} and {after.path.name}: {gap:.0f} s lie between these two of the newest {len(headers)} "
                f"volumes, but the model was trained on one every {cadence:.0f} s; it needs them without a hole"
            )
    pace = float(np.median(np.diff([header.time for header in headers]))) if len(headers) > 1 else cadence
    if pace * _OTHER_PACE < cadence:
        raise BadDataError(
            f"{headers[0].path} to {headers[-1].path.name}: one volume every {pace:.0f} s, but the model was trained "
            f"on one every {cadence:.0f} s; leave out those between"
        )


def _check_grids(headers: Sequence[VolumeHeader], radar: RadarPreprocessing, artifact: Artifact) -> None:
    """Refuse volumes of different grids, and those whose cells the model has never seen."""
    newest = headers[-1]
    for header in headers:
        if not (header.grid.same_as(newest.grid) and _same_heights(header.levels, newest.levels)):
            raise BadDataError(
                f"{header.path} and {newest.path.name}: their grids differ ({_describe(header)} and "
                f"{_describe(newest)}); forecast the volumes of one radar"
            )
    if not isinstance(radar.levels, str) and max(radar.levels) >= newest.levels.size:
        raise BadDataError(
            f"{newest.path}: has {newest.levels.size} levels, but the model takes level {max(radar.levels)} (from 0)"
        )
    try:
        grid = radar.grid_after(newest)
    except WorkerError as error:
        raise BadDataError(f"{newest.path}: {error}") from error
    if not _same_cells(grid, artifact):
        raise BadDataError(
            f"{newest.path}: its grid of {newest.grid.describe()} comes to {grid.describe()}, but the model was "
            f"trained on {artifact.facts['grid']}; forecast volumes of the radar that it was trained on"
        )


def _same_heights(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and bool(np.allclose(one, other))


def _describe(header: VolumeHeader) -> str:
    return f"{header.levels.size} levels of {header.grid.describe()}"


def _same_cells(grid: Grid, artifact: Artifact) -> bool:
    """Whether the model's frames are as many cells, of the same size on the ground."""
    same_shape = list(grid.shape) == artifact.facts["image_size"]
    return same_shape and same_spacing(grid.spacing_km, artifact.facts["spacing_km"])


def model_forecast(artifact: Artifact, radar: RadarPreprocessing, volumes: Sequence[Volume]) -> np.ndarray:
    """dBZ [steps, levels, h, w] on the model's own grid; NaN where the newest volume has no data there."""
    codes = np.stack([radar.apply_packed(volume) for volume in volumes], axis=1)
    frames, valid = radar.normalise(torch.from_numpy(codes))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build(artifact.state["task"], artifact.config, artifact.facts)
    load_matching(model, artifact.weights, artifact.folder)
    model.to(device).eval()
    with torch.inference_mode():
        levels = [radar.to_dbz(model(level[None].to(device)).float().cpu())[0] for level in frames]
    dbz = torch.stack(levels, dim=1)
    return dbz.masked_fill_(~valid[:, -1], torch.nan).numpy()


def _onto_source_grid(dbz: np.ndarray, radar: RadarPreprocessing, grid: Grid) -> np.ndarray:
    """Model cells to the source's, bilinear between cell centres; NaN outside the crop and where no data are."""
    rows, columns = radar.window(grid)
    lift = _Lift((rows.stop - rows.start, columns.stop - columns.start), dbz.shape[-2:], radar.downsample_method)
    whole = np.full((*dbz.shape[:2], *grid.shape), np.nan, dtype=np.float32)
    for field, target in _fields(dbz, whole):
        target[rows, columns] = lift(field)
    return whole


def _fields(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Views [y, x] of each step and level of arrays [steps, levels, y, x]."""
    for place in np.ndindex(*arrays[0].shape[:2]):
        yield tuple(array[place] for array in arrays)


class _Lift:
    """Bilinear interpolation from model cells to the source's cells, constant beyond the outermost centres."""

    def __init__(self, size: tuple[int, int], model_size: tuple[int, ...], method: str) -> None:
        self.is_idle = size == tuple(model_size)
        if not self.is_idle:
            self.y, self.x = (_weights(*counts, method) for counts in zip(size, model_size, strict=True))

    def __call__(self, field: np.ndarray) -> np.ndarray:
        if self.is_idle:
            return field
        known = np.isfinite(field)
        values = self.y @ np.where(known, field, np.float32(0)) @ self.x.T
        if known.all():
            return values
        share = self.y @ known.astype(np.float32) @ self.x.T  # of the value that comes from cells with data
        return np.where(share >= 0.5, values / np.maximum(share, np.float32(0.5)), np.float32(np.nan))


def _weights(count: int, model_count: int, method: str) -> np.ndarray:
    """float32 [count, model_count]: how much each model cell along an axis gives to each source cell."""
    cells = np.arange(model_count)
    place = np.interp(np.arange(count), positions(count, model_count, method), cells)
    return np.maximum(0, 1 - np.abs(place[:, None] - cells)).astype(np.float32)


def _without_coverage(dbz: np.ndarray, radar: RadarPreprocessing, newest: Volume) -> np.ndarray:
    """NaN also in the source's own cells without data, which may be smaller than the model's."""
    if radar.fill_means == "no_data":
        seen = replace(radar, crop_km=None, downsample_size=None).apply(newest)
        dbz[:, np.isnan(seen)] = np.nan
    return dbz
