"""How a task's model becomes a file for other programs, and how far two answers of it may lie apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

DIFFERENCE = "difference"
BOX_PIXELS, SCORE = 0.1, 1e-3  # how far apart a box and its score may be


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


def detections_apart(ours: Tensor, theirs: Tensor) -> dict[str, float]:
    """How far apart two sets of detections ``[n, D, 6]`` are, those of each image matched one to one.

    ``box`` in pixels and ``score`` are the largest differences of what was matched. ``unmatched`` counts what stands
    in one of them alone. What an image's cut (its weakest detection) could have left out by a rounding does not count.
    """
    found = {"box": 0.0, "score": 0.0, "unmatched": 0.0}
    for one, other in zip(ours.numpy(), theirs.numpy(), strict=True):
        for name, value in _apart(one[one[:, 5] >= 0], other[other[:, 5] >= 0]).items():
            found[name] = found[name] + value if name == "unmatched" else max(found[name], value)
    return found


def _apart(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """The same for one image's detections ``[k, 6]`` and ``[m, 6]``."""
    from scipy.optimize import linear_sum_assignment

    boxes = np.abs(ours[:, None, :4] - theirs[None, :, :4]).max(2)
    scores = np.abs(ours[:, None, 4] - theirs[None, :, 4])
    alike = ours[:, None, 5] == theirs[None, :, 5]
    cost = np.where(alike, np.minimum(boxes / BOX_PIXELS + scores / SCORE, 1e6), 1e9)
    rows, columns = linear_sum_assignment(cost)
    pairs = [(row, column) for row, column in zip(rows, columns, strict=True) if alike[row, column]]
    left = [ours[row] for row in set(range(len(ours))) - {row for row, _ in pairs}]
    left += [theirs[column] for column in set(range(len(theirs))) - {column for _, column in pairs}]
    weakest = min([*ours[:, 4], *theirs[:, 4]], default=0.0)
    return {
        "box": max((float(boxes[pair]) for pair in pairs), default=0.0),
        "score": max((float(scores[pair]) for pair in pairs), default=0.0),
        "unmatched": float(sum(one[4] > weakest + SCORE for one in left)),
    }


DETECTION_LIMITS = {"box": BOX_PIXELS, "score": SCORE, "unmatched": 0.0}
