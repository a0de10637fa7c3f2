"""From the trial's pace to hours and money until the end: an extrapolation, and always called one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from training.doctor.trial import Pace, Saving
from training.engine.order import batches_in_epoch
from training.reporting.units import duration
from training.tasks.protocol import Glance, Task

_FORWARD = 1 / 3  # an evaluated row beside a trained one


@dataclass(frozen=True)
class Estimate:
    """What is left to do, in numbers."""

    steps: int
    epochs: int
    seconds: float
    exact_items: bool  # the windows were counted, not estimated
    price_per_hour: float | None

    @property
    def money(self) -> float | None:
        """In the currency of the price."""
        return None if self.price_per_hour is None else self.seconds / 3600 * self.price_per_hour

    def __str__(self) -> str:
        cost = "" if self.money is None else f", {self.money:,.2f} at {self.price_per_hour:g} an hour"
        items = "" if self.exact_items else ", and the number of steps is estimated until the data are prepared"
        return (
            f"about {duration(self.seconds)} for {self.steps:,} steps and their validations{cost} (extrapolated from "
            f"the trial; loading data not counted{items})"
        )


def estimate(task: Task, glance: Glance, pace: Pace, saving: Saving | None, price: float | None) -> Estimate | None:
    """Steps to the end from the number of items, at the trial's pace; None where the number is not known."""
    items = glance.items
    if not items or not items.get("train"):
        return None
    training, evaluation = task.config.training, task.config.evaluation
    epochs = sum(phase.epochs for phase in task.phases())
    batches = batches_in_epoch(items["train"], training.batch_size)
    steps = min(epochs * batches, training.max_steps or math.inf)
    validations = math.ceil(math.ceil(steps / batches) / evaluation.every_epochs)
    looked_at = min(items["val"], evaluation.max_samples or math.inf)
    item_seconds = pace.step_seconds / training.batch_size
    evaluated = validations * looked_at + items["val"] + items["test"]
    seconds = steps * pace.step_seconds + evaluated * item_seconds * _FORWARD
    if saving is not None:
        by_time = seconds / (training.checkpoint_minutes * 60) if training.checkpoint_minutes else steps
        seconds += (by_time + validations) * saving.save_seconds
    return Estimate(int(steps), epochs, seconds, glance.exact, price)


def to_json(found: Estimate) -> dict[str, Any]:
    """For programs; hours and money are extrapolated."""
    return {
        "extrapolated": True,
        "steps": found.steps,
        "epochs": found.epochs,
        "hours": round(found.seconds / 3600, 3),
        "items_counted": found.exact_items,
        "price_per_hour": found.price_per_hour,
        "money": None if found.money is None else round(found.money, 2),
    }
