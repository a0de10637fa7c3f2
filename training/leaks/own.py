"""Leaks inside the split that a run trains on: looked for before every training, whatever the task's own audit says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from training.leaks.find import Leaks, find_leaks
from training.leaks.members import FILE, SPLITS, Member, read_membership

ORDER = SPLITS  # what is looked at during training, in the order of how much
LEARNED_FROM = ("train", "val")  # by training and by selection


def leaks_inside(splits: Mapping[str, Sequence[Member]], near_seconds: float) -> list[Leaks]:
    """Each part with each that is looked at less; those that hold nothing are left out."""
    held = [name for name in ORDER if splits.get(name)]
    return [find_leaks(splits[one], splits[other], near_seconds, (one, other)) for one, other in combinations(held, 2)]


def audited(audit: Mapping[str, Any], found: Sequence[Leaks]) -> dict[str, Any]:
    """A task's audit with what was found; a split with leaks is weak, also where the task saw nothing wrong."""
    leaking = [leaks for leaks in found if leaks]
    if not leaking:
        return {**audit, "leaks": []}
    told = {**audit, "leaks": [leaks.to_json() for leaks in leaking]}
    if audit.get("weak"):
        return told
    return {**told, "weak": True, "weak_reason": "; ".join(leaks.line() for leaks in leaking) + "."}


def of_other_weights(weights: Path, splits: Mapping[str, Sequence[Member]], near_seconds: float) -> list[Leaks] | None:
    """What the run that ``weights`` come from learned from, against the validation and test items here.

    None where nobody knows: the file lies in no run's folder, or that run does not know its own split.
    """
    folder = next((place for place in weights.resolve().parents[:3] if (place / FILE).is_file()), None)
    if folder is None:
        return None
    known = read_membership(folder / FILE)
    seen = [member for name in LEARNED_FROM for member in known.splits.get(name, ())]
    near = max(near_seconds, known.near_seconds)
    said = f"what {weights.name} of {folder.name} learned from"
    return [find_leaks(seen, splits[name], near, (said, name)) for name in ("val", "test") if splits.get(name)]
