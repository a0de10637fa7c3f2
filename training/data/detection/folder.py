"""Which layout a detection dataset's folder has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from backend.errors import BadDataError
from training.data.detection.coco import coco_files, list_coco
from training.data.detection.listing import Listing
from training.data.detection.yolo import list_yolo, yolo_files

_EXPECTED = (
    "expected a data.yaml with names, train and val (YOLO), or <split>/_annotations.coco.json or "
    "annotations/instances_<split>.json (COCO)"
)


def list_dataset(source: Path) -> Listing:
    """The dataset in the folder ``source`` or in the only folder there, or that the file ``source`` describes.

    No image is opened.

    Raises BadDataError: no layout is known, several are there, or what the layout's reader finds wrong.
    """
    if source.is_file():
        return list_yolo(source)
    if not source.is_dir():
        raise BadDataError(f"{source}: no such folder; {_EXPECTED}")
    descriptions, annotations = yolo_files(source), coco_files(source)
    if not descriptions and not annotations:
        inner = [path for path in source.iterdir() if path.name[0] != "."]
        if len(inner) == 1 and inner[0].is_dir():
            return list_dataset(inner[0])
        raise BadDataError(f"{source}: holds no detection dataset that is known; {_EXPECTED}")
    if len(descriptions) > 1:
        names = ", ".join(path.name for path in descriptions)
        raise BadDataError(
            f"{source}: holds {len(descriptions)} files that describe a dataset ({names}), expected one; move the "
            "others to another folder"
        )
    if not descriptions:
        return list_coco(source, annotations)
    listing = list_yolo(descriptions[0])
    if not annotations:
        return listing
    note = f"{descriptions[0].name} describes the dataset; annotations in COCO's layout lie there too, and are not read"
    return replace(listing, notes=[*listing.notes, note])
