"""Which of a dataset's classes are learned; boxes of others are left out, their images stay."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from backend.errors import BadDataError
from training.data.detection.listing import Truth, some
from training.schemas.detection import DetectionDataSection


def chosen_classes(section: DetectionDataSection, classes: Sequence[str]) -> list[int]:
    """The numbers of the classes that ``section`` asks for, in its order; all where it asks for none.

    Raises:
        BadDataError: the dataset has no such class, or none of the sub-task's.
    """
    if section.subtask is not None:
        return _of_subtask(section, classes)
    if section.classes is None:
        return list(range(len(classes)))
    unknown = [name for name in section.classes if name not in classes]
    if unknown:
        near = difflib.get_close_matches(unknown[0], classes, 1, 0.5) or _alike(unknown[0], classes)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise BadDataError(f"data.classes: the dataset has no class {unknown[0]}, it has {some(classes, 30)}{hint}")
    return [list(classes).index(name) for name in section.classes]


def _of_subtask(section: DetectionDataSection, classes: Sequence[str]) -> list[int]:
    wanted = {name.casefold() for name in section.subtasks[str(section.subtask)]}
    chosen = [number for number, name in enumerate(classes) if name.casefold() in wanted]
    if not chosen:
        raise BadDataError(
            f"data.subtask: the dataset has no class of {section.subtask} ({some(sorted(wanted), 30)}), it has "
            f"{some(classes, 30)}; name those that belong to it in data.subtasks.{section.subtask}"
        )
    return chosen


def _alike(name: str, classes: Sequence[str]) -> list[str]:
    return [other for other in classes if other.casefold() == name.casefold()]


def with_classes(truth: Truth, chosen: Sequence[int], classes: Sequence[str]) -> Truth:
    """``truth`` with boxes of the ``chosen`` classes alone, numbered in their order."""
    number = np.full(len(classes), -1, np.int64)
    number[list(chosen)] = np.arange(len(chosen))
    labels = number[truth.labels]
    keep = labels >= 0
    left_out = np.bincount(truth.labels[~keep], minlength=len(classes))
    counts = {**truth.counts, "boxes_of_other_classes": int(left_out.sum())}
    notes = list(truth.notes)
    if left_out.any():
        told = some((f"{classes[i]} {left_out[i]:,}" for i in np.argsort(-left_out, kind="stable") if left_out[i]), 8)
        notes.append(f"{left_out.sum():,} boxes of other classes were left out ({told}); their images stay")
    ends = np.concatenate([[0], np.cumsum(keep)])[truth.offsets].astype(np.int64)
    return replace(
        truth,
        offsets=ends,
        boxes=truth.boxes[keep],
        labels=labels[keep],
        crowd=truth.crowd[keep],
        area=truth.area[keep],
        notes=notes,
        counts=counts,
    )
