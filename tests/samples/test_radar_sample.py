from __future__ import annotations

from pathlib import Path

import netCDF4
import numpy as np
import pytest

from backend.errors import DiskError
from backend.preprocessing.radar import RadarPreprocessing
from backend.preprocessing.radar_netcdf import read_header, read_volume
from training.samples.radar import make_radar_sample


def frames_of(folder: Path) -> list[np.ndarray]:
    """dBZ [T, Z, Y, X] of each event, no echo at -29."""
    clean = RadarPreprocessing()
    return [
        np.stack([clean.apply(read_volume(path)) for path in sorted(event.iterdir())])
        for event in sorted(folder.iterdir())
    ]


def csi(forecast: np.ndarray, truth: np.ndarray, threshold: float) -> float:
    a, b = forecast >= threshold, truth >= threshold
    return float((a & b).sum() / (a | b).sum())


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    make_radar_sample(folder, events=6)
    return folder


def test_files_are_as_the_real_ones(sample):
    path = sorted(sample.rglob("*.nc"))[0]
    with netCDF4.Dataset(path) as dataset:
        dataset.set_auto_maskandscale(False)
        field = dataset["DBZ"]
        assert dataset.data_model == "NETCDF3_CLASSIC"
        assert dataset.Conventions == "CF-1.6"
        assert (field.dtype, field.dimensions) == (np.int8, ("time", "z0", "y0", "x0"))
        assert (field.scale_factor, field.add_offset, field._FillValue) == (0.5, 33.5, -128)
        assert dataset["time"].dtype == np.float64
        assert dataset["time"].units.startswith("seconds since 1970-01-01")
        assert all(dataset[name].dtype == np.float32 and dataset[name].units == "km" for name in ("x0", "y0", "z0"))
        assert field[0].shape == (2, 64, 64)


def test_names_folders_and_cadence(sample):
    events = sorted(sample.iterdir())
    assert len({event.name[:8] for event in events}) == 6
    for event in events:
        paths = sorted(event.iterdir())
        times = np.array([read_header(path).time for path in paths])
        stamps = [np.datetime64(int(time), "s").item().strftime("ncfdata%Y%m%d_%H%M%S.nc") for time in times]
        assert [path.name for path in paths] == stamps
        assert len(paths) == 24
        steps = np.diff(times)
        assert 169 <= steps.min() <= steps.max() <= 240
        assert 178 <= np.median(steps) <= 195


def test_echoes_are_of_convective_weather(sample):
    dbz = np.concatenate(frames_of(sample))
    assert dbz.max() >= 55
    assert np.quantile(dbz[dbz > -29], 0.999) < 62
    assert 0.5 < (dbz == -29).mean() < 0.85
    for threshold, least, most in ((20, 0.08, 0.25), (30, 0.03, 0.15), (40, 0.005, 0.06)):
        assert least < (dbz >= threshold).mean() < most
    assert csi(dbz[:, 1], dbz[:, 0], 20) > 0.5  # levels of one storm resemble each other


def test_persistence_clearly_loses_by_the_later_leads(sample):
    events = frames_of(sample)
    for threshold in (20, 30):
        scores = [csi(*(np.concatenate(x) for x in _pairs(events, lead)), threshold) for lead in (1, 4, 7)]
        assert scores[0] > 0.55
        assert scores[1] < 0.45
        assert scores[2] < 0.28


def test_motion_explains_much_of_what_persistence_misses(sample):
    moved = []
    for event in frames_of(sample):
        steps = range(8, 17, 2)
        shifts = [(dy, dx) for dy in range(-6, 7) for dx in range(-8, 9)]
        best = max(shifts, key=lambda s: np.mean([csi(_shift(event[t], s), event[t + 4], 20) for t in steps]))
        moved.append(
            (
                np.mean([csi(event[t], event[t + 4], 20) for t in steps]),
                np.mean([csi(_shift(event[t], best), event[t + 4], 20) for t in steps]),
            )
        )
    persistence, extrapolation = np.mean(moved, axis=0)
    assert extrapolation > persistence + 0.1


def test_cells_are_born_and_die(tmp_path):
    make_radar_sample(tmp_path, events=2, size=96)
    for event in frames_of(tmp_path):
        area = (event >= 35).sum((1, 2, 3))
        assert area.max() > 1.2 * area.min()


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path):
    arguments = {"events": 2, "frames": 3, "size": 32}
    for name, seed in (("a", 42), ("b", 42), ("c", 43)):
        make_radar_sample(tmp_path / name, seed, **arguments)
    content = [[path.read_bytes() for path in sorted((tmp_path / name).rglob("*.nc"))] for name in "abc"]
    assert content[0] == content[1]
    assert not set(content[0]) & set(content[2])


def test_full_size_volumes(tmp_path):
    make_radar_sample(tmp_path, events=1, frames=1, levels=18, size=500, spacing_km=1.0)
    (path,) = tmp_path.rglob("*.nc")
    volume = read_volume(path)
    assert volume.dbz.shape == (18, 500, 500)
    assert volume.header.levels.tolist() == list(range(1, 19))
    assert volume.header.grid.describe() == "500x500 cells of 1.00x1.00 km"
    assert (volume.header.grid.x[0], volume.header.grid.x[-1]) == (-249.5, 249.5)
    heard = (~np.isnan(volume.dbz)).mean((1, 2))
    assert heard[0] > 2 * heard[10] > 2 * heard[17]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="sample cannot be written"):
        make_radar_sample(tmp_path / "file", events=1, frames=1, size=8)


def _pairs(events: list[np.ndarray], lead: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    return [event[7:-7] for event in events], [event[7 + lead : len(event) - 7 + lead] for event in events]


def _shift(frame: np.ndarray, by: tuple[int, int]) -> np.ndarray:
    return np.roll(frame, by, axis=(-2, -1))
