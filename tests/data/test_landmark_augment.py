from __future__ import annotations

import numpy as np
import pytest

from backend.preprocessing.landmark_set import LUNGS
from tests.data.landmark_dataset import LUNG_SHAPE
from training.data.landmarks.augment import Change, apply_change, draw_change, mirrored
from training.schemas.landmarks import AugmentationSection

SIZE = 128
ORDER = LUNGS.mirrored_order()
NOTHING = {"mirror": False, "degrees": 0.0, "brightness": 1.0, "contrast": 1.0}


def dots(points: np.ndarray) -> np.ndarray:
    """A picture [3, S, S] with a soft dot at each point; the first ones are brighter."""
    y, x = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE
    picture = np.zeros((SIZE, SIZE))
    for number, (px, py) in enumerate(points):
        picture += (250 - 8 * number) * np.exp(-((x - px) ** 2 + (y - py) ** 2) * (SIZE / 2) ** 2)
    return np.broadcast_to(np.clip(picture, 0, 255).astype(np.uint8), (3, SIZE, SIZE)).copy()


def dot_near(image: np.ndarray, point: np.ndarray) -> tuple[np.ndarray, float]:
    """Where the dot near ``point`` really is, as shares of the image, and how bright."""
    y, x = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE
    near = np.where((x - point[0]) ** 2 + (y - point[1]) ** 2 < (5 / SIZE) ** 2, image[0].astype(float), 0)
    return np.array([(near * x).sum(), (near * y).sum()]) / near.sum(), near.max()


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("degrees", [0.0, 10.0, -37.0])
def test_points_go_where_the_picture_goes_under_their_own_names(mirror, degrees):
    shape = 0.5 + (LUNG_SHAPE - 0.5) * 0.7  # so that nothing leaves the picture
    before = shape.astype(np.float32)
    image, points = apply_change(dots(shape), before, Change(mirror, degrees, 1.0, 1.0), ORDER)
    assert points.dtype == np.float32 and image.shape == (3, SIZE, SIZE) and image.flags.c_contiguous
    for number, point in enumerate(points):
        place, _ = dot_near(image, point)
        assert np.abs(place - point).max() < 0.15 / SIZE  # a mirror that is off by a pixel is off by more
        partner = ORDER[number] if mirror else number
        assert not mirror or degrees or abs(point[1] - before[partner][1]) < 1e-6
    assert np.array_equal(before, shape.astype(np.float32))


def test_a_mirror_swaps_partners_so_that_left_stays_left():
    points = mirrored(LUNG_SHAPE, ORDER)
    assert (points[2, 0] < 0.5) and (points[3, 0] > 0.5)
    np.testing.assert_allclose(points[2], [1 - LUNG_SHAPE[3, 0], LUNG_SHAPE[3, 1]])
    np.testing.assert_allclose(points[0], [1 - LUNG_SHAPE[0, 0], LUNG_SHAPE[0, 1]])


def test_positive_degrees_turn_counter_clockwise_and_corners_are_black():
    _, points = apply_change(
        np.full((3, SIZE, SIZE), 200, np.uint8), np.float32([[1.0, 0.5]]), Change(**{**NOTHING, "degrees": 90.0}), [0]
    )
    np.testing.assert_allclose(points, [[0.5, 0.0]], atol=1e-6)
    turned, _ = apply_change(np.full((3, SIZE, SIZE), 200, np.uint8), points, Change(False, 45.0, 1.5, 0.5), [0])
    assert turned[:, 0, 0].tolist() == [0, 0, 0] and (turned[:, SIZE // 2, SIZE // 2] > 200).all()


def test_a_point_turned_out_of_the_picture_is_not_clipped():
    _, points = apply_change(
        np.zeros((3, 8, 8), np.uint8), np.float32([[1, 1]]), Change(**{**NOTHING, "degrees": 45.0}), [0]
    )
    assert points[0, 0] > 1.2


def test_brightness_and_contrast_are_factors():
    image = np.random.default_rng(0).integers(60, 120, (3, 16, 16)).astype(np.uint8)
    bright, _ = apply_change(image, LUNG_SHAPE, Change(**{**NOTHING, "brightness": 1.2}), ORDER)
    np.testing.assert_allclose(bright, image * 1.2, atol=0.51)
    flat, _ = apply_change(image, LUNG_SHAPE, Change(**{**NOTHING, "contrast": 0.5}), ORDER)
    np.testing.assert_allclose(flat, image.mean() + (image - image.mean()) * 0.5, atol=0.51)
    same, points = apply_change(image, LUNG_SHAPE, Change(**NOTHING), ORDER)
    assert np.array_equal(same, image) and np.array_equal(points, LUNG_SHAPE)
    ends, _ = apply_change(np.array([0, 255] * 6, np.uint8).reshape(3, 2, 2), LUNG_SHAPE, Change(False, 0, 2, 2), ORDER)
    assert set(ends.ravel().tolist()) == {0, 255}  # values beyond are cut, not wrapped


def test_as_many_numbers_are_drawn_whatever_the_settings():
    rests = set()
    for settings in ({}, {"flip": 0.0, "rotation": 0.0, "brightness": 0.0, "contrast": 0.0}, {"flip": 1.0}):
        rng = np.random.default_rng(5)
        draw_change(AugmentationSection(**settings), rng)
        rests.add(rng.random())
    assert len(rests) == 1


def test_drawn_changes_fill_their_ranges():
    settings = AugmentationSection(flip=0.25, rotation=10, brightness=0.2, contrast=0.1)
    rng = np.random.default_rng(0)
    changes = [draw_change(settings, rng) for _ in range(2000)]
    assert 0.2 < np.mean([change.mirror for change in changes]) < 0.3
    for name, low, high in (("degrees", -10, 10), ("brightness", 0.8, 1.2), ("contrast", 0.9, 1.1)):
        values = [getattr(change, name) for change in changes]
        assert low <= min(values) < low + 0.02 * (high - low) and high - 0.02 * (high - low) < max(values) <= high
    none = AugmentationSection(flip=0, rotation=0, brightness=0, contrast=0)
    assert draw_change(none, rng) == Change(**NOTHING)
