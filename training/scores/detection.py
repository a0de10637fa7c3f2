"""Scores of detections: COCO's average precision, and precision, recall and confusions at one threshold of score.

`training.scores.detection_coco` has the first, `training.scores.detection_matching` the arithmetic of the others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from training.schemas.detection import DetectionEvaluationSection
from training.scores.detection_coco import OVERALL, CocoScores, coco_scores
from training.scores.detection_layout import detection_definitions, detection_layout
from training.scores.detection_matching import (
    FALSE,
    FOUND,
    Curve,
    Floats,
    Ints,
    Picture,
    confusion_of,
    curve_of,
    match_by_score,
)
from training.scores.detection_table import render

SIZES = (32.0**2, 96.0**2)
"""Areas in pixels from which a box is medium, and from which it is large."""

_AT_CONFIDENCE = ("precision", "recall", "f1")
_OF_CLASS = ("map_{}", "map_50_{}", *(f"{name}_{{}}" for name in _AT_CONFIDENCE))
_MOST_HEADLINES = 20  # classes of which lists of runs show their average precision


@dataclass(frozen=True)
class _Batch:
    """What was added at once, where it was: nothing waits for the device before the end.

    True boxes are copies, one image's after another's: what a loader process gives is an open file while it is held.
    """

    detections: Tensor  # [n, D, 6]
    lengths: Sequence[int]  # true boxes of each image
    boxes: Tensor
    labels: Tensor
    crowd: Tensor
    area: Tensor


@dataclass(frozen=True)
class Matched:
    """All detections of a split: their scores, classes and what became of them, ``[d]`` each."""

    scores: Floats
    labels: Ints
    fates: Ints


@dataclass(frozen=True)
class _Found:
    """Everything that is computed from what was added; counts are ``[K]``."""

    pictures: Sequence[Picture]
    not_finite: int
    coco: CocoScores
    matched: Matched
    confusion: Ints  # [K + 1, K + 1]
    counts: dict[str, Ints]


class DetectionScores:
    """COCO's scores over all classes and of each; precision, recall and F1 where ``confidence`` is asked for.

    Boxes are kept until the end (some numbers each): average precision needs them all. `record` says what each score
    is. Only what has a score above 0 is a detection.

    Args:
        classes: names of the classes.
        confidence: the score that a box needs to count in precision, recall, F1 and confusions.
        iou: the overlap with a true box from which a box counts as found, there.
    """

    def __init__(self, classes: Sequence[str], confidence: float = 0.5, iou: float = 0.5) -> None:
        self.classes, self.confidence, self.iou = tuple(classes), confidence, iou
        self.stems = _stems(self.classes, {*OVERALL, *_AT_CONFIDENCE})
        self._batches: list[_Batch] = []
        self._kept: _Found | None = None

    @classmethod
    def of(cls, evaluation: DetectionEvaluationSection, facts: Mapping[str, Any]) -> DetectionScores:
        """Empty scores for a dataset with these ``facts``."""
        return cls(facts["classes"], evaluation.confidence, evaluation.iou)

    @torch.no_grad()
    def update(
        self,
        detections: Tensor,
        boxes: Sequence[Tensor],
        labels: Sequence[Tensor],
        crowd: Sequence[Tensor],
        area: Sequence[Tensor],
    ) -> None:
        """Add a batch; nothing waits for the device.

        Args:
            detections: ``[n, D, 6]``, x1, y1, x2, y2 in pixels of the image as it came, score, label.
            boxes: of each image ``[k, 4]``, the true ones, in the same pixels.
            labels: of each image ``[k]``, classes of the true boxes.
            crowd: of each image ``[k]``, whether a true box is a region of many, which decides nothing.
            area: of each image ``[k]`` in pixels, by which a true box is small, medium or large; where it is 0,
                average precision takes the box's own.

        Raises:
            ValueError: shapes or numbers of images do not fit.
        """
        n, counts = len(detections), [len(one) for one in boxes]
        if detections.ndim != 3 or detections.shape[2] != 6:
            raise ValueError(f"expected detections [n, D, 6], got {list(detections.shape)}")
        if any(len(field) != n for field in (boxes, labels, crowd, area)):
            raise ValueError(f"expected boxes, labels, crowd and area of {n} images")
        if any([len(one) for one in field] != counts for field in (labels, crowd, area)):
            raise ValueError("expected a label, a crowd mark and an area for each true box")
        if n:
            truth = (torch.cat([*field]) for field in (boxes, labels, crowd, area))
            self._batches.append(_Batch(detections.detach(), counts, *truth))
        self._kept = None

    def compute(self) -> dict[str, float]:
        """All scores that are defined."""
        return {name: value for name, value in self._scores() if math.isfinite(value)}

    def pictures(self) -> Sequence[Picture]:
        """What was added, an entry for each image in its order."""
        return self._all().pictures

    def matched(self) -> Matched:
        """What became of each detection of the split."""
        return self._all().matched

    def confusion(self) -> Ints:
        """``[K + 1, K + 1]``, see `training.scores.detection_matching.confusion_of`."""
        return self._all().confusion

    def curve(self, label: int | None = None) -> Curve | None:
        """Precision and recall over scores, of one class or of all boxes; None without a true box."""
        found = self._all()
        boxes, every = found.counts["boxes"], found.matched
        if label is not None:
            kept = every.labels == label
            return curve_of(every.scores[kept], every.fates[kept], int(boxes[label])) if boxes[label] else None
        return curve_of(every.scores, every.fates, int(boxes.sum())) if boxes.sum() else None

    def _all(self) -> _Found:
        if self._kept is None:
            pictures, not_finite = _pictures(self._batches, len(self.classes))
            matched = _matched(pictures, self.iou)
            self._kept = _Found(
                pictures,
                not_finite,
                coco_scores(pictures, len(self.classes)),
                matched,
                self._confusion(pictures),
                self._counts(pictures, matched),
            )
        return self._kept

    def _confusion(self, pictures: Sequence[Picture]) -> Ints:
        size = len(self.classes)
        matrix = np.zeros((size + 1, size + 1), dtype=np.int64)
        for picture in pictures:
            matrix += confusion_of(picture.surer_than(self.confidence), self.iou, size)
        return matrix

    def _counts(self, pictures: Sequence[Picture], matched: Matched) -> dict[str, Ints]:
        """Counts ``[K]`` of images, true boxes by size, and detections; the sure ones by what became of them."""
        size = len(self.classes)

        def tally(labels: Sequence[Ints]) -> Ints:
            return np.bincount(np.concatenate([np.zeros(0, np.int64), *labels]), minlength=size)

        true = [picture.true_labels[~picture.crowd] for picture in pictures]
        sizes = [np.digitize(picture.area[~picture.crowd], SIZES) for picture in pictures]
        sure = matched.scores >= self.confidence
        counts = {
            "images": tally([np.unique(labels) for labels in true]),
            "boxes": tally(true),
            "crowd": tally([picture.true_labels[picture.crowd] for picture in pictures]),
        }
        for place, name in enumerate(("small", "medium", "large")):
            counts[name] = tally([labels[of == place] for labels, of in zip(true, sizes, strict=True)])
        counts["detections"] = tally([matched.labels])
        for name, fate in (("found", FOUND), ("false", FALSE)):
            counts[name] = tally([matched.labels[sure & (matched.fates == fate)]])
        counts["missed"] = counts["boxes"] - counts["found"]
        return counts

    def _scores(self) -> Iterator[tuple[str, float]]:
        found = self._all()
        yield from found.coco.overall.items()
        everything = {name: int(values.sum()) for name, values in found.counts.items()}
        yield from _rates(everything).items()
        curve = self.curve()
        best = curve.best() if curve else None
        if best:
            yield "best_f1", best[0]
            yield "best_f1_confidence", best[1]
        for label, stem in enumerate(self.stems):
            yield f"map_{stem}", float(found.coco.by_class[label])
            yield f"map_50_{stem}", float(found.coco.by_class_50[label])
            of_class = {name: int(values[label]) for name, values in found.counts.items()}
            for name, value in _rates(of_class).items():
                yield f"{name}_{stem}", value

    def names(self) -> dict[str, str | None]:
        """Names of all scores with the way that is better; the best F1 was chosen on the split and ranks nothing."""
        ways: dict[str, str | None] = dict.fromkeys((*OVERALL, *_AT_CONFIDENCE), "max")
        ways |= {name.format(stem): "max" for stem in self.stems for name in _OF_CLASS}
        return ways | {"best_f1": None, "best_f1_confidence": None}

    def _headlines(self) -> list[str]:
        """What lists of runs show: few of all classes, and of each class one, where classes are few."""
        stems = self.stems if len(self.stems) <= _MOST_HEADLINES else []
        return ["map", "map_50", "map_75", "precision", "recall", *(f"map_{stem}" for stem in stems)]

    def record(self) -> dict[str, Any]:
        """Scale, thresholds, counts by class, confusions, definitions and layout."""
        found = self._all()
        counts = {
            name: {what: int(values[label]) for what, values in found.counts.items()}
            for label, name in enumerate(self.classes)
        }
        record: dict[str, Any] = {
            "kind": "detection",
            "scale": "boxes are in pixels of the images as they came",
            "images": len(found.pictures),
            "classes": dict(zip(self.stems, self.classes, strict=True)),
            "confidence": self.confidence,
            "iou": self.iou,
            "counts": counts,
            "all_counts": {what: int(values.sum()) for what, values in found.counts.items()},
            "confusion": found.confusion.tolist(),
            "not_finite": found.not_finite,
            "headlines": self._headlines(),
        }
        record["all_counts"]["images"] = len(found.pictures)
        record["definitions"] = detection_definitions(record)
        return {**record, "layout": detection_layout(record).to_json()}

    def table(self) -> str:
        """The layout's tables as text."""
        return render(self.compute(), self.record())

    def frame(self) -> pd.DataFrame:
        """A row for each class, and one for background: scores, counts, and what its boxes were taken for."""
        found, metrics = self._all(), self.compute()
        frame = pd.DataFrame({"class": [*self.classes, "background"]})
        for name, values in found.counts.items():
            frame[name] = pd.array([*values.tolist(), None], dtype="Int64")
        for name, column in zip(_OF_CLASS, ("ap", "ap_50", *_AT_CONFIDENCE), strict=True):
            frame[column] = [*(metrics.get(name.format(stem), math.nan) for stem in self.stems), math.nan]
        taken = pd.DataFrame(found.confusion, columns=[*(f"taken_for_{stem}" for stem in self.stems), "not_found"])
        return pd.concat([frame, taken], axis=1)


def _rates(counts: Mapping[str, int]) -> dict[str, float]:
    """Precision, recall and F1 of counts; NaN where there was nothing to divide by."""
    found, false, boxes = counts["found"], counts["false"], counts["boxes"]
    return {
        "precision": found / (found + false) if found + false else math.nan,
        "recall": found / boxes if boxes else math.nan,
        "f1": 2 * found / (found + false + boxes) if found + false + boxes else math.nan,
    }


def _matched(pictures: Sequence[Picture], iou: float) -> Matched:
    fates = [match_by_score(picture, iou).fates for picture in pictures]
    return Matched(
        np.concatenate([np.zeros(0), *(picture.scores for picture in pictures)]),
        np.concatenate([np.zeros(0, np.int64), *(picture.labels for picture in pictures)]),
        np.concatenate([np.zeros(0, np.int64), *fates]),
    )


def _pictures(batches: Sequence[_Batch], classes: int) -> tuple[list[Picture], int]:
    """Every image by itself, and how many detections had a number that is not finite."""
    pictures, broken = [], 0
    for batch in batches:
        detections = batch.detections.double().cpu().numpy()
        truth = [_split(field, batch.lengths) for field in (batch.boxes, batch.labels, batch.crowd, batch.area)]
        for told, boxes, labels, crowd, area in zip(detections, *truth, strict=True):
            sound = np.isfinite(told).all(axis=1)
            broken += int((~sound).sum())
            kept = told[(told[:, 4] > 0) | np.isnan(told[:, 4])]
            kept = np.where(np.isfinite(kept).all(axis=1, keepdims=True), kept, _nowhere(kept))
            found = kept[:, 5].astype(np.int64)
            for which, values in (("detections", found), ("true boxes", labels)):
                if len(values) and not 0 <= values.min() <= values.max() < classes:
                    raise ValueError(f"expected labels of {which} from 0 to {classes - 1}")
            pictures.append(
                Picture(
                    np.ascontiguousarray(kept[:, :4]),
                    np.ascontiguousarray(kept[:, 4]),
                    found,
                    boxes.reshape(-1, 4).astype(np.float64),
                    labels.astype(np.int64),
                    crowd.astype(np.bool_),
                    area.astype(np.float64),
                )
            )
    return pictures, broken


def _nowhere(detections: Floats) -> Floats:
    """The same detections with their boxes where nothing is, so that each is a false one; scores from 0 to 1."""
    nowhere = np.zeros_like(detections)
    nowhere[:, 4] = np.nan_to_num(detections[:, 4], nan=1.0, posinf=1.0)
    nowhere[:, 5] = np.nan_to_num(detections[:, 5])
    return nowhere


def _split(together: Tensor, lengths: Sequence[int]) -> list[np.ndarray[Any, Any]]:
    """Each image's part in numpy, with one copy from the device."""
    return np.split(together.cpu().numpy(), np.cumsum(lengths)[:-1])


def _stems(classes: Sequence[str], taken: set[str]) -> list[str]:
    """What the names of each class's scores end with: its name, told apart where two scores would have one."""
    used, stems = {*taken}, []
    for name in classes:
        stem = re.sub(r"\W+", "_", name)
        while not used.isdisjoint(form.format(stem) for form in _OF_CLASS):
            stem = f"class_{stem}"
        used |= {form.format(stem) for form in _OF_CLASS}
        stems.append(stem)
    return stems
