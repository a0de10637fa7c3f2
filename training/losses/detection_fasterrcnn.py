"""Faster R-CNN's losses: two stages, each with a term for what a sample is and one for where its box lies.

Per image they are those of torchvision: the mean over the image's samples, in the box terms of a smooth L1 that counts
for positive samples alone. Of several images torchvision takes the mean over all their samples together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend.models.detector_fasterrcnn import SAMPLED_ANCHORS, FasterRCNN, FasterRCNNRaw
from training.losses.detection_matching import Truth, matches, truths
from training.losses.detection_sampling import generator_of, sample
from training.tasks.protocol import Batch

ANCHOR_OVERLAPS, ANCHOR_POSITIVES = (0.7, 0.3), 0.5  # what is positive and what background; largest share of the former
REGION_OVERLAPS, REGION_POSITIVES = (0.5, 0.5), 0.25
BETA = 1 / 9  # below which the smooth L1 is a square


def loss_terms(section: Mapping[str, Any]) -> list[str]:
    """The names of the terms."""
    return ["objectness", "proposal", "classification", "box"]


def loss_counts(batch: Batch, section: Mapping[str, Any]) -> dict[str, float]:
    """Images, for each term."""
    return dict.fromkeys(loss_terms(section), float(len(batch["image"])))


def image_losses(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Each term for each image, ``[n]``: the mean over its samples."""
    net = cast(FasterRCNN, model)
    return _losses(net, net.raw(batch["image"]), batch)


def scored(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Detections ``[n, D, 6]`` and `image_losses`."""
    net = cast(FasterRCNN, model)
    raw = net.raw(batch["image"])
    return net.detect(raw, batch["frame"]), _losses(net, raw, batch)


@dataclass(frozen=True)
class _Samples:
    """What the second stage learns from in one image: positive regions first."""

    regions: Tensor  # [s, 4]
    labels: Tensor  # [s], 0 for background
    boxes: Tensor  # [p, 4], the true ones of the positive regions


def _losses(net: FasterRCNN, raw: FasterRCNNRaw, batch: Batch) -> dict[str, Tensor]:
    generators = [generator_of(draw, raw.objectness.device) for draw in batch["draw"].tolist()]
    images = list(zip(truths(batch), generators, strict=True))
    with torch.autocast(raw.objectness.device.type, enabled=False):
        anchors = zip(raw.objectness, raw.deltas, images, strict=True)
        first = [_of_anchors(net, logits, deltas, *image) for logits, deltas, image in anchors]
        samples = [_sampled(net, regions, *image) for regions, image in zip(raw.regions, images, strict=True)]
    logits, deltas = net.of_regions(raw.features, [one.regions for one in samples])
    counts = [len(one.regions) for one in samples]
    with torch.autocast(logits.device.type, enabled=False):
        regions = zip(logits.split(counts), deltas.split(counts), samples, strict=True)
        second = [_of_regions(net, *one) for one in regions]
    columns = zip(*(a + b for a, b in zip(first, second, strict=True)), strict=True)
    return {name: torch.stack(values) for name, values in zip(loss_terms({}), columns, strict=True)}


def _of_anchors(
    net: FasterRCNN, logits: Tensor, deltas: Tensor, truth: Truth, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Both terms of the first stage for one image, from what it says of its anchors: ``[A]``, ``[A, 4]``."""
    matched = matches(net.anchors, truth, *ANCHOR_OVERLAPS, low_quality=True)
    positive, negative = sample(matched, SAMPLED_ANCHORS, ANCHOR_POSITIVES, generator)
    chosen = torch.cat([positive, negative])
    target = torch.zeros_like(logits[chosen])
    target[: len(positive)] = 1
    offsets = net.rpn.box_coder.encode_single(truth.boxes[matched[positive]], net.anchors[positive])
    objectness = F.binary_cross_entropy_with_logits(logits[chosen], target, reduction="sum")
    box = F.smooth_l1_loss(deltas[positive], offsets, beta=BETA, reduction="sum")
    count = max(1, len(chosen))
    return objectness / count, box / count


def _sampled(net: FasterRCNN, regions: Tensor, truth: Truth, generator: torch.Generator) -> _Samples:
    """The regions that the second stage learns from, the true boxes among them."""
    regions = torch.cat([regions, truth.boxes])
    matched = matches(regions, truth, *REGION_OVERLAPS, low_quality=False)
    positive, negative = sample(matched, net.samples, REGION_POSITIVES, generator)
    which = matched[positive]
    labels = torch.cat([truth.labels[which] + 1, torch.zeros_like(negative)])
    return _Samples(regions[torch.cat([positive, negative])], labels, truth.boxes[which])


def _of_regions(net: FasterRCNN, logits: Tensor, deltas: Tensor, samples: _Samples) -> tuple[Tensor, Tensor]:
    """Both terms of the second stage for one image, from what it says of its samples: ``[s, K+1]``, ``[s, K+1, 4]``."""
    positives = len(samples.boxes)
    own = deltas[torch.arange(positives, device=deltas.device), samples.labels[:positives]]
    offsets = net.roi_heads.box_coder.encode_single(samples.boxes, samples.regions[:positives])
    classification = F.cross_entropy(logits, samples.labels, reduction="sum")
    box = F.smooth_l1_loss(own, offsets, beta=BETA, reduction="sum")
    count = max(1, len(samples.labels))
    return classification / count, box / count
