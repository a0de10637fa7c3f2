"""What a figure shows, for those who cannot see it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from training.reporting.run_folder import RunFolder
from training.reporting.units import significant
from training.reporting.verdict import verdict_of


def title_of(name: str) -> str:
    """The caption of the figure with this file name."""
    if name == "curves":
        return "Loss and learning rate over the optimizer steps"
    if name.startswith("skill_"):
        return f"Skill over the lead time on the {name.removeprefix('skill_')} split, model and baseline"
    return name.replace("_", " ").capitalize()


def describe(run: RunFolder, name: str) -> str:
    """The figure in words, with its numbers where the run has them."""
    if name == "curves":
        return " ".join([f"{title_of(name)}.", *_courses(run)])
    split = name.removeprefix("skill_")
    verdict = verdict_of(run.evaluations[split]) if split in run.evaluations else None
    return f"{title_of(name)}. {verdict.sentence if verdict else ''}".strip()


def _courses(run: RunFolder) -> Iterator[str]:
    """How the validation loss went, and what the best checkpoint is chosen by where that is something else."""
    yield from _course(run, "val/loss", "The validation loss", "lowest")
    chosen = run.config.get("selection") or {}
    if chosen.get("metric") not in (None, "val/loss"):
        way = "highest" if chosen.get("mode") == "max" else "lowest"
        yield from _course(run, chosen["metric"], f"{chosen['metric']}, by which the best checkpoint is chosen,", way)


def _course(run: RunFolder, metric: str, name: str, way: str) -> Iterator[str]:
    points = [(v["step"], v["metrics"].get(metric)) for v in run.validations]
    finite = [(step, value) for step, value in points if _finite(value)]
    if finite:
        best = (max if way == "highest" else min)(finite, key=lambda point: point[1])
        (first, began), (last, ended) = finite[0], finite[-1]
        yield (
            f"{name} begins at {significant(began)} (step {first}), is {way} at {significant(best[1])} (step "
            f"{best[0]}) and ends at {significant(ended)} (step {last})."
        )


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
