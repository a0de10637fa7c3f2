"""An image file to what a detector sees, and boxes there and back. Training and serving share it. Imports no torch.

Boxes are ``x1, y1, x2, y2`` in pixels; the pixel in column i reaches from i to i + 1. A *frame* says where an image
lies in the model's input: float32 [6] ``scale_x, scale_y, pad_x, pad_y, width, height`` with
input = original * scale + pad, width and height being the original's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from backend.errors import ConfigError
from backend.preprocessing.images import read_image
from backend.preprocessing.record import from_record

GREY = 114  # of what the picture does not cover


@dataclass(frozen=True)
class DetectionPreprocessing:
    """Every choice between an image file and the model's input. Raises ConfigError for an impossible size."""

    image_size: int = 640  # rows and columns that the model sees

    def __post_init__(self) -> None:
        if not self.image_size > 0:
            raise ConfigError(f"image_size is {self.image_size}, expected more than 0")

    def to_dict(self) -> dict[str, Any]:
        """As JSON types, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> DetectionPreprocessing:
        """What `to_dict` gave. Raises BadDataError where keys are missing or unknown."""
        return from_record(cls, "detection", found)

    def read(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """The file as the model's input, uint8 [3, S, S], and its frame; turned upright as the camera noted.

        Raises:
            BadDataError: it is missing, or no image.
        """
        return self.letterbox(read_image(path, upright=True))

    def letterbox(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """RGB uint8 [height, width, 3] to RGB uint8 [3, S, S] and its frame, float32 [6].

        Proportions are kept up to the rounding to whole pixels, the picture stands in the middle, the rest is grey.
        """
        height, width = image.shape[:2]
        new_width, new_height = self._fitted(width, height)
        left, top = (self.image_size - new_width) // 2, (self.image_size - new_height) // 2
        if (new_width, new_height) != (width, height):
            shrinks = new_width < width
            image = cv2.resize(
                image, (new_width, new_height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            )
        canvas = np.full((3, self.image_size, self.image_size), GREY, np.uint8)
        canvas[:, top : top + new_height, left : left + new_width] = image.transpose(2, 0, 1)
        return canvas, self._frame(width, height)

    def frames(self, sizes: np.ndarray) -> np.ndarray:
        """float32 [n, 6]: the frames of images with ``sizes`` [n, 2] (width, height)."""
        return np.array([self._frame(int(width), int(height)) for width, height in sizes], np.float32).reshape(-1, 6)

    def _fitted(self, width: int, height: int) -> tuple[int, int]:
        ratio = self.image_size / max(width, height)
        return max(1, round(width * ratio)), max(1, round(height * ratio))

    def _frame(self, width: int, height: int) -> np.ndarray:
        new_width, new_height = self._fitted(width, height)
        left, top = (self.image_size - new_width) // 2, (self.image_size - new_height) // 2
        return np.array([new_width / width, new_height / height, left, top, width, height], np.float32)


def to_network(boxes: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Boxes float32 [k, 4] of the original image in the model's input."""
    return (boxes * np.tile(frame[:2], 2) + np.tile(frame[2:4], 2)).astype(np.float32)


def to_image(boxes: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Boxes float32 [k, 4] of the model's input in the original image, clipped to it."""
    there = (boxes - np.tile(frame[2:4], 2)) / np.tile(frame[:2], 2)
    return np.clip(there, 0, np.tile(frame[4:6], 2)).astype(np.float32)
