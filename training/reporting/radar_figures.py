"""Radar fields as forecasters know them: reflectivity in steps of 5 dBZ, no data hatched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from training.reporting.figures import GREY, axes_of, new_figure, save

Field = NDArray[np.floating]
Mask = NDArray[np.bool_]

FIRST_DBZ, STEP_DBZ = 5.0, 5.0
# The reflectivity steps of the US National Weather Service's displays, 5 to 75 dBZ.
NWS_COLOURS = (
    "#04e9e7",
    "#019ff4",
    "#0300f4",
    "#02fd02",
    "#01c501",
    "#008e00",
    "#fdf802",
    "#e5bc00",
    "#fd9500",
    "#fd0000",
    "#d40000",
    "#bc0000",
    "#f800fd",
    "#9854c6",
)
MOST_COLUMNS = 4
NO_DATA = "#e3e5e8"


def draw_nowcast(
    path: Path,
    inputs: Field,
    truth: Field,
    forecast: Field,
    valid: Mask,
    *,
    min_dbz: float,
    max_dbz: float,
    cadence_seconds: float,
    spacing_km: float | Sequence[float] | None,
    title: str,
    input_valid: Mask | None = None,
) -> list[Path]:
    """Draw one nowcast: the newest inputs, and for chosen leads the truth, the forecast and persistence.

    Args:
        path: where to write; the suffix does not matter.
        inputs: [T_in, H, W] in dBZ, the newest last. Row 0 is the south of the grid.
        truth: [T_out, H, W] in dBZ.
        forecast: [T_out, H, W] in dBZ.
        valid: [T_out, H, W], where the truth has data.
        min_dbz: lowest reflectivity of the data; named in the colour bar's label with ``max_dbz``.
        max_dbz: highest reflectivity of the data.
        cadence_seconds: seconds between two frames.
        spacing_km: side of a grid cell in km, or its height and width; None draws axes without units.
        title: the figure's title.
        input_valid: [T_in, H, W], where the inputs have data; where they are finite if None.

    Returns:
        The PNG and the SVG.
    """
    known = np.isfinite(inputs) if input_valid is None else input_valid & np.isfinite(inputs)
    leads = _evenly(len(truth), MOST_COLUMNS)
    columns = len(leads)
    frames = [len(inputs) - 1 - back for back in reversed(_evenly(len(inputs), columns))]
    figure, axes = _grid(columns, truth.shape[1] / truth.shape[2], title)
    for column, lead in enumerate(leads):
        of_input, of_truth, of_forecast, of_persistence = axes[column::columns]
        if column < len(frames):
            frame = frames[column]
            _draw(of_input, inputs[frame], known[frame], spacing_km)
            of_input.set_title(_minutes(frame - len(inputs) + 1, cadence_seconds))
        else:
            of_input.set_visible(False)
        of_truth.set_title(f"lead {lead + 1}, {_minutes(lead + 1, cadence_seconds)}")
        _draw(of_truth, truth[lead], valid[lead], spacing_km)
        _draw(of_forecast, forecast[lead], valid[lead], spacing_km)
        _draw(of_persistence, inputs[-1], known[-1], spacing_km)
        of_persistence.set_xlabel("km" if spacing_km else "grid cells")
    _colour_bar(figure, axes, min_dbz, max_dbz)
    return save(figure, path)


def _grid(columns: int, height_to_width: float, title: str) -> tuple[Figure, list[Axes]]:
    figure = new_figure(2.45 * columns + 1.4, 4 * (2.25 * height_to_width + 0.12) + 1.1)
    axes = axes_of(figure, 4, columns, sharex=True, sharey=True)
    for row, name in enumerate(("input", "truth", "forecast", "persistence")):
        axes[row * columns].set_ylabel(name, fontweight="bold", fontsize=11)
    figure.suptitle(title, fontweight="bold", fontsize=12)
    return figure, axes


def _evenly(count: int, most: int) -> list[int]:
    """At most ``most`` of ``range(count)``, evenly spaced, with the first and the last."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(most, count))})


def _minutes(steps: int, cadence_seconds: float) -> str:
    if steps == 0:
        return "now"
    minutes = steps * cadence_seconds / 60
    return f"{'+' if minutes > 0 else '−'}{abs(minutes):.3g} min"


def _scale() -> tuple[Colormap, BoundaryNorm]:
    edges = FIRST_DBZ + STEP_DBZ * np.arange(len(NWS_COLOURS) + 1)
    nothing = (1, 1, 1, 0)
    colours = ListedColormap(list(NWS_COLOURS)).with_extremes(under=nothing, over=NWS_COLOURS[-1], bad=nothing)
    return colours, BoundaryNorm(edges, len(NWS_COLOURS))


def _draw(axis: Axes, dbz: Field, valid: Mask, spacing_km: float | Sequence[float] | None) -> None:
    """From back to front: hatched grey, white where there is data, echo."""
    height, width = np.array(dbz.shape) * (1.0 if spacing_km is None else spacing_km)
    extent = (-width / 2, width / 2, -height / 2, height / 2)
    axis.tick_params(labelsize=8, colors=GREY)
    axis.spines[["top", "right"]].set_visible(True)
    if not valid.all():
        corner = (extent[0], extent[2])
        axis.add_patch(Rectangle(corner, width, height, fc=NO_DATA, ec="white", hatch="////", lw=0, zorder=0))
    covered = ListedColormap([(1, 1, 1, 0), (1, 1, 1, 1)])
    axis.imshow(valid, covered, vmin=0, vmax=1, extent=extent, origin="lower", interpolation="nearest", zorder=1)
    colours, norm = _scale()
    echo = np.ma.masked_where(~valid | ~np.isfinite(dbz), dbz)
    axis.imshow(echo, colours, norm, extent=extent, origin="lower", interpolation="nearest", zorder=2)


def _colour_bar(figure: Figure, axes: Sequence[Axes], min_dbz: float, max_dbz: float) -> None:
    colours, norm = _scale()
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=list(axes), shrink=0.7, aspect=35, pad=0.015)
    bar.set_ticks([FIRST_DBZ + STEP_DBZ * step for step in range(0, len(NWS_COLOURS) + 1, 2)])
    bar.set_label(f"dBZ   (data from {min_dbz:g} to {max_dbz:g}; white: below {FIRST_DBZ:g}; hatched: no data)", size=9)
