"""Leaks between two splits: the same item, the same group, the same content, or a moment too near.

Each kind is found by itself, because each can be missed by the others: a copied file has another name, and a
neighbouring frame another content.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from training.leaks.members import Member

KINDS = {
    "item": "the same item",
    "group": "the same group",
    "content": "identical content",
    "time": "near in time",
}
_EXAMPLES = 3


@dataclass(frozen=True)
class Leak:
    """How ``tainted``, an index into the examined members, is known to the other side: through ``known``."""

    tainted: int
    known: str  # the name of one member of the other side


@dataclass(frozen=True)
class Leaks:
    """What one split (``seen``) has in common with another (``examined``), by kind."""

    seen: str  # what was looked at during training, such as "train"
    examined: str  # what is scored, such as "test"
    members: Sequence[Member]  # of the examined split
    found: dict[str, list[Leak]]
    compared: tuple[str, ...]  # the kinds that both sides know enough for

    @cached_property
    def tainted(self) -> frozenset[int]:
        """Indices of the examined members with any leak."""
        return frozenset(leak.tainted for leaks in self.found.values() for leak in leaks)

    @property
    def clean(self) -> list[int]:
        """Indices of the examined members without one."""
        return [index for index in range(len(self.members)) if index not in self.tainted]

    def __bool__(self) -> bool:
        return bool(self.tainted)

    def line(self) -> str:
        """One line for people."""
        of = f"{len(self.members)} in {self.examined}"
        if not self.compared:
            return f"{self.seen} and {self.examined}: cannot be compared, because the splits say too little"
        if not self:
            return f"{self.seen} and {self.examined}: nothing in common ({', '.join(self.compared)} compared)"
        kinds = ", ".join(f"{KINDS[kind]} {len(leaks)}" for kind, leaks in self.found.items() if leaks)
        return f"{self.seen} and {self.examined}: {len(self.tainted)} of {of} are not independent ({kinds})"

    def examples(self) -> list[str]:
        """A few lines that name what was found."""
        return [
            f"{KINDS[kind]}: {self.members[leak.tainted].name} ({self.examined}), {leak.known} ({self.seen})"
            for kind, leaks in self.found.items()
            for leak in leaks[:_EXAMPLES]
        ]

    def to_json(self) -> dict[str, object]:
        """For records and programs."""
        return {
            "seen": self.seen,
            "examined": self.examined,
            "n": len(self.members),
            "tainted": len(self.tainted),
            "clean": len(self.clean),
            "compared": list(self.compared),
            "kinds": {kind: len(leaks) for kind, leaks in self.found.items()},
            "examples": self.examples(),
        }


def find_leaks(
    seen: Sequence[Member],
    examined: Sequence[Member],
    near_seconds: float,
    names: tuple[str, str] = ("train", "test"),
    *,
    same_kind: bool = True,
) -> Leaks:
    """What ``examined`` has in common with ``seen``.

    Args:
        seen: members that a model was trained or selected on.
        examined: members that it is scored on.
        near_seconds: items are near in time when less than this lies between the end of one and the start of the other.
        names: what the two are called.
        same_kind: whether both are of one kind of item, such as images: else their names and groups mean different
            things, and are not compared.
    """
    found, compared = {}, []
    for kind, keys in _KEYS.items():
        if (same_kind or kind not in _NAMED) and _knows(seen, keys) and _knows(examined, keys):
            compared.append(kind)
            found[kind] = _in_common(seen, examined, keys)
    if _knows(seen, _span) and _knows(examined, _span):
        compared.append("time")
        found["time"] = _near(seen, examined, near_seconds)
    return Leaks(*names, examined, found, tuple(compared))


Keys = Callable[[Member], Sequence[object]]
_KEYS: dict[str, Keys] = {
    "item": lambda member: (member.name,),
    "group": lambda member: () if member.group is None else (member.group,),
    "content": lambda member: member.content,
}
_NAMED = ("item", "group")  # what only means the same among items of one kind


def _span(member: Member) -> Sequence[object]:
    return member.span or ()


def _knows(members: Sequence[Member], keys: Keys) -> bool:
    return any(keys(member) for member in members)


def _in_common(seen: Sequence[Member], examined: Sequence[Member], keys: Keys) -> list[Leak]:
    holder = {key: member.name for member in seen for key in keys(member)}
    leaks = []
    for index, member in enumerate(examined):
        known = next((holder[key] for key in keys(member) if key in holder), None)
        if known is not None:
            leaks.append(Leak(index, known))
    return leaks


def _near(seen: Sequence[Member], examined: Sequence[Member], near_seconds: float) -> list[Leak]:
    """By start time: of those that begin early enough, the one that ends last decides."""
    known = sorted((member.span, member.name) for member in seen if member.span is not None)
    starts = np.array([span[0] for span, _ in known])
    ends = np.array([span[1] for span, _ in known])
    last = np.maximum.accumulate(np.where(ends == np.maximum.accumulate(ends), np.arange(len(ends)), 0))
    leaks = []
    for index, member in enumerate(examined):
        if member.span is None:
            continue
        begun = int(np.searchsorted(starts, member.span[1] + near_seconds))  # how many begin before it is over
        if begun and ends[last[begun - 1]] > member.span[0] - near_seconds:
            leaks.append(Leak(index, known[last[begun - 1]][1]))
    return leaks
