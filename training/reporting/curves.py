"""Curves of a run from its folder alone: losses over the steps, skill over the lead time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from training.reporting.figures import COLOURS, GREY, axes_of, new_figure, save
from training.reporting.run_folder import Record, RunFolder

MODEL, TRAIN, PERSISTENCE = COLOURS[0], COLOURS[1], GREY
_LOG_SCALE_FROM = 20.0


def draw_curves(run_dir: Path) -> list[Path]:
    """Draw what the run folder has numbers for: ``curves`` and, for each evaluated split, ``skill_<split>``.

    Returns:
        The files in `figures/`, PNG and SVG of each; none for a run without a logged step.
    """
    run = RunFolder(run_dir)
    files = _draw_training(run) if run.metrics else []
    for split, evaluation in run.evaluations.items():
        if evaluation.get("record", {}).get("kind") == "nowcast":
            files += _draw_skill(run, split, evaluation)
    return files


def _draw_training(run: RunFolder) -> list[Path]:
    selection = run.config.get("selection", {}).get("metric", "val/loss")
    shows_metric = selection != "val/loss" and any(selection in record["metrics"] for record in run.validations)
    shows_rate = any(_finite(record.get("lr")) for record in run.training)
    ratios = [3.0, *([2.0] if shows_metric else []), *([1.0] if shows_rate else [])]
    figure = new_figure(8.5, 1.35 * sum(ratios))
    axes = axes_of(figure, len(ratios), 1, sharex=True, height_ratios=ratios)
    _losses(axes[0], run, mark_best=not shows_metric)
    if shows_metric:
        _selected(axes[1], run, selection)
    if shows_rate:
        _line(axes[-1], run.training, "lr", GREY, "learning rate")
        axes[-1].set(ylabel="learning rate")
        axes[-1].ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    axes[-1].set(xlabel="optimizer step")
    for axis in axes:
        axis.grid(axis="y", color="#e6e8eb")
        _mark_phases(axis, run.metrics, named=axis is axes[0])
    return save(figure, run.path / "figures" / "curves")


def _losses(axis: Axes, run: RunFolder, mark_best: bool) -> None:
    _line(axis, run.training, "loss", TRAIN, "training, as logged", alpha=0.75, lw=1.2)
    validations = [record for record in run.validations if _finite(record["metrics"].get("val/loss"))]
    points = [(record["step"], record["metrics"]["val/loss"]) for record in validations]
    if points:
        axis.plot(*zip(*points, strict=True), color=MODEL, marker="o", ms=4, lw=1.8, label="validation")
    if mark_best:
        _mark_best(axis, points, run.best_step)
    values = [record["loss"] for record in run.training if _finite(record.get("loss"))] + [value for _, value in points]
    if values and min(values) > 0 and max(values) / min(values) > _LOG_SCALE_FROM:
        axis.set_yscale("log")
    axis.set(title="Loss", ylabel="loss")
    if values:
        axis.legend(frameon=False)


def _selected(axis: Axes, run: RunFolder, metric: str) -> None:
    points = [(r["step"], r["metrics"][metric]) for r in run.validations if _finite(r["metrics"].get(metric))]
    axis.plot(*zip(*points, strict=True), color=MODEL, marker="o", ms=4, lw=1.8, label=metric)
    _mark_best(axis, points, run.best_step)
    axis.set(title=f"{metric}, by which the best checkpoint is chosen", ylabel=metric)
    axis.legend(frameon=False)


def _line(axis: Axes, records: Sequence[Record], key: str, colour: str, label: str, **how: Any) -> None:
    points = [(record["step"], record[key]) for record in records if _finite(record.get(key))]
    if points:
        axis.plot(*zip(*points, strict=True), color=colour, label=label, **how)


def _mark_best(axis: Axes, points: Sequence[tuple[int, float]], best_step: int | None) -> None:
    best = [point for point in points if point[0] == best_step]
    if best:
        axis.plot(
            *best[0], marker="*", ms=16, color=COLOURS[2], mec="white", ls="none", label=f"best, step {best_step}"
        )


def _mark_phases(axis: Axes, records: Sequence[Record], named: bool) -> None:
    """A line where a phase begins, where there is more than one, and their names along the top."""
    spans = [(name, next(group)["step"]) for name, group in groupby(records, key=lambda record: record.get("phase"))]
    if len(spans) < 2:
        return
    for name, first in spans:
        axis.axvline(first, color=GREY, lw=0.8, ls=":")
        if named:
            axis.annotate(f" {name}", (first, 1), xycoords=("data", "axes fraction"), va="top", fontsize=8, color=GREY)


def _draw_skill(run: RunFolder, split: str, evaluation: Record) -> list[Path]:
    record, metrics = evaluation["record"], evaluation["metrics"]
    thresholds = [f"{threshold:g}" for threshold in record["thresholds_dbz"]]
    columns = min(3, len(thresholds))
    rows = math.ceil(len(thresholds) / columns)
    figure = new_figure(2.9 * columns + 0.4, 2.25 * rows + 0.7)
    axes = axes_of(figure, rows, columns, sharex=True, sharey=True)
    for axis in axes[len(thresholds) :]:
        axis.set_visible(False)
    leads = list(range(1, record["leads"] + 1))
    for axis, threshold in zip(axes, thresholds, strict=False):
        for prefix, label, colour, style in (("", "model", MODEL, "o-"), ("persistence_", "persistence", GREY, "s--")):
            values = [metrics.get(f"{split}/{prefix}csi_{threshold}_lead_{lead}", math.nan) for lead in leads]
            axis.plot(leads, values, style, color=colour, ms=4, label=label)
        observed = sum(record["observed_pixels"][threshold])
        axis.set_title(f"{threshold} dBZ", loc="left")
        axis.set_title(f"{observed:,} pixels observed", loc="right", fontsize=8, fontweight="normal", color=GREY)
        axis.set(xticks=leads, ylim=(0, 1))
        axis.grid(axis="y", color="#e6e8eb")
    axes[0].legend(frameon=False)
    sample = ", built-in sample" if evaluation.get("is_sample") else ""
    figure.suptitle(
        f"CSI over lead, {split} split ({evaluation.get('n')} {evaluation.get('item')}{sample})", fontsize=11
    )
    figure.supxlabel(_lead_label(run), fontsize=10)
    figure.supylabel("CSI", fontsize=10)
    return save(figure, run.path / "figures" / f"skill_{split}")


def _lead_label(run: RunFolder) -> str:
    seconds = run.metadata.get("facts", {}).get("cadence_seconds")
    return f"lead, in frames of {seconds / 60:.3g} min" if seconds else "lead, in frames"


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
