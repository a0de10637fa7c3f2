"""Losses of detection. Each term is a sum for each image; of a batch their sum is divided by what `loss_counts` gives.

Nothing of an image's value depends on who else is in the batch, so that micro-batches give what one batch gives:
RetinaNet's terms are divided by the image's own number of positive anchors, Faster R-CNN's by that of its samples, and
images are counted; RT-DETR's are sums over true boxes, which are counted. Arithmetic is in fp32, without autocast.

A batch brings ``image`` uint8 ``[n, 3, S, S]``, ``frame`` ``[n, 6]``, the lists ``boxes``, ``labels`` and ``crowd``
with an entry an image, and ``draw`` ``[n]``, which seeds the choice of samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from training.losses import detection_fasterrcnn, detection_retinanet
from training.tasks.protocol import Batch


def loss_terms(section: Mapping[str, Any]) -> list[str]:
    """Names of the terms that the detector of ``section`` (the settings in `model`) has."""
    return list(_of(section["name"]).loss_terms(section))


def loss_counts(batch: Batch, section: Mapping[str, Any]) -> dict[str, float]:
    """What each term's sum over a batch is divided by."""
    return dict(_of(section["name"]).loss_counts(batch, section))


def image_losses(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Each term's value for each image, ``[n]``, fp32, with gradient."""
    return dict(_of_model(model).image_losses(model, batch))


def scored(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Detections ``[n, D, 6]`` as `Detector.forward` gives them, and `image_losses`, from one pass over the features.

    In evaluation mode and without gradients.
    """
    with torch.no_grad(), _evaluating(model):
        detections, losses = _of_model(model).scored(model, batch)
    return detections, losses


def _of(name: str) -> ModuleType:
    if name == "rtdetr_v2":
        from training.losses import detection_rtdetr

        return detection_rtdetr
    return detection_retinanet if name == "retinanet_resnet18" else detection_fasterrcnn


def _of_model(model: nn.Module) -> ModuleType:
    from backend.models.detector_fasterrcnn import FasterRCNN
    from backend.models.detector_retinanet import RetinaNet

    if isinstance(model, RetinaNet):
        return detection_retinanet
    return detection_fasterrcnn if isinstance(model, FasterRCNN) else _of("rtdetr_v2")


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was = model.training
    if was:
        model.eval()
    try:
        yield
    finally:
        if was:
            model.train()
