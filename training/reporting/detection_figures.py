"""How sure and how right a detector is: precision over recall, both over the score, and what is taken for what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from training.reporting.figures import COLOURS, GREY, axes_of, new_figure, save
from training.scores.detection_matching import RECALLS, Curve, Floats, Ints

_MOST_CURVES = 10
_EXTREMES = 3  # best and worst classes that are drawn where there are more
_DASHES = ("-", "--")
_MOST_CLASSES = 20  # of the matrix; of more the less confused ones are pooled
_NARROWEST = 9.0  # inches: pages show figures as wide as they are themselves, and letters with them
_GRID = "#e3e5e8"


@dataclass(frozen=True)
class ClassCurve:
    """One class's interpolated precision at each of RECALLS, ``[101]``, and its average precision."""

    name: str
    precision: Floats
    ap: float


def draw_precision_recall(
    path: Path, classes: Sequence[ClassCurve], every: Curve, confidence: float, title: str, iou: float
) -> list[Path]:
    """Draw precision over recall of each class, and precision, recall and F1 of all boxes over the score.

    Args:
        path: where to write; the suffix does not matter.
        classes: those with a true box, at least one.
        every: the curve of all boxes of all classes together.
        confidence: the score from which detections count elsewhere.
        title: the figure's title.
        iou: the overlap from which a box counts as found.

    Returns:
        The PNG and the SVG.
    """
    figure = new_figure(11.0, 5.2)
    figure.suptitle(title, fontweight="bold")
    left, right = axes_of(figure, 1, 2)
    _draw_classes(left, classes, iou)
    _draw_over_score(right, every, confidence)
    for axis in (left, right):
        axis.set_xlim(0, 1.005)
        axis.set_ylim(0, 1.02)
        axis.grid(color=_GRID)
        axis.set_axisbelow(True)
    return save(figure, path)


def _draw_classes(axis: Axes, classes: Sequence[ClassCurve], iou: float) -> None:
    ordered = sorted(classes, key=lambda one: -one.ap)
    shown = ordered if len(ordered) <= _MOST_CURVES else [*ordered[:_EXTREMES], *ordered[-_EXTREMES:]]
    for place, one in enumerate(shown):
        dashes = _DASHES[place // len(COLOURS) % len(_DASHES)]
        colour = COLOURS[place % len(COLOURS)]
        axis.plot(RECALLS, one.precision, dashes, color=colour, linewidth=1.6, label=f"{one.name}  {one.ap:.3f}")
    if len(classes) > 1:
        mean = np.mean([one.precision for one in classes], axis=0)
        ap = float(np.mean([one.ap for one in classes]))
        label = f"mean of {len(classes)} classes  {ap:.3f}"
        axis.plot(RECALLS, mean, color="#1b1f24", linewidth=3.0, label=label, zorder=5)
    chosen = "" if len(shown) == len(classes) else f", best and worst {_EXTREMES} of {len(classes)} classes"
    axis.set_title("Precision over recall")
    axis.set_xlabel("recall")
    axis.set_ylabel("precision, the best at this recall or beyond")
    heading = f"AP at an overlap of {iou:g}{chosen}"
    axis.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, fontsize=8, frameon=False, title=heading,
        title_fontsize=8,
    )  # fmt: skip


def _draw_over_score(axis: Axes, curve: Curve, confidence: float) -> None:
    lines = {
        "precision": (curve.precision, COLOURS[0]),
        "recall": (curve.recall, COLOURS[1]),
        "F1": (curve.f1, COLOURS[2]),
    }
    for name, (values, colour) in lines.items():
        steps = np.append(curve.scores, 0.0), np.append(values, values[-1])  # from the surest on, down to any score
        axis.step(*steps, where="post", color=colour, linewidth=2.0, label=name)
    axis.axvline(confidence, color=GREY, linestyle=":", linewidth=1.6, label=f"evaluation.confidence, {confidence:g}")
    best = curve.best()
    if best:
        label = f"largest F1, {best[0]:.3f} from a score of {best[1]:.2f}"
        axis.plot([best[1]], [best[0]], "o", color=COLOURS[2], markersize=8, markeredgecolor="white", label=label)
    axis.set_title("Over the score, all boxes")
    axis.set_xlabel("score that a detection needs")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, fontsize=8, frameon=False)


def draw_confusion(path: Path, names: Sequence[str], matrix: Ints, title: str, about: str) -> list[Path]:
    """Draw what true boxes were taken for: each row's shares as shades, its counts as numbers.

    Args:
        path: where to write; the suffix does not matter.
        names: of the K classes; of very many, those that are confused least are shown together.
        matrix: ``[K + 1, K + 1]``, see `training.scores.detection_matching.confusion_of`.
        title: the figure's title.
        about: what the numbers are, below it.

    Returns:
        The PNG and the SVG.
    """
    names, matrix = _pooled(names, matrix)
    size = len(names) + 1
    cell = 0.95 if size <= 6 else 0.62 if size <= 13 else 0.5
    words = 0.085 * max(len(name) for name in [*names, "background"])
    figure = new_figure(max(size * cell + words + 1.8, _NARROWEST), max(size * cell + 0.6 * words + 1.5, 3.6))
    figure.suptitle(title, fontweight="bold")
    figure.set_layout_engine("constrained", compress=True)  # the bar beside the squares, however wide the figure is
    (axis,) = axes_of(figure, 1, 1)
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.zeros(matrix.shape), where=totals > 0)
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    _write_counts(axis, matrix, shares, 9.0 if size <= 13 else 7.0, with_shares=cell >= 0.6)
    axis.set_xticks(
        range(size), [*names, "not found"], rotation=45 if size > 3 else 0, ha="right" if size > 3 else "center"
    )
    axis.set_yticks(range(size), [*names, "background"])
    axis.set_xlabel("detected as")
    axis.set_ylabel("true class")
    axis.axhline(size - 1.5, color=GREY, linewidth=1.2)
    axis.axvline(size - 1.5, color=GREY, linewidth=1.2)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    figure.supxlabel(about, fontsize=8, color=GREY)
    bar = figure.colorbar(image, ax=axis, shrink=0.8, aspect=24)
    bar.set_label("share of the row", fontsize=9)
    bar.outline.set_visible(False)
    return save(figure, path)


def _write_counts(axis: Axes, matrix: Ints, shares: Floats, points: float, *, with_shares: bool) -> None:
    last = len(matrix) - 1
    for row, column in np.ndindex(*matrix.shape):
        count, share = int(matrix[row, column]), shares[row, column]
        if row == column == last:
            axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor="white", hatch="///", edgecolor=_GRID))
        elif count:
            text = f"{count:,}\n{share:.0%}" if with_shares else f"{count:,}"
            axis.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                fontsize=points,
                color="white" if share > 0.55 else "#1b1f24",
            )
        elif with_shares:
            axis.text(column, row, "0", ha="center", va="center", fontsize=points, color="#b4bac1")


def _pooled(names: Sequence[str], matrix: Ints) -> tuple[list[str], NDArray[np.int64]]:
    """Of more than 20 classes those that are confused most, the others as one."""
    if len(names) <= _MOST_CLASSES:
        return list(names), matrix
    wrong = matrix[:-1, :-1].copy()
    np.fill_diagonal(wrong, 0)
    mistakes = wrong.sum(axis=0) + wrong.sum(axis=1)
    boxes = matrix[:-1].sum(axis=1)
    kept = np.sort(np.lexsort((-boxes, -mistakes))[: _MOST_CLASSES - 1])
    target = np.full(len(matrix), len(kept))  # where the rest goes
    target[kept] = np.arange(len(kept))
    target[-1] = len(kept) + 1
    pooled = np.zeros((len(kept) + 2, len(kept) + 2), dtype=np.int64)
    np.add.at(pooled, (target[:, None], target[None]), matrix)
    return [*(names[place] for place in kept), f"{len(names) - len(kept)} others"], pooled
