"""A file of annotations in the COCO layout, and the boxes in it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.data.detection.listing import SPLITS, Truth, some
from training.data.problems import raise_problems

_ROUNDING = 1.0  # pixels that a box may reach beyond its image
_UNTOLD = 0.02  # two decimals, as most programs write

_Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Document:
    """One split's file."""

    path: Path
    images: Sequence[Mapping[str, Any]]
    categories: Sequence[Mapping[str, Any]]
    annotations: Sequence[Mapping[str, Any]]

    def category_names(self) -> dict[int, str]:
        """Names by id, in the order of the ids."""
        return {entry["id"]: str(entry["name"]) for entry in sorted(self.categories, key=lambda entry: entry["id"])}


class _Reader:
    """Reads the annotations of one split after another, and keeps what was done and what is wrong."""

    def __init__(self, category_ids: Sequence[int]) -> None:
        self._label_of = {number: label for label, number in enumerate(category_ids)}
        self.sizes: list[tuple[int, int]] = []
        self.rows: list[int] = []
        self.boxes: list[_Box] = []
        self.labels: list[int] = []
        self.crowd: list[bool] = []
        self.area: list[float] = []
        self.problems: list[str] = []
        self.flat: list[str] = []  # annotations whose box has no width or no height
        self.from_shapes = self.rounded = 0

    def read(self, document: Document) -> None:
        """Add a document's images as rows, and their boxes."""
        row_of = {image["id"]: len(self.sizes) + at for at, image in enumerate(document.images)}
        self.sizes += [(int(image["width"]), int(image["height"])) for image in document.images]
        seen: set[object] = set()
        for at, entry in enumerate(document.annotations):
            try:
                self._add(entry, row_of, seen)
            except ValueError as error:
                name = f" (id {entry['id']})" if isinstance(entry.get("id"), int | str) else ""
                self.problems.append(f"{document.path}: annotations[{at}]{name}: {error}")

    def _add(self, entry: Mapping[str, Any], row_of: Mapping[Any, int], seen: set[object]) -> None:
        number, image, category = (entry.get(key) for key in ("id", "image_id", "category_id"))
        if not all(isinstance(value, int | str) for value in (number, image, category)):
            raise ValueError("expected id, image_id and category_id")
        if number in seen:
            raise ValueError("its id stands twice")
        seen.add(number)
        if image not in row_of:
            raise ValueError(f"there is no image with the id {image!r}")
        if category not in self._label_of:
            raise ValueError(f"there is no category with the id {category!r}")
        crowd = entry.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise ValueError(f"iscrowd is {crowd!r}, expected 0 or 1")
        area, corners = _area(entry), _corners(entry)
        if _is_flat(corners):
            self.flat.append(f"id {number}")
            return
        box = self._inside(corners, self.sizes[row_of[image]])
        self.from_shapes += not entry.get("bbox")
        self.rows.append(row_of[image])
        self.boxes.append(box)
        self.labels.append(self._label_of[category])
        self.crowd.append(bool(crowd))
        self.area.append(area)

    def _inside(self, box: _Box, size: tuple[int, int]) -> _Box:
        (x1, y1, x2, y2), (width, height) = box, size
        beyond = max(-x1, -y1, x2 - width, y2 - height)
        inside = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
        if beyond > _ROUNDING or inside[2] <= inside[0] or inside[3] <= inside[1]:
            raise ValueError(
                f"its box reaches outside the image (x from {x1:g} to {x2:g}, y from {y1:g} to {y2:g}; the image is "
                f"{width} wide and {height} high)"
            )
        self.rounded += beyond > _UNTOLD
        return inside


def read_boxes(documents: Mapping[str, Document], category_ids: Sequence[int]) -> Truth:
    """The boxes of all images, a row for each, in the order of splits and files.

    Boxes without width or height, of which COCO's own files have some, are left out and counted; what stands twice
    counts twice, as in COCO's own evaluator.

    Raises:
        BadDataError: all annotations that are wrong.
    """
    reader = _Reader(category_ids)
    for split in SPLITS:
        if split in documents:
            reader.read(documents[split])
    raise_problems(reader.problems)
    rows = np.array(reader.rows, np.int64)
    order = np.argsort(rows, kind="stable")
    notes = []
    if reader.flat:
        notes.append(f"{len(reader.flat):,} boxes without width or height were left out ({some(reader.flat, 3)})")
    if reader.from_shapes:
        notes.append(f"{reader.from_shapes:,} shapes without bbox became their bounding boxes")
    if reader.rounded:
        notes.append(f"{reader.rounded:,} boxes reached beyond their image by at most {_ROUNDING:g} pixel: clipped")
    return Truth(
        offsets=np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(reader.sizes)))]).astype(np.int64),
        boxes=np.array(reader.boxes, np.float64).reshape(-1, 4)[order],
        labels=np.array(reader.labels, np.int64)[order],
        crowd=np.array(reader.crowd, bool)[order],
        area=np.array(reader.area, np.float64)[order],
        sizes=np.array(reader.sizes, np.int64).reshape(-1, 2),
        notes=notes,
        counts={
            "polygons": reader.from_shapes,
            "clipped_by_rounding": reader.rounded,
            "without_width_or_height": len(reader.flat),
            "crowds": sum(reader.crowd),
        },
    )


def _corners(entry: Mapping[str, Any]) -> _Box:
    box = entry.get("bbox")
    if not box:
        return _around(entry.get("segmentation"))
    if not _numbers(box) or len(box) != 4:
        raise ValueError(f"bbox is {box!r}, expected four finite numbers: x, y, width, height")
    x, y, width, height = map(float, box)
    if width < 0 or height < 0:
        raise ValueError(f"its box is {width:g} wide and {height:g} high, expected no less than 0")
    return x, y, x + width, y + height


def _is_flat(box: _Box) -> bool:
    return box[2] <= box[0] or box[3] <= box[1]


def _area(entry: Mapping[str, Any]) -> float:
    """What the file says, NaN where it says nothing."""
    area = entry.get("area")
    if area is None:
        return math.nan
    if not _numbers([area]) or area < 0:
        raise ValueError(f"area is {area!r}, expected square pixels")
    return float(area) if area > 0 else math.nan


def _around(shapes: object) -> _Box:
    """The bounding box of polygons."""
    if not isinstance(shapes, list) or not shapes:
        raise ValueError("has neither bbox nor polygons as segmentation; expected a bbox")
    if not all(_numbers(shape) and len(shape) >= 6 and len(shape) % 2 == 0 for shape in shapes):
        raise ValueError("segmentation: expected lists of x and y, three points at least")
    across = [float(x) for shape in shapes for x in shape[0::2]]
    down = [float(y) for shape in shapes for y in shape[1::2]]
    return min(across), min(down), max(across), max(down)


def _numbers(values: object) -> bool:
    return isinstance(values, list) and all(
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) for value in values
    )
