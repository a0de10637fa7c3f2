"""Forecasts from radar volumes: what evaluation computes, on the source's grid, from the newest volumes alone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import torch
import xarray as xr

from backend.artifact import Artifact
from backend.errors import BadDataError, DiskError
from backend.forecast_netcdf import write_forecast
from backend.nowcast import model_forecast, newest_volumes, nowcast, write_nowcast
from backend.preprocessing.grid import Grid
from backend.preprocessing.radar import RadarPreprocessing
from backend.preprocessing.radar_netcdf import read_header, read_volume
from backend.preprocessing.resampling import METHODS, positions
from tests.data.conftest import CADENCE, START, write_event, write_volume
from tests.data.world import World
from training.config import load_config
from training.tasks.convlstm import ConvLSTMTask
from training.tasks.protocol import Prepared

SETTINGS = (
    "data.input_steps=3",
    "data.prediction_steps=2",
    "data.stride=2",
    "model.hidden_dims=[4]",
    "loss.ssim_weight=0",
)
FULL_GRID = "data.downsample_size=null"
COARSE = "data.downsample_size=[6, 5]"


@dataclass
class Made:
    """An untrained model of a dataset, as a checkpoint would hold it, and what it was made with."""

    artifact: Artifact
    task: ConvLSTMTask
    prepared: Prepared
    model: torch.nn.Module

    @property
    def radar(self) -> RadarPreprocessing:
        return RadarPreprocessing.from_dict(self.artifact.preprocessing["radar"])


Make = Callable[..., Made]


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """Three events of 12 frames [2, 12, 10], a day apart."""
    for day in range(3):
        write_event(tmp_path / "radar", f"day{day}", START + day * 86400, 12)
    return tmp_path / "radar"


@pytest.fixture
def make(events: Path, tmp_path: Path) -> Make:
    """``make("key=value", …)``: a model for the three events of `events`; its output spreads over the whole range."""

    def made(*sets: str, root: Path = events) -> Made:
        task = ConvLSTMTask(load_config("convlstm", sets=[*SETTINGS, *sets]).config)
        prepared = task.prepare(World(root, tmp_path / "cache").context)
        torch.manual_seed(0)
        model = task.build_model(prepared.facts).eval()
        with torch.no_grad():
            model.output_conv.weight.mul_(40)
        state = {
            "task": "convlstm",
            "run_id": "made",
            "dataset": {"is_sample": False},
            "config": task.config.model_dump(mode="json"),
            "preprocessing": json.loads(json.dumps(prepared.preprocessing)),
            "facts": json.loads(json.dumps(prepared.facts)),
        }
        return Made(Artifact(Path("step-00000007"), state, model.state_dict()), task, prepared, model)

    return made


def frames_of(event: Path) -> list[Path]:
    """An event's files, oldest first."""
    return sorted(event.glob("*.nc"), key=lambda path: read_header(path).time)


def rewritten(path: Path, change: Callable[[xr.Dataset], xr.Dataset], to: Path | None = None) -> Path:
    """A volume file with its stored content changed."""
    with xr.open_dataset(path, decode_cf=False) as file:
        content = change(file.load())
    target = to or path
    target.parent.mkdir(parents=True, exist_ok=True)
    content.to_netcdf(target, format="NETCDF3_CLASSIC")
    return target


def refused(made: Made, *inputs: Path) -> str:
    with pytest.raises(BadDataError) as caught:
        nowcast(made.artifact, inputs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- the same as in training ------------------------------------------------------------------------------------------


class Kept:
    """Stands for scores and keeps what evaluation shows them."""

    def update(self, prediction: torch.Tensor, *others: Any) -> None:
        self.prediction = prediction


@pytest.mark.parametrize(
    "sets", [(COARSE,), (FULL_GRID, "data.levels=max"), (COARSE, "data.fill_means=no_data", "data.pack_bits=16")]
)
def test_the_forecast_is_what_evaluation_computes(make: Make, events: Path, sets: tuple[str, ...]) -> None:
    for number, file in enumerate(sorted(events.rglob("*.nc"))):
        codes = np.random.default_rng(number).integers(-128, 60, (2, 12, 10)).astype(np.int8)
        codes[:, :, :4] = -128
        write_volume(file, read_header(file).time, codes)
    made, seen = make(*sets), Kept()
    window = made.prepared.splits["test"].item(0, None)
    with torch.no_grad():
        made.task.score(made.task.outputs(made.model, window), window, seen)
    start = made.prepared.members["test"][0].name.split("/")
    files = frames_of(events / "sample" / start[0])
    first = next(i for i, file in enumerate(files) if np.datetime64(start[1].rstrip("Z")) == _moment(file))
    volumes = [read_volume(file) for file in files[first : first + 3]]
    dbz = model_forecast(made.artifact, made.radar, volumes)
    expected = made.radar.to_dbz(seen.prediction).permute(1, 0, 2, 3).numpy()
    known = np.isfinite(dbz)
    assert known.all() == (made.radar.fill_means == "no_echo")
    assert np.ptp(dbz[known]) > 1
    assert np.abs(dbz - expected)[known].max() / 94 <= 1e-6


def _moment(file: Path) -> np.datetime64:
    return np.datetime64(int(read_header(file).time), "s")


# --- the grid ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sets", "levels"),
    [((COARSE,), [1.0, 2.0]), ((FULL_GRID, "data.levels=[1]"), [2.0]), ((FULL_GRID, "data.levels=max"), [1.5])],
)
def test_each_step_is_a_volume_of_the_source_s_kind(
    make: Make, events: Path, tmp_path: Path, sets: tuple[str, ...], levels: list[float]
) -> None:
    made = make(*sets)
    path = write_nowcast(made.artifact, [events / "sample" / "day1"], tmp_path)
    forecast = nowcast(made.artifact, [events / "sample" / "day1"])
    assert forecast.dbz.shape == (2, len(levels), 12, 10)
    for step in range(2):
        one = rewritten(path, lambda content, step=step: content.isel(time=[step]), tmp_path / f"{step}.nc")
        volume = read_volume(one)
        assert volume.header.time == forecast.newest.time + CADENCE * (step + 1)
        assert volume.header.grid.same_as(forecast.newest.grid)
        assert volume.header.levels.tolist() == levels
        assert np.abs(volume.dbz - forecast.dbz[step]).max() <= 0.0051


def test_a_maximum_says_what_it_was_taken_over(make: Make, events: Path, tmp_path: Path) -> None:
    path = write_nowcast(make(FULL_GRID, "data.levels=max").artifact, [events / "sample" / "day1"], tmp_path)
    with xr.open_dataset(path) as forecast:
        assert forecast["DBZ"].attrs["cell_methods"] == "z0: maximum"
        assert forecast[forecast["z0"].attrs["bounds"]].values.tolist() == [[1.0, 2.0]]


def test_a_forecast_says_whose_data_it_is_and_what_made_it(make: Make, events: Path, tmp_path: Path) -> None:
    made = make(COARSE)
    owners = {"institution": "Somewhere Met", "license": "CC BY 4.0", "history": "not ours"}
    files = [
        rewritten(file, lambda content: content.assign_attrs(owners), tmp_path / "owned" / file.name)
        for file in frames_of(events / "sample/day1")
    ]
    with xr.open_dataset(write_nowcast(made.artifact, [files[0].parent], tmp_path / "out")) as forecast:
        assert (forecast.attrs["institution"], forecast.attrs["license"]) == ("Somewhere Met", "CC BY 4.0")
        assert forecast.attrs["history"] != "not ours"
        assert forecast.attrs["model_grid"] == made.artifact.facts["grid"]
        assert forecast["DBZ"].attrs["comment"] == "-29 dBZ, the lowest value, stands for no echo"


def flipped(content: xr.Dataset) -> xr.Dataset:
    return content.isel(y0=slice(None, None, -1))


def test_descending_rows_stay_descending(make: Make, events: Path, tmp_path: Path) -> None:
    made = make(COARSE)
    turned = [rewritten(file, flipped, tmp_path / "turned" / file.name) for file in frames_of(events / "sample/day1")]
    straight = write_nowcast(made.artifact, [events / "sample" / "day1"], tmp_path / "a")
    descending = write_nowcast(made.artifact, [turned[0].parent], tmp_path / "b")
    with xr.open_dataset(straight) as a, xr.open_dataset(descending) as b:
        assert (np.diff(b["y0"]) < 0).all()
        assert np.ptp(a["DBZ"].values.mean(-1)) > 1  # there is something that could stand upside down
        xr.testing.assert_identical(a["DBZ"], flipped(b)["DBZ"])


def test_projection_and_names_are_the_source_s(make: Make, events: Path, tmp_path: Path) -> None:
    def in_metres(content: xr.Dataset) -> xr.Dataset:
        content = content.rename(z0="z", y0="y", x0="x", DBZ="reflectivity")
        metres = {name: (name, content[name].values * 1000, {"units": "m"}) for name in "yx"}
        latitude = xr.DataArray(np.full((12, 10), -34.5), dims=("y", "x"), attrs={"units": "degrees_north"})
        mapping = xr.DataArray(np.int32(0), attrs={"grid_mapping_name": "azimuthal_equidistant"})
        content = content.assign(metres | {"lat": latitude, "crs": mapping})
        content["reflectivity"].attrs |= {"grid_mapping": "crs", "coordinates": "lat"}
        return content

    for file in events.rglob("*.nc"):
        rewritten(file, in_metres)
    made = make(COARSE, "data.variable=reflectivity")
    path = write_nowcast(made.artifact, [events / "sample" / "day2"], tmp_path)
    with xr.open_dataset(path, decode_cf=False) as forecast:
        field = forecast["reflectivity"]
        assert field.dims == ("time", "z", "y", "x")
        assert forecast["y"].attrs["units"] == "m"
        assert forecast["y"].values.tolist() == [500.0 + 1000 * i for i in range(12)]
        assert forecast[field.attrs["grid_mapping"]].attrs["grid_mapping_name"] == "azimuthal_equidistant"
        assert set(field.attrs["coordinates"].split()) == {"forecast_reference_time", "lead_time", "lat"}
        assert forecast["lat"].shape == (12, 10)


def test_what_the_crop_leaves_out_is_no_data(events: Path, make: Make) -> None:
    for i in range(6):
        write_volume(events / "sample" / "narrow" / f"{i}.nc", START + 5 * 86400 + i * CADENCE, shape=(2, 12, 6))
    made = make(FULL_GRID, "data.grid=crop")
    assert made.radar.crop_km == (12.0, 6.0)
    forecast = nowcast(made.artifact, [events / "sample" / "day0"])
    inside = np.zeros((12, 10), bool)
    inside[:, 2:8] = True
    assert (np.isfinite(forecast.dbz) == inside).all()
    volumes = [read_volume(path) for path in frames_of(events / "sample" / "day0")[-3:]]
    assert np.array_equal(forecast.dbz[..., 2:8], model_forecast(made.artifact, made.radar, volumes))


@pytest.mark.parametrize("size", [FULL_GRID, COARSE])
def test_no_data_stays_no_data(make: Make, events: Path, tmp_path: Path, size: str) -> None:
    made = make(size, "data.fill_means=no_data")
    codes = np.random.default_rng(1).integers(-100, 60, (2, 12, 10)).astype(np.int8)
    codes[0, :, :4] = codes[1, 5, 5] = -128
    newest = read_header(frames_of(events / "sample" / "day1")[-1])
    write_volume(newest.path, newest.time, codes)
    path = write_nowcast(made.artifact, [events / "sample" / "day1"], tmp_path)
    with xr.open_dataset(path) as forecast:
        assert (np.isnan(forecast["DBZ"].values) == (codes == -128)).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [7, 12])
def test_a_ramp_comes_back_as_a_ramp(make: Make, method: str, count: int) -> None:
    from backend.nowcast import _onto_source_grid

    radar = RadarPreprocessing(downsample_size=(count, count), downsample_method=method)
    axis = np.arange(30.0)
    grid = Grid.from_axes(axis, axis, "km")
    centres = positions(30, count, method).astype(np.float32)
    lifted = _onto_source_grid((centres[:, None] + 100 * centres)[None, None], radar, grid)[0, 0]
    expected = np.clip(axis, centres[0], centres[-1])
    assert np.allclose(lifted, expected[:, None] + 100 * expected, atol=1e-3)


def test_cells_with_little_data_around_them_have_none() -> None:
    from backend.nowcast import _onto_source_grid

    field = np.array([[1.0, np.nan]], np.float32)
    grid = Grid.from_axes(np.arange(2.0), np.arange(8.0), "km")
    lifted = _onto_source_grid(field[None, None], RadarPreprocessing(downsample_size=(1, 2)), grid)[0, 0]
    assert np.isfinite(lifted).tolist() == [[True] * 4 + [False] * 4] * 2
    assert (lifted[:, :4] == 1.0).all()


# --- which volumes ----------------------------------------------------------------------------------------------------


def test_the_newest_by_time_and_nothing_else(make: Make, events: Path, tmp_path: Path) -> None:
    made = make(COARSE)
    event = events / "sample" / "day0"
    newest = frames_of(event)[-3:]
    (event / ".unfinished.nc").write_bytes(b"half a file")
    (event / "notes.txt").write_text("not a volume")
    assert [file.name for file in newest] == ["990.nc", "989.nc", "988.nc"]  # names run against the times
    headers = newest_volumes([event], "DBZ", 3)
    assert [header.path.name for header in headers] == [file.name for file in newest]
    whole, alone = nowcast(made.artifact, [event]), nowcast(made.artifact, [*reversed(newest), newest[0]])
    assert np.array_equal(whole.dbz, alone.dbz)
    shutil.move(newest[0], tmp_path / "elsewhere.NC")
    assert np.array_equal(nowcast(made.artifact, [event, tmp_path / "elsewhere.NC"]).dbz, whole.dbz)


def test_too_few(make: Make, events: Path) -> None:
    made, files = make(COARSE), frames_of(events / "sample" / "day0")
    assert "holds 2 volumes, the model needs 3" in refused(made, *files[:2])


def test_a_hole(make: Make, events: Path) -> None:
    made, files = make(COARSE), frames_of(events / "sample" / "day0")
    files[-2].unlink()
    line = refused(made, events / "sample" / "day0")
    assert files[-3].name in line
    assert files[-1].name in line
    assert "360 s lie between" in line


def test_the_run_s_own_tolerance_decides_what_a_hole_is(make: Make, events: Path) -> None:
    made, files = make(COARSE, "data.gap_tolerance=1.5"), frames_of(events / "sample" / "day0")
    files[-2].unlink()
    nowcast(made.artifact, [events / "sample" / "day0"])


def test_another_pace(make: Make, tmp_path: Path) -> None:
    event = write_event(tmp_path / "fast", "day", START, 3, cadence=60)
    assert "one volume every 60 s, but the model was trained on one every 180 s" in refused(make(COARSE), event)


@pytest.mark.parametrize("place", [-1, -4])
def test_two_of_one_time(make: Make, events: Path, place: int) -> None:
    made, twin = make(COARSE), frames_of(events / "sample" / "day0")[place]
    shutil.copy(twin, twin.with_name("twin.nc"))
    if place == -4:  # too old to matter
        nowcast(made.artifact, [events / "sample" / "day0"])
        return
    line = refused(made, events / "sample" / "day0")
    assert "twin.nc" in line
    assert twin.name in line


def test_a_twin_of_the_oldest_one_needed(make: Make, events: Path) -> None:
    made, twin = make(COARSE), frames_of(events / "sample" / "day0")[-3]
    shutil.copy(twin, twin.with_name("twin.nc"))
    assert "twin.nc" in refused(made, events / "sample" / "day0")


def test_grids_that_differ_among_the_newest(make: Make, events: Path) -> None:
    made, last = make(COARSE), frames_of(events / "sample" / "day0")[-2]
    write_volume(last, read_header(last).time, shape=(2, 12, 11))
    line = refused(made, events / "sample" / "day0")
    assert last.name in line
    assert "12x11 cells" in line


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ({"spacing": 2.0}, "12x10 cells of 2.00x2.00 km"),  # comes to as many cells, of another size
        ({"shape": (2, 24, 20)}, "24x20 cells of 1.00x1.00 km"),
        ({"shape": (2, 4, 10)}, "larger than the source"),
        ({"shape": (1, 12, 10)}, "has 1 levels"),
    ],
)
def test_a_grid_that_the_model_does_not_know(make: Make, tmp_path: Path, kind: dict[str, Any], words: str) -> None:
    event = write_event(tmp_path / "other", "day", START, 3, **kind)
    assert words in (line := refused(make(COARSE, "data.levels=[1]"), event))
    assert "997.nc" in line


def test_a_finer_source_of_the_same_cells_is_welcome(make: Make, tmp_path: Path) -> None:
    event = write_event(tmp_path / "fine", "day", START, 3, shape=(2, 24, 20), spacing=0.5)
    assert nowcast(make(COARSE).artifact, [event]).dbz.shape == (2, 2, 24, 20)


def test_a_damaged_volume_is_named(make: Make, events: Path) -> None:
    made, last = make(COARSE), frames_of(events / "sample" / "day0")[-1]
    last.write_bytes(last.read_bytes()[:-100])
    assert last.name in refused(made, events / "sample" / "day0")


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("NetCDF: HDF error")])
def test_a_full_disk_leaves_the_old_forecast_and_nothing_else(
    make: Make, events: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    forecast = nowcast(make(COARSE).artifact, [events / "sample" / "day0"])
    target = tmp_path / "out" / "forecast.nc"
    target.parent.mkdir()
    target.write_text("old")

    def fail(self: xr.Dataset, path: Path, **_: Any) -> None:
        path.write_text("half")
        raise error

    monkeypatch.setattr(xr.Dataset, "to_netcdf", fail)
    with pytest.raises(DiskError, match="--out"):
        write_forecast(target, forecast)
    assert [path.read_text() for path in target.parent.iterdir()] == ["old"]


@pytest.mark.skipif(not os.environ.get("REAL_DATA"), reason="REAL_DATA is not set")
@pytest.mark.parametrize("kind", ["mdvlike", "native"])
def test_real_volumes_are_forecast_on_their_own_grid(kind: str, make: Make, tmp_path: Path) -> None:
    event = min(Path(os.environ["REAL_DATA"], "radar", kind).iterdir())
    (tmp_path / "few" / "event").mkdir(parents=True)
    for file in frames_of(event)[:21]:
        shutil.copy(file, tmp_path / "few" / "event")
    sets = ("data.downsample_size=[50, 50]", "data.fill_means=no_data", "data.split.method=cut")
    made = make(*sets, root=tmp_path / "few")
    path = write_nowcast(made.artifact, [tmp_path / "few" / "event"], tmp_path / "out")
    newest = read_volume(max(frames_of(tmp_path / "few" / "event"), key=lambda file: read_header(file).time))
    with netCDF4.Dataset(newest.header.path) as source, xr.open_dataset(path, decode_cf=False) as forecast:
        for name in source["DBZ"].dimensions[1:]:
            assert np.array_equal(forecast[name].values, source[name][:])
    with xr.open_dataset(path) as forecast:
        unseen = np.isnan(newest.header.grid.ascending(newest.dbz))
        assert np.isnan(forecast["DBZ"].values[:, unseen]).all()
        assert np.isfinite(forecast["DBZ"].values[:, ~unseen]).mean() > 0.9
