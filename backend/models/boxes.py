"""Boxes as tensors: from the original image to the model's input and back, clipped, and how much of one lies in others.

Boxes are ``x1, y1, x2, y2``. A frame is ``scale_x, scale_y, pad_x, pad_y, width, height``: a position in the model's
input is that in the original image times the scale, plus the pad; width and height are the original's, in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor


def wide(values: Tensor) -> Tensor:
    """``values`` in fp32 at least: boxes are not to be reckoned in autocast's types."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def to_network(boxes: Tensor, frame: Tensor) -> Tensor:
    """Boxes ``[..., k, 4]`` in pixels of the original image, in pixels of the model's input; frames ``[..., 6]``."""
    return boxes * frame[..., None, [0, 1, 0, 1]] + frame[..., None, [2, 3, 2, 3]]


def to_image(boxes: Tensor, frame: Tensor) -> Tensor:
    """Boxes ``[..., k, 4]`` in pixels of the model's input, in pixels of the original image; frames ``[..., 6]``."""
    return (boxes - frame[..., None, [2, 3, 2, 3]]) / frame[..., None, [0, 1, 0, 1]]


def clipped(boxes: Tensor, frame: Tensor) -> Tensor:
    """Boxes ``[..., k, 4]`` in pixels of the original image, without what lies outside of it; frames ``[..., 6]``."""
    return torch.minimum(boxes.clamp_min(0), frame[..., None, [4, 5, 4, 5]])


def share_inside(boxes: Tensor, regions: Tensor) -> Tensor:
    """The largest share of the area of each of ``boxes`` ``[k, 4]`` that lies in one of ``regions`` ``[r, 4]``.

    ``[k]``; it is 0 where there are no regions, and of boxes without area.
    """
    if regions.shape[0] == 0:
        return boxes.new_zeros(boxes.shape[0])
    low = torch.maximum(boxes[:, None, :2], regions[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], regions[None, :, 2:])
    inside = (high - low).clamp_min(0).prod(2).amax(1)
    area = (boxes[:, 2:] - boxes[:, :2]).clamp_min(0).prod(1)
    return torch.where(area > 0, inside / area, 0)
