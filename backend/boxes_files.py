"""The files of a prediction: COCO results, the list of images, and YOLO's text files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from backend.files import replacing

DETECTIONS, IMAGES, LABELS, DRAWN = "detections.json", "images.json", "labels", "drawn"


class CocoResults:
    """``detections.json`` and ``images.json`` in the making, written as they come and never held in memory."""

    def __init__(self, detections: IO[str], images: IO[str], category_ids: Sequence[int]) -> None:
        self._detections, self._images = _Rows(detections), _Rows(images)
        self._category_ids = category_ids
        self._last_id = 0

    def add(self, file_name: str, width: int, height: int, found: np.ndarray, **more: Any) -> None:
        """An image with its detections [k, 6]: x1, y1, x2, y2 (pixels), score, label; ``more`` goes to both files."""
        self._last_id += 1
        entry = {"id": self._last_id, "file_name": file_name, "width": width, "height": height}
        self._images.write(entry | more)
        for x1, y1, x2, y2, score, label in found.astype(np.float64):
            self._detections.write(
                {
                    "image_id": self._last_id,
                    "category_id": self._category_ids[int(label)],
                    "bbox": [round(x1, 2), round(y1, 2), round(x2 - x1, 2), round(y2 - y1, 2)],
                    "score": round(score, 5),
                    "file_name": file_name,
                    **more,
                }
            )


@contextmanager
def coco_results(
    out: Path, classes: Sequence[str], category_ids: Sequence[int], info: Mapping[str, Any]
) -> Iterator[CocoResults]:
    """Both files, complete and in their places after the block; as they were where it fails.

    Raises OSError as it comes.
    """
    categories = [{"id": key, "name": name} for key, name in zip(category_ids, classes, strict=True)]
    with (
        replacing(out / IMAGES) as images_path,
        replacing(out / DETECTIONS) as detections_path,
        images_path.open("w", encoding="utf-8") as images,
        detections_path.open("w", encoding="utf-8") as found,
    ):
        images.write(f'{{"info": {_json(info)},\n"categories": {_json(categories)},\n')
        images.write('"annotations": [],\n"images": [')
        found.write("[")
        yield CocoResults(found, images, category_ids)
        images.write("\n]}\n")
        found.write("\n]\n")


class _Rows:
    """The rows of a JSON list, a line each."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._between = file, "\n"

    def write(self, row: Mapping[str, Any]) -> None:
        self._file.write(self._between + _json(row))
        self._between = ",\n"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def yolo_lines(found: np.ndarray, width: int, height: int) -> str:
    """A line for each detection [k, 6]: class, centre, width and height as shares of the image, score."""
    lines = []
    for x1, y1, x2, y2, score, label in found.astype(np.float64):
        shares = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        lines.append(" ".join([str(int(label)), *(f"{share:.6f}" for share in shares), f"{score:.5f}"]) + "\n")
    return "".join(lines)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all, and its folder where that is missing; not forced to disk, as it can be remade.

    Raises OSError as it comes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
