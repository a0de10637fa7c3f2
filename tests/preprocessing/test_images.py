"""Image files to pixels: what orientation does, and every format."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from backend.errors import BadDataError
from backend.preprocessing.images import IMAGE_SUFFIXES, decode_image, read_image
from tests.turned import turned_jpeg


def test_a_cameras_note_on_orientation_is_followed_only_where_it_is_asked(tmp_path):
    stored = turned_jpeg(tmp_path / "turned.jpg", 6)  # to be turned clockwise by a quarter
    assert np.abs(read_image(tmp_path / "turned.jpg").astype(int) - stored).max() < 10
    upright = read_image(tmp_path / "turned.jpg", upright=True)
    assert upright.shape == (32, 16, 3) and upright[:12].min() > 200 and upright[20:].max() < 60


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
@pytest.mark.parametrize("upright", [False, True])
def test_every_format_that_is_named_can_be_read(suffix, upright):
    pixels = np.full((12, 20, 3), (200, 100, 50), np.uint8)  # blue, green, red
    image = decode_image(Path(f"a{suffix}"), cv2.imencode(suffix, pixels)[1].tobytes(), upright=upright)
    assert image.shape == (12, 20, 3) and np.abs(image.astype(int) - (50, 100, 200)).max() < 6


@pytest.mark.parametrize("upright", [False, True])
def test_grey_alpha_and_16_bits(upright):
    for pixels in (
        np.full((6, 8), 77, np.uint8),
        np.dstack([np.full((6, 8, 3), 77, np.uint8), np.full((6, 8), 9, np.uint8)]),
    ):
        image = decode_image(Path("a.png"), cv2.imencode(".png", pixels)[1].tobytes(), upright=upright)
        assert image.shape == (6, 8, 3) and (image == 77).all()
    deep = np.tile(np.array([1000, 3000], np.uint16), (4, 4))
    image = decode_image(Path("a.png"), cv2.imencode(".png", deep)[1].tobytes(), upright=upright)
    assert image.dtype == np.uint8 and np.unique(image).tolist() == [0, 255]


@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_what_is_no_image_is_refused(content, upright):
    with pytest.raises(BadDataError, match=r"a\.png: damaged or no image"):
        decode_image(Path("a.png"), content, upright=upright)
