"""The detectors by name. Each is a module of uint8 images and their frames, whose `forward` gives detections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn


def build_detector(section: Mapping[str, Any], classes: int | Sequence[str], image_size: int) -> nn.Module:
    """The detector that ``section`` (the settings in `model`) names, freshly initialised.

    Args:
        section: the settings.
        classes: how many there are, or their names, by which published weights find their rows in the head.
        image_size: side of the square that images are brought to, in pixels, a multiple of 32.
    """
    name = section["name"]
    if name == "rtdetr_v2":
        from backend.models.detector_rtdetr import RTDetr

        return RTDetr(section, classes if isinstance(classes, int) else len(classes), image_size)
    if name == "retinanet_resnet18":
        from backend.models.detector_retinanet import RetinaNet

        return RetinaNet(section, classes, image_size)
    from backend.models.detector_fasterrcnn import FasterRCNN

    return FasterRCNN(section, classes, image_size)
