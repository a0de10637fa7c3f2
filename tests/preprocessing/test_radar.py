from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.errors import BadDataError, ConfigError
from backend.preprocessing.grid import Grid
from backend.preprocessing.radar import RadarPreprocessing
from backend.preprocessing.radar_netcdf import Volume, VolumeHeader, read_volume

REAL = os.environ.get("REAL_DATA")


def make_volume(dbz: np.ndarray, spacing: float = 1.0, units: str = "km") -> Volume:
    ny, nx = dbz.shape[1:]
    grid = Grid.from_axes(np.arange(ny) * spacing, np.arange(nx) * spacing, units)
    return Volume(VolumeHeader(Path("made.nc"), 0.0, np.arange(len(dbz)), grid), dbz.astype(np.float32))


@pytest.fixture
def volume(write, codes) -> Volume:
    return read_volume(write(codes))


# --- no echo, no data, levels ------------------------------------------------------------------------------------


def test_no_echo_becomes_the_lowest_before_any_mean():
    dbz = np.array([[[10.0, np.nan], [np.nan, np.nan]]])
    settings = {"downsample_size": (1, 1)}
    assert RadarPreprocessing(**settings).apply(make_volume(dbz)) == pytest.approx((10 - 29 * 3) / 4)
    half = np.array([[[10.0, 20.0], [np.nan, np.nan]]])
    masked = RadarPreprocessing(fill_means="no_data", **settings)
    assert masked.apply(make_volume(half)) == pytest.approx(15.0)
    assert np.isnan(masked.apply(make_volume(dbz))).all()


def test_values_are_clipped_before_the_mean():
    dbz = np.array([[[100.0, -60.0], [-np.inf, 65.0]]])
    assert RadarPreprocessing(downsample_size=(1, 1)).apply(make_volume(dbz)) == pytest.approx((65 - 29 - 29 + 65) / 4)


def test_maximum_over_levels_ignores_gaps():
    dbz = np.array([[[np.nan, 5.0, np.nan]], [[7.0, 3.0, np.nan]]])
    np.testing.assert_array_equal(
        RadarPreprocessing(levels="max", fill_means="no_data").apply(make_volume(dbz)), [[[7.0, 5.0, np.nan]]]
    )
    np.testing.assert_array_equal(RadarPreprocessing(levels="max").apply(make_volume(dbz)), [[[7.0, 5.0, -29.0]]])


def test_a_list_of_levels(volume):
    everything = RadarPreprocessing().apply(volume)
    assert everything.shape == (3, 20, 24)
    np.testing.assert_array_equal(RadarPreprocessing(levels=(2, 0)).apply(volume), everything[[2, 0]])
    with pytest.raises(ConfigError, match=r"level 3.*levels 0 to 2"):
        RadarPreprocessing(levels=(0, 3)).apply(volume)


def test_all_fill_is_a_clear_sky_or_an_error():
    empty = make_volume(np.full((1, 2, 2), np.nan))
    np.testing.assert_array_equal(RadarPreprocessing().apply(empty), np.full((1, 2, 2), -29.0))
    with pytest.raises(BadDataError, match=r"made\.nc"):
        RadarPreprocessing(fill_means="no_data").apply(empty)


def test_the_volume_itself_is_left_alone(volume):
    before, floats = volume.stored.copy(), make_volume(np.full((1, 4, 4), 99.0))
    RadarPreprocessing(fill_means="no_data").apply(volume)
    RadarPreprocessing(levels="max").apply(floats)[:] = 0
    np.testing.assert_array_equal(volume.stored, before)
    assert (floats.dbz == 99.0).all()


# --- the table's path and the float path -------------------------------------------------------------------------


@pytest.mark.parametrize("fill_means", ["no_echo", "no_data"])
@pytest.mark.parametrize("levels", ["all", "max", (1,)])
@pytest.mark.parametrize("method", ["area", "area_linear_z", "linear", "maximum"])
@pytest.mark.parametrize(("size", "crop"), [(None, (18, 20)), ((10, 12), None), ((7, 11), (18, 20))])
def test_stored_bytes_and_floats_give_the_same(volume, fill_means, levels, method, size, crop):
    preprocessing = RadarPreprocessing(
        fill_means=fill_means, levels=levels, downsample_method=method, downsample_size=size, crop_km=crop
    )
    assert volume.table is not None
    floats = Volume(volume.header, volume.dbz)
    np.testing.assert_array_equal(preprocessing.apply(volume), preprocessing.apply(floats))
    np.testing.assert_array_equal(preprocessing.apply_packed(volume), preprocessing.apply_packed(floats))


# --- crop, size, grid --------------------------------------------------------------------------------------------


def test_crop_in_km_is_centred():
    ramp = np.arange(80.0).reshape(1, 8, 10) - 20
    applied = RadarPreprocessing(crop_km=(8, 12)).apply(make_volume(ramp, spacing=2.0))
    np.testing.assert_array_equal(applied, ramp[:, 2:6, 2:8])


def test_crop_errors(volume):
    with pytest.raises(BadDataError, match=r"30x20 km.*20x24 cells of 1\.00x1\.00 km"):
        RadarPreprocessing(crop_km=(30, 20)).apply(volume)
    with pytest.raises(ConfigError, match="less than one"):
        RadarPreprocessing(crop_km=(0.1, 20)).apply(volume)
    with pytest.raises(BadDataError, match="'pixels'"):
        RadarPreprocessing(crop_km=(10, 20)).apply(make_volume(np.zeros((1, 20, 24)), units="pixels"))


def test_larger_than_the_source_is_refused_with_both_sizes(volume):
    for preprocessing in (RadarPreprocessing(downsample_size=(21, 24)), RadarPreprocessing(downsample_size=(20, 25))):
        for use in (preprocessing.apply, lambda v, p=preprocessing: p.grid_after(v.header)):
            with pytest.raises(ConfigError, match=r"2\dx2\d, larger than the source of 20x24"):
                use(volume)


@pytest.mark.parametrize("method", ["area", "linear", "maximum"])
@pytest.mark.parametrize("size", [None, (10, 12), (6, 7), (1, 1)])
def test_the_grid_after_lies_where_the_values_do(method, size):
    y, x = np.mgrid[0:20, 0:24].astype(float)
    preprocessing = RadarPreprocessing(crop_km=(18, 20), downsample_size=size, downsample_method=method)
    grid = preprocessing.grid_after(make_volume(np.stack([y, x])).header)
    rows, columns = preprocessing.apply(make_volume(np.stack([y, x])))
    assert rows.shape == grid.shape == (size or (18, 20))
    assert grid.y.shape + grid.x.shape == grid.shape
    if method != "maximum":  # the mean of cells cut by an edge is not quite the value at the centre
        tolerance = 0.1 if method == "area" and size else 1e-4
        np.testing.assert_allclose(rows[:, 0], grid.y, atol=tolerance)
        np.testing.assert_allclose(columns[0], grid.x, atol=tolerance)
    if grid.shape[0] > 1:
        assert grid.spacing_km == pytest.approx((np.diff(grid.y)[0], np.diff(grid.x)[0]))


def test_the_grid_after_is_described():
    header = make_volume(np.zeros((1, 500, 500))).header
    assert (
        RadarPreprocessing(downsample_size=(250, 250)).grid_after(header).describe() == "250x250 cells of 2.00x2.00 km"
    )
    assert RadarPreprocessing().grid_after(header).same_as(header.grid)


# --- packing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "dtype", "stated"), [(8, np.uint8, 0.1851), (16, np.int16, 0.00072)])
def test_packing_keeps_its_stated_error(bits, dtype, stated):
    preprocessing = RadarPreprocessing(bits=bits)
    assert preprocessing.packing_error_dbz == pytest.approx(stated, rel=0.01)
    dbz = np.append(np.linspace(-29, 65, 100_001), np.nan).astype(np.float32)
    packed = preprocessing.pack(dbz)
    assert packed.dtype == dtype
    unpacked = preprocessing.unpack(packed)
    assert np.abs(unpacked - dbz)[:-1].max() <= preprocessing.packing_error_dbz + 1e-5
    assert np.abs(unpacked - dbz)[:-1].max() >= 0.9 * preprocessing.packing_error_dbz
    assert np.isnan(unpacked[-1])
    assert (unpacked[0], unpacked[-2]) == (-29.0, 65.0)
    np.testing.assert_array_equal(preprocessing.pack(unpacked), packed)


def test_the_codes_are_the_documented_ones():
    dbz = np.array([-29.0, 65.0, np.nan], np.float32)
    np.testing.assert_array_equal(RadarPreprocessing().pack(dbz), [0, 254, 255])
    np.testing.assert_array_equal(RadarPreprocessing(bits=16).pack(dbz), [-32767, 32767, -32768])


@pytest.mark.parametrize("bits", [8, 16])
def test_normalise_and_back(bits):
    preprocessing = RadarPreprocessing(bits=bits, min_dbz=-10, max_dbz=60)
    dbz = np.array([-10.0, 25.0, 60.0, np.nan], np.float32)
    normalised, valid = preprocessing.normalise(torch.from_numpy(preprocessing.pack(dbz)))
    assert normalised.dtype == torch.float32
    assert valid.tolist() == [True, True, True, False]
    assert normalised.tolist() == pytest.approx([0.0, 0.5, 1.0, 0.0], abs=1e-3)
    expected = preprocessing.unpack(preprocessing.pack(dbz))[:3]
    np.testing.assert_allclose(preprocessing.to_dbz(normalised)[:3].numpy(), expected, atol=1e-4)


# --- as data -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "preprocessing",
    [
        RadarPreprocessing(),
        RadarPreprocessing("Z", "no_data", (0, 2), (400.0, 300.0), (250, 240), "maximum", -10.0, 70.0, 16),
    ],
)
def test_goes_through_json_unchanged(preprocessing):
    assert RadarPreprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing


def test_a_record_with_other_keys_is_refused():
    record = RadarPreprocessing().to_dict()
    del record["bits"]
    with pytest.raises(BadDataError, match="lacks bits, has the unknown colour"):
        RadarPreprocessing.from_dict({**record, "colour": 1})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"fill_means": "nothing"}, "no_echo, no_data"),
        ({"downsample_method": "cubic"}, "area_linear_z"),
        ({"bits": 12}, "8, 16"),
        ({"min_dbz": 65.0}, "less than max_dbz"),
        ({"levels": "top"}, "all, max"),
        ({"levels": ()}, "level indices"),
        ({"levels": (0, -1)}, "level indices"),
        ({"crop_km": (10.0, 0.0)}, "two positive numbers"),
        ({"downsample_size": (250,)}, "two positive numbers"),
    ],
)
def test_impossible_settings(settings, words):
    with pytest.raises(ConfigError, match=words) as error:
        RadarPreprocessing(**settings)
    assert next(iter(settings)) in str(error.value)


# --- real files --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(REAL is None, reason="REAL_DATA names no folder")
@pytest.mark.parametrize("kind", ["mdvlike", "native"])
def test_real_files_go_through(kind):
    for event in sorted((Path(str(REAL)) / "radar" / kind).iterdir()):
        volume = read_volume(sorted(event.iterdir())[30])
        for fill_means in ("no_echo", "no_data"):
            preprocessing = RadarPreprocessing(fill_means=fill_means, crop_km=(500, 500), downsample_size=(250, 250))
            dbz, packed = preprocessing.apply(volume), preprocessing.apply_packed(volume)
            assert dbz.shape == (1, 250, 250)
            assert np.nanmin(dbz) >= -29
            assert 20 < np.nanmax(dbz) <= 65
            assert bool(np.isnan(dbz).any()) == (fill_means == "no_data" and bool(np.isnan(volume.dbz).any()))
            assert np.nanmax(np.abs(preprocessing.unpack(packed) - dbz)) <= preprocessing.packing_error_dbz + 1e-5
