"""Where the answers that are scored come from: a model at work, or what was kept of it."""

from __future__ import annotations

from typing import Protocol

from torch import nn

from training.tasks.protocol import Batch, Outputs, Task


class Answers(Protocol):
    """Gives the outputs for the (micro-)batches of a split, in their order."""

    def begin(self) -> None:
        """The split is gone through from its first row, perhaps once more (memory had run out)."""
        ...

    def to(self, batch: Batch, rows: int) -> Outputs:
        """The outputs for the next ``rows`` rows, which are those of ``batch``."""
        ...


class ModelAnswers:
    """What ``model`` says."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        self.task, self.model = task, model

    def begin(self) -> None:
        return

    def to(self, batch: Batch, rows: int) -> Outputs:
        return self.task.outputs(self.model, batch)
