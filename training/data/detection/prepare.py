"""Detection data from a folder of images and boxes to items for training."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from backend.preprocessing.detection import DetectionPreprocessing
from training.data.detection.audit import audit_of, summary_lines
from training.data.detection.blocks import MakeBlock, check_facts
from training.data.detection.classes import chosen_classes, with_classes
from training.data.detection.folder import list_dataset
from training.data.detection.groups import groups_of
from training.data.detection.items import Annotations, DetectionItems
from training.data.detection.listing import SPLITS, Listing, Truth, some
from training.data.detection.split import Kept, settle
from training.data.prepared import PreparedCache, Request
from training.data.prepared_build import Plan, open_or_build
from training.data.problems import raise_problems
from training.files import digest
from training.leaks.members import Member
from training.schemas.detection import DetectionAugmentationSection, DetectionDataSection
from training.tasks.protocol import PrepareContext, Prepared

PREPARATION_VERSION = 1  # raise it when the same settings begin to give other blocks
_FILES_PER_WORKER = 100  # fewer are done before another process has started


def prepare_detection(
    section: DetectionDataSection, context: PrepareContext, augmentation: DetectionAugmentationSection | None = None
) -> Prepared:
    """A dataset folder to items by split over a prepared cache; no image is opened where nothing changed.

    Raises BadDataError, DiskError and InterruptedRunError.
    """
    listing = list_dataset(context.source)
    chosen = chosen_classes(section, listing.classes)
    truth = with_classes(listing.read_truth(), chosen, listing.classes)
    workers = max(1, min(context.workers, len(listing.sources) // _FILES_PER_WORKER))
    request = request_of(section, listing)
    cache = open_or_build(context.cache_dir, request, lambda _: _plan(section, listing), context, workers)
    truth = in_pixels(listing, truth, cache)
    groups = groups_of([source.relative for source in listing.sources])
    kept = kept_rows(section, listing, cache, groups)
    return _prepared(section, listing, truth, cache, groups, kept, augmentation or DetectionAugmentationSection())


def preprocessing_of(section: DetectionDataSection) -> DetectionPreprocessing:
    """These settings as the preprocessing that training and serving share."""
    return DetectionPreprocessing(section.image_size)


def request_of(section: DetectionDataSection, listing: Listing) -> Request:
    """What is asked of the prepared cache: boxes are none of it, so mending one costs no preparation."""
    settings = {"kind": "detection", "version": PREPARATION_VERSION, **preprocessing_of(section).to_dict()}
    return Request(settings, listing.sources)


def facts_before(section: DetectionDataSection, listing: Listing) -> dict[str, Any]:
    """What building and scoring a model needs."""
    chosen = chosen_classes(section, listing.classes)
    return {
        "classes": [listing.classes[number] for number in chosen],
        "category_ids": [listing.category_ids[number] for number in chosen],
        "image_size": section.image_size,
    }


def class_counts(prepared: Prepared) -> dict[str, dict[str, int]]:
    """Boxes of each class by split."""
    classes = prepared.facts["classes"]
    return {
        name: dict(zip(classes, items.class_counts(len(classes)), strict=True))
        for name, items in prepared.splits.items()
        if isinstance(items, DetectionItems)
    }


def _plan(section: DetectionDataSection, listing: Listing) -> Plan:
    preprocessing = preprocessing_of(section)
    return Plan(
        shape=(3, preprocessing.image_size, preprocessing.image_size),
        dtype="uint8",
        block_sources=range(len(listing.sources)),
        make=MakeBlock(preprocessing),
        recipe=preprocessing.to_dict(),
        check=check_facts,
    )


# --- from the cache to items: nothing here touches an image -----------------------------------------------------------


def sizes_of(cache: PreparedCache) -> np.ndarray:
    """int64 [sources, 2]: the images' (width, height)."""
    return np.array([facts[:2] for facts in cache.block_facts], np.int64).reshape(-1, 2)


def in_pixels(listing: Listing, truth: Truth, cache: PreparedCache) -> Truth:
    """``truth`` with boxes in pixels of the images, and every area. Raises BadDataError: images of another size."""
    sizes = sizes_of(cache)[listing.source_of]
    if truth.sizes is None:
        boxes = truth.boxes * np.tile(sizes, 2)[truth.row_of()]
    else:
        raise_problems(_other_sizes(listing, truth.sizes, sizes))
        boxes = truth.boxes
    own = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return replace(truth, boxes=boxes, area=np.where(np.isnan(truth.area), own, truth.area), sizes=sizes)


def _other_sizes(listing: Listing, told: np.ndarray, found: np.ndarray) -> list[str]:
    problems = []
    for row in np.flatnonzero((told != found).any(axis=1)).tolist():
        turned = told[row].tolist() == found[row][::-1].tolist()
        hint = " (the camera's note turns it: draw the boxes on the upright picture)" if turned else ""
        problems.append(
            f"{listing.sources[listing.source_of[row]].path}: is {found[row][0]} wide and {found[row][1]} high, but "
            f"the annotations say {told[row][0]} and {told[row][1]}{hint}"
        )
    return problems


def kept_rows(
    section: DetectionDataSection, listing: Listing, cache: PreparedCache, groups: Sequence[str | None]
) -> Kept:
    """The rows of each split after data.duplicates and data.groups (``groups``: the sources'). Raises BadDataError."""
    names = [source.relative for source in listing.sources]
    pixels = [facts[2] for facts in cache.block_facts]
    of = listing.source_of.tolist()
    return settle(
        listing.rows,
        [names[i] for i in of],
        [pixels[i] for i in of],
        [groups[i] for i in of],
        (section.duplicates, section.groups),
    )


def _prepared(
    section: DetectionDataSection,
    listing: Listing,
    truth: Truth,
    cache: PreparedCache,
    groups: Sequence[str | None],
    kept: Kept,
    augmentation: DetectionAugmentationSection,
) -> Prepared:
    facts = facts_before(section, listing)
    raise_problems(_without_boxes(truth, kept, facts["classes"]))
    names = [source.relative for source in listing.sources]
    audit = audit_of(listing, truth, facts["classes"], groups, kept)
    reader, preprocessing = cache.reader(), preprocessing_of(section)
    assert truth.sizes is not None
    frames = preprocessing.frames(truth.sizes)
    members = {
        split: [
            Member(names[i], groups[i], content=(cache.block_facts[i][2],))
            for i in listing.source_of[kept.rows[split]].tolist()
        ]
        for split in SPLITS
    }
    return Prepared(
        fingerprint=_fingerprint(listing, truth, cache, kept, facts),
        splits={
            split: DetectionItems(
                reader, listing.source_of[rows], frames[rows], _annotations(truth, rows), augmentation
            )
            for split, rows in kept.rows.items()
        },
        audit=audit,
        members=members,
        preprocessing={"detection": preprocessing.to_dict()},
        summary=summary_lines(listing, facts["classes"], audit, kept, cache.folder.name),
        facts={**facts, "cache": cache.fingerprint},
    )


def _without_boxes(truth: Truth, kept: Kept, classes: Sequence[str]) -> list[str]:
    counts = np.diff(truth.offsets)
    return [
        f"{split}: none of its {len(kept.rows[split]):,} images has a box of {some(classes)}; nothing can be "
        f"{'learned' if split == 'train' else 'scored'} there: choose other classes, or label some"
        for split in ("train", "val")
        if not counts[kept.rows[split]].any()
    ]


def _annotations(truth: Truth, rows: np.ndarray) -> Annotations:
    """Those of ``rows`` alone, in their order."""
    counts = np.diff(truth.offsets)[rows]
    ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    at = np.repeat(truth.offsets[rows] - ends[:-1], counts) + np.arange(ends[-1])
    return Annotations(
        ends, truth.boxes[at].astype(np.float32), truth.labels[at], truth.crowd[at], truth.area[at].astype(np.float32)
    )


def _fingerprint(listing: Listing, truth: Truth, cache: PreparedCache, kept: Kept, facts: Mapping[str, Any]) -> str:
    """Of the images' and the boxes' content, and of which are in which split."""
    arrays: Sequence[np.ndarray] = (
        truth.offsets.astype("<i8"),
        truth.boxes.astype("<f8"),
        truth.labels.astype("<i8"),
        truth.crowd.astype("u1"),
        truth.area.astype("<f8"),
        listing.source_of.astype("<i8"),
        *(kept.rows[split].astype("<i8") for split in SPLITS),
    )
    content = hashlib.sha256()
    for array in arrays:
        content.update(b"%d " % len(array) + array.tobytes())
    return digest({"cache": cache.fingerprint, "boxes": content.hexdigest(), **facts})
