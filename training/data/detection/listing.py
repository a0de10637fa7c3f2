"""A detection dataset as its files tell it: what each layout's reader gives, and what they share. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from backend.preprocessing.images import IMAGE_SUFFIXES
from training.data.files_below import files_below
from training.data.io_errors import source_errors
from training.data.prepared import SourceFile

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Truth:
    """The boxes of all rows, one after another; a row is an image in a split."""

    offsets: np.ndarray  # int64 [rows + 1]: row r has the boxes offsets[r] to offsets[r + 1]
    boxes: np.ndarray  # float64 [m, 4]: x1, y1, x2, y2; shares of the image, or pixels where sizes are given
    labels: np.ndarray  # int64 [m]: numbers of the dataset's classes
    crowd: np.ndarray  # bool [m]
    area: np.ndarray  # float64 [m] in square pixels; NaN where the box's own is meant
    sizes: np.ndarray | None = None  # int64 [rows, 2]: the images' (width, height), where the dataset says them
    notes: Sequence[str] = ()  # lines for the user
    counts: Mapping[str, int] = field(default_factory=dict)  # for the audit

    def row_of(self) -> np.ndarray:
        """int64 [m]: each box's row."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


@dataclass(frozen=True)
class Listing:
    """Which images a dataset has in which split. No image and, in the YOLO layout, no label has been opened."""

    layout: str  # "YOLO" or "COCO"
    classes: Sequence[str]
    category_ids: Sequence[int]
    sources: Sequence[SourceFile]  # every image file once
    rows: Mapping[str, np.ndarray]  # by split: the numbers of its rows
    source_of: np.ndarray  # int64 [rows]
    read_truth: Callable[[], Truth]  # raises BadDataError: all that is wrong with the boxes
    notes: Sequence[str] = ()  # lines for the user


def list_rows(
    root: Path, images: Mapping[str, Sequence[Path]]
) -> tuple[list[SourceFile], dict[str, np.ndarray], np.ndarray]:
    """Sources, rows by split and each row's source, from the images of each split. Names are relative to ``root``."""
    number: dict[Path, int] = {}
    source_of: list[int] = []
    rows = {}
    for split in SPLITS:
        first = len(source_of)
        source_of += [number.setdefault(path, len(number)) for path in images[split]]
        rows[split] = np.arange(first, len(source_of))
    return _source_files(root, list(number)), rows, np.array(source_of, np.int64)


def _source_files(root: Path, paths: Sequence[Path]) -> list[SourceFile]:
    """``paths`` as they are now, named relative to ``root``. Raises BadDataError where one is gone.

    Works on texts: there may be very many.
    """
    inside: dict[str, str] = {}  # folders to what they are called from the root
    sources = []
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in inside:
            relative = Path(os.path.relpath(folder, root)).as_posix()
            inside[folder] = "" if relative == "." else f"{relative}/"
        with source_errors(path):
            facts = path.stat()
        sources.append(SourceFile(inside[folder] + name, path, facts.st_size, facts.st_mtime_ns))
    return sources


def images_below(folder: Path) -> list[Path]:
    """All image files in ``folder`` at any depth, in the order of their paths; hidden ones are left out."""
    return [path for path in files_below(folder) if is_image(path.name)]


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    return name[0] != "." and name.lower().endswith(IMAGE_SUFFIXES)


def is_file(path: Path) -> bool:
    """Whether a file is there; of a name that no file can have (a very long one), it is not."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: Path) -> bool:
    """`is_file` for folders."""
    return os.path.isdir(path)  # noqa: PTH112


def some(names: Iterable[object], most: int = 5) -> str:
    """The first names in a row, and how many more there are."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:most]) + (f" … and {len(listed) - most} more" if len(listed) > most else "")
