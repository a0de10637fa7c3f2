"""Predicted points over their images, and how far off each point is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from training.reporting.figures import COLOURS, GREY, axes_of, new_figure, save

Image = NDArray[np.uint8]
Points = NDArray[np.floating]

TRUE, PREDICTED = COLOURS[2], COLOURS[1]
_COLUMNS = 3


@dataclass(frozen=True)
class Example:
    """One image with its points."""

    name: str
    image: Image  # [S, S, 3]
    truth: Points  # [P, 2] in pixels of ``image``
    predicted: Points  # [P, 2] likewise
    error: float  # mean over the points, in the unit of the figure's title


def draw_points(path: Path, examples: Sequence[Example], title: str, unit: str) -> list[Path]:
    """Draw images with their true points (rings) and predicted ones (dots), a line from each to each.

    Returns:
        The PNG and the SVG.
    """
    columns = min(_COLUMNS, len(examples))
    rows = -(-len(examples) // columns)
    figure = new_figure(3.0 * columns, 3.35 * rows + 0.7)
    figure.suptitle(title, fontweight="bold")
    axes = axes_of(figure, rows, columns)
    for axis, example in zip(axes, examples, strict=False):
        _draw_one(axis, example, unit)
    for axis in axes[len(examples) :]:
        axis.set_axis_off()
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2, frameon=False)
    return save(figure, path)


def _draw_one(axis: Axes, example: Example, unit: str) -> None:
    axis.imshow(example.image, interpolation="bilinear")
    between = np.stack([example.truth, example.predicted], axis=1)  # [P, 2 ends, 2]
    axis.plot(between[..., 0].T, between[..., 1].T, color=PREDICTED, linewidth=1.2, alpha=0.8)
    true, found = example.truth, example.predicted
    axis.scatter(true[:, 0], true[:, 1], s=34, facecolors="none", edgecolors=TRUE, linewidths=1.6, label="true")
    axis.scatter(found[:, 0], found[:, 1], s=12, color=PREDICTED, label="predicted", zorder=4)
    axis.set_title(f"{_shortened(example.name)}\n{example.error:.1f} {unit}", fontsize=9, fontweight="normal")
    axis.set_axis_off()


def _shortened(name: str, most: int = 30) -> str:
    return name if len(name) <= most else f"…{name[1 - most :]}"


def draw_point_errors(
    path: Path, names: Sequence[str], errors: NDArray[np.floating], title: str, unit: str
) -> list[Path]:
    """Draw how the errors of each point are spread: a box from the 25 % to the 75 % quantile, whiskers 5 to 95 %.

    Args:
        path: where to write; the suffix does not matter.
        names: of the points.
        errors: [images, points] in ``unit``.
        title: the figure's title.
        unit: of the errors.

    Returns:
        The PNG and the SVG.
    """
    order = np.argsort(np.median(errors, axis=0))[::-1]  # the best point ends up on top
    figure = new_figure(7.0, 0.28 * len(names) + 1.5)
    (axis,) = axes_of(figure, 1, 1)
    boxes = axis.boxplot(
        errors[:, order],
        orientation="horizontal",
        whis=(5, 95),
        showfliers=False,
        patch_artist=True,
        tick_labels=[names[index] for index in order],
        medianprops={"color": "white", "linewidth": 2},
        whiskerprops={"color": GREY},
        capprops={"color": GREY},
    )
    for box in boxes["boxes"]:
        box.set(facecolor=COLOURS[0], edgecolor=COLOURS[0])
    axis.set_xlim(left=0)
    axis.set_xlabel(f"error in {unit}: median, middle half, 5 to 95 % of {len(errors)} images")
    axis.set_title(title)
    axis.grid(axis="x", color="#e3e5e8")
    axis.set_axisbelow(True)
    return save(figure, path)
