"""COCO's average precision (Lin et al. 2014), as torchmetrics and faster-coco-eval compute it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.scores.detection_matching import RECALLS, Floats, Picture

MOST = 100
"""COCO counts no more than so many detections of a class in an image."""

OVERALL = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large", "mar_100")


@dataclass(frozen=True)
class CocoScores:
    """The numbers over all classes, and each class's average precision ``[K]``; NaN where there is none."""

    overall: dict[str, float]
    by_class: Floats  # mean over overlaps from 0.5 to 0.95
    by_class_50: Floats  # at an overlap of 0.5


def coco_scores(pictures: Sequence[Picture], classes: int) -> CocoScores:
    """Score all ``pictures`` of a split at once; without any, nothing is defined."""
    undefined = np.full(classes, np.nan)
    if not pictures:
        return CocoScores(dict.fromkeys(OVERALL, float("nan")), undefined, undefined)
    found = _computed(pictures)
    precision = found["precision"].numpy()[..., 0, -1]  # [10 overlaps, 101 recalls, classes that occur]
    by_class, by_class_50 = undefined.copy(), undefined.copy()
    for place, label in enumerate(found["classes"].reshape(-1).tolist()):
        by_class[label] = _mean(precision[..., place])
        by_class_50[label] = _mean(precision[0, :, place])
    overall = {name: _or_nan(float(found[name])) for name in OVERALL}
    return CocoScores(overall, by_class, by_class_50)


def _computed(pictures: Sequence[Picture]) -> dict[str, Tensor]:
    # Here, because it takes seconds to import, and preparation never scores.
    from torchmetrics.detection import MeanAveragePrecision

    # Thresholds of its own are rounded to float32, and above what they say: a recall of 1/10 would not reach 0.1.
    # Each class's numbers are read off the extended summary: class_metrics would score every class once more.
    metric = MeanAveragePrecision(
        box_format="xyxy",
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
        rec_thresholds=RECALLS.tolist(),
        extended_summary=True,
        backend="faster_coco_eval",
    )
    metric.warn_on_many_detections = False
    metric.update([_detections(picture) for picture in pictures], [_truth(picture) for picture in pictures])
    found: dict[str, Any] = metric.compute()
    if "precision" not in found:
        raise RuntimeError("torchmetrics gives no extended summary of these pictures")
    return found


# In float64, in which the differences of float32 corners are exact: overlaps at a threshold stay where they are.
def _detections(picture: Picture) -> dict[str, Tensor]:
    return {
        "boxes": torch.from_numpy(picture.boxes),
        "scores": torch.from_numpy(picture.scores),
        "labels": torch.from_numpy(picture.labels),
    }


def _truth(picture: Picture) -> dict[str, Tensor]:
    return {
        "boxes": torch.from_numpy(picture.true_boxes),
        "labels": torch.from_numpy(picture.true_labels),
        "iscrowd": torch.from_numpy(picture.crowd.astype(np.int64)),
        "area": torch.from_numpy(picture.area),
    }


def _mean(precision: NDArray[Any]) -> float:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else float("nan")


def _or_nan(value: float) -> float:
    """COCO says -1 where a score is undefined."""
    return float("nan") if value < 0 else value
