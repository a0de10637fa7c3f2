from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from backend.errors import BadDataError, ConfigError
from backend.preprocessing.images import read_image
from backend.preprocessing.landmarks import LandmarkPreprocessing

PLAIN = LandmarkPreprocessing(image_size=32, clahe=False)


def write(path, pixels):
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())
    return path


@pytest.fixture
def grey():
    ramp = np.linspace(20, 120, 70)[None] + np.linspace(0, 60, 50)[:, None]
    return np.rint(ramp + np.random.default_rng(0).normal(0, 3, (50, 70))).astype(np.uint8)


def test_every_form_of_a_grey_picture_gives_the_same(tmp_path, grey):
    colour = np.dstack([grey] * 3)
    forms = {"grey.png": grey, "rgb.png": colour, "rgb.bmp": colour, "grey.tif": grey}
    forms["rgba.png"] = np.dstack([colour, np.random.default_rng(1).integers(0, 255, grey.shape, np.uint8)])
    for name, pixels in forms.items():
        image = read_image(write(tmp_path / name, pixels))
        assert image.shape == (50, 70, 3) and image.dtype == np.uint8
        assert np.array_equal(image, colour), name


def test_colours_are_red_green_blue(tmp_path):
    blue_green_red = np.zeros((4, 4, 3), np.uint8)
    blue_green_red[..., 2] = 200
    assert read_image(write(tmp_path / "red.png", blue_green_red))[0, 0].tolist() == [200, 0, 0]


@pytest.mark.parametrize("bits", [12, 16])
def test_sixteen_bits_are_stretched_over_what_they_use(tmp_path, bits):
    ramp = np.linspace(100, 2**bits - 1, 256).astype(np.uint16)
    image = read_image(write(tmp_path / "deep.png", np.tile(ramp, (8, 1))))
    assert np.abs(image[0, :, 0].astype(int) - np.arange(256)).max() <= 1
    flat = read_image(write(tmp_path / "flat.png", np.full((8, 8), 3000, np.uint16)))
    assert (flat == 0).all()


def test_read_gives_the_input_and_the_files_size(tmp_path, grey):
    image, size = PLAIN.read(write(tmp_path / "a.png", grey))
    assert image.shape == (3, 32, 32) and image.dtype == np.uint8 and image.flags.c_contiguous
    assert size == (70, 50)
    assert np.array_equal(image[0], cv2.resize(grey, (32, 32), interpolation=cv2.INTER_LINEAR))


def test_the_lightness_is_equalised_before_the_resize(grey):
    colour = np.dstack([grey, grey // 2, grey])
    lab = cv2.cvtColor(colour, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(2.0, (4, 4)).apply(lab[..., 0].copy())
    expected = cv2.resize(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), (32, 32), interpolation=cv2.INTER_LINEAR)
    image = LandmarkPreprocessing(32).apply(colour)
    assert np.array_equal(image, expected.transpose(2, 0, 1))
    assert not np.array_equal(image, PLAIN.apply(colour))
    assert not np.array_equal(image, LandmarkPreprocessing(32, clahe_tile=8).apply(colour))
    assert not np.array_equal(image, LandmarkPreprocessing(32, clahe_clip=40.0).apply(colour))


def test_pictures_smaller_than_the_tiles_can_be_prepared():
    assert LandmarkPreprocessing(32).apply(np.full((2, 3, 3), 7, np.uint8)).shape == (3, 32, 32)


def test_normalised_as_imagenet():
    images = torch.randint(0, 256, (2, 3, 5, 5), dtype=torch.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (images.float() / 255 - mean[:, None, None]) / std[:, None, None]
    with torch.inference_mode():
        PLAIN.normalise(images)
    torch.testing.assert_close(PLAIN.normalise(images), expected)


def test_the_record_gives_the_same_preprocessing():
    made = LandmarkPreprocessing(64, False, 3.0, 8)
    assert LandmarkPreprocessing.from_dict(made.to_dict()) == made


@pytest.mark.parametrize(
    ("change", "words"),
    [({"clahe": None}, "lacks clahe"), ({"gamma": 2}, "has the unknown gamma")],
)
def test_records_of_other_versions_are_refused(change, words):
    record = {**PLAIN.to_dict(), **change}
    record = {key: value for key, value in record.items() if value is not None}
    with pytest.raises(BadDataError, match=words):
        LandmarkPreprocessing.from_dict(record)


def test_impossible_choices_are_refused():
    with pytest.raises(ConfigError, match="clahe_tile is 0"):
        LandmarkPreprocessing(clahe_tile=0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"", "no image"),
        (b"hello", "no image"),
        ("half", "no image"),
        ("float", "its values are float32"),
    ],
)
def test_what_is_no_image_is_named(tmp_path, content, words, grey):
    path = tmp_path / "a.tif" if content == "float" else tmp_path / "a.png"
    if content == "float":
        write(path, grey.astype(np.float32))
    elif content is not None:
        whole = cv2.imencode(".png", grey)[1].tobytes()
        path.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(BadDataError) as caught:
        PLAIN.read(path)
    assert str(caught.value).startswith(str(path)) and words in str(caught.value)
    assert "\n" not in str(caught.value)
