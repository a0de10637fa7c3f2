"""The learning rate as a function of the step, with falls on a plateau of the selection metric."""

from __future__ import annotations

import math
from typing import Any

import torch

from training.schemas.shared import TrainingSection
from training.tasks.protocol import Phase


class Schedule:
    """Learning rates within one phase.

    The rate of a group of parameters is the phase's, times the group's scale, times ``factor(step)``, which is
    ``warm-up x shape(step) x plateau``; no group's falls below ``min_learning_rate`` (warm-up aside, and one that
    begins below it stays). Plateau falls are torch's ReduceLROnPlateau, run on a rate of 1.
    """

    def __init__(self, settings: TrainingSection, phase: Phase, steps_per_epoch: int, mode: str) -> None:
        self.settings = settings
        self.kind = phase.schedule or settings.schedule
        self.steps, self.steps_per_epoch = max(phase.epochs * steps_per_epoch, 1), max(steps_per_epoch, 1)
        self.learning_rate = phase.learning_rate
        self.lowest = 0.0 if self.kind == "constant" else settings.min_learning_rate
        self._rate = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        self._plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self._rate,
            mode=mode,  # type: ignore[arg-type]
            factor=settings.lr_factor,
            patience=settings.lr_patience,
        )

    def rate(self, step: int, scale: float = 1.0) -> float:
        """The rate, for the ``step``-th optimizer step of the phase from 0, of a group with this ``lr_scale``."""
        return self.learning_rate * scale * self.factor(step, scale)

    def factor(self, step: int, scale: float = 1.0) -> float:
        """What becomes of a group's own rate."""
        warmup = self.settings.warmup_steps
        rise = min((step + 1) / warmup, 1.0) if warmup else 1.0
        floor = min(self.lowest / (self.learning_rate * scale), 1.0)
        return rise * max(self._shape(step - warmup), floor)

    def _shape(self, step: int) -> float:
        kind = self.kind
        if kind == "plateau":
            return float(self._rate.param_groups[0]["lr"])
        if kind == "step":
            return float(
                self.settings.lr_factor ** (max(step, 0) // (self.steps_per_epoch * self.settings.lr_step_epochs))
            )
        share = min(max(step, 0) / max(self.steps - self.settings.warmup_steps, 1), 1.0)
        if kind == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * share))
        return 1.0 - share if kind == "linear" else 1.0

    def validated(self, value: float) -> None:
        """Tell the schedule the newest value of the selection metric."""
        if self.kind == "plateau" and math.isfinite(value):
            self._plateau.step(value)

    def state_dict(self) -> dict[str, Any]:
        return {
            "rate": self._rate.param_groups[0]["lr"],
            "best": self._plateau.best if math.isfinite(self._plateau.best) else None,
            "bad": self._plateau.num_bad_epochs,
            "epoch": self._plateau.last_epoch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rate.param_groups[0]["lr"] = state["rate"]
        if state["best"] is not None:
            self._plateau.best = state["best"]
        self._plateau.num_bad_epochs = state["bad"]
        self._plateau.last_epoch = state["epoch"]
