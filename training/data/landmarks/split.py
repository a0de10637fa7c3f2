"""Images to train, val and test: drawn by scikit-learn, each class in the same shares, like images together.

With nothing but single images this is the split of the usual two calls, in the CSV's order::

    train, rest = train_test_split(rows, test_size=val + test, stratify=classes, random_state=seed)
    val, test = train_test_split(rest, test_size=test / (val + test), stratify=…, random_state=seed)

so a seed that another program used gives that program's split.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backend.errors import BadDataError, UsageError
from training.files import digest, read_json, write_json

SPLITS = ("train", "val", "test")
_DRAW_VERSION = 1  # raise it when the same facts begin to give another split


@dataclass(frozen=True)
class Split:
    """Which image went where."""

    sides: np.ndarray  # int8 [n]: 0 train, 1 val, 2 test
    units: np.ndarray  # int64 [n]: images with one number stay together
    notes: Sequence[str]  # what was not done as asked, and why

    def members(self, split: str) -> np.ndarray:
        """Indices of the images in ``split``, in the CSV's order."""
        return np.flatnonzero(self.sides == SPLITS.index(split))


def split_images(
    class_of: np.ndarray,
    keys: Sequence[Sequence[Hashable]],
    fractions: Sequence[float],
    seed: int,
    memory: Path | None = None,
) -> Split:
    """Draws the split over units: images that share one of their ``keys`` (group, content) are one.

    ``memory`` is a folder in which a draw is kept, because importing scikit-learn takes longer than all else.
    Raises BadDataError with fewer than three units.
    """
    units = units_of(keys)
    labels = class_of[np.unique(units, return_index=True)[1]]  # of a unit's first image
    if len(labels) < len(SPLITS):
        raise BadDataError(
            f"{len(units)} images make {len(labels)} that are independent of each other (by content and group); train, "
            "val and test need one each at least"
        )
    facts = [_DRAW_VERSION, labels.tolist(), list(fractions), seed]
    drawn, notes = _remembered(facts, memory) or _draw_and_keep(labels, fractions, seed, facts, memory)
    return Split(drawn[units], units, notes)


def units_of(keys: Sequence[Sequence[Hashable]]) -> np.ndarray:
    """int64 [n]: the same number for entries that share a key, also by way of others; numbered as they first come."""
    parent = list(range(len(keys)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first: dict[Hashable, int] = {}
    for index, own in enumerate(keys):
        for key in own:
            one, other = sorted((root(index), root(first.setdefault(key, index))))
            parent[other] = one  # the earlier one stays, so that numbers follow the order
    roots = [root(index) for index in range(len(keys))]
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)


# --- the draw ---------------------------------------------------------------------------------------------------------


def draw(labels: np.ndarray, fractions: Sequence[float], seed: int) -> tuple[np.ndarray, list[str]]:
    """int8 [units], the side of each, and notes; ``labels`` are the units' classes."""
    sizes, notes = split_sizes(len(labels), fractions), list[str]()
    everyone, held_out = np.arange(len(labels)), sizes["val"] + sizes["test"]
    _, rest = _divide(everyone, labels, held_out, seed, "train from val and test", notes)
    val, test = _divide(rest, labels, sizes["test"], seed, "val from test", notes)
    sides = np.zeros(len(labels), np.int8)
    sides[val], sides[test] = 1, 2
    return sides, notes


def split_sizes(units: int, fractions: Sequence[float]) -> dict[str, int]:
    """Units in train, val and test of three or more."""
    _, val, test = fractions
    held_out, share = round(val + test, 9), round(test / (val + test), 9)  # 0.1 + 0.2 must not become 0.300…04
    rest = _count(held_out, units, least=2)
    last = _count(share, rest, least=1)
    return {"train": units - rest, "val": rest - last, "test": last}


def _count(share: float, of: int, least: int) -> int:
    """Of ``of`` units, rounded up as scikit-learn does; both sides keep some."""
    return min(max(math.ceil(share * of), least), of - 1)


def _divide(
    among: np.ndarray, labels: np.ndarray, count: int, seed: int, what: str, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.model_selection import train_test_split  # takes seconds to import

    sizes = {"train_size": len(among) - count, "test_size": count, "random_state": seed}
    here = labels[among]
    reason = _not_stratified(here, min(count, len(among) - count))
    if reason:
        notes.append(f"{what} was drawn without regard to classes: {reason}")
        return tuple(train_test_split(among, **sizes))
    return tuple(train_test_split(among, stratify=here, **sizes))


def _not_stratified(labels: np.ndarray, smaller: int) -> str | None:
    """Why classes cannot have the same shares on both sides; None where they can."""
    counts = Counter(labels.tolist())
    if min(counts.values()) < 2:
        return "a class has only one independent image there"
    if smaller < len(counts):
        return f"{smaller} cannot hold all {len(counts)} classes"
    return None


def _remembered(facts: list[object], memory: Path | None) -> tuple[np.ndarray, list[str]] | None:
    if memory is None:
        return None
    with suppress(UsageError, KeyError, TypeError):  # missing or damaged: drawn anew, with the same result
        found = read_json(_place(memory, facts))
        if found["of"] == digest(facts) and found["check"] == digest([found["sides"], found["notes"]]):
            return np.array(found["sides"], np.int8), list(found["notes"])
    return None


def _draw_and_keep(
    labels: np.ndarray, fractions: Sequence[float], seed: int, facts: list[object], memory: Path | None
) -> tuple[np.ndarray, list[str]]:
    sides, notes = draw(labels, fractions, seed)
    if memory is not None:
        record = {"sides": sides.tolist(), "notes": notes}
        with suppress(OSError):  # a cache that cannot be written still can be read
            write_json(
                _place(memory, facts), {"of": digest(facts), "check": digest([record["sides"], notes]), **record}
            )
    return sides, notes


def _place(memory: Path, facts: list[object]) -> Path:
    return memory / f"split-{digest(facts)}.json"


# --- the record of it -------------------------------------------------------------------------------------------------


def shared_keys(keys: Sequence[Hashable | None]) -> dict[Hashable, list[int]]:
    """Keys that several entries have, with those entries."""
    found: dict[Hashable, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        if key is not None:
            found[key].append(index)
    return {key: entries for key, entries in found.items() if len(entries) > 1}
