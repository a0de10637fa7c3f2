"""What a figure shows, for those who cannot see it."""

from __future__ import annotations

import math
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
        return f"{title_of(name)}. {_losses(run)}".strip()
    split = name.removeprefix("skill_")
    verdict = verdict_of(run.evaluations[split]) if split in run.evaluations else None
    return f"{title_of(name)}. {verdict.sentence if verdict else ''}".strip()


def _losses(run: RunFolder) -> str:
    points = [(v["step"], v["metrics"].get("val/loss")) for v in run.validations]
    finite = [(step, loss) for step, loss in points if _finite(loss)]
    if not finite:
        return ""
    low = min(finite, key=lambda point: point[1])
    (first, began), (last, ended) = finite[0], finite[-1]
    return (
        f"The validation loss begins at {significant(began)} (step {first}), is lowest at {significant(low[1])} (step "
        f"{low[0]}) and ends at {significant(ended)} (step {last})."
    )


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
