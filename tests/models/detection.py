"""Small detectors, and batches for them, made up."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SIZE = 64
CLASSES = ["person", "car", "bus"]


def section(name: str = "retinanet_resnet18", **changes: Any) -> dict[str, Any]:
    """The settings in `model`, for pictures of 64 pixels."""
    return {
        "name": name,
        "norm": "frozen",
        "anchor_sizes": [8.0, 16.0, 24.0, 32.0, 48.0],
        "anchor_ratios": [0.5, 1.0, 2.0],
        "proposals": 60,
        "samples": 32,
        "nms_iou": 0.5,
        "min_score": 0.01,
        "max_detections": 20,
        **changes,
    }


def images(count: int, seed: int = 0, size: int = SIZE) -> Tensor:
    return torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def frames(count: int) -> Tensor:
    """Of originals of 128 by 96 pixels, halved, with grey above and below."""
    return torch.tensor([[0.5, 0.5, 0, 8, 128, 96]]).repeat(count, 1)


def batch(*boxes: list[list[float]], crowds: int = 0, seed: int = 0) -> dict[str, Any]:
    """An image for each list of boxes (x1, y1, x2, y2 in an original of 128 by 96); the last ``crowds`` are crowds."""
    counts = [len(each) for each in boxes]
    return {
        "image": images(len(boxes), seed),
        "frame": frames(len(boxes)),
        "boxes": [torch.tensor(each, dtype=torch.float32).reshape(-1, 4) for each in boxes],
        "labels": [torch.arange(count) % len(CLASSES) for count in counts],
        "crowd": [torch.arange(count) >= count - crowds for count in counts],
        "draw": torch.arange(len(boxes)) + 7,
    }


MANY = [[10, 10, 40, 80], [50, 20, 120, 60], [60, 62, 90, 90], [5, 5, 30, 30], [100, 60, 126, 94]]
ONE = [[20, 30, 70, 80]]
