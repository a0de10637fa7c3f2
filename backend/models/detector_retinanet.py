"""RetinaNet (Lin et al. 2017, arXiv:1708.02002) on a ResNet-18: one stage, light.

Composed of torchvision's parts. The pyramid has levels 3 to 7 (strides 8 to 128). Each level has anchors of its own
size in `anchor_sizes`, and of 2^(1/3) and 2^(2/3) times that, as in the paper. Pyramid and head are narrower than the
paper's 256 channels and four layers, which a ResNet-18 does not fill, and group norm (Wu and He 2018,
arXiv:1803.08494) lets the head learn from nothing in small batches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from backend.models.boxes import wide
from backend.models.detector_parts import Detector, Inputs

CHANNELS = 128  # of pyramid and head
LAYERS = 2  # of the head, before its last one
GROUPS = 16
OCTAVE = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
_TRUNK = (64, 128, 256, 512)  # channels of the trunk's stages


@dataclass(frozen=True)
class RetinaNetRaw:
    """What the head says of each anchor: ``logits`` ``[n, A, K]``, ``deltas`` ``[n, A, 4]`` (`BoxCoder`'s)."""

    logits: Tensor
    deltas: Tensor


class RetinaNet(Detector):
    """See the module, and `Detector` for the arguments."""

    def __init__(self, section: Mapping[str, Any], classes: int | Sequence[str], image_size: int) -> None:
        from torchvision.models.detection._utils import BoxCoder
        from torchvision.models.detection.anchor_utils import AnchorGenerator

        sizes = tuple(tuple(size * factor for factor in OCTAVE) for size in section["anchor_sizes"])
        anchors = AnchorGenerator(sizes, (tuple(section["anchor_ratios"]),) * len(sizes))
        super().__init__(section, classes, image_size, _sides(image_size), anchors)
        self.backbone = _backbone()
        self.head = _head(self.per_position, self.classes)
        self.box_coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
        self.freeze_norms()

    def raw(self, images: Tensor) -> RetinaNetRaw:
        found = self.head(list(self.features(images).values()))
        return RetinaNetRaw(found["cls_logits"], found["bbox_regression"])

    def boxes(self, deltas: Tensor) -> Tensor:
        """Boxes ``[n, A, 4]`` in pixels of the input, fp32, from what the head says of the anchors."""
        count = deltas.shape[0]
        anchors = self.anchors.expand(count, -1, 4).reshape(-1, 4)
        decoded: Tensor = self.box_coder.decode_single(wide(deltas).reshape(-1, 4), anchors)
        return decoded.reshape(count, -1, 4)

    def detect(self, raw: RetinaNetRaw, frames: Tensor) -> Tensor:
        with torch.autocast(frames.device.type, enabled=False):
            boxes, scores = self.boxes(raw.deltas), wide(raw.logits).sigmoid()
            found = [self.select.of_image(*image) for image in zip(boxes, scores, frames, strict=True)]
            return torch.stack(found)

    def _work(self, training: bool) -> list[tuple[nn.Module, Inputs]]:
        return [(self.backbone, self._blank_image()), (self.head, self._blank_features())]


def _sides(image_size: int) -> list[int]:
    """Rows and columns of levels 3 to 7."""
    sides = [math.ceil(image_size / 8)]
    for _ in range(4):
        sides.append(math.ceil(sides[-1] / 2))
    return sides


def _backbone() -> nn.Module:
    from torchvision.models import resnet18
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    levels = {f"layer{stage}": str(place) for place, stage in enumerate((2, 3, 4))}
    coarser = LastLevelP6P7(_TRUNK[-1], CHANNELS)
    return BackboneWithFPN(resnet18(weights=None), levels, list(_TRUNK[1:]), CHANNELS, extra_blocks=coarser)


def _head(per_position: int, classes: int) -> nn.Module:
    from torchvision.models.detection.retinanet import RetinaNetHead

    head = RetinaNetHead(CHANNELS, per_position, classes, norm_layer=partial(nn.GroupNorm, GROUPS))
    for part in (head.classification_head, head.regression_head):
        part.conv = part.conv[:LAYERS]
    return head
