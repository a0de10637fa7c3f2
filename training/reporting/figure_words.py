"""What a figure shows, for those who cannot see it."""

from __future__ import annotations

import math
from typing import Any

from training.reporting.run_folder import RunFolder
from training.reporting.units import significant
from training.reporting.verdict import verdict_of
from training.scores.landmarks_layout import BY_POINT
from training.scores.layout import layout_of

_SKILL, _POINTS = "skill_", "_error_of_each_point"
_IMAGES = {"_worst_images": "largest", "_best_images": "smallest"}


def title_of(run: RunFolder, name: str) -> str:
    """The caption of the figure with this file name."""
    if name == "curves":
        between = ", " + metric + " and" if (metric := _selected(run)) else " and"
        return f"Loss{between} learning rate over the optimizer steps"
    if name.startswith(_SKILL):
        return f"Skill over the lead time on the {name.removeprefix(_SKILL)} split, model and baseline"
    if name.endswith(_POINTS):
        return f"Errors of each landmark on the {name.removesuffix(_POINTS)} split"
    for end, size in _IMAGES.items():
        if name.endswith(end):
            return f"Images of the {name.removesuffix(end)} split with the {size} errors, true and predicted landmarks"
    return name.replace("_", " ").capitalize()


def is_drawing(name: str) -> bool:
    """Whether it consists of lines and areas, not of images."""
    return name == "curves" or name.startswith(_SKILL) or name.endswith(_POINTS)


def describe(run: RunFolder, name: str) -> str:
    """The figure in words, with its numbers where the run has them."""
    return f"{title_of(run, name)}. {_words(run, name)}".strip()


def _words(run: RunFolder, name: str) -> str:
    if name == "curves":
        metric = _selected(run)
        return " ".join(
            [_course(run, "val/loss", "The validation loss")]
            + [_course(run, metric, f"{metric}, by which the best checkpoint is chosen,")] * bool(metric)
        )
    if name.endswith(_POINTS):
        return _extremes(run, name.removesuffix(_POINTS))
    if name.endswith(tuple(_IMAGES)):
        return "Each image has its true landmarks as rings, the predicted ones as dots, and a line from each to each."
    split = name.removeprefix(_SKILL)
    verdict = verdict_of(run.evaluations[split]) if split in run.evaluations else None
    return verdict.sentence if verdict else ""


def _selected(run: RunFolder) -> str:
    """The metric by which the best checkpoint is chosen, where it is drawn beside the loss; else nothing."""
    metric = str((run.config.get("selection") or {}).get("metric", "val/loss"))
    return metric if metric != "val/loss" and any(metric in v["metrics"] for v in run.validations) else ""


def _course(run: RunFolder, metric: str, name: str) -> str:
    points = [(v["step"], v["metrics"].get(metric)) for v in run.validations]
    finite = [(step, value) for step, value in points if _finite(value)]
    if not finite:
        return ""
    rises = metric != "val/loss" and (run.config.get("selection") or {}).get("mode") == "max"
    best = (max if rises else min)(finite, key=lambda point: point[1])
    (first, began), (last, ended) = finite[0], finite[-1]
    return (
        f"{name} begins at {significant(began)} (step {first}), is {'highest' if rises else 'lowest'} at "
        f"{significant(best[1])} (step {best[0]}) and ends at {significant(ended)} (step {last})."
    )


def _extremes(run: RunFolder, split: str) -> str:
    """Which landmark is found best and which worst."""
    evaluation = run.evaluations.get(split) or {}
    layout = layout_of(evaluation.get("record") or {})
    rows = [row for table in layout.tables if table.title == BY_POINT for row in table.rows] if layout else []
    metrics = evaluation.get("metrics", {})
    means = {row.name: metrics.get(f"{split}/{row.cells[0]}") for row in rows}
    known = {name: value for name, value in means.items() if _finite(value)}
    if not known:
        return ""
    best, worst = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    return (
        f"Of {len(known)} landmarks {best} has the smallest mean error ({significant(known[best])} px at 224), {worst} "
        f"the largest ({significant(known[worst])})."
    )


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
