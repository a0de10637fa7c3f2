"""What is told of an ensemble: numbers with scale, sample size and interval, for programs and for people."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from training.ensembles.answers import Said
from training.ensembles.audit import Contamination
from training.ensembles.bench import Images
from training.ensembles.combine import worth
from training.scores.landmark_errors import PIXELS, Floats, intervals, point_errors, summarise
from training.scores.landmarks import SCALES

PLAIN, TTA = "plain", "tta"
_RESAMPLINGS = 1000


@dataclass(frozen=True)
class Scored:
    """Members and their mean on the same images."""

    images: Images
    members: Sequence[Said]
    weights: Sequence[float]
    mean_shape: Floats  # [P, 2] from 0 to 1
    names: Sequence[str]  # of the members
    points: Sequence[str]
    classes: Sequence[str]
    success_px: Sequence[float] = (5.0, 8.0, 10.0, 15.0)
    ways: Sequence[str] = field(default=(PLAIN, TTA))

    def part(self, chosen: Sequence[int]) -> Scored:
        """On some of the images."""
        members = [said.part(chosen) for said in self.members]
        return Scored(
            self.images.part(chosen),
            members,
            self.weights,
            self.mean_shape,
            self.names,
            self.points,
            self.classes,
            self.success_px,
            self.ways,
        )

    def predictions(self, way: str) -> Floats:
        """[M, N, P, 2] from 0 to 1."""
        said = [one.plain if way == PLAIN else one.tta for one in self.members]
        return np.stack([one for one in said if one is not None])

    def together(self, way: str) -> Floats:
        """The weighted mean [N, P, 2]."""
        mean: Floats = np.average(self.predictions(way), axis=0, weights=self.weights)
        return mean

    def errors(self, prediction: Floats, scale: str) -> Floats:
        """Distances [N, P] in pixels of ``scale``."""
        return point_errors(prediction, self.images.points, PIXELS if scale == SCALES[0] else self.images.size)

    def to_json(self) -> dict[str, Any]:
        """Every number on both scales, with and without test-time augmentation."""
        return {
            "images": len(self.images),
            "ensemble": {way: self._of(self.together(way), details=True) for way in self.ways},
            "members": [
                {"run": name, "weight": weight, **{way: self._of(self.predictions(way)[index]) for way in self.ways}}
                for index, (name, weight) in enumerate(zip(self.names, self.weights, strict=True))
            ],
            "worth_px_224": {way: _rounded(self._worth(way)) for way in self.ways},
            "mean_shape": self._of(np.broadcast_to(self.mean_shape, self.images.points.shape)),
        }

    def _worth(self, way: str) -> Floats:
        return worth(self.predictions(way) * PIXELS, self.images.points * PIXELS, self.weights)

    def _of(self, prediction: Floats, details: bool = False) -> dict[str, Any]:
        return {f"px_{scale}": self._on_scale(self.errors(prediction, scale), details) for scale in SCALES}

    def _on_scale(self, errors: Floats, details: bool) -> dict[str, Any]:
        told: dict[str, Any] = {name: round(value, 4) for name, value in summarise(errors, self.success_px).items()}
        told = {"mean": told.pop("error"), **told}
        low, high = intervals(errors.mean(1)[:, None], _RESAMPLINGS)
        told["interval_95"] = _rounded([low[0], high[0]])
        if details:
            told["per_landmark"] = {name: _spread(errors[:, i]) for i, name in enumerate(self.points)}
            told["per_category"] = {
                name: _spread(errors[self.images.classes == i].mean(1)) | {"count": count}
                for i, name in enumerate(self.classes)
                if (count := int((self.images.classes == i).sum()))
            }
        return told


def _spread(values: Floats) -> dict[str, float]:
    found = {"mean": values.mean(), "std": values.std(), "median": np.median(values), "max": values.max()}
    return {name: round(float(value), 4) for name, value in found.items()}


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 4) for value in values]


def contamination_lines(found: Contamination, names: Sequence[str], what: str) -> list[str]:
    """Who has learned from which of the evaluated images."""
    if found.unknown:
        unknown = [name for name, leaks in zip(names, found.by_member, strict=True) if leaks is None]
        return [
            f"Nobody knows what {', '.join(unknown)} learned from, so that no image of {what} is known to be clean."
        ]
    if not found.tainted:
        return [f"Audit: none of the {found.images} images of {what} was seen in training or selection by any member."]
    lines = [
        f"Audit: {len(found.tainted)} of the {found.images} images of {what} are CONTAMINATED, members learned from:"
    ]
    width = max(map(len, names))
    for name, leaks in zip(names, found.by_member, strict=True):
        count = 0 if leaks is None else len(leaks.tainted)
        lines.append(f"  {name:<{width}}  {count:>5} of {found.images}")
    return lines


def table_of(told: Mapping[str, Any], ways: Sequence[str], title: str) -> str:
    """The members, their mean and the mean shape, in pixels at 224 (native pixels beside it)."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("")
    heads = {PLAIN: "plain", TTA: "with TTA"}
    for way in ways:
        for unit in ("px at 224", "native px"):
            table.add_column(f"{heads[way]}\n{unit}", justify="right")
    table.add_column("worth\npx at 224", justify="right")
    last = ways[-1]
    for member, worth_px in zip(told["members"], told["worth_px_224"][last], strict=True):
        weight = "" if len({one["weight"] for one in told["members"]}) == 1 else f" (weight {member['weight']:g})"
        table.add_row(f"{member['run']}{weight}", *_cells(member, ways), f"{worth_px:+.2f}")
    table.add_section()
    table.add_row("[bold]together[/]", *_cells(told["ensemble"], ways, bold=True), "")
    table.add_row("  95 % interval", *_intervals(told["ensemble"], ways), "")
    shape = told["mean_shape"]
    table.add_row("mean shape", *(f"{shape[f'px_{scale}']['mean']:.2f}" for _ in ways for scale in SCALES), "")
    return _text(table)


def _cells(told: Mapping[str, Any], ways: Sequence[str], bold: bool = False) -> list[str]:
    numbers = [f"{told[way][f'px_{scale}']['mean']:.2f}" for way in ways for scale in SCALES]
    return [f"[bold]{number}[/]" for number in numbers] if bold else numbers


def _intervals(told: Mapping[str, Any], ways: Sequence[str]) -> list[str]:
    ends = [told[way][f"px_{scale}"]["interval_95"] for way in ways for scale in SCALES]
    return [f"{low:.2f} to {high:.2f}" for low, high in ends]


def details_of(told: Mapping[str, Any], way: str) -> str:
    """Median, tails, success rates, and the mean of each class, of the members' mean."""
    found = told["ensemble"][way]["px_224"]
    rates = ", ".join(
        f"{100 * value:.1f} % within {name.removeprefix('found_')} px"
        for name, value in found.items()
        if name.startswith("found_")
    )
    classes = ", ".join(f"{name} {one['mean']:.2f} ({one['count']})" for name, one in found["per_category"].items())
    label = {PLAIN: "plain", TTA: "with TTA"}[way]
    return (
        f"together, {label}, px at 224: median {found['median']:.2f}, std {found['std']:.2f}, p75 {found['p75']:.2f}, "
        f"p90 {found['p90']:.2f}, p95 {found['p95']:.2f}; {rates}\nby class (images): {classes}"
    )


def _text(table: Table) -> str:
    text = io.StringIO()
    Console(file=text, width=110, no_color=True).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
