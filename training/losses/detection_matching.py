"""Which true box an anchor or region is to find, and which ones say nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from backend.models.boxes import share_inside, to_network, wide
from training.tasks.protocol import Batch

IGNORED = -2  # overlaps a true box, but not enough, or lies in a crowd
BACKGROUND = -1
_MOSTLY = 0.5  # share of a box's area inside a crowd, from which nothing is known of it


@dataclass(frozen=True)
class Truth:
    """What is true of one image, in pixels of the model's input, fp32: crowds apart from boxes to learn from.

    Boxes without area are in neither.
    """

    boxes: Tensor  # [k, 4]
    labels: Tensor  # [k]
    crowds: Tensor  # [c, 4]


def truths(batch: Batch) -> Iterator[Truth]:
    """What is true of each image of ``batch``."""
    for boxes, labels, crowd, frame in zip(
        batch["boxes"], batch["labels"], batch["crowd"], batch["frame"], strict=True
    ):
        placed = to_network(wide(boxes), wide(frame))
        learned = ~crowd & (placed[:, 2:] > placed[:, :2]).all(1)
        yield Truth(placed[learned], labels[learned], placed[crowd])


def matches(boxes: Tensor, truth: Truth, positive: float, negative: float, low_quality: bool) -> Tensor:
    """For each of ``boxes`` ``[A, 4]`` the index of its true box, `BACKGROUND` or `IGNORED`: ``[A]``.

    Args:
        boxes: anchors or regions, in pixels of the input.
        truth: of their image.
        positive: overlap (intersection over union) from which a box is to find the true one.
        negative: overlap below which it is background.
        low_quality: let every true box have those that overlap it most, however little that is, but for nothing.
    """
    from torchvision.models.detection._utils import Matcher
    from torchvision.ops import box_iou

    if truth.boxes.shape[0]:
        overlaps = box_iou(truth.boxes, boxes)
        found: Tensor = Matcher(positive, negative, low_quality)(overlaps)
        # where a true box overlaps none, torchvision's matcher takes all that overlap it equally little
        found = torch.where(overlaps.amax(0) > 0, found, BACKGROUND)
    else:
        found = torch.full((boxes.shape[0],), BACKGROUND, device=boxes.device)
    in_crowd = share_inside(boxes, truth.crowds) > _MOSTLY
    return torch.where((found == BACKGROUND) & in_crowd, IGNORED, found)
