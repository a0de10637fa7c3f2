"""One split's images and boxes as items for training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from training.data.detection.augment import Picture, augmented, draw_change
from training.data.prepared import BlockReader
from training.schemas.detection import DetectionAugmentationSection
from training.tasks.protocol import Batch


@dataclass(frozen=True)
class Annotations:
    """The boxes of a split's images, one after another, in pixels of the original images."""

    offsets: np.ndarray  # int64 [n + 1]
    boxes: np.ndarray  # float32 [m, 4]
    labels: np.ndarray  # int64 [m]
    crowd: np.ndarray  # bool [m]
    area: np.ndarray  # float32 [m]


class DetectionItems:
    """One split's images (an ItemSource): read from the prepared cache, augmented where there is an ``rng``."""

    def __init__(
        self,
        reader: BlockReader,
        blocks: np.ndarray,
        frames: np.ndarray,
        annotations: Annotations,
        augmentation: DetectionAugmentationSection,
    ) -> None:
        self._reader, self._blocks, self._frames = reader, blocks, frames
        self._annotations, self._augmentation = annotations, augmentation

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def annotations(self) -> Annotations:
        """The boxes of all images."""
        return self._annotations

    @property
    def frames(self) -> np.ndarray:
        """float32 [n, 6]: where each image lies in the model's input."""
        return self._frames

    def class_counts(self, classes: int) -> list[int]:
        """Boxes of each class."""
        return np.bincount(self._annotations.labels, minlength=classes).tolist()

    def item(self, index: int, rng: np.random.Generator | None) -> Batch:
        """One row: ``image`` uint8 [1, 3, S, S] RGB, ``frame`` float32 [1, 6], ``draw`` int64 [1], and, as lists with
        one entry, ``boxes`` float32 [k, 4], ``labels`` int64 [k], ``crowd`` bool [k], ``area`` float32 [k].

        Boxes are in pixels of the original image. An augmented image is an image of its own: its frame is the identity
        and its boxes are in its own pixels. ``draw`` seeds what else is random: from ``rng``, without one the index.
        """
        if rng is None:
            picture, frame, draw = self._picture(index, scaled=False), self._frames[index].copy(), index
        else:
            draw = int(rng.integers(np.iinfo(np.int64).max))
            side = self._reader.shape[-1]
            change = draw_change(self._augmentation, rng, len(self))
            pictures = [self._picture(at, scaled=True) for at in (index, *change.others)]
            picture = augmented(pictures, change)
            frame = np.array([1, 1, 0, 0, side, side], np.float32)
        return {
            "image": torch.from_numpy(picture.image)[None],
            "boxes": [torch.from_numpy(picture.boxes)],
            "labels": [torch.from_numpy(picture.labels)],
            "crowd": [torch.from_numpy(picture.crowd)],
            "area": [torch.from_numpy(picture.area)],
            "frame": torch.from_numpy(frame)[None],
            "draw": torch.tensor([draw], dtype=torch.int64),
        }

    def _picture(self, index: int, scaled: bool) -> Picture:
        """An image of its own memory; its boxes are in its original's pixels, or in the model's input if ``scaled``."""
        image = np.empty((3, 1, *self._reader.shape[1:]), np.uint8)
        self._reader.read_run(int(self._blocks[index]), image)
        one, frame = self._annotations, self._frames[index]
        mine = slice(*one.offsets[index : index + 2].tolist())
        boxes, area = one.boxes[mine].copy(), one.area[mine].copy()
        if scaled:
            boxes = boxes * np.tile(frame[:2], 2) + np.tile(frame[2:4], 2)
            area *= frame[0] * frame[1]
        return Picture(image[:, 0], boxes, one.labels[mine].copy(), one.crowd[mine].copy(), area, frame)
