"""Boxes over their images: training images as the model sees them, and detections beside true boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Stroke, withStroke
from numpy.typing import NDArray

from training.reporting.figures import COLOURS, GREY, axes_of, new_figure, save

Image = NDArray[np.uint8]
Boxes = NDArray[np.floating]

# What becomes of a box, with the colour and the dashes that it is drawn in: true boxes whole, detections dashed.
TRUE, MISSED, RIGHT, FALSE, MANY = "true", "missed", "right", "false", "many"
_YELLOW = "#f0e442"  # Okabe and Ito's, too light for lines on white but not for those on pictures
_Dashes = Literal["-", "--", ":"]
_STYLES: dict[str, tuple[str, _Dashes, float]] = {
    TRUE: (COLOURS[2], "-", 2.0),
    MISSED: (_YELLOW, "-", 2.6),
    RIGHT: (COLOURS[4], "--", 1.6),
    FALSE: (COLOURS[1], "--", 2.2),
    MANY: (GREY, ":", 1.6),
}
_WORDS = {
    TRUE: "true box, found",
    MISSED: "true box, missed",
    RIGHT: "detection that is right, with its score",
    FALSE: "false detection",
    MANY: "region of many, not scored",
}
_DARK = "#1b1f24"
_CROWDED = 12  # boxes in a picture of which right ones carry no text, so that the mistakes can be read
_TEXT = 7.5


@dataclass(frozen=True)
class Drawn:
    """One box in pixels of its image, what it is (`TRUE` …), and what is written at it."""

    box: tuple[float, float, float, float]
    kind: str
    text: str = ""


@dataclass(frozen=True)
class Shown:
    """One image with its boxes. ``corners`` are left, top, right and bottom of ``image`` in the boxes' pixels."""

    image: Image  # [h, w, 3]
    corners: tuple[float, float, float, float]
    boxes: Sequence[Drawn]
    title: str = ""


def draw_detections(path: Path, shown: Sequence[Shown], title: str, columns: int = 2) -> list[Path]:
    """Draw images with their true boxes and what was detected, each marked right, false or missed.

    Returns:
        The PNG and the SVG.
    """
    columns = min(columns, len(shown))
    figure = new_figure(5.4 * columns, _height(shown, columns, 5.4) + 1.2)
    figure.suptitle(title, fontweight="bold")
    axes = axes_of(figure, -(-len(shown) // columns), columns)
    for axis, one in zip(axes, shown, strict=False):
        _show(axis, one)
        crowded = len(one.boxes) > _CROWDED
        for drawn in sorted(one.boxes, key=lambda box: box.kind in (MISSED, FALSE)):  # mistakes above the rest
            colour, dashes, width = _STYLES[drawn.kind]
            _draw_box(axis, drawn, colour, dashes, width, silent=crowded and drawn.kind == RIGHT)
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    kinds = {box.kind for one in shown for box in one.boxes}
    handles = [_handle(kind) for kind in _STYLES if kind in kinds]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=-(-len(handles) // 2), frameon=False, handlelength=3.2
    )
    return save(figure, path)


def draw_training_images(path: Path, shown: Sequence[Shown], classes: Sequence[str], title: str) -> list[Path]:
    """Draw training images as the model sees them, their boxes in the colour of their class.

    Returns:
        The PNG and the SVG.
    """
    columns = min(3, len(shown))
    figure = new_figure(3.7 * columns, _height(shown, columns, 3.7) + 0.9)
    figure.suptitle(title, fontweight="bold")
    axes = axes_of(figure, -(-len(shown) // columns), columns)
    for axis, one in zip(axes, shown, strict=False):
        _show(axis, one)
        for drawn in one.boxes:
            colour = GREY if drawn.kind == MANY else COLOURS[classes.index(drawn.kind) % len(COLOURS)]
            _draw_box(axis, drawn, colour, ":" if drawn.kind == MANY else "-", 1.8, silent=False)
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    return save(figure, path)


def _height(shown: Sequence[Shown], columns: int, width: float) -> float:
    """Inches that the rows need when each is as high as its highest image, with a title above it."""
    ratios = [(one.corners[3] - one.corners[1]) / (one.corners[2] - one.corners[0]) for one in shown]
    rows = [max(ratios[first : first + columns]) for first in range(0, len(ratios), columns)]
    titles = 0.45 if any(one.title for one in shown) else 0.1
    return float(sum(min(ratio, 1.6) * (width - 0.2) + titles for ratio in rows))


def _show(axis: Axes, shown: Shown) -> None:
    left, top, right, bottom = shown.corners
    axis.imshow(shown.image, extent=(left, right, bottom, top), interpolation="bilinear")
    axis.set_xlim(left, right)
    axis.set_ylim(bottom, top)
    if shown.title:
        axis.set_title(shown.title, fontsize=9, fontweight="normal")
    axis.set_axis_off()


def _draw_box(axis: Axes, drawn: Drawn, colour: str, dashes: _Dashes, width: float, *, silent: bool) -> None:
    x1, y1, x2, y2 = drawn.box
    patch = Rectangle(
        (x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linestyle=dashes, linewidth=width, clip_on=True
    )
    patch.set_path_effects([withStroke(linewidth=width + 1.4, foreground=_DARK, alpha=0.55)])
    axis.add_patch(patch)
    if drawn.text and not silent:
        _write(axis, drawn, colour)


def _write(axis: Axes, drawn: Drawn, colour: str) -> None:
    """The text at the box: that of true boxes inside its lower edge, others above it or, at the rim, inside it."""
    left, right = axis.get_xlim()
    bottom, top = axis.get_ylim()
    x1, y1, x2, y2 = drawn.box
    below = drawn.kind == MISSED
    room = 0.06 * (bottom - top)
    y, align = (min(y2, bottom), "bottom") if below else (y1, "bottom") if y1 - top > room else (max(y1, top), "top")
    rightmost = x1 > left + 0.75 * (right - left)
    axis.text(
        min(x2, right) if rightmost else max(x1, left),
        y,
        drawn.text,
        fontsize=_TEXT,
        color=_readable_on(colour),
        ha="right" if rightmost else "left",
        va=align,
        clip_on=True,
        bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8},
        zorder=5,
    )


def _readable_on(colour: str) -> str:
    """Dark or white, whichever contrasts more (WCAG 2.1's relative luminance)."""
    channels = np.asarray(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return _DARK if linear @ (0.2126, 0.7152, 0.0722) > 0.179 else "white"


def _handle(kind: str) -> Line2D:
    colour, dashes, width = _STYLES[kind]
    line = Line2D([], [], color=colour, linestyle=dashes, linewidth=width, label=_WORDS[kind])
    line.set_path_effects([Stroke(linewidth=width + 1.2, foreground=_DARK, alpha=0.4), Stroke(linewidth=width)])
    return line
