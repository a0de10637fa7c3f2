"""One figure with a validation metric of several runs over their steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from backend.errors import BadDataError
from training.registry.results import is_number, mapping
from training.reporting.figures import COLOURS, axes_of, new_figure, save
from training.reporting.run_folder import RunFolder

_STYLES = ("-", "--", ":", "-.")


def draw_compared(runs: Sequence[tuple[str, Path]], metric: str, file: Path) -> list[Path]:
    """Draw ``metric`` of each (name, run folder) as validated during training; PNG and, beside it, SVG.

    Raises:
        BadDataError: none of them was ever validated by it.
    """
    points = {name: _points(RunFolder(folder), metric) for name, folder in runs}
    if not any(points.values()):
        raise BadDataError(f"{metric}: none of these runs has it among its validations, so there is no curve to draw")
    figure = new_figure(8.0, 4.2)
    (axis,) = axes_of(figure, 1, 1)
    for at, (name, found) in enumerate(points.items()):
        if found:
            style = _STYLES[at // len(COLOURS) % len(_STYLES)]
            axis.plot(
                *zip(*found, strict=True), style, color=COLOURS[at % len(COLOURS)], marker="o", ms=3.5, label=name
            )
    axis.set(title=metric, xlabel="optimizer step", ylabel=metric)
    axis.grid(axis="y", color="#e6e8eb")
    axis.legend(frameon=False)
    return save(figure, file)


def _points(run: RunFolder, metric: str) -> list[tuple[int, float]]:
    found = [(record.get("step"), mapping(record.get("metrics")).get(metric)) for record in run.validations]
    return [(step, value) for step, value in found if isinstance(step, int) and is_number(value)]
