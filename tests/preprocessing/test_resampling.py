from __future__ import annotations

import numpy as np
import pytest

from backend.preprocessing.resampling import METHODS, downsample, positions

SIZES = [
    ((20, 24), (10, 12)),
    ((20, 24), (5, 6)),
    ((20, 24), (7, 11)),
    ((97, 53), (13, 50)),
    ((20, 24), (20, 7)),
    ((9, 9), (1, 1)),
]


def overlaps(count: int, new_count: int) -> np.ndarray:
    """float64 [new, old]: the part of each old cell that lies in the new one, straight from the definition."""
    edges = np.arange(new_count + 1) * (count / new_count)
    old = np.arange(count)
    shared = np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old)
    return np.where(shared > 1e-9, shared, 0.0)


def area_reference(field: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows, columns = overlaps(field.shape[0], size[0]), overlaps(field.shape[1], size[1])
    known = ~np.isnan(field)
    weight = rows @ known.astype(float) @ columns.T
    total = rows @ np.where(known, field, 0.0).astype(float) @ columns.T
    covered = weight > 0.4999 * rows.sum(1)[0] * columns.sum(1)[0]
    return np.where(covered, total / np.where(covered, weight, 1.0), np.nan)


@pytest.fixture(params=[False, True], ids=["complete", "with gaps"])
def make(request):
    def field(shape: tuple[int, int]) -> np.ndarray:
        rng = np.random.default_rng(3)
        values = rng.uniform(-29, 65, shape).astype(np.float32)
        if request.param:
            values[rng.random(shape) < 0.45] = np.nan
        return values

    return field


@pytest.mark.parametrize(("shape", "size"), SIZES)
def test_area_is_exact_for_any_ratio(make, shape, size):
    field = make(shape)
    np.testing.assert_allclose(downsample(field, size, "area"), area_reference(field, size), rtol=0, atol=2e-4)


@pytest.mark.parametrize("size", [(250, 250), (240, 333), (499, 251), (128, 100)])
def test_area_is_exact_at_full_size(size):
    field = np.random.default_rng(0).uniform(-29, 65, (500, 500)).astype(np.float32)
    np.testing.assert_allclose(downsample(field, size, "area"), area_reference(field, size), rtol=0, atol=1e-4)


def test_area_stays_within_its_stated_error_where_weights_are_tiny():
    field = np.random.default_rng(0).uniform(-29, 65, (1226, 60)).astype(np.float32)
    error = np.abs(downsample(field, (1225, 60), "area") - area_reference(field, (1225, 60))).max()
    assert error <= 0.1


@pytest.mark.parametrize(("shape", "size"), SIZES)
def test_mean_in_linear_z(make, shape, size):
    field = make(shape)
    expected = 10 * np.log10(area_reference(10 ** (field.astype(np.float64) / 10), size))
    np.testing.assert_allclose(downsample(field, size, "area_linear_z"), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("shape", "size"), SIZES)
def test_maximum_of_every_cell_that_touches(make, shape, size):
    field = make(shape)
    rows, columns = overlaps(shape[0], size[0]) > 0, overlaps(shape[1], size[1]) > 0
    expected = np.full(size, np.nan)
    covered = ~np.isnan(area_reference(field, size))
    for i, j in np.ndindex(size):
        if covered[i, j]:
            expected[i, j] = np.nanmax(field[np.ix_(rows[i], columns[j])])
    np.testing.assert_array_equal(downsample(field, size, "maximum"), expected.astype(np.float32))


@pytest.mark.parametrize(("shape", "size"), SIZES[:-1])
def test_linear_agrees_with_an_independent_interpolation(shape, size):
    interpolate = pytest.importorskip("scipy.interpolate")
    field = np.random.default_rng(3).uniform(-29, 65, shape).astype(np.float32)
    old = [np.arange(count) for count in shape]
    new = np.meshgrid(*(np.linspace(0, a - 1, b) for a, b in zip(shape, size, strict=True)), indexing="ij")
    expected = interpolate.RegularGridInterpolator(old, field.astype(np.float64))(np.stack(new, -1))
    np.testing.assert_allclose(downsample(field, size, "linear"), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_half_covered_is_data_and_less_is_none(method):
    field = np.full((4, 8), np.nan, np.float32)
    field[:, :1] = field[:2, 1] = 10.0  # the first new cell: 6 of 8; or exactly half below
    field[:2, 4:8] = 20.0
    reduced = downsample(field, (1, 2), method) if method != "linear" else downsample(field, (2, 4), method)
    if method == "linear":
        assert reduced[0, 0] == 10.0
        assert np.isnan(reduced[1, 3])
    else:
        np.testing.assert_allclose(reduced, [[np.nan, 20.0]], atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_constant_fields_stay_constant_and_all_nan_stays_nan(method):
    field = np.full((30, 30), -29.0, np.float32)
    np.testing.assert_allclose(downsample(field, (7, 11), method), -29.0, atol=1e-4)
    assert np.isnan(downsample(np.full((30, 30), np.nan, np.float32), (7, 11), method)).all()


@pytest.mark.parametrize("method", METHODS)
def test_the_same_size_is_a_copy(method):
    field = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    copy = downsample(field, (6, 5), method)
    np.testing.assert_array_equal(copy, field)
    copy[:] = 0
    assert field.any()


@pytest.mark.parametrize(("method", "count"), [("area", 10), ("linear", 10), ("linear", 7)])
def test_positions_are_where_a_ramp_says(method, count):
    ramp = np.tile(np.arange(30, dtype=np.float32), (30, 1))
    np.testing.assert_allclose(downsample(ramp, (30, count), method)[0], positions(30, count, method), atol=1e-4)


def test_new_cells_share_the_old_grid_s_edges():
    where, width = positions(30, 7, "area"), 30 / 7
    np.testing.assert_allclose([where[0] - width / 2, where[-1] + width / 2], [-0.5, 29.5])
    np.testing.assert_allclose(np.diff(where), width)
