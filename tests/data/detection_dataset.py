"""Small detection datasets in every layout: pictures of noise, and the boxes that one says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

SIZE = (60, 40)  # width, height
NAMES = ("car", "bus", "person")
DATA_YAML = "train: images/train\nval: images/val\ntest: images/test\nnames: [car, bus, person]\n"
COUNTS = {"train": 6, "val": 3, "test": 2}


def write_image(path: Path, seed: int, size: tuple[int, int] = SIZE) -> Path:
    """A picture of noise of ``size`` (width, height); each seed has its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), endpoint=True).astype(np.uint8)
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())
    return path


def write_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def rows_for(number: int) -> str:
    """Two boxes: a drawn one of class number % 3, and one of the first class."""
    return f"{number % 3} 0.5 0.5 0.{number % 9 + 1} 0.25\n0 0.25 0.25 0.2 0.3\n"


def yolo(
    root: Path, counts: Mapping[str, int] = COUNTS, yaml: str = DATA_YAML, image: str = "images/{split}/{name}.png"
) -> Path:
    """`images/<split>/<split letter><letters>.png` with labels beside `images`; the numbers of pictures go on."""
    number = 0
    for split, count in counts.items():
        for index in range(count):
            path = root / image.format(split=split, name=name_of(split, index))
            write_image(path, number)
            parts = list(path.parts)
            if "images" in parts:
                parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
            write_text(Path(*parts).with_suffix(".txt"), rows_for(number))
            number += 1
    write_text(root / "data.yaml", yaml)
    return root


def name_of(split: str, index: int) -> str:
    return f"{split}-{'abcdefghijklmnopqrstuvwxyz'[index]}"


def label(root: Path, split: str = "train", index: int = 0) -> Path:
    return root / "labels" / split / f"{name_of(split, index)}.txt"


def picture(root: Path, split: str = "train", index: int = 0) -> Path:
    return root / "images" / split / f"{name_of(split, index)}.png"


CATEGORIES = ({"id": 3, "name": "bus"}, {"id": 1, "name": "car"}, {"id": 7, "name": "person"})


def document(
    split: str, count: int, boxes: Sequence[Sequence[float]] = ((10, 5, 20, 30), (30, 10, 10.5, 20)), **more: object
) -> dict[str, object]:
    """COCO's annotations of ``count`` images, each with ``boxes`` of categories 1, 3, 7, 1, …; ids differ by split."""
    first = {"train": 100, "val": 200, "test": 300}[split]
    images = [
        {"id": first + i, "file_name": f"{name_of(split, i)}.png", "width": SIZE[0], "height": SIZE[1]}
        for i in range(count)
    ]
    annotations = [
        {
            "id": first * 10 + i * len(boxes) + k,
            "image_id": first + i,
            "category_id": (1, 3, 7)[k % 3],
            "bbox": list(box),
            "area": box[2] * box[3] / 2,
            "iscrowd": 0,
        }
        for i in range(count)
        for k, box in enumerate(boxes)
    ]
    return {"images": images, "categories": list(CATEGORIES), "annotations": annotations, **more}


def coco(root: Path, counts: Mapping[str, int] = COUNTS, layout: str = "roboflow") -> Path:
    """Roboflow's export, or `annotations/instances_<split>2017.json` with images in `images/<split>2017`."""
    number = 0
    for split, count in counts.items():
        roboflow = layout == "roboflow"
        folder = root / ("valid" if split == "val" else split) if roboflow else root / layout.format(split=split)
        for index in range(count):
            write_image(folder / f"{name_of(split, index)}.png", number)
            number += 1
        path = folder / "_annotations.coco.json" if roboflow else root / "annotations" / f"instances_{split}2017.json"
        write_text(path, json.dumps(document(split, count)))
    return root


def change_json(path: Path, change) -> None:
    """Let ``change`` alter the value of a JSON file."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
