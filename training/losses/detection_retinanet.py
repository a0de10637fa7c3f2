"""RetinaNet's losses: focal loss of every anchor, and how far its box is from the true one.

The box term is GIoU's (Rezatofighi et al. 2019, arXiv:1902.09630): it is made of the overlap that scores judge, weighs
a pixel by the size of its box, and couples the four sides, which an L1 of offsets does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from backend.models.boxes import wide
from backend.models.detector_retinanet import RetinaNet, RetinaNetRaw
from training.losses.detection_matching import BACKGROUND, Truth, matches, truths
from training.tasks.protocol import Batch

POSITIVE, NEGATIVE = 0.5, 0.4  # overlaps, as in the paper


def loss_terms(section: Mapping[str, Any]) -> list[str]:
    """The names of the terms."""
    return ["classification", "box"]


def loss_counts(batch: Batch, section: Mapping[str, Any]) -> dict[str, float]:
    """Images, for each term."""
    return dict.fromkeys(loss_terms(section), float(len(batch["image"])))


def image_losses(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Each term for each image, ``[n]``: sums over its anchors, divided by how many of them have a true box."""
    net = cast(RetinaNet, model)
    return _losses(net, net.raw(batch["image"]), batch)


def scored(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Detections ``[n, D, 6]`` and `image_losses`."""
    net = cast(RetinaNet, model)
    raw = net.raw(batch["image"])
    return net.detect(raw, batch["frame"]), _losses(net, raw, batch)


def _losses(net: RetinaNet, raw: RetinaNetRaw, batch: Batch) -> dict[str, Tensor]:
    with torch.autocast(raw.logits.device.type, enabled=False):
        images = zip(wide(raw.logits), net.boxes(raw.deltas), truths(batch), strict=True)
        found = [_of_image(logits, boxes, net.anchors, truth) for logits, boxes, truth in images]
        return {"classification": torch.stack([f for f, _ in found]), "box": torch.stack([b for _, b in found])}


def _of_image(logits: Tensor, boxes: Tensor, anchors: Tensor, truth: Truth) -> tuple[Tensor, Tensor]:
    """Both terms of one image, from its ``logits`` ``[A, K]`` and decoded ``boxes`` ``[A, 4]``."""
    from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

    matched = matches(anchors, truth, POSITIVE, NEGATIVE, low_quality=True)
    positive = (matched >= 0).nonzero()[:, 0]
    which = matched[positive]
    count = max(1, len(positive))
    target = torch.zeros_like(logits)
    target[positive, truth.labels[which]] = 1
    known = (matched >= BACKGROUND).to(logits.dtype)
    focal = sigmoid_focal_loss(logits, target, reduction="none").sum(1) @ known
    box = generalized_box_iou_loss(boxes[positive], truth.boxes[which], reduction="sum")
    return focal / count, box / count
