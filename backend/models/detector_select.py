"""From scored boxes to detections: in the original image, clipped, without doubles, the surest first."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from backend.models.boxes import clipped, to_image

CANDIDATES = 1000  # boxes of an image, over all classes, among which doubles are looked for: torchvision's number
_LEAST_SIDE = 1e-2  # pixels of the original image: what is smaller lies outside of it


@dataclass(frozen=True)
class Selection:
    """Which boxes of an image are kept.

    All shapes are fixed up to non-maximum suppression and after it, so that a traced graph serves every image.
    """

    min_score: float
    nms_iou: float
    max_detections: int

    def of_image(self, boxes: Tensor, scores: Tensor, frame: Tensor) -> Tensor:
        """Detections ``[D, 6]`` of one image.

        Args:
            boxes: ``[r, 4]`` or, where each class has its own, ``[r, K, 4]``, in pixels of the model's input, fp32.
            scores: ``[r, K]``, from 0 to 1, fp32.
            frame: ``[6]``.
        """
        from torchvision.ops import batched_nms

        boxes, scores, labels = self._candidates(boxes, scores)
        boxes = clipped(to_image(boxes, frame), frame)
        has_area = ((boxes[:, 2:] - boxes[:, :2]) >= _LEAST_SIDE).all(1)
        scores = torch.where(has_area & (scores >= self.min_score), scores, 0)
        kept = batched_nms(boxes, scores, labels, self.nms_iou)[: self.max_detections]
        found = torch.cat([boxes, scores[:, None], labels.to(boxes.dtype)[:, None]], dim=1)[kept]
        nothing = _nothing(boxes).expand(self.max_detections, 6)
        found = torch.where(found[:, 4:5] > 0, found, nothing[:1])
        return torch.cat([found, nothing])[: self.max_detections]

    def _candidates(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The surest pairs of box and class: boxes ``[c, 4]``, scores and labels ``[c]``.

        There are always as many: an empty box stands in front, and is taken again and again where others are lacking.
        """
        count, classes = max(CANDIDATES, self.max_detections), scores.shape[1]
        boxes = torch.cat([boxes.new_zeros(1, *boxes.shape[1:]), boxes])
        scores = torch.cat([scores.new_zeros(1, classes), scores])
        best, place = torch.cat([scores.reshape(-1), scores.new_zeros(count)]).topk(count)
        place = torch.where(best > 0, place, 0)
        row = torch.div(place, classes, rounding_mode="floor")
        label = place - row * classes
        return (boxes[row, label] if boxes.dim() == 3 else boxes[row]), best, label


def _nothing(like: Tensor) -> Tensor:
    """A missing detection, ``[6]``."""
    return torch.tensor([0, 0, 0, 0, 0, -1], dtype=like.dtype, device=like.device)
