"""What a figure shows, for those who cannot see it."""

from __future__ import annotations

import math
from typing import Any

from training.reporting.run_folder import RunFolder
from training.reporting.units import significant
from training.reporting.verdict import verdict_of
from training.scores.detection_layout import ALL_CLASSES, BY_CLASS
from training.scores.landmarks_layout import BY_POINT
from training.scores.layout import layout_of

_SKILL, _POINTS = "skill_", "_error_of_each_point"
_DETECTION = {  # ends of names, with titles and the words for all that such a figure shows
    "augmented_training_images": (
        "Training images as the model sees them, with their boxes",
        "Each true box has the colour of its class, and its name.",
    ),
    "_examples": (
        "Images of the {} split with the most and with the fewest mistakes",
        "True boxes are drawn whole, detections dashed with their scores; missed and false ones are marked.",
    ),
    "_precision_recall": ("Precision, recall and F1 on the {} split, over recall and over the score", ""),
    "_confusion_matrix": ("What true boxes of the {} split were taken for", ""),
}
_DRAWINGS = ("_precision_recall", "_confusion_matrix")
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
    ending = _detection(name)
    if ending:
        return _DETECTION[ending][0].format(name.removesuffix(ending))
    return name.replace("_", " ").capitalize()


def is_drawing(name: str) -> bool:
    """Whether it consists of lines and areas, not of images."""
    return name == "curves" or name.startswith(_SKILL) or name.endswith((_POINTS, *_DRAWINGS))


def _detection(name: str) -> str | None:
    """The end of a detection figure's name; None where it is another figure."""
    return next((ending for ending in _DETECTION if name.endswith(ending)), None)


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
    if ending := _detection(name):
        words = _DETECTION[ending][1]
        return words or (_classes(run, name.removesuffix(ending)) if ending == "_precision_recall" else "")
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


def _first_column(run: RunFolder, split: str, title: str) -> dict[str, float]:
    """The known numbers of a table's first column by the names of its rows."""
    evaluation = run.evaluations.get(split) or {}
    layout = layout_of(evaluation.get("record") or {})
    rows = [row for table in layout.tables if table.title == title for row in table.rows] if layout else []
    metrics = evaluation.get("metrics", {})
    numbers = {row.name: metrics.get(f"{split}/{row.cells[0]}") for row in rows}
    return {name: value for name, value in numbers.items() if _finite(value)}


def _classes(run: RunFolder, split: str) -> str:
    """Which class has the largest average precision and which the smallest."""
    known = _first_column(run, split, BY_CLASS)
    known.pop(ALL_CLASSES, None)
    if not known:
        return ""
    best, worst = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
    told = f"{best} has an average precision of {significant(known[best])}"
    if len(known) == 1:
        return f"{told}."
    return f"Of {len(known)} classes {told}, the largest, {worst} the smallest ({significant(known[worst])})."


def _extremes(run: RunFolder, split: str) -> str:
    """Which landmark is found best and which worst."""
    known = _first_column(run, split, BY_POINT)
    if not known:
        return ""
    best, worst = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    return (
        f"Of {len(known)} landmarks {best} has the smallest mean error ({significant(known[best])} px at 224), {worst} "
        f"the largest ({significant(known[worst])})."
    )


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
