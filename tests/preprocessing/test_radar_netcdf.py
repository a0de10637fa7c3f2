from __future__ import annotations

import os
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray

from backend.errors import BadDataError, DiskError
from backend.preprocessing.radar_netcdf import read_header, read_volume
from tests.preprocessing.conftest import PACKED

FLOATS = np.array([[[[10.0, 20.0, np.nan], [-32.0, 45.5, 0.0]]]], np.float32)
REAL = os.environ.get("REAL_DATA")


def one_line(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# --- what is read ------------------------------------------------------------------------------------------------


def test_packed_bytes_are_unpacked_and_filled_once(write, codes):
    volume = read_volume(write(codes))
    expected = np.where(codes[0] == -128, np.nan, codes[0] * 0.5 + 33.5)
    assert volume.dbz.dtype == np.float32
    np.testing.assert_array_equal(volume.dbz, expected.astype(np.float32))
    assert not np.ma.isMaskedArray(volume.dbz)


@pytest.mark.parametrize("form", ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF4", "NETCDF4_CLASSIC"])
def test_every_form_agrees_with_an_independent_reader(write, codes, form):
    path = write(codes, form=form)
    with xarray.open_dataset(path) as theirs:
        np.testing.assert_array_equal(read_volume(path).dbz, theirs["DBZ"].values[0].astype(np.float32))


def test_floats_with_nan(write):
    volume = read_volume(write(FLOATS, form="NETCDF4", attributes={"_FillValue": np.float32(np.nan)}))
    np.testing.assert_array_equal(volume.dbz, FLOATS[0])


def test_scaling_of_each_file_is_its_own(write):
    stored = np.array([[[[-100, 0, 77]]]], np.int8)
    for scale, offset in ((0.4187058, 11.50081), (0.25, -8.0)):
        path = write(stored, attributes={"scale_factor": scale, "add_offset": offset, "_FillValue": np.int8(-128)})
        expected = (stored[0] * scale + offset).astype(np.float32)
        np.testing.assert_allclose(read_volume(path).dbz, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("attributes", "missing"),
    [
        ({"_FillValue": np.int16(-999)}, [-999]),
        ({"missing_value": np.array([-999, 300], np.int16)}, [-999, 300]),
        ({"_FillValue": np.int16(-999), "missing_value": np.int16(300)}, [-999, 300]),
        ({"_FillValue": np.int16(-999), "valid_min": np.int16(-100), "valid_max": np.int16(100)}, [-999, -200, 300]),
        ({"_FillValue": np.int16(-999), "valid_range": np.array([-200, 100], np.int16)}, [-999, 300]),
        ({"_FillValue": np.int16(-999), "valid_range": np.array([-15.0, 20.0])}, [-999, -200, 300]),  # unpacked units
    ],
)
def test_missing_values_and_valid_range(write, attributes, missing):
    stored = np.array([[[[-999, -200, -100], [0, 20, 300]]]], np.int16)
    volume = read_volume(write(stored, attributes={**attributes, "scale_factor": 0.1, "add_offset": 0.0}))
    np.testing.assert_array_equal(np.isnan(volume.dbz), np.isin(stored[0], missing))


def test_the_library_s_own_fill_is_missing(write):
    floats = FLOATS.copy()
    floats[0, 0, 0, 0] = netCDF4.default_fillvals["f4"]
    assert np.isnan(read_volume(write(floats, attributes={})).dbz[0, 0, 0])


def test_unsigned_bytes(write):
    stored = np.array([[[[0, 100, -56, -1]]]], np.int8)  # 0, 100, 200, 255 unsigned
    attributes = {"_Unsigned": "true", "scale_factor": 0.5, "add_offset": -30.0, "_FillValue": np.int8(-1)}
    np.testing.assert_array_equal(read_volume(write(stored, attributes=attributes)).dbz[0, 0], [-30, 20, 70, np.nan])


@pytest.mark.parametrize("dims", [("time", "z", "y", "x"), ("time", "altitude", "latitude", "longitude")])
def test_dimensions_by_name(write, codes, dims):
    units = {"y": "km", "x": "km", "latitude": "degrees_north", "longitude": "degrees_east"}
    path = write(codes, dims=dims, axis_attributes={name: {"units": unit} for name, unit in units.items()})
    assert read_volume(path).dbz.shape == (3, 20, 24)


def test_dimensions_by_attributes_in_any_order(write, codes):
    attributes = {
        "b": {"axis": "X", "units": "km"},
        "a": {"standard_name": "projection_y_coordinate", "units": "km"},
        "h": {"standard_name": "altitude", "units": "m"},
    }
    turned = codes.transpose(3, 0, 1, 2)  # b, time, h, a
    path = write(turned, dims=("b", "time", "h", "a"), axis_attributes=attributes)
    np.testing.assert_array_equal(read_volume(path).dbz, read_volume(write(codes, name="plain.nc")).dbz)
    np.testing.assert_allclose(read_header(path).levels, np.array([-1.0, 0.0, 1.0]) / 1000)


def test_a_field_without_height_or_time_dimension_is_one_level(write, codes):
    path = write(codes[0, 0], dims=("y0", "x0"))
    assert read_volume(path).dbz.shape == (1, 20, 24)
    assert read_header(path).time == 1_200_000_000.0
    np.testing.assert_array_equal(read_header(path).levels, [0.0])


def test_descending_rows_are_turned_with_their_coordinates(write, codes):
    path = write(codes[:, :, ::-1], axes={"y0": np.arange(20)[::-1] - 9.5})
    volume, plain = read_volume(path), read_volume(write(codes, name="plain.nc"))
    np.testing.assert_array_equal(volume.dbz, plain.dbz)
    assert volume.header.grid.same_as(plain.header.grid)
    assert volume.header.grid.reversed_axes == (True, False)
    np.testing.assert_array_equal(volume.header.grid.ascending(volume.dbz), plain.dbz[:, ::-1])


@pytest.mark.parametrize(
    ("value", "attributes", "expected"),
    [
        (0.5, {"units": "days since 1970-01-01"}, 43200.0),
        (60.0, {"units": "minutes since 2001-01-01 00:00:00 +02:00"}, 978303600.0),
        (10, {"units": "hours since 1970-01-01", "calendar": "proleptic_gregorian"}, 36000.0),
    ],
)
def test_time_by_its_units(write, codes, value, attributes, expected):
    assert read_header(write(codes, time=value, time_attributes=attributes)).time == expected


def test_time_found_by_standard_name(write, codes):
    path = write(codes, time=None)
    with netCDF4.Dataset(path, "a") as dataset:
        clock = dataset.createVariable("valid", "f8", ())
        clock.setncatts({"standard_name": "time", "units": "seconds since 1970-01-01"})
        clock[...] = 5.0
    assert read_header(path).time == 5.0


def test_content_read_elsewhere(write, codes):
    path = write(codes)
    content = path.read_bytes()
    path.unlink()
    assert read_volume(path, content=content).dbz.shape == (3, 20, 24)


def test_an_all_fill_volume_is_legal_and_known(write, codes):
    sky, cloud = read_volume(write(np.full_like(codes, -128))), read_volume(write(codes, name="cloud.nc"))
    assert sky.is_all_fill
    assert not cloud.is_all_fill
    cloud.require_data()
    with pytest.raises(BadDataError, match="every value is fill") as error:
        sky.require_data()
    assert "volume.nc" in one_line(error)
    floats = read_volume(write(np.full((1, 1, 2, 2), np.nan, np.float32), name="nan.nc", attributes={}))
    assert floats.is_all_fill


def test_zero_reflectivity_is_minus_infinity_and_legal(write):
    floats = np.array([[[[-np.inf, 20.0]]]], np.float32)
    np.testing.assert_array_equal(read_volume(write(floats, attributes={})).dbz, floats[0])


def test_bytes_outside_sense_that_no_cell_uses_do_not_matter(write):
    attributes = {"scale_factor": 2.0, "add_offset": 0.0, "_FillValue": np.int8(-128)}  # codes to +-254 dBZ
    stored = np.array([[[[10, 20]]]], np.int8)
    np.testing.assert_array_equal(read_volume(write(stored, attributes=attributes)).dbz[0, 0], [20, 40])
    stored[..., 0] = 100
    with pytest.raises(BadDataError, match="value 200"):
        read_volume(write(stored, attributes=attributes))


# --- the grid ----------------------------------------------------------------------------------------------------


def test_grid_in_km_and_metres_are_the_same(write, codes):
    km = read_header(write(codes)).grid
    metres = {"y0": (np.arange(20) - 9.5) * 1000, "x0": (np.arange(24) - 11.5) * 1000}
    m = read_header(write(codes, axes=metres, axis_attributes={"y0": {"units": "m"}, "x0": {"units": "m"}})).grid
    assert km.same_as(m)
    assert km.describe() == "20x24 cells of 1.00x1.00 km"


def test_degrees_get_km_by_the_latitude_of_the_centre(write, codes):
    axes = {"lat": np.linspace(59.5, 60.5, 20), "lon": np.linspace(10, 11, 24)}
    units = {"lat": {"units": "degrees_north"}, "lon": {"units": "degrees_east"}}
    grid = read_header(write(codes, dims=("time", "z0", "lat", "lon"), axes=axes, axis_attributes=units)).grid
    assert grid.units == "degrees"
    assert grid.spacing_km == pytest.approx((111.2 / 19, 111.2 / 23 * 0.5), rel=1e-3)


def test_unknown_units_give_no_spacing(write, codes):
    grid = read_header(write(codes, axis_attributes={"y0": {}, "x0": {}})).grid
    assert grid.spacing_km is None
    assert grid.describe() == "20x24 cells of unknown size"


def test_grids_differ_by_shape_place_and_units(write, codes):
    grid = read_header(write(codes)).grid
    moved = {"x0": np.arange(24) - 11.5 + 0.02}
    nearly = {"x0": np.arange(24) - 11.5 + 0.005}
    assert not grid.same_as(read_header(write(codes, axes=moved)).grid)
    assert grid.same_as(read_header(write(codes, axes=nearly)).grid)
    assert not grid.same_as(read_header(write(codes[..., 1:])).grid)
    assert not grid.same_as(read_header(write(codes, axis_attributes={"y0": {}, "x0": {}})).grid)


def test_equal_distances_from_two_radars_are_two_grids(write, codes):
    def grid_around(name, **projection):
        path = write(codes, name=name, attributes={**PACKED, "grid_mapping": "mapping"})
        with netCDF4.Dataset(path, "a") as dataset:
            dataset.createVariable("mapping", "i4", ()).setncatts(projection)
        return read_header(path).grid

    here = grid_around("here.nc", latitude_of_projection_origin=-34.648, grid_mapping_name="azimuthal_equidistant")
    again = grid_around("again.nc", latitude_of_projection_origin=-34.6480001)
    elsewhere = grid_around("elsewhere.nc", latitude_of_projection_origin=-31.5)
    assert here.same_as(again)
    assert not here.same_as(elsewhere)
    assert here.same_as(read_header(write(codes)).grid)  # one that does not say where it is


@pytest.mark.parametrize("outside", [-9999.0, 1e20, 0.5])
def test_a_missing_value_that_the_stored_type_cannot_hold_is_none(write, outside):
    stored = np.array([[[[-100, -15, 0, 1]]]], np.int8)
    volume = read_volume(write(stored, attributes={"missing_value": outside, "scale_factor": 0.5, "add_offset": 0.0}))
    assert not np.isnan(volume.dbz).any()


# --- bad input ---------------------------------------------------------------------------------------------------


def refuses(path: Path, *words: str, only_volume: bool = False) -> None:
    readers = [read_volume] if only_volume else [read_header, read_volume]
    for read in readers:
        with pytest.raises(BadDataError) as error:
            read(path)
        text = one_line(error)
        assert path.name in text
        for word in words:
            assert word in text


@pytest.mark.parametrize(
    "content", [b"", b"CD", b"this is a text file", b"\x1f\x8b\x08\x00" * 9, b"CDF\x01" + b"\xff" * 99]
)
def test_not_a_netcdf_file(tmp_path, content):
    path = tmp_path / "x.nc"
    path.write_bytes(content)
    refuses(path, "NetCDF")


@pytest.mark.parametrize("form", ["NETCDF3_CLASSIC", "NETCDF4"])
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.9, 0.999])
def test_truncated_file(write, codes, form, kept):
    path = write(np.tile(codes, (1, 1, 4, 4)), form=form)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    refuses(path, only_volume=kept > 0.9)


def test_a_folder_and_a_missing_file(tmp_path):
    refuses(tmp_path, "folder")
    for read in (read_header, read_volume):
        with pytest.raises(DiskError, match=r"gone\.nc"):
            read(tmp_path / "gone.nc")


def test_unreadable_file(write, codes, monkeypatch):
    path = write(codes)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    for read in (read_header, read_volume):
        with pytest.raises(DiskError, match="Permission denied") as error:
            read(path)
        assert "volume.nc" in one_line(error)


def test_no_such_variable(write, codes):
    refuses(write(codes, variable="reflectivity"), "'DBZ'", "reflectivity", "data.variable")
    assert read_volume(write(codes, variable="reflectivity"), "reflectivity").dbz.shape == (3, 20, 24)


def test_text_instead_of_numbers(write):
    refuses(write(np.full((1, 1, 2, 2), b"a", "S1"), attributes={}), "expected numbers")


@pytest.mark.parametrize(
    ("dims", "words"),
    [
        (("time", "z0", "rows", "x0"), ["'rows'"]),
        (("time", "z0", "altitude", "x0"), ["two z"]),
        (("time", "z0", "x0", "lon"), ["two x"]),
    ],
)
def test_unknown_dimension(write, codes, dims, words):
    refuses(write(codes, dims=dims, axis_attributes={dim: {} for dim in dims}), *words)


def test_missing_dimension(write, codes):
    refuses(write(codes[:, 0, :, 0], dims=("time", "y0")), "no x dimension", "(time, y0)")


def test_missing_coordinate(write, codes):
    refuses(write(codes, axes={"x0": None}), "'x0'", "coordinate variable")


@pytest.mark.parametrize("bad", [np.nan, np.inf, 9.969209968386869e36])
def test_coordinates_without_number(write, codes, bad):
    refuses(write(codes, axes={"y0": np.r_[np.arange(19.0), bad]}), "'y0'", "NaN, infinite or missing")


def test_coordinates_out_of_order(write, codes):
    refuses(write(codes, axes={"y0": np.r_[np.arange(19.0), 5.0]}), "'y0'", "not monotonic")
    refuses(write(codes, axes={"x0": np.zeros(24)}), "'x0'", "not monotonic")


def test_units_that_disagree(write, codes):
    refuses(write(codes, axis_attributes={"y0": {"units": "km"}, "x0": {"units": "degrees_east"}}), "km", "degrees")


def test_no_time(write, codes):
    refuses(write(codes, time=None), "no time")


@pytest.mark.parametrize(
    ("value", "attributes"),
    [
        (np.nan, {"units": "seconds since 1970-01-01"}),
        (9.969209968386869e36, {"units": "seconds since 1970-01-01"}),
        (5.0, {}),
        (5.0, {"units": "km"}),
        (5.0, {"units": "seconds since yesterday"}),
    ],
)
def test_a_time_that_is_none(write, codes, value, attributes):
    refuses(write(codes, time=value, time_attributes=attributes), "is no time", "CF units")


def test_several_times(write, codes):
    two = np.concatenate([codes, codes])
    refuses(write(two, time=[1.0, 2.0]), "2 times", "one time")
    refuses(write(two, time=1.0, time_dims=()), "2 times")
    refuses(write(codes[:0], time=np.zeros(0)), "0 times")


@pytest.mark.parametrize("wrong", [-9999.0, -999.0, 200.0, np.inf])
def test_dbz_out_of_any_sense(write, wrong):
    floats = FLOATS.copy()
    floats[0, 0, 1, 1] = wrong
    refuses(write(floats, attributes={}), f"value {wrong:g}", "_FillValue", only_volume=True)
    assert np.isnan(read_volume(write(floats, attributes={"_FillValue": np.float32(wrong)})).dbz[0, 1, 1])


# --- real files --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(REAL is None, reason="REAL_DATA names no folder")
@pytest.mark.parametrize("kind", ["mdvlike", "native"])
def test_real_files_agree_with_an_independent_reader(kind):
    for event in sorted((Path(str(REAL)) / "radar" / kind).iterdir()):
        for path in sorted(event.iterdir())[::20]:
            volume = read_volume(path)
            with xarray.open_dataset(path) as theirs:
                np.testing.assert_array_equal(volume.dbz, theirs["DBZ"].values[0].astype(np.float32))
                assert volume.header.time == theirs["time"].values[0].astype("datetime64[s]").astype(int)
            assert volume.header.grid.same_as(read_header(path).grid)
