"""Which detection is which true box: by score within a class, and by overlap across classes. Numpy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

FALSE, FOUND, IGNORED = 0, 1, 2
"""What becomes of a detection: no true box is its own, one is, or it lies in a region of many."""

RECALLS = np.linspace(0, 1, 101)
"""Where COCO reads precision off a curve (Lin et al. 2014)."""

_WHOLE = 1 - 1e-10  # the largest overlap that can be asked for, as COCO has it


@dataclass(frozen=True)
class Picture:
    """Detections and true boxes of one image; boxes are x1, y1, x2, y2 in its pixels."""

    boxes: Floats  # [d, 4], detections
    scores: Floats  # [d]
    labels: Ints  # [d]
    true_boxes: Floats  # [k, 4]
    true_labels: Ints  # [k]
    crowd: Flags  # [k], regions of many
    area: Floats  # [k] in pixels

    def surer_than(self, confidence: float) -> Picture:
        """The same with only those detections whose score is at least ``confidence``."""
        kept = self.scores >= confidence
        truth = (self.true_boxes, self.true_labels, self.crowd, self.area)
        return Picture(self.boxes[kept], self.scores[kept], self.labels[kept], *truth)


def overlaps(boxes: Floats, others: Floats, crowd: Flags) -> Floats:
    """``[d, k]``: intersection over union, or over the first box's own area where the other is a region of many."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    sides = np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - low
    inside = np.where((sides > 0).all(axis=2), sides[..., 0] * sides[..., 1], 0.0)
    own, other = _areas(boxes)[:, None], _areas(others)[None]
    whole = np.where(crowd[None], own, own + other - inside)
    return np.divide(inside, whole, out=np.zeros_like(inside), where=inside > 0)


def _areas(boxes: Floats) -> Floats:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


@dataclass(frozen=True)
class Matches:
    """What becomes of an image's detections, and which of its true boxes one of them found."""

    fates: Ints  # [d] of FALSE, FOUND and IGNORED
    taken: Flags  # [k]


def match_by_score(picture: Picture, iou: float) -> Matches:
    """Whose true box each detection is, as COCO decides (Lin et al. 2014).

    The surest first, each takes the true box of its class that it overlaps most and by ``iou`` at least, of those that
    are left. One that finds none but lies in a region of many of its class is ignored. What less sure ones do changes
    nothing for surer ones, so the fates hold for any threshold of score.
    """
    overlap = overlaps(picture.boxes, picture.true_boxes, picture.crowd)
    near = (overlap >= min(iou, _WHOLE)) & (picture.labels[:, None] == picture.true_labels[None])
    rows, columns = np.nonzero(near & ~picture.crowd)
    order = np.lexsort((-columns, -overlap[rows, columns], _ranks(picture.scores)[rows]))  # of equals the last one
    found, true = _pairs(rows[order], columns[order])
    fates = np.full(len(picture.labels), FALSE, dtype=np.int64)
    fates[(near & picture.crowd).any(axis=1)] = IGNORED
    fates[found] = FOUND
    taken = np.zeros(len(picture.true_labels), dtype=np.bool_)
    taken[true] = True
    return Matches(fates, taken)


def in_crowd(picture: Picture, iou: float) -> Flags:
    """Which detections, ``[d]``, lie with ``iou`` of their area at least in a region of many of their class."""
    overlap = overlaps(picture.boxes, picture.true_boxes, picture.crowd)
    near = (overlap >= min(iou, _WHOLE)) & (picture.labels[:, None] == picture.true_labels[None])
    found: Flags = (near & picture.crowd).any(axis=1)
    return found


def match_by_overlap(picture: Picture, iou: float) -> tuple[Ints, Ints]:
    """Pairs of detections and true boxes (two arrays of indices) whatever their classes, the largest overlap first.

    Of equal overlaps those of one class come first, then the surer ones. Each is in one pair at most; regions of many
    are in none.
    """
    overlap = overlaps(picture.boxes, picture.true_boxes, picture.crowd)
    rows, columns = np.nonzero((overlap >= min(iou, _WHOLE)) & ~picture.crowd)
    other_class = picture.labels[rows] != picture.true_labels[columns]
    order = np.lexsort((_ranks(picture.scores)[rows], other_class, -overlap[rows, columns]))
    return _pairs(rows[order], columns[order])


def _ranks(scores: Floats) -> Ints:
    """Each one's place when the highest comes first; of equals the earlier one."""
    ranks = np.empty(len(scores), dtype=np.int64)
    ranks[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    return ranks


def _pairs(rows: Ints, columns: Ints) -> tuple[Ints, Ints]:
    """Those of the pairs, best first, of which neither side is taken already."""
    left: set[int] = set()
    right: set[int] = set()
    kept = []
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        if row not in left and column not in right:
            left.add(row)
            right.add(column)
            kept.append((row, column))
    pairs = np.array(kept, dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def confusion_of(picture: Picture, iou: float, classes: int) -> Ints:
    """``[K + 1, K + 1]`` counts: a row for each true class, a column for each detected one.

    The last row is background that was taken for something, the last column true boxes that were missed. A detection
    without a true box that lies in a region of many of its class counts nowhere.
    """
    matrix = np.zeros((classes + 1, classes + 1), dtype=np.int64)
    found, taken = match_by_overlap(picture, iou)
    np.add.at(matrix, (picture.true_labels[taken], picture.labels[found]), 1)
    missed = ~picture.crowd
    missed[taken] = False
    np.add.at(matrix[:, classes], picture.true_labels[missed], 1)
    spare = ~in_crowd(picture, iou)
    spare[found] = False
    np.add.at(matrix[classes], picture.labels[spare], 1)
    return matrix


@dataclass(frozen=True)
class Curve:
    """Precision, recall and F1 where only detections of at least a score count; the surest first, arrays ``[n]``."""

    scores: Floats
    precision: Floats
    recall: Floats
    f1: Floats

    def best(self) -> tuple[float, float] | None:
        """The largest F1 and the highest score at which it is reached; None without any detection."""
        if not len(self.scores):
            return None
        place = int(self.f1.argmax())
        return float(self.f1[place]), float(self.scores[place])

    def interpolated(self) -> Floats:
        """The best precision at each of RECALLS or beyond it; 0 where that recall is never reached."""
        highest = np.maximum.accumulate(self.precision[::-1])[::-1]
        places = np.searchsorted(self.recall, RECALLS, side="left")
        return np.append(highest, 0.0)[places]


def curve_of(scores: Floats, fates: Ints, true_boxes: int) -> Curve:
    """The curve of ``[d]`` detections of which ``match_by_score`` told the fates, beside ``true_boxes`` (at least 1).

    Equal scores share one point: no threshold can tell them apart.
    """
    counted = fates != IGNORED
    order = np.argsort(-scores[counted], kind="stable")
    ordered, hits = scores[counted][order], (fates[counted][order] == FOUND).cumsum()
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)) if len(ordered) else np.zeros(0, np.int64)
    found, told = hits[ends].astype(np.float64), ends + 1.0
    return Curve(ordered[ends], found / told, found / true_boxes, 2 * found / (told + true_boxes))
