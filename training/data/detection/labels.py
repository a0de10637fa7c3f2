"""The label files of the YOLO layout: one of the image's name, a row `class cx cy w h` in shares for each box.

A label file lies where the image lies, with the last folder `images` of its path called `labels`; else in a folder
`labels` beside the image, in `labels/<folder>` beside its folder, or next to the image. A row may also be a polygon
`class x1 y1 x2 y2 x3 y3 …`: its bounding box is taken. An image without rows, or without a file, shows background.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from training.data.detection.listing import SPLITS, Truth, is_image, some
from training.data.io_errors import source_errors
from training.data.problems import raise_problems

OUTSIDE = 1e-3  # of the image's side: what a box may reach beyond it by rounding
_UNTOLD = 1e-5  # six decimals, as most programs write
_CORNERS = 3  # that a polygon has at least
_NO_LABELS = ("classes.txt", "labels.txt", "predefined_classes.txt")  # labelling tools list their classes so


@dataclass
class Rows:
    """What rows of label files said, one box after another, and what was done to it."""

    labels: list[int] = field(default_factory=list)
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)  # x1, y1, x2, y2 in shares
    polygons: int = 0
    repeated: int = 0
    rounded: int = 0
    problems: list[str] = field(default_factory=list)


def read_labels(base: Path, images: Sequence[Path], rows: Mapping[str, np.ndarray], classes: Sequence[str]) -> Truth:
    """The boxes of ``images`` (one a row), whose splits have the numbers ``rows``; ``base`` is the dataset's folder.

    Raises:
        BadDataError: all wrong lines, label files without an image, and splits without any label.
    """
    places = _LabelPlaces(base, images)
    found = Rows()
    offsets, unlabelled = [0], []
    for image in images:
        path = places.label_of(image)
        if path is None:
            unlabelled.append(image)
        else:
            read_rows(_content(path), path, len(classes), found)
        offsets.append(len(found.labels))
    missing = set(unlabelled)
    problems = [*_splits_without(images, rows, missing, places), *places.problems(), *found.problems]
    raise_problems(problems)
    count = len(found.labels)
    return Truth(
        offsets=np.array(offsets, np.int64),
        boxes=np.array(found.boxes, np.float64).reshape(-1, 4),
        labels=np.array(found.labels, np.int64),
        crowd=np.zeros(count, bool),
        area=np.full(count, np.nan),
        notes=_notes(found, unlabelled),
        counts={
            "images_without_label": len(unlabelled),
            "polygons": found.polygons,
            "repeated_rows": found.repeated,
            "clipped_by_rounding": found.rounded,
        },
    )


def _content(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (there may be very many)
            return file.read()
    except OSError:
        with source_errors(Path(path)):
            raise


def _notes(found: Rows, unlabelled: Sequence[Path]) -> list[str]:
    notes = []
    if unlabelled:
        names = some((path.name for path in unlabelled), 3)
        notes.append(f"{len(unlabelled):,} images have no label file ({names}) and are taken for background")
    if found.polygons:
        notes.append(f"{found.polygons:,} polygons became their bounding boxes")
    if found.repeated:
        notes.append(f"{found.repeated:,} rows stood twice in their label file and count once")
    if found.rounded:
        notes.append(f"{found.rounded:,} boxes reached beyond their image by less than {OUTSIDE:g} of it: clipped")
    return notes


def _splits_without(
    images: Sequence[Path], rows: Mapping[str, np.ndarray], missing: set[Path], places: _LabelPlaces
) -> list[str]:
    """A line for each split of whose images none has a label file: they lie elsewhere, most likely."""
    return [
        f"{split}: none of its {len(rows[split]):,} images has a label file; expected for example "
        f"{places.expected(images[rows[split][0]])}"
        for split in SPLITS
        if len(rows[split]) and all(images[row] in missing for row in rows[split])
    ]


# --- rows -------------------------------------------------------------------------------------------------------------


def read_rows(content: bytes, name: str, classes: int, into: Rows) -> None:
    """Add what one label file says to ``into``; wrong lines become problems that name the file and the line."""
    seen: set[tuple[object, ...]] = set()
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        into.problems.append(f"{name}: no text, expected rows `class cx cy w h`")
        return
    for number, line in enumerate(lines, 1):
        cells = line.split()
        if not cells:
            continue
        try:
            label, values = _label(cells[0], classes), _numbers(cells)
            box, rounded = _clipped(_corners(values))
        except ValueError as error:
            into.problems.append(f"{name}, line {number}: {error}")
            continue
        key = (label, *values)
        if key in seen:
            into.repeated += 1
            continue
        seen.add(key)
        into.labels.append(label)
        into.boxes.append(box)
        into.polygons += len(values) > 4
        into.rounded += rounded


def _label(cell: str, classes: int) -> int:
    if not (cell.isascii() and cell.isdigit()):
        raise ValueError(f"its class is {cell[:20]!r}, expected a whole number from 0 to {classes - 1}")
    if int(cell) >= classes:
        raise ValueError(f"its class is {int(cell)}, but there are the classes 0 to {classes - 1}")
    return int(cell)


def _numbers(cells: Sequence[str]) -> list[float]:
    count = len(cells)
    if count != 5 and (count < 1 + 2 * _CORNERS or count % 2 == 0):
        raise ValueError(
            f"has {count} numbers, expected 5 (class cx cy w h) or an odd number from {1 + 2 * _CORNERS} on (a polygon)"
        )
    try:
        values = [float(cell) for cell in cells[1:]]
    except ValueError:
        raise ValueError(f"expected numbers, found {' '.join(cells)[:60]!r}") from None
    if not all(map(math.isfinite, values)):
        raise ValueError(f"expected finite numbers, found {' '.join(cells)[:60]!r}")
    return values


def _corners(values: Sequence[float]) -> tuple[float, float, float, float]:
    if len(values) > 4:
        across, down = values[0::2], values[1::2]
        x1, y1, x2, y2 = min(across), min(down), max(across), max(down)
    else:
        cx, cy, width, height = values
        x1, y1, x2, y2 = cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2
    if x2 <= x1 or y2 <= y1:
        raise ValueError(f"its box is {x2 - x1:g} wide and {y2 - y1:g} high, expected more than 0")
    return x1, y1, x2, y2


def _clipped(box: tuple[float, float, float, float]) -> tuple[tuple[float, float, float, float], bool]:
    """The box inside the image, and whether it was outside by more than six decimals tell."""
    x1, y1, x2, y2 = box
    beyond = max(-x1, -y1, x2 - 1, y2 - 1)
    if beyond <= 0:
        return box, False
    if beyond > OUTSIDE:
        sides = f"x from {x1:.4g} to {x2:.4g}, y from {y1:.4g} to {y2:.4g}"
        raise ValueError(f"its box reaches outside the image ({sides}); expected shares from 0 to 1")
    inside = (max(x1, 0.0), max(y1, 0.0), min(x2, 1.0), min(y2, 1.0))
    if inside[2] <= inside[0] or inside[3] <= inside[1]:
        raise ValueError("its box lies beside the image; expected shares from 0 to 1")
    return inside, beyond > _UNTOLD


# --- places -----------------------------------------------------------------------------------------------------------


class _LabelPlaces:
    """Which folder holds the labels of the images of a folder, and what lies there that belongs to no image."""

    def __init__(self, base: Path, images: Iterable[Path]) -> None:
        self._base = base
        self._folder_of: dict[str, str] = {}  # labels of images
        self._names: dict[str, set[str]] = {}  # of the label files in a folder
        for image in images:
            folder = os.path.dirname(image)  # noqa: PTH120
            if folder not in self._folder_of:
                self._folder_of[folder] = str(self._choose(Path(folder)))

    def label_of(self, image: Path) -> str | None:
        """The label file of ``image``; None where it has none."""
        folder, name = os.path.split(image)
        labels, label = self._folder_of[folder], _label_name(name)
        return f"{labels}{os.sep}{label}" if label in self._labels_in(labels) else None

    def expected(self, image: Path) -> Path:
        """Where a label file of ``image`` would be found."""
        return self._candidates(image.parent)[0] / f"{image.stem}.txt"

    def problems(self) -> list[str]:
        """Label files without an image, and images that share one."""
        problems = []
        for labels, folders in _inverted(self._folder_of).items():
            known = self._labels_in(str(labels))
            stems: dict[str, str] = {}
            for folder in folders:
                for name in sorted(filter(is_image, _listdir(folder))):
                    label = _label_name(name)
                    if label in stems and label in known:
                        problems.append(f"{labels / label}: belongs to {stems[label]} and to {name}; rename one")
                    stems[label] = name
            if labels not in folders:  # else other texts lie there too
                alone = sorted(known - stems.keys() - set(_NO_LABELS))
                problems += [f"{labels / name}: there is no image of this name in {some(folders, 2)}" for name in alone]
        return problems

    def _choose(self, folder: Path) -> Path:
        candidates = self._candidates(folder)
        return next((place for place in candidates if self._labels_in(str(place))), candidates[0])

    def _candidates(self, folder: Path) -> list[Path]:
        """Where labels of the images in ``folder`` may lie, the likeliest first."""
        beside = [folder / "labels", folder.parent / "labels" / folder.name, folder]
        inside = list(Path(os.path.relpath(folder, self._base)).parts)
        if "images" in inside:
            last = len(inside) - 1 - inside[::-1].index("images")
            inside[last] = "labels"
            return [Path(os.path.normpath(self._base.joinpath(*inside)))]
        parts = list(folder.parts)
        if "images" in parts:  # the dataset itself may lie below a folder of that name
            parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
            beside.append(Path(*parts))
        return beside

    def _labels_in(self, folder: str) -> set[str]:
        if folder not in self._names:
            self._names[folder] = {name for name in _listdir(Path(folder)) if name.endswith(".txt") and name[0] != "."}
        return self._names[folder]


def _label_name(image: str) -> str:
    return f"{image.rpartition('.')[0]}.txt"


def _inverted(folder_of: Mapping[str, str]) -> dict[Path, list[Path]]:
    folders = defaultdict(list)
    for images, labels in folder_of.items():
        folders[Path(labels)].append(Path(images))
    return folders


def _listdir(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    with source_errors(folder):
        return [entry.name for entry in os.scandir(folder)]
