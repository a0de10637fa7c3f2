"""An image file to what a landmark model sees. Training and serving go through the same `LandmarkPreprocessing`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from backend.errors import ConfigError
from backend.preprocessing.images import read_image
from backend.preprocessing.record import from_record

if TYPE_CHECKING:  # preparation's worker processes never need torch
    import torch
    from torch import Tensor

# channel means and standard deviations of ImageNet, on values from 0 to 1: what torchvision's trunks were trained with
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class LandmarkPreprocessing:
    """Every choice between an image file and the model's input. Raises ConfigError for impossible values.

    The order is: RGB in 8 bits, CLAHE on the lightness at the image's own size, resize.
    """

    image_size: int = 224  # rows and columns that the model sees
    clahe: bool = True
    clahe_clip: float = 2.0
    clahe_tile: int = 4  # tiles in each direction

    def __post_init__(self) -> None:
        for name in ("image_size", "clahe_clip", "clahe_tile"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected more than 0")

    def to_dict(self) -> dict[str, Any]:
        """As JSON types, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> LandmarkPreprocessing:
        """What `to_dict` gave. Raises BadDataError where keys are missing or unknown."""
        return from_record(cls, "landmark", found)

    def read(self, path: Path) -> tuple[np.ndarray, tuple[int, int]]:
        """The file as the model's input, uint8 [3, S, S], and the (width, height) in pixels that it had.

        Raises:
            BadDataError: it is missing, or no image.
        """
        image = read_image(path)
        height, width = image.shape[:2]
        return self.apply(image), (width, height)

    def apply(self, image: np.ndarray) -> np.ndarray:
        """RGB uint8 [height, width, 3] to the model's input, RGB uint8 [3, S, S].

        CLAHE: Zuiderveld, Contrast Limited Adaptive Histogram Equalization, Graphics Gems IV, 1994.
        """
        if self.clahe:
            image = self._equalised(image)
        size = (self.image_size, self.image_size)
        resized = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        return np.ascontiguousarray(resized.transpose(2, 0, 1))

    def _equalised(self, image: np.ndarray) -> np.ndarray:
        lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
        clahe = cv2.createCLAHE(clipLimit=self.clahe_clip, tileGridSize=(self.clahe_tile, self.clahe_tile))
        lab[..., 0] = clahe.apply(np.ascontiguousarray(lab[..., 0]))
        return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 [n, 3, S, S] to float32 with ImageNet's statistics, on the same device."""
        scale, shift = _statistics(images.device)
        return images.float().mul_(scale).sub_(shift)


@functools.cache
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Scale and shift [3, 1, 1] for values from 0 to 255; kept, because copying them makes a GPU wait."""
    import torch

    with torch.inference_mode(False):  # a tensor made in inference could not be used in training later
        mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (_MEAN, _STD))
        return 1 / (255 * std), mean / std
