"""What becomes of images that stand, or whose picture or video stands, in more than one split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend.errors import BadDataError
from training.data.detection.listing import SPLITS

_SHOWN = 10
_AFTER = {"train": ("val", "test"), "val": ("test",)}  # what a split must have nothing in common with
_KEEPING = {"drop": "drop", "refuse": "refuse", "keep": "keep", "report": "keep"}


@dataclass(frozen=True)
class Overlap:
    """What splits had in common by one kind of key, and what was done."""

    what: str  # "duplicates" or "groups"
    images: Mapping[str, int]  # by split: those whose key stands in a later one too
    pairs: Sequence[tuple[str, str]]  # examples: an image, and one of a later split
    shared: int  # keys that stand in several splits
    within: int  # images whose key another image of the same split has
    done: str

    @property
    def kept(self) -> bool:
        """Whether there were some and they stayed."""
        return bool(self.pairs) and self.done.startswith("kept")

    @property
    def total(self) -> int:
        """Images of train and val that another split knows."""
        return sum(self.images.values())

    def to_json(self) -> dict[str, Any]:
        """For the audit."""
        return {
            "images": self.total,
            "by_split": dict(self.images),
            "shared": self.shared,
            "within_a_split": self.within,
            "examples": [list(pair) for pair in self.pairs],
            "done": self.done,
        }


@dataclass(frozen=True)
class Kept:
    """The rows that each split has in the end."""

    rows: Mapping[str, np.ndarray]
    duplicates: Overlap
    groups: Overlap


def settle(
    rows: Mapping[str, np.ndarray],
    names: Sequence[str],
    pixels: Sequence[str],
    groups: Sequence[str | None],
    policies: tuple[str, str],
) -> Kept:
    """Apply ``policies`` (data.duplicates, data.groups). ``names``, ``pixels`` and ``groups`` are the rows'.

    Raises:
        BadDataError: a policy is refuse and there are some, or nothing is left of train or val.
    """
    kept, duplicates = _settled("duplicates", rows, names, pixels, policies[0])
    _check_left(rows, kept, "duplicates", "show the same pixels as an image of val or test", "keep")
    after, shared = _settled("groups", kept, names, groups, policies[1])
    _check_left(kept, after, "groups", "come from the same picture, video or sequence as one of val or test", "report")
    return Kept(after, duplicates, shared)


def _settled(
    what: str, rows: Mapping[str, np.ndarray], names: Sequence[str], keys: Sequence[str | None], policy: str
) -> tuple[dict[str, np.ndarray], Overlap]:
    first = {split: _first_with(rows[split], keys) for split in SPLITS}
    meeting: dict[str, list[int]] = {}
    pairs: list[tuple[str, str]] = []
    for split, later in _AFTER.items():
        meeting[split] = []
        for row in rows[split].tolist():
            there = next((first[other][keys[row]] for other in later if keys[row] in first[other]), None)
            if keys[row] is not None and there is not None:
                meeting[split].append(row)
                pairs.append((f"{split}: {names[row]}", f"{_side(rows, there)}: {names[there]}"))
    images = {split: len(found) for split, found in meeting.items()}
    shared = len({keys[row] for found in meeting.values() for row in found})
    within = sum(len(rows[split]) - _distinct(rows[split], keys) for split in SPLITS)
    action = _KEEPING[policy] if pairs else "nothing"
    if action == "refuse":
        raise BadDataError(_refusal(what, pairs))
    kept = dict(rows)
    if action == "drop":
        kept.update({split: np.setdiff1d(rows[split], found) for split, found in meeting.items()})
    done = {"drop": "left out", "keep": "kept: scores are too good", "nothing": "nothing"}[action]
    return kept, Overlap(what, images, pairs[:_SHOWN], shared, within, done)


def _first_with(rows: np.ndarray, keys: Sequence[str | None]) -> dict[str | None, int]:
    found: dict[str | None, int] = {}
    for row in rows.tolist():
        if keys[row] is not None:
            found.setdefault(keys[row], row)
    return found


def _distinct(rows: np.ndarray, keys: Sequence[str | None]) -> int:
    """Different keys; an image without one is like no other."""
    own = [keys[row] for row in rows.tolist()]
    return len({key for key in own if key is not None}) + own.count(None)


def _side(rows: Mapping[str, np.ndarray], row: int) -> str:
    return next(split for split in SPLITS if len(rows[split]) and rows[split][0] <= row <= rows[split][-1])


def _refusal(what: str, pairs: Sequence[tuple[str, str]]) -> str:
    same = "show the same pixels" if what == "duplicates" else "come from one picture, video or sequence"
    shown = [f"  {one} and {other}" for one, other in pairs[:_SHOWN]]
    more = [f"  … and {len(pairs) - _SHOWN} more"] if len(pairs) > _SHOWN else []
    mild = "keep" if what == "duplicates" else "report"
    head = f"{len(pairs)} images of train or val {same} as one of a later split, and data.{what} is refuse"
    return "\n".join([f"{head}; remove them, or set data.{what} to drop or {mild}:", *shown, *more])


def _check_left(
    before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], what: str, why: str, mild: str
) -> None:
    for split in ("train", "val"):
        if len(before[split]) and not len(after[split]):
            raise BadDataError(
                f"{split}: all of its {len(before[split]):,} images {why}, so that none is left; give {split} images "
                f"of its own, or set data.{what}={mild} to use them all the same (scores then say nothing about others)"
            )
