"""Which of the evaluated images the members have learned from: the question before any number is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training.ensembles.members import EnsembleMember
from training.leaks.find import KINDS, Leaks, find_leaks
from training.leaks.members import Member
from training.runs.run import is_split_told

TRAIN, VAL = "train", "val"


@dataclass(frozen=True)
class Contamination:
    """What each member has in common with the evaluated images; None for one whose training nobody knows."""

    examined: Sequence[Member]
    names: Sequence[str]  # of the members
    by_member: Sequence[Leaks | None]
    by_selection: bool  # whether images that a member's checkpoint was chosen by count too
    taken_on_trust: Sequence[str] = ()  # members whose split is only what somebody said when importing them

    @property
    def unknown(self) -> list[str]:
        """Members that cannot be audited."""
        return [name for name, leaks in zip(self.names, self.by_member, strict=True) if leaks is None]

    @property
    def tainted(self) -> list[int]:
        """Indices of the images that some member has learned from."""
        return sorted(set().union(*(leaks.tainted for leaks in self.by_member if leaks is not None)))

    @property
    def clean(self) -> list[int]:
        """Indices of the images that none has; empty where one cannot be audited."""
        if self.unknown:
            return []
        tainted = set(self.tainted)
        return [index for index in range(len(self.examined)) if index not in tainted]

    def lines(self, what: str) -> list[str]:
        """For people: who has learned from which of the images, which are ``what``."""
        head = f"Audit: {self._verdict(what)}"
        lines = [head, *self._counts()] if self.tainted else [head]
        if self.taken_on_trust:
            names = ", ".join(self.taken_on_trust)
            lines.append(f"note: the split of {names} is what was said with --split-known; nothing can check it.")
        return lines

    def _verdict(self, what: str) -> str:
        if self.unknown:
            return (
                f"nobody knows what {', '.join(self.unknown)} learned from, so no image of {what} is known to be clean."
            )
        n, tainted = len(self.examined), len(self.tainted)
        if tainted:
            verb = "learned from" if self.by_selection else "trained on"
            return f"{tainted} of the {n} images of {what} are CONTAMINATED, {n - tainted} are clean. Members {verb}:"
        if self.by_selection:
            return f"no member saw any of the {n} images of {what} in training or in selection."
        return (
            f"no member trained on any of the {n} images of {what}; checkpoints were chosen by val, which flatters a "
            "little."
        )

    def _counts(self) -> list[str]:
        counts = [_count(leaks) for leaks in self.by_member]
        width = max(map(len, counts))
        named = zip(counts, self.names, self.by_member, strict=True)
        return [f"  {count:>{width}}  {name}{_kinds(leaks)}" for count, name, leaks in named]


def _count(leaks: Leaks | None) -> str:
    return "unknown" if leaks is None else f"{len(leaks.tainted)} of {len(leaks.members)}"


def _kinds(leaks: Leaks | None) -> str:
    """By what images were known again."""
    found = {} if leaks is None else leaks.found
    kinds = ", ".join(f"{KINDS[kind]} {len(known)}" for kind, known in found.items() if known)
    return f" ({kinds})" if kinds else ""


def contamination(members: Sequence[EnsembleMember], examined: Sequence[Member], split: str) -> Contamination:
    """Hold what every member learned from against the images to be evaluated.

    That is what it trained on and what its checkpoint was chosen by; the latter does not count where val itself is
    evaluated, since to choose is what val is for.
    """
    by_selection = split != VAL
    learned_from = (TRAIN, VAL) if by_selection else (TRAIN,)
    found = [_leaks_of(member, examined, learned_from, split) for member in members]
    trusted = [member.label for member in members if is_split_told(member.run)]
    return Contamination(examined, [member.label for member in members], found, by_selection, trusted)


def _leaks_of(
    member: EnsembleMember, examined: Sequence[Member], learned_from: Sequence[str], split: str
) -> Leaks | None:
    if member.learned is None:
        return None
    seen = [one for name in learned_from for one in member.learned.splits.get(name, ())]
    return find_leaks(seen, examined, member.learned.near_seconds, (f"what {member.label} learned from", split))
