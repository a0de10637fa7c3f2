"""An image file to its pixels, for every task that sees pictures. Imports no torch."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from backend.errors import BadDataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def read_image(path: Path, *, upright: bool = False) -> np.ndarray:
    """RGB uint8 [height, width, 3] of an image file; see `decode_image`.

    Raises BadDataError: missing, unreadable or no image.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadDataError(f"{path}: cannot be read ({error.strerror or error}); expected an image file") from error
    return decode_image(path, content, upright=upright)


def decode_image(path: Path, content: bytes, *, upright: bool = False) -> np.ndarray:
    """RGB uint8 [height, width, 3] of ``path``'s content: grey, RGB or with alpha (left out), of 8 or 16 bits.

    Pixels are taken as they are stored: a camera's note on orientation (EXIF) is not followed. With ``upright`` it is,
    as OpenCV does it, and the picture is turned to what viewers and labelling tools show; boxes drawn there hold then.
    16 bits are stretched from the image's lowest to its highest value, because many such files use 10 or 12 of them.

    Raises:
        BadDataError: it is no image, or of another kind.
    """
    flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH if upright else cv2.IMREAD_UNCHANGED
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    except cv2.error as error:
        raise BadDataError(f"{path}: cannot be decoded ({error.err}); expected an image file") from error
    if image is None:
        raise BadDataError(f"{path}: damaged or no image; expected {', '.join(IMAGE_SUFFIXES)}")
    return _rgb(path, _eight_bits(path, image))


def _eight_bits(path: Path, image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    if image.dtype != np.uint16:
        raise BadDataError(f"{path}: its values are {image.dtype}, expected integers of 8 or 16 bits")
    colours = image[..., :3] if image.ndim == 3 else image
    low, high = int(colours.min()), int(colours.max())
    return np.rint((colours - np.float32(low)) * np.float32(255 / max(high - low, 1))).astype(np.uint8)


def _rgb(path: Path, image: np.ndarray) -> np.ndarray:
    channels = 1 if image.ndim == 2 else image.shape[2]
    if channels not in (1, 3, 4):
        raise BadDataError(f"{path}: has {channels} channels, expected grey, RGB or RGBA")
    codes = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}
    return cv2.cvtColor(image, codes[channels])
