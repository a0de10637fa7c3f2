"""What preparation found in a landmark dataset and did about it: for the audit, and as lines for people."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from training.data.landmarks.images import Annotated
from training.data.landmarks.split import SPLITS, Split, shared_keys

_IMAGES = "images"  # how many
_MOST_SETS = 20


def audit_of(
    annotated: Annotated, pixels: Sequence[str], split: Split, fractions: Sequence[float], seed: int
) -> dict[str, Any]:
    """The split as it came out, counted from the result and not from how it was made. JSON types only."""
    same = shared_keys(pixels)
    return {
        "method": "draw" if split.notes else "stratified draw",
        "seed": seed,
        "fractions": list(fractions),
        "weak": False,
        "splits": {name: _side(annotated, split.members(name)) for name in SPLITS},
        "independent": int(split.units.max()) + 1,
        "duplicates": {
            "images": sum(len(entries) for entries in same.values()),
            "same": [[annotated.names[i] for i in entries] for entries in list(same.values())[:_MOST_SETS]],
            "done": "images with the same pixels stand in one split" if same else "nothing",
        },
        "groups": _groups(annotated),
        "overlaps": {"images": _meeting(pixels, split), "groups": _meeting(annotated.groups, split)},
        "not_as_asked": list(split.notes),
        "without_points": annotated.without_points,
    }


def _side(annotated: Annotated, members: np.ndarray) -> dict[str, Any]:
    counts = np.bincount(annotated.class_of[members], minlength=len(annotated.classes)).tolist()
    names = (f"class {name}" if name == _IMAGES else name for name in annotated.classes)  # as a folder may be called
    shares = zip(names, counts, strict=True)
    return {_IMAGES: len(members), **{name: f"{count} ({count / len(members):.1%})" for name, count in shares}}


def _groups(annotated: Annotated) -> str:
    known = [group for group in annotated.groups if group is not None]
    if not known:
        return "the table has no column group or patient, so images of one patient may stand in two splits"
    alone = len(annotated.groups) - len(known)
    return f"{len(set(known))}, each in one split" + (f"; {alone} images have none" if alone else "")


def _meeting(keys: Sequence[Hashable | None], split: Split) -> int:
    """Keys that stand in more than one split."""
    return sum(len(np.unique(split.sides[entries])) > 1 for entries in shared_keys(keys).values())


def summary_lines(annotated: Annotated, audit: Mapping[str, Any], cache: str, mirror: Sequence[str]) -> list[str]:
    """The dataset, what was found in it, and the split, for the log."""
    count, points = len(annotated.names), len(annotated.landmark_set)
    lines = [f"{count:,} images with {points} points, {_told_classes(annotated)}; prepared cache {cache}", *mirror]
    if audit["without_points"]:
        lines.append(f"{audit['without_points']:,} images without points were left alone")
    if audit["duplicates"]["images"]:
        sets = "; ".join(" = ".join(names) for names in audit["duplicates"]["same"][:3])
        lines.append(
            f"{audit['duplicates']['images']} images are the same as another ({sets} …); such images stand in one split"
        )
    lines.append(f"Split by {audit['method']} with seed {audit['seed']}:")
    lines += [_side_line(name, audit["splits"][name]) for name in SPLITS]
    return [*lines, f"  groups: {audit['groups']}", *(f"  {note}" for note in audit["not_as_asked"])]


def _told_classes(annotated: Annotated) -> str:
    classes = annotated.classes
    names = ", ".join(classes[:5]) + ", …" * (len(classes) > 5)
    return f"{len(classes)} class{'es' * (len(classes) > 1)} ({names})"


def _side_line(name: str, side: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{label} {text}" for label, text in side.items() if label != _IMAGES)
    return f"  {name:<5} {side[_IMAGES]:>6,} images: {counts}"
