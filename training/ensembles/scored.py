"""The numbers of an ensemble: its members and their mean on the same images, on both scales, image by image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from backend.errors import UsageError
from training.ensembles.answers import Said
from training.ensembles.bench import DataBench, Images
from training.ensembles.combine import mean_prediction, worth
from training.ensembles.members import EnsembleMember
from training.ensembles.spec import Spec
from training.scores.landmark_errors import PIXELS, Floats, intervals, point_errors, summarise
from training.scores.landmarks import SCALES

PLAIN, TTA = "plain", "tta"
SUCCESS_PX = (5.0, 8.0, 10.0, 15.0)
_RESAMPLINGS = 1000


@dataclass(frozen=True)
class Scored:
    """Members and their mean on the same N images."""

    images: Images
    members: Sequence[Said]
    weights: Sequence[float]
    mean_shape: Floats  # [P, 2] from 0 to 1
    names: Sequence[str]  # of the members
    points: Sequence[str]
    classes: Sequence[str]
    ways: Sequence[str]  # PLAIN, and TTA where it is asked for; the last one is the headline's

    @classmethod
    def of(
        cls, members: Sequence[EnsembleMember], images: Images, said: Sequence[Said], data: DataBench, spec: Spec
    ) -> Scored:
        """What ``members`` said to ``images``. Raises UsageError where `--tta` asks for what cannot be."""
        return cls(
            images=images,
            members=said,
            weights=spec.weights or (1.0,) * len(members),
            mean_shape=np.array(data.prepared.facts["mean_shape"]),
            names=[member.label for member in members],
            points=members[0].points,
            classes=list(data.prepared.facts["classes"]),
            ways=ways_of(said, spec.tta),
        )

    def part(self, chosen: Sequence[int]) -> Scored:
        """On some of the images."""
        return replace(self, images=self.images.part(chosen), members=[said.part(chosen) for said in self.members])

    def together(self, way: str) -> Floats:
        """The weighted mean [N, P, 2]."""
        return mean_prediction(predictions_of(self.members, way), self.weights)

    def errors(self, prediction: Floats, scale: str) -> Floats:
        """Distances [N, P] in pixels of ``scale``."""
        return point_errors(prediction, self.images.points, PIXELS if scale == SCALES[0] else self.images.size)

    def to_json(self) -> dict[str, Any]:
        """Every number on both scales, with and without test-time augmentation."""
        members = zip(self.names, self.weights, strict=True)
        return {
            "images": len(self.images),
            "ensemble": {way: self._on_scales(self.together(way), details=True) for way in self.ways},
            "members": [{"run": name, "weight": weight, **self._member(i)} for i, (name, weight) in enumerate(members)],
            "worth_px_224": {way: [rounded(one) for one in self._worth(way)] for way in self.ways},
            "mean_shape": self._on_scales(np.broadcast_to(self.mean_shape, self.images.points.shape)),
        }

    def _member(self, index: int) -> dict[str, Any]:
        return {way: self._on_scales(predictions_of(self.members, way)[index]) for way in self.ways}

    def _worth(self, way: str) -> Floats:
        return worth(predictions_of(self.members, way) * PIXELS, self.images.points * PIXELS, self.weights)

    def _on_scales(self, prediction: Floats, details: bool = False) -> dict[str, Any]:
        errors = {scale: self.errors(prediction, scale) for scale in SCALES}
        told = {f"px_{scale}": _summary(found) for scale, found in errors.items()}
        for scale, found in errors.items() if details else ():
            told[f"px_{scale}"] |= self._details(found)
        return told

    def _details(self, errors: Floats) -> dict[str, Any]:
        images, classes = errors.mean(1), self.images.classes
        counts = {name: int((classes == i).sum()) for i, name in enumerate(self.classes)}
        return {
            "per_landmark": {name: _spread(errors[:, i]) for i, name in enumerate(self.points)},
            "per_category": {
                name: _spread(images[classes == i]) | {"count": counts[name]}
                for i, name in enumerate(self.classes)
                if counts[name]
            },
        }

    def frame(self, contaminated: Sequence[bool | None]) -> pd.DataFrame:
        """A row for each image: what it is, whether a member has learned from it (None: nobody knows), errors, points.

        Errors are means over an image's points, predictions are in native pixels; both of the last of `ways`.
        """
        way, images = self.ways[-1], self.images
        words = {True: "yes", False: "no", None: "unknown"}
        together = self.together(way)
        columns: dict[str, Any] = {
            "image": [member.name for member in images.members],
            "class": [self.classes[i] for i in images.classes],
            "contaminated": [words[one] for one in contaminated],
            "width": images.size[:, 0],
            "height": images.size[:, 1],
        }
        columns |= {f"error_px_{scale}": self.errors(together, scale).mean(1) for scale in SCALES}
        for name, prediction in zip(self.names, predictions_of(self.members, way), strict=True):
            columns[f"{name}_px_{SCALES[0]}"] = self.errors(prediction, SCALES[0]).mean(1)
        native = together * images.size[:, None]
        for i, name in enumerate(self.points):
            columns |= {f"{name}_x": native[:, i, 0], f"{name}_y": native[:, i, 1]}
        return pd.DataFrame(columns).round(4)


def ways_of(said: Sequence[Said], tta: bool | None) -> list[str]:
    """How members are averaged, the headline's way last. Raises UsageError where ``tta`` asks for what cannot be."""
    mirrors = all(one.tta is not None for one in said)
    if tta and not mirrors:
        raise UsageError("--tta: the points' mirror pairs are not known, so that no mirror image can be asked for")
    return [PLAIN] if tta is False or not mirrors else [PLAIN, TTA]


def predictions_of(said: Sequence[Said], way: str) -> Floats:
    """[M, N, P, 2] from 0 to 1, of M members."""
    found = [one.plain if way == PLAIN else one.tta for one in said]
    return np.stack([one for one in found if one is not None])


def rounded(value: float) -> float | None:
    """As JSON tells it; None for what there is not."""
    return round(float(value), 4) if math.isfinite(value) else None


def _summary(errors: Floats) -> dict[str, Any]:
    found = summarise(errors, SUCCESS_PX)
    told: dict[str, Any] = {"mean": rounded(found.pop("error"))}
    told |= {name: rounded(value) for name, value in found.items()}
    return told | {"interval_95": _interval(errors.mean(1))}


def _interval(images: Floats) -> list[float | None] | None:
    """Of the mean over images; one image has none."""
    if len(images) < 2:
        return None
    return [rounded(end) for end in intervals(images[:, None], _RESAMPLINGS)[:, 0]]


def _spread(values: Floats) -> dict[str, Any]:
    found = {"mean": values.mean(), "std": values.std(), "median": np.median(values), "max": values.max()}
    return {name: rounded(value) for name, value in found.items()}
