"""Which of the evaluated images the members have learned from: the question before any number is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training.ensembles.members import EnsembleMember
from training.leaks.find import Leaks, find_leaks
from training.leaks.members import Member
from training.leaks.own import LEARNED_FROM


@dataclass(frozen=True)
class Contamination:
    """What each member has in common with the evaluated images; None for one whose training nobody knows."""

    images: int
    by_member: Sequence[Leaks | None]

    @property
    def unknown(self) -> bool:
        """Whether some member cannot be audited."""
        return any(leaks is None for leaks in self.by_member)

    @property
    def tainted(self) -> list[int]:
        """Indices of the images that some member has learned from."""
        return sorted(set().union(*(leaks.tainted for leaks in self.by_member if leaks is not None)))

    @property
    def clean(self) -> list[int]:
        """Indices of the images that none has; empty where one cannot be audited."""
        tainted = set(self.tainted)
        return [] if self.unknown else [index for index in range(self.images) if index not in tainted]


def contamination(members: Sequence[EnsembleMember], examined: Sequence[Member], split: str) -> Contamination:
    """Hold what every member learned from (training and selection) against the images to be evaluated.

    A ``split`` that is evaluated to choose by it, such as val, does not count as learned from by selection.
    """
    learned_from = [name for name in LEARNED_FROM if name != split]
    return Contamination(len(examined), [_leaks_of(member, examined, learned_from, split) for member in members])


def _leaks_of(
    member: EnsembleMember, examined: Sequence[Member], learned_from: Sequence[str], split: str
) -> Leaks | None:
    if member.learned is None:
        return None
    seen = [one for name in learned_from for one in member.learned.splits.get(name, ())]
    return find_leaks(seen, examined, member.learned.near_seconds, (f"what {member.label} learned from", split))
