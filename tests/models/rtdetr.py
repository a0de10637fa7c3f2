"""A small RT-DETR and pictures for it: what tests of the model and of its losses share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from backend.models.detector_rtdetr import RTDetr, Sizes

TINY = Sizes(stem=16, stages=(16, 16, 32, 32), depths=(1, 1, 1, 1), width=32, inner=64, heads=4, layers=2)
SIDE, CLASSES = 64, 3
COLOURS = ((220, 40, 40), (40, 220, 40), (40, 40, 220))


def section(**changes: Any) -> dict[str, Any]:
    return {
        "name": "rtdetr_v2",
        "queries": 20,
        "denoising": 10,
        "norm": "batch",
        "min_score": 0.01,
        "max_detections": 10,
        **changes,
    }


def tiny(seed: int = 0, **changes: Any) -> RTDetr:
    """One whose boxes are not the anchors any more, as those of a fresh one are."""
    torch.manual_seed(seed)
    model = RTDetr(section(**changes), CLASSES, SIDE, TINY)
    for head in model.net.decoder.bbox_embed:
        torch.nn.init.normal_(head.layers[-1].weight, std=0.3)
    return model


def pictures(counts: tuple[int, ...] = (2, 0, 3, 1), seed: int = 1, crowded: int | None = None) -> dict[str, Any]:
    """A batch of pictures of twice the network's width, of coloured rectangles; a colour is a class.

    Args:
        counts: rectangles of each.
        seed: where they are.
        crowded: a picture whose first rectangle is a region of many.
    """
    rng = np.random.default_rng(seed)
    batch: dict[str, Any] = {"boxes": [], "labels": [], "crowd": [], "area": []}
    images = rng.integers(84, 144, (len(counts), 3, SIDE, SIDE)).astype(np.uint8)
    for row, count in enumerate(counts):
        corners = []
        for number in range(count):
            x, y, width, height = 4 + 18 * number, rng.integers(18, 30), rng.integers(12, 17), rng.integers(12, 17)
            label = int(rng.integers(CLASSES))
            images[row, :, y : y + height, x : x + width] = np.array(COLOURS[label])[:, None, None]
            corners.append(([x, y, x + width, y + height], label))
        boxes = (torch.tensor([box for box, _ in corners]).reshape(-1, 4).float() - torch.tensor([0, 16, 0, 16])) * 2
        batch["boxes"].append(boxes)
        batch["labels"].append(torch.tensor([label for _, label in corners], dtype=torch.int64))
        batch["crowd"].append(torch.tensor([row == crowded and one == 0 for one in range(count)], dtype=torch.bool))
        batch["area"].append((boxes[:, 2:] - boxes[:, :2]).prod(1))
    frame = torch.tensor([0.5, 0.5, 0.0, 16.0, 128.0, 64.0])
    return {
        "image": torch.from_numpy(images),
        "frame": frame.expand(len(counts), 6).clone(),
        "draw": torch.arange(len(counts)) + 7,
        **batch,
    }


def rows(batch: dict[str, Any], *wanted: int) -> dict[str, Any]:
    """Some rows of a batch."""
    return {
        key: value[list(wanted)] if isinstance(value, torch.Tensor) else [value[row] for row in wanted]
        for key, value in batch.items()
    }
