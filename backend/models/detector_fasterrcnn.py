"""Faster R-CNN (Ren et al. 2015, arXiv:1506.01497) with feature pyramids (Lin et al. 2017, arXiv:1612.03144).

Composed of torchvision's parts under torchvision's names, so that its published weights fit:
`fasterrcnn_resnet50` is `fasterrcnn_resnet50_fpn_v2` (Li et al. 2021, arXiv:2111.11429), `fasterrcnn_mobilenet` is
`fasterrcnn_mobilenet_v3_large_fpn`. The latter's pyramid has three levels, of strides 32, 32 and 64, and keeps
torchvision's layout of anchors: all of `anchor_sizes` on each of them. The former has five, each with a size of its
own.

torchvision's own module brings images to size by itself, draws samples from the global generator and mixes the images
of a batch in its losses; what is here is what takes the place of that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from backend.models.boxes import wide
from backend.models.detector_parts import Detector, Inputs

WIDTH = 256  # of the pyramid
SAMPLED_ANCHORS = 256  # that the first stage learns from, of each image
_HIDDEN = 1024  # of the second stage
_POOLED = 7  # rows and columns of a region's features
_BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # by which the second stage's offsets are scaled


@dataclass(frozen=True)
class FasterRCNNRaw:
    """What the first stage says of each anchor, and the features for the second one.

    Attributes:
        features: the pyramid.
        objectness: logits ``[n, A]``, fp32.
        deltas: ``[n, A, 4]`` (`BoxCoder`'s), fp32.
        regions: of each image ``[r, 4]``, in pixels of the input, fp32, without gradient.
    """

    features: dict[str, Tensor]
    objectness: Tensor
    deltas: Tensor
    regions: list[Tensor]


class FasterRCNN(Detector):
    """See the module, and `Detector` for the arguments."""

    def __init__(self, section: Mapping[str, Any], classes: int | Sequence[str], image_size: int) -> None:
        from torchvision.models.detection.anchor_utils import AnchorGenerator

        light = section["name"] == "fasterrcnn_mobilenet"
        all_sizes = tuple(section["anchor_sizes"])
        sizes = (all_sizes,) * 3 if light else tuple((size,) for size in all_sizes)
        anchors = AnchorGenerator(sizes, (tuple(section["anchor_ratios"]),) * len(sizes))
        super().__init__(section, classes, image_size, _sides(image_size, light), anchors)
        self.samples: int = section["samples"]
        self.proposals: int = section["proposals"]
        self.backbone = _mobilenet() if light else _resnet()
        self.rpn = _first_stage(anchors, self.per_position, self.proposals, 1 if light else 2)
        self.roi_heads = _second_stage(self.classes, light)
        self.freeze_norms()

    def raw(self, images: Tensor) -> FasterRCNNRaw:
        from torchvision.models.detection.rpn import concat_box_prediction_layers

        features = self.features(images)
        logits, offsets = self.rpn.head(list(features.values()))
        count = len(images)
        objectness, deltas = concat_box_prediction_layers(logits, offsets)
        objectness, deltas = wide(objectness).reshape(count, -1), wide(deltas).reshape(count, -1, 4)
        with torch.autocast(images.device.type, enabled=False):
            return FasterRCNNRaw(features, objectness, deltas, self._regions(objectness.detach(), deltas.detach()))

    def of_regions(self, features: dict[str, Tensor], regions: list[Tensor]) -> tuple[Tensor, Tensor]:
        """What the second stage says of ``regions`` (of each image ``[r, 4]``), one image's after the other's.

        Class logits ``[R, K + 1]``, of which the first is for background, and offsets ``[R, K + 1, 4]``; fp32.
        """
        heads = self.roi_heads
        sizes = [(self.image_size, self.image_size)] * len(regions)
        logits, deltas = heads.box_predictor(heads.box_head(heads.box_roi_pool(features, regions, sizes)))
        return wide(logits), wide(deltas).unflatten(1, (-1, 4))

    def detect(self, raw: FasterRCNNRaw, frames: Tensor) -> Tensor:
        logits, deltas = self.of_regions(raw.features, raw.regions)
        with torch.autocast(frames.device.type, enabled=False):
            boxes = self.roi_heads.box_coder.decode(deltas.flatten(1), raw.regions).reshape(-1, self.classes + 1, 4)[
                :, 1:
            ]
            scores = logits.softmax(1)[:, 1:]
            images = zip(_by_image(boxes, raw.regions), _by_image(scores, raw.regions), frames, strict=True)
            return torch.stack([self.select.of_image(*image) for image in images])

    def _regions(self, objectness: Tensor, deltas: Tensor) -> list[Tensor]:
        """The regions of each image that the first stage holds for objects, ``[r, 4]``; at most `proposals`."""
        count = len(objectness)
        boxes = self.rpn.box_coder.decode(deltas.reshape(-1, 4), [self.anchors] * count).view(count, -1, 4)
        sizes = [(self.image_size, self.image_size)] * count
        regions: list[Tensor] = self.rpn.filter_proposals(boxes, objectness, sizes, self.anchors_per_level)[0]
        return regions

    def _work(self, training: bool) -> list[tuple[nn.Module, Inputs]]:
        regions = self.samples if training else min(self.proposals, self.anchors.shape[0])
        pooled = torch.empty(regions, WIDTH, _POOLED, _POOLED, device="meta", requires_grad=True)
        second = nn.Sequential(self.roi_heads.box_head, self.roi_heads.box_predictor)
        return [
            (self.backbone, self._blank_image()),
            (self.rpn.head, self._blank_features()),
            (second, pooled),
        ]


def _by_image(values: Tensor, regions: list[Tensor]) -> Sequence[Tensor]:
    """``values`` of all regions, cut by image; of one image they are left whole: a traced graph would keep the cut."""
    return [values] if len(regions) == 1 else values.split([len(each) for each in regions])


def _sides(image_size: int, light: bool) -> list[int]:
    """Rows and columns of each level."""
    strides = (32, 32, 64) if light else (4, 8, 16, 32, 64)
    return [math.ceil(image_size / stride) for stride in strides]


def _resnet() -> nn.Module:
    from torchvision.models import resnet50
    from torchvision.models.detection.backbone_utils import BackboneWithFPN

    levels = {f"layer{stage}": str(stage - 1) for stage in (1, 2, 3, 4)}
    return BackboneWithFPN(resnet50(weights=None), levels, [256, 512, 1024, 2048], WIDTH, norm_layer=nn.BatchNorm2d)


def _mobilenet() -> nn.Module:
    """Its batch norms have the epsilon of the published detector, 1e-5, not that of the classifier."""
    from torchvision.models.detection.backbone_utils import mobilenet_backbone

    backbone: nn.Module = mobilenet_backbone(
        backbone_name="mobilenet_v3_large", weights=None, fpn=True, norm_layer=nn.BatchNorm2d, trainable_layers=6
    )
    return backbone


def _first_stage(anchors: nn.Module, per_position: int, proposals: int, depth: int) -> nn.Module:
    """torchvision's network of region proposals; in training it proposes twice as many."""
    from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

    head = RPNHead(WIDTH, per_position, conv_depth=depth)
    counts = {"training": 2 * proposals, "testing": proposals}
    return RegionProposalNetwork(anchors, head, 0.7, 0.3, SAMPLED_ANCHORS, 0.5, counts, counts, 0.7)


def _second_stage(classes: int, light: bool) -> nn.Module:
    """torchvision's second stage; thresholds and samples are not its own business here."""
    from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
    from torchvision.models.detection.roi_heads import RoIHeads
    from torchvision.ops import MultiScaleRoIAlign

    pool = MultiScaleRoIAlign(["0", "1", "2", "3"], _POOLED, sampling_ratio=2)
    if light:
        head = TwoMLPHead(WIDTH * _POOLED**2, _HIDDEN)
    else:
        head = FastRCNNConvFCHead((WIDTH, _POOLED, _POOLED), [WIDTH] * 4, [_HIDDEN], norm_layer=nn.BatchNorm2d)
    predictor = FastRCNNPredictor(_HIDDEN, classes + 1)
    return RoIHeads(pool, head, predictor, 0.5, 0.5, 0, 0.25, _BOX_WEIGHTS, 0.0, 0.5, 0)
