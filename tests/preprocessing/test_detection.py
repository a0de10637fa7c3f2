"""Letterbox and frames."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from backend.errors import BadDataError, ConfigError
from backend.preprocessing.detection import GREY, DetectionPreprocessing, to_image, to_network


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (100, 100), (64, 64), (1920, 1080), (37, 211), (1000, 3)])
def test_a_rectangle_lies_where_its_box_says(size):
    width, height = size
    x1, y1, x2, y2 = width // 4, height // 3, width - width // 5, height - height // 6
    image = np.zeros((height, width, 3), np.uint8)
    image[y1:y2, x1:x2] = (255, 200, 255)
    network, frame = DetectionPreprocessing(64).letterbox(image)
    assert network.dtype == np.uint8 and network.shape == (3, 64, 64) and network.flags.c_contiguous
    assert frame.dtype == np.float32 and frame[4:].tolist() == [width, height]
    box = to_network(np.array([[x1, y1, x2, y2]], np.float32), frame)
    assert box.dtype == np.float32
    lit = network[0] > 127
    lit[: int(frame[3])] = lit[64 - int(frame[3]) :] = False
    found = [*(np.flatnonzero(lit.any(axis=axis))[[0, -1]] for axis in (0, 1))]
    np.testing.assert_allclose([found[0][0], found[1][0], found[0][1] + 1, found[1][1] + 1], box[0], atol=1.01)
    np.testing.assert_allclose(to_image(box, frame), [[x1, y1, x2, y2]], atol=1e-3 * max(size))


def test_proportions_are_kept_the_picture_is_in_the_middle_and_the_rest_is_grey():
    image = np.random.default_rng(0).integers(0, 255, (100, 200, 3), dtype=np.uint8)
    network, frame = DetectionPreprocessing(64).letterbox(image)
    np.testing.assert_allclose(frame, [0.32, 0.32, 0, 16, 200, 100])
    assert (network[:, :16] == GREY).all() and (network[:, 48:] == GREY).all() and (network[:, 16:48] != GREY).any()


def test_a_picture_of_the_models_size_stays_as_it_is():
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    network, frame = DetectionPreprocessing(64).letterbox(image)
    assert np.array_equal(network, image.transpose(2, 0, 1)) and frame.tolist() == [1, 1, 0, 0, 64, 64]


def test_frames_of_many_are_those_of_each():
    preprocessing, sizes = DetectionPreprocessing(96), np.array([(60, 40), (33, 77), (96, 96)])
    each = [preprocessing.letterbox(np.zeros((height, width, 3), np.uint8))[1] for width, height in sizes]
    assert np.array_equal(preprocessing.frames(sizes), each) and preprocessing.frames(np.empty((0, 2))).shape == (0, 6)


def test_boxes_beyond_the_picture_are_clipped_on_the_way_back():
    frame = DetectionPreprocessing(64).frames(np.array([(200, 100)]))[0]
    there = to_image(np.array([[-5, 0, 70, 64]], np.float32), frame)
    assert there.dtype == np.float32 and there.tolist() == [[0, 0, 200, 100]]


def test_a_file_is_read_as_its_pixels(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (30, 50, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    preprocessing = DetectionPreprocessing(64)
    for one, other in zip(preprocessing.read(tmp_path / "a.png"), preprocessing.letterbox(image), strict=True):
        assert np.array_equal(one, other)
    with pytest.raises(BadDataError, match=r"b\.png: cannot be read"):
        preprocessing.read(tmp_path / "b.png")


def test_the_record_comes_back_and_others_are_refused():
    preprocessing = DetectionPreprocessing(96)
    assert DetectionPreprocessing.from_dict(preprocessing.to_dict()) == preprocessing
    with pytest.raises(BadDataError, match="lacks image_size, has the unknown side"):
        DetectionPreprocessing.from_dict({"side": 3})
    with pytest.raises(ConfigError, match="image_size is 0"):
        DetectionPreprocessing(0)
