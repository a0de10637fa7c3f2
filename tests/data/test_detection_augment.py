"""Augmentation: a box still encloses exactly the pixels that it enclosed."""

from __future__ import annotations

import numpy as np
import pytest

from training.data.detection.augment import Picture, augmented, draw_change
from training.schemas.detection import DetectionAugmentationSection

SIDE = 96
FRAME = np.array([0.5, 0.5, 0, 16, 192, 128], np.float32)  # an image of 192 x 128: 16 rows of grey above and below
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0))
NOTHING = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0, "mosaic": 0, "flip": 0, "shift": 0}


def settings(**changes) -> DetectionAugmentationSection:
    return DetectionAugmentationSection(**{**NOTHING, "scale": [1, 1], "min_visible": 0, **changes})


def with_rectangle(box, colour=COLOURS[0], label=0, crowd=False) -> Picture:
    x1, y1, x2, y2 = box
    image = np.full((3, SIDE, SIDE), 114, np.uint8)
    image[:, 16:80] = 20
    image[:, y1:y2, x1:x2] = np.array(colour, np.uint8)[:, None, None]
    area = np.array([(x2 - x1) * (y2 - y1)], np.float32)
    boxes = np.array([box], np.float32)
    return Picture(image, boxes, np.array([label]), np.array([crowd]), area, FRAME)


def seen(image: np.ndarray, colour) -> np.ndarray | None:
    """The bounding box of the pixels that are more of ``colour`` than not; None where there are none."""
    channels = np.array(colour) > 0
    lit, dark = image[channels].min(axis=0), image[~channels].max(axis=0)
    there = (lit.astype(int) > 137) & (dark.astype(int) < 128)
    if not there.any():
        return None
    rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def check(pictures, result: Picture) -> int:
    """Each picture has one box of its own colour and label: it is where the colour is, or both are nowhere."""
    found = 0
    for label in range(len(pictures)):
        at, boxes = seen(result.image, COLOURS[label]), result.boxes[result.labels == label]
        if len(boxes) == 0:
            assert at is None or (at[2:] - at[:2]).min() <= 2
            continue
        assert at is not None
        np.testing.assert_allclose(boxes[0], at, atol=1.01)
        found += 1
    return found


RANDOM = {"flip": 0.5, "scale": [0.5, 1.5], "shift": 0.3}


@pytest.mark.parametrize(
    "changes", [{}, {"flip": 1}, {"scale": [0.5, 0.5]}, {"scale": [1.5, 1.5]}, {"shift": 0.4}, RANDOM]
)
def test_a_box_encloses_the_pixels_of_its_object(changes):
    found = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        x, y = rng.integers(4, 60), rng.integers(20, 60)
        picture = with_rectangle((x, y, x + rng.integers(8, 30), y + rng.integers(8, 18)))
        found += check([picture], augmented([picture], draw_change(settings(**changes), rng, 5)))
    assert found >= 25


@pytest.mark.parametrize("changes", [{}, {"flip": 0.5}, RANDOM, {"scale": [0.5, 0.5]}])
def test_boxes_of_a_mosaic_enclose_the_pixels_of_their_objects(changes):
    found = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        change = draw_change(settings(mosaic=1, **changes), rng, 5)
        pictures = []
        for label in range(4):
            x, y = rng.integers(4, 60), rng.integers(20, 60)
            box = (x, y, x + rng.integers(12, 30), y + rng.integers(12, 18))
            pictures.append(with_rectangle(box, COLOURS[label], label))
        found += check(pictures, augmented(pictures, change))
    assert found >= 60


@pytest.mark.parametrize("flip", [0, 1])
def test_a_large_picture_fills_its_corner_of_a_mosaic_without_its_own_grey(flip):
    pictures = [with_rectangle((10, 30, 40, 50), COLOURS[label], label) for label in range(4)]
    for seed in range(10):
        change = draw_change(settings(mosaic=1, flip=flip, scale=[1.5, 1.5]), np.random.default_rng(seed), 5)
        inner = augmented(pictures, change).image
        assert ((abs(inner.astype(int) - 114) > 15).any(axis=0)).mean() > 0.995


def test_a_small_picture_touches_the_meeting_point():
    pictures = [with_rectangle((0, 16, SIDE, 80), COLOURS[label], label) for label in range(4)]
    change = draw_change(settings(mosaic=1, scale=[0.25, 0.25]), np.random.default_rng(0), 5)
    x, y = np.rint(change.meeting * SIDE)
    assert augmented(pictures, change).boxes.tolist() == [
        [x - 24, y - 16, x, y],
        [x, y - 16, x + 24, y],
        [x - 24, y, x, y + 16],
        [x, y, x + 24, y + 16],
    ]


def test_nothing_asked_changes_nothing():
    picture = with_rectangle((10, 30, 40, 50))
    result = augmented([picture], draw_change(settings(), np.random.default_rng(0), 1))
    assert np.array_equal(result.image, picture.image) and np.array_equal(result.boxes, picture.boxes)
    assert result.area == picture.area and result.frame.tolist() == [1, 1, 0, 0, SIDE, SIDE]


def test_a_mirror_is_exact():
    picture = with_rectangle((10, 30, 40, 50))
    result = augmented([picture], draw_change(settings(flip=1), np.random.default_rng(0), 1))
    assert np.array_equal(result.image, picture.image[:, :, ::-1]) and result.boxes.tolist() == [[56, 30, 86, 50]]


def test_free_space_is_grey():
    picture = with_rectangle((10, 30, 40, 50))
    image = augmented([picture], draw_change(settings(scale=[0.5, 0.5]), np.random.default_rng(0), 1)).image
    assert (image[:, :, :23] == 114).all() and (image[:, :, 73:] == 114).all() and (image[:, 48, 60] == 20).all()


@pytest.mark.parametrize(("share", "left"), [(0.05, 1), (0.95, 0)])
def test_a_box_that_is_hardly_seen_is_left_out_but_never_a_region_of_many(share, left):
    for crowd in (False, True):
        picture = with_rectangle((0, 20, 60, 60), crowd=crowd)
        change = draw_change(settings(scale=[1.5, 1.5], min_visible=share), np.random.default_rng(0), 1)
        result = augmented([picture], change)
        assert len(result.boxes) == (1 if crowd else left)
    if left:
        assert result.boxes.min() >= 0 and result.boxes.max() <= SIDE


def test_area_follows_scale_and_what_is_seen():
    picture = with_rectangle((30, 40, 50, 60))
    small = augmented([picture], draw_change(settings(scale=[0.5, 0.5]), np.random.default_rng(0), 1))
    assert small.area.tolist() == [100]
    cut = with_rectangle((0, 40, 40, 60))
    result = augmented([cut], draw_change(settings(scale=[1.5, 1.5]), np.random.default_rng(0), 1))
    assert result.area[0] == pytest.approx(np.prod(result.boxes[0, 2:] - result.boxes[0, :2]), rel=1e-5)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_light_and_colours_move_no_box_and_stay_in_range(name):
    largest = {"brightness": 0.3, "contrast": 0.3, "saturation": 1, "hue": 0.5}[name]
    picture = with_rectangle((10, 30, 40, 50), (200, 60, 90))
    results = []
    for seed in range(20):
        change = draw_change(settings(**{name: largest}), np.random.default_rng(seed), 1)
        result = augmented([picture], change)
        assert np.array_equal(result.boxes, picture.boxes)
        results.append(result.image)
    object_, road = np.stack([image[:, 35, 20] for image in results]), np.stack([image[:, 70, 5] for image in results])
    assert len(np.unique(object_, axis=0)) > 15
    if name in ("saturation", "hue"):  # grey stays as it is
        assert (abs(road.astype(int) - 20) <= 1).all()
    if name == "saturation":
        luma = object_ @ np.array([0.299, 0.587, 0.114])
        assert np.ptp(luma) < 12  # but for what is clipped
    if name == "brightness":
        assert 140 <= object_[:, 0].min() < object_[:, 0].max() <= 255
    if name == "contrast":
        assert road.min() < 20 < road.max()
        means = [image.transpose(1, 2, 0) @ np.array([0.299, 0.587, 0.114]) for image in (*results, picture.image)]
        assert np.ptp([mean.mean() for mean in means]) < 1.5


def test_the_same_random_numbers_are_drawn_whatever_the_settings():
    left = []
    for one in (settings(), settings(mosaic=1, **RANDOM), DetectionAugmentationSection()):
        rng = np.random.default_rng(3)
        draw_change(one, rng, 7)
        left.append(rng.random())
    assert len(set(left)) == 1


def test_others_of_a_mosaic_are_drawn_from_all():
    drawn = [draw_change(settings(mosaic=1), np.random.default_rng(seed), 5).others for seed in range(50)]
    assert {number for others in drawn for number in others} == set(range(5)) and all(len(o) == 3 for o in drawn)
    assert all(draw_change(settings(), np.random.default_rng(seed), 5).others == () for seed in range(20))
