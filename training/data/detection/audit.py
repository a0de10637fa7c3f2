"""What preparation found in a detection dataset and did about it: for the audit, and as lines for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from training.data.detection.listing import SPLITS, Listing, Truth, some
from training.data.detection.split import Kept, Overlap

_MOST_CLASSES = 10  # columns of the table of splits


def audit_of(
    listing: Listing, truth: Truth, classes: Sequence[str], groups: Sequence[str | None], kept: Kept
) -> dict[str, Any]:
    """The splits as they came out, counted from the result and not from how it was made. JSON types only."""
    weak = [one.what for one in (kept.duplicates, kept.groups) if one.kept]
    return {
        "method": f"the dataset itself (as {listing.layout} lists it)",
        **_weakness(kept),
        "splits": {name: split_facts(truth, classes, kept.rows[name]) for name in SPLITS},
        "duplicates": kept.duplicates.to_json(),
        "groups": {"known": len({group for group in groups if group is not None}), **kept.groups.to_json()},
        "overlaps": {one.what: one.total if one.what in weak else 0 for one in (kept.duplicates, kept.groups)},
        "labels": dict(truth.counts),
        "notes": [*listing.notes, *truth.notes],
    }


def _weakness(kept: Kept) -> dict[str, Any]:
    lines = [line for one in (kept.duplicates, kept.groups) if one.kept for line in _told(one)]
    return {"weak": True, "weak_reason": "; ".join(lines)} if lines else {"weak": False}


def split_facts(truth: Truth, classes: Sequence[str], rows: np.ndarray) -> dict[str, int]:
    """Images, boxes and background images of a split, and boxes of each class where the classes are few."""
    inside = np.isin(truth.row_of(), rows)
    counts = np.bincount(truth.labels[inside], minlength=len(classes)).tolist()
    few = len(classes) <= _MOST_CLASSES
    empty = int((np.diff(truth.offsets)[rows] == 0).sum())
    return {
        "images": len(rows),
        "boxes": int(inside.sum()),
        "background images": empty,
        **({f"boxes of {name}": count for name, count in zip(classes, counts, strict=True)} if few else {}),
    }


def summary_lines(
    listing: Listing, classes: Sequence[str], audit: Mapping[str, Any], kept: Kept, cache: str
) -> list[str]:
    """The dataset, what was found in it, and the splits, for the log."""
    images = sum(len(rows) for rows in listing.rows.values())
    few = f"{len(classes)} class{'es' * (len(classes) > 1)} ({some(classes, 8)})"
    lines = [f"{images:,} images in the {listing.layout} layout, {few}; prepared cache {cache}", *audit["notes"]]
    lines += [line for one in (kept.duplicates, kept.groups) for line in _told(one)]
    return [*lines, "Splits as the dataset gives them:", *(_side_line(name, audit["splits"][name]) for name in SPLITS)]


def _told(overlap: Overlap) -> list[str]:
    if not overlap.pairs:
        return []
    same = "show the same pixels as" if overlap.what == "duplicates" else "come from one picture or video with"
    one, other = overlap.pairs[0]
    counts = ", ".join(f"{count:,} of {split}" for split, count in overlap.images.items() if count)
    return [f"{counts} {same} an image of a later split ({one} and {other}): {overlap.done}"]


def _side_line(name: str, side: Mapping[str, int]) -> str:
    empty = f" ({side['background images']:,} without boxes)" if side["background images"] else ""
    return f"  {name:<5} {side['images']:>7,} images{empty}, {side['boxes']:,} boxes"
