"""Which points a landmark model finds: their names, and which of them change places in a mirror."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backend.errors import BadDataError


@dataclass(frozen=True)
class Span:
    """A length that errors are divided by: from the mean of some points to the mean of others, by index from 0."""

    name: str  # such as inter_ocular or inter_pupil
    start: tuple[int, ...]
    end: tuple[int, ...]


@dataclass(frozen=True)
class LandmarkSet:
    """Names of the points in their order, pairs (by index from 0) that a mirror exchanges, lengths for errors.

    Raises:
        BadDataError: a name stands twice, or a pair or span names points that there are not.
    """

    names: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...] = ()
    spans: tuple[Span, ...] = ()
    mirrors: bool = True  # whether the pairs are known; without them no image may be mirrored
    mm_per_px: float | None = None  # of the images as they are, where it is one for all
    origin: str = field(default="the landmark set", compare=False)  # for errors: where it was read

    def __post_init__(self) -> None:
        if len(set(self.names)) < len(self.names):
            raise BadDataError(f"{self.origin}: a point's name stands twice in {', '.join(self.names)}")
        paired = [index for pair in self.pairs for index in pair]
        for index in (*paired, *(i for span in self.spans for i in (*span.start, *span.end))):
            if not 0 <= index < len(self.names):
                raise BadDataError(f"{self.origin}: point {index + 1} is named, but there are {len(self.names)} points")
        if len(set(paired)) < len(paired):
            twice = next(index for index in paired if paired.count(index) > 1)
            raise BadDataError(
                f"{self.origin}: {self.names[twice]} stands twice among the pairs; a pair exchanges two different "
                "points, and each point has at most one partner"
            )

    def __len__(self) -> int:
        return len(self.names)

    def mirrored_order(self) -> list[int]:
        """Where each point of a mirrored image is found: ``points[order]`` has them under their own names again."""
        order = list(range(len(self.names)))
        for one, other in self.pairs:
            order[one], order[other] = other, one
        return order

    def to_json(self) -> dict[str, Any]:
        """For a dataset's facts and a checkpoint."""
        return {
            "names": list(self.names),
            "pairs": [list(pair) for pair in self.pairs],
            "spans": [{"name": span.name, "start": list(span.start), "end": list(span.end)} for span in self.spans],
            "mirrors": self.mirrors,
            "mm_per_px": self.mm_per_px,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> LandmarkSet:
        """What `to_json` gave."""
        return cls(
            names=tuple(found["names"]),
            pairs=tuple((one, other) for one, other in found["pairs"]),
            spans=tuple(Span(span["name"], tuple(span["start"]), tuple(span["end"])) for span in found["spans"]),
            mirrors=found["mirrors"],
            mm_per_px=found["mm_per_px"],
        )


LUNGS = LandmarkSet(
    names=tuple(f"L{number}" for number in range(1, 16)),
    pairs=((2, 3), (4, 5), (6, 7), (11, 12), (13, 14)),
)  # the contour of both lungs: L1, L9, L10, L11, L2 down the middle, the rest in pairs beside it
