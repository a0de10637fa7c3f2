"""How a task's model becomes a file for other programs, and how far two answers of it may lie apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

DIFFERENCE = "difference"
BOX_PIXELS, SCORE = 0.1, 1e-3  # how far apart a box and its score may be
OVERLAP = 2e-3  # so near to the allowed overlap a rounding decides


@dataclass(frozen=True)
class Exported:
    """A model as ONNX has it: tensors in, one tensor out, both with the rows as their first dimension."""

    module: nn.Module
    inputs: Callable[[Mapping[str, Any]], dict[str, Tensor]]  # of a batch as the loader gives it, by name
    output: str
    compare: Callable[[Tensor, Tensor], dict[str, float]]  # how far apart two answers to the same rows are
    limits: Mapping[str, float]  # the largest of each of these differences that is none
    any_batch: bool = True  # whether it takes any number of rows; else one
    rows: int = 8  # to compare, of each kind of input


def largest_difference(ours: Tensor, theirs: Tensor) -> dict[str, float]:
    """The largest absolute difference of two tensors of one shape."""
    return {DIFFERENCE: float((ours - theirs).abs().max())}


@dataclass(frozen=True)
class DetectionsApart:
    """How far apart two sets of detections ``[n, D, 6]`` are, those of each image matched one to one.

    What is matched lies within `BOX_PIXELS` and `SCORE`; ``box`` (pixels) and ``score`` are the largest differences
    there. ``unmatched`` counts what stands in one set alone, for which no rounding can be the reason.
    Two can: a detection about as unsure as the last one that the other set had room for, or as ``min_score`` allows;
    and two boxes whose overlap is just what ``nms_iou`` allows, of which one set kept both. The latter is counted as
    ``borderline``. Both counts are those of the worst image.
    """

    min_score: float
    nms_iou: float | None  # None: boxes do not suppress one another

    def __call__(self, ours: Tensor, theirs: Tensor) -> dict[str, float]:
        found = {"box": 0.0, "score": 0.0, "unmatched": 0.0, "borderline": 0.0}
        for one, other in zip(ours.numpy(), theirs.numpy(), strict=True):
            boxes, scores, kinds = self._of_image(one, other)
            found["box"], found["score"] = max(found["box"], boxes), max(found["score"], scores)
            for kind in ("unmatched", "borderline"):
                found[kind] = max(found[kind], float(kinds.count(kind)))
        return found

    def _of_image(self, ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float, list[str]]:
        """Largest differences of box and score, and what the unmatched detections are."""
        from scipy.optimize import linear_sum_assignment

        sets = [every[every[:, 5] >= 0] for every in (ours, theirs)]
        boxes = np.abs(sets[0][:, None, :4] - sets[1][None, :, :4]).max(2)
        scores = np.abs(sets[0][:, None, 4] - sets[1][None, :, 4])
        alike = (sets[0][:, None, 5] == sets[1][None, :, 5]) & (boxes <= BOX_PIXELS) & (scores <= SCORE)
        rows, columns = linear_sum_assignment(~alike + 1e-3 * np.minimum(boxes, BOX_PIXELS))
        pairs = np.array([pair for pair in zip(rows, columns, strict=True) if alike[pair]], dtype=int).reshape(-1, 2)
        left = [np.delete(every, pairs[:, side], axis=0) for side, every in enumerate(sets)]
        edge = [self._at_edge(left[side], sets[1 - side]) for side in (0, 1)]
        kinds = [
            "borderline"
            if edge[side][place] or self._is_suppressed(one, left[1 - side][edge[1 - side]])
            else "unmatched"
            for side in (0, 1)
            for place, one in enumerate(left[side])
            if not self._hardly_fits(one, sets[1 - side], len(ours))
        ]
        matched = tuple(pairs.T)
        return float(boxes[matched].max(initial=0)), float(scores[matched].max(initial=0)), kinds

    def _hardly_fits(self, one: np.ndarray, others: np.ndarray, room: int) -> bool:
        """Whether a detection is about as unsure as the last of ``others``, which hold ``room``, or as is allowed."""
        weakest = others[:, 4].min() if len(others) == room else self.min_score
        return bool(one[4] <= weakest + SCORE)

    def _at_edge(self, left: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Which of ``left`` overlap with one of the ``others`` by about what is allowed: bool, one for each."""
        if self.nms_iou is None:
            return np.zeros(len(left), dtype=bool)
        apart = (np.abs(_overlaps(one, others) - self.nms_iou).min(initial=1.0) for one in left)
        return np.array([distance <= OVERLAP for distance in apart], dtype=bool)

    def _is_suppressed(self, one: np.ndarray, others: np.ndarray) -> bool:
        """Whether one of ``others`` is surer and suppresses the detection ``one``."""
        if self.nms_iou is None:
            return False
        return bool(((_overlaps(one, others) > self.nms_iou) & (others[:, 4] > one[4])).any())


def _overlaps(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of a detection with each of ``others``; 0 with those of another class."""
    low, high = np.maximum(one[:2], others[:, :2]), np.minimum(one[2:4], others[:, 2:4])
    shared = np.clip(high - low, 0, None).prod(1)
    area = (one[2:4] - one[:2]).prod()
    overlaps: np.ndarray = shared / np.maximum(area + (others[:, 2:4] - others[:, :2]).prod(1) - shared, 1e-9)
    return np.where(others[:, 5] == one[5], overlaps, 0.0)


DETECTION_LIMITS = {"box": BOX_PIXELS, "score": SCORE, "unmatched": 0.0, "borderline": 10.0}
