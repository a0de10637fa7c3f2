"""What all figures share: no global state, two files each, colours that the colour-blind can tell apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's palette (2008), without black and yellow.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
GREY = "#5f6b76"
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "train-worker",
    "svg.fonttype": "path",
}


def new_figure(width: float, height: float) -> Figure:
    """A figure of its own, in inches, outside of pyplot."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def axes_of(figure: Figure, rows: int, columns: int, **how: Any) -> list[Axes]:
    """The figure's axes in reading order, in the common style."""
    with rc_context(_STYLE):
        return list(figure.subplots(rows, columns, squeeze=False, **how).flat)


def literal(text: str) -> str:
    """Somebody's own word as it is: between two dollar signs matplotlib would read a formula, and may fail to."""
    return text.replace("$", r"\$")


def save(figure: Figure, path: Path) -> list[Path]:
    """Write ``path`` as PNG and, beside it, as SVG; the same figure gives the same bytes.

    Returns:
        The two paths.
    """
    png, svg = path.with_suffix(".png"), path.with_suffix(".svg")
    png.parent.mkdir(parents=True, exist_ok=True)
    with rc_context(_STYLE):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # as it is laid out now: once for both, which is half of the work
        figure.savefig(png, dpi=130, metadata={"Software": None})
        figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return [png, svg]
