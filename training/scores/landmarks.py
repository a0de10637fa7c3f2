"""Scores of landmarks: distances on two scales, with and without test-time augmentation, beside the mean shape.

Every number in pixels says whose pixels: ``_224`` (both axes from 0 to 224, whatever the image's size and the model's)
or ``_native`` (the image as it came). `training.scores.landmark_errors` has the arithmetic.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from backend.preprocessing.landmark_set import LandmarkSet
from training.schemas.landmarks import LandmarkEvaluationSection
from training.scores.landmark_errors import (
    PIXELS,
    SUMMARY,
    Floats,
    box_lengths,
    intervals,
    nme,
    point_errors,
    span_lengths,
    success_rates,
    summarise,
)
from training.scores.landmarks_layout import landmark_definitions, landmark_layout
from training.scores.landmarks_table import render

SCALES = ("224", "native")
TTA, MEAN_SHAPE = "tta_", "mean_shape_"
SUCCESS_MM = (2.0, 2.5, 3.0, 4.0)
"""Within how many millimetres a point counts as found: the thresholds of cephalometric challenges."""

_SEED = 0  # of the resamplings: the same images give the same intervals


@dataclass(frozen=True)
class _Images:
    """What was added, on the CPU: N images, P points."""

    forecasts: dict[str, Floats]  # by prefix; [N, P, 2] each
    target: Floats  # [N, P, 2]
    size: Floats  # [N, 2], width and height
    labels: np.ndarray[Any, np.dtype[np.int64]]  # [N]

    def errors(self, prefix: str, scale: str) -> Floats:
        """Distances ``[N, P]`` in pixels of ``scale``."""
        return point_errors(self.forecasts[prefix], self.target, PIXELS if scale == "224" else self.size)


class LandmarkScores:
    """Mean, median, spread, percentiles, success rates and normalised errors; overall, by landmark and by class.

    Names are ``error_px_224``; with test-time augmentation they have ``tta_`` in front, for the mean shape
    ``mean_shape_``. `record` says what each is. Points are kept until the end (a few numbers an image): medians and
    intervals need them all.

    Args:
        points: names, spans and, where it is known, the size of a pixel.
        classes: names of the images' classes.
        mean_shape: ``[P, 2]``, where each point lies on average in the training split, from 0 to 1.
        success_px: within how many pixels a point counts as found.
        bootstrap: resamplings behind each 95 % interval; 0 leaves intervals out.
        tta: whether predictions with test-time augmentation will come.
    """

    def __init__(
        self,
        points: LandmarkSet,
        classes: Sequence[str],
        mean_shape: ArrayLike,
        success_px: Sequence[float] = (5.0, 8.0, 10.0, 15.0),
        bootstrap: int = 1000,
        tta: bool = False,
    ) -> None:
        self.points, self.classes, self.bootstrap = points, tuple(classes), bootstrap
        self.mean_shape = np.asarray(mean_shape, dtype=np.float64)
        if self.mean_shape.shape != (len(points), 2):
            raise ValueError(f"expected a mean shape of {(len(points), 2)}, got {self.mean_shape.shape}")
        self.success_px = tuple(sorted(set(success_px)))
        self.prefixes = ("", TTA, MEAN_SHAPE) if tta else ("", MEAN_SHAPE)
        self.point_stems, self.class_stems = _stems(points.names, self.classes, self._plain_names())
        self._parts: list[tuple[Tensor, ...]] = []
        self._metrics: dict[str, float] | None = None

    @classmethod
    def of(cls, evaluation: LandmarkEvaluationSection, facts: Mapping[str, Any]) -> LandmarkScores:
        """Empty scores for a dataset with these ``facts``."""
        points = LandmarkSet.from_json(facts["landmark_set"])
        settings = (evaluation.success_px, evaluation.bootstrap, evaluation.tta)
        return cls(points, facts["classes"], facts["mean_shape"], *settings)

    @torch.no_grad()
    def update(self, plain: Tensor, tta: Tensor | None, target: Tensor, size: Tensor, labels: Tensor) -> None:
        """Add a batch; nothing waits for the device.

        Args:
            plain: ``[n, P, 2]``, predictions as (x, y) from 0 to 1.
            tta: the same with test-time augmentation; None where it is switched off.
            target: ``[n, P, 2]``, the true points.
            size: ``[n, 2]``, width and height of each image as it came, in pixels.
            labels: ``[n]``, each image's class as an index into ``classes``.
        """
        n, shape = len(plain), (len(plain), len(self.points), 2)
        if (tta is not None) != (TTA in self.prefixes):
            raise ValueError("expected predictions with test-time augmentation either always or never")
        fields = (plain, target) if tta is None else (plain, tta, target)
        if {tuple(field.shape) for field in fields} != {shape} or size.shape != (n, 2) or labels.shape != (n,):
            raise ValueError(f"expected points {shape}, got {[tuple(field.shape) for field in fields]}")
        # copies: what a loader process gave would each hold an open file until the end
        self._parts.append(
            tuple(part.detach().clone() for part in (*(field.float() for field in fields), size, labels))
        )
        self._metrics = None

    def compute(self) -> dict[str, float]:
        """All scores that are defined; none of predictions of which one is not a finite number."""
        if self._metrics is None:
            self._metrics = {name: value for name, value in self._scores() if math.isfinite(value)}
        return dict(self._metrics)

    def _images(self) -> _Images:
        columns = [torch.cat(parts).cpu().double().numpy() for parts in zip(*self._parts, strict=True)]
        *predictions, target, size, labels = columns or self._nothing()
        forecasts = dict(zip(self.prefixes, [*predictions, self.mean_shape], strict=True))
        return _Images(forecasts, target, size, labels.astype(np.int64))

    def _nothing(self) -> list[Floats]:
        points = [np.zeros((0, len(self.points), 2))] * len(self.prefixes)
        return [*points, np.zeros((0, 2)), np.zeros(0)]

    def _scores(self) -> Iterator[tuple[str, float]]:
        images = self._images()
        if not len(images.target):
            return
        heads: dict[str, Floats] = {}
        for prefix in self.prefixes:
            for scale in SCALES:
                errors = images.errors(prefix, scale)
                if np.isfinite(errors).all():
                    heads[f"{prefix}error_px_{scale}"] = errors.mean(1)
                    yield from self._on_scale(prefix, scale, errors, images.labels)
                    if scale == "native":
                        yield from self._relative(prefix, errors, images)
        yield from self._intervals(heads)

    def _on_scale(self, prefix: str, scale: str, errors: Floats, labels: ArrayLike) -> Iterator[tuple[str, float]]:
        for name, value in summarise(errors, self.success_px).items():
            yield f"{prefix}{name}{'_px' if name in SUMMARY else 'px'}_{scale}", value
        for stem, value in zip(self.point_stems, errors.mean(0), strict=True):
            yield f"{prefix}{stem}_px_{scale}", float(value)
        images = errors.mean(1)
        for label, stem in enumerate(self.class_stems):
            of_class = images[np.asarray(labels) == label]
            if len(of_class):
                yield f"{prefix}{stem}_px_{scale}", float(of_class.mean())

    def _relative(self, prefix: str, errors: Floats, images: _Images) -> Iterator[tuple[str, float]]:
        """Errors in the images' own pixels as shares of lengths, and in millimetres."""
        lengths = {span.name: span_lengths(images.target, images.size, span) for span in self.points.spans}
        for name, length in {**lengths, "box": box_lengths(images.target, images.size)}.items():
            value = nme(errors, length)
            if value is not None:
                yield f"{prefix}nme_{name}", value
        if self.points.mm_per_px is not None:
            millimetres = errors * self.points.mm_per_px
            yield f"{prefix}error_mm", float(millimetres.mean())
            for name, value in success_rates(np.sort(millimetres, axis=None), SUCCESS_MM).items():
                yield f"{prefix}{name}mm", value

    def _intervals(self, heads: dict[str, Floats]) -> Iterator[tuple[str, float]]:
        if not self.bootstrap or not heads:
            return
        ends = intervals(np.stack([*heads.values()], axis=1), self.bootstrap, _SEED)
        for name, low, high in zip(heads, *ends, strict=True):
            yield f"{name}_low", float(low)
            yield f"{name}_high", float(high)

    def names(self) -> dict[str, str | None]:
        """Names of all scores with the way that is better; the mean shape's and the ends of intervals have none."""
        ways: dict[str, str | None] = self._plain_names()
        ways |= {f"{stem}_px_{scale}": "min" for stem in (*self.point_stems, *self.class_stems) for scale in SCALES}
        return {
            f"{prefix}{name}": None if prefix == MEAN_SHAPE else way
            for prefix in self.prefixes
            for name, way in ways.items()
        }

    def _plain_names(self) -> dict[str, str | None]:
        """Names that do not depend on what points and classes are called, without prefix."""
        ways: dict[str, str | None] = {f"{name}_px_{scale}": "min" for name in SUMMARY for scale in SCALES}
        ways |= {f"found_{t:g}px_{scale}": "max" for t in self.success_px for scale in SCALES}
        ways |= {f"nme_{name}": "min" for name in (*(span.name for span in self.points.spans), "box")}
        if self.points.mm_per_px is not None:
            ways |= {"error_mm": "min", **{f"found_{t:g}mm": "max" for t in SUCCESS_MM}}
        if self.bootstrap:
            ways |= {f"error_px_{scale}_{end}": None for scale in SCALES for end in ("low", "high")}
        return ways

    def _headlines(self) -> list[str]:
        """What lists of runs show: all points on both scales and each class, but no single point."""
        overall = [
            name for name, way in self._plain_names().items() if way is not None and not name.startswith("image_")
        ]
        averaged = [f"{TTA}error_px_{scale}" for scale in SCALES if TTA in self.prefixes]
        return [*overall, *averaged, *(f"{stem}_px_{SCALES[0]}" for stem in self.class_stems)]

    def record(self) -> dict[str, Any]:
        """Scale, counts of images by class, landmarks, definitions and layout."""
        images = self._images()
        counts = np.bincount(images.labels, minlength=len(self.classes)).tolist()
        broken = int((~np.isfinite(images.forecasts[""])).any((1, 2)).sum())
        record: dict[str, Any] = {
            "kind": "landmarks",
            "scale": f"px at {PIXELS} are pixels of images brought to {PIXELS} x {PIXELS}, native px those of the "
            "images as they came",
            "images": len(images.target),
            "points": dict(zip(self.point_stems, self.points.names, strict=True)),
            "classes": dict(zip(self.class_stems, self.classes, strict=True)),
            "class_images": dict(zip(self.classes, counts, strict=True)),
            "success_px": list(self.success_px),
            "success_mm": list(SUCCESS_MM) if self.points.mm_per_px is not None else [],
            "mm_per_px": self.points.mm_per_px,
            "spans": [span.name for span in self.points.spans],
            "tta": TTA in self.prefixes,
            "bootstrap": {"resamplings": self.bootstrap, "seed": _SEED, "level": 0.95},
            "not_finite": broken,
            "headlines": self._headlines(),
        }
        record["definitions"] = landmark_definitions(record)
        return {**record, "layout": landmark_layout(record).to_json()}

    def table(self) -> str:
        """The layout's tables as text, the mean shape's numbers beside the model's."""
        return render(self.compute(), self.record())

    def frame(self) -> pd.DataFrame:
        """A row for each image, in the order of the split: class, size, mean errors, and its worst landmark."""
        images = self._images()
        frame = pd.DataFrame({"image": range(len(images.target)), "class": [self.classes[i] for i in images.labels]})
        frame[["width", "height"]] = images.size
        for prefix in self.prefixes:
            for scale in SCALES:
                frame[f"{prefix}error_px_{scale}"] = images.errors(prefix, scale).mean(1)
        worst = images.errors("", "224")
        frame["worst_landmark"] = [self.points.names[i] for i in worst.argmax(1)]
        frame["worst_px_224"] = worst.max(1)
        return frame


def _stems(points: Sequence[str], classes: Sequence[str], taken: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What metrics of each point and class begin with: their names, told apart where two would be one."""
    used = {name.rpartition("_px_")[0] for name in taken if "_px_" in name}
    found: list[list[str]] = []
    for kind, names in (("point", points), ("class", classes)):
        stems = []
        for name in names:
            stem = re.sub(r"\W+", "_", name)
            while stem in used or stem.startswith((TTA, MEAN_SHAPE)):
                stem = f"{kind}_{stem}"
            used.add(stem)
            stems.append(stem)
        found.append(stems)
    return found[0], found[1]
