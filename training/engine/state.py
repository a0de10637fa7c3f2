"""`TrainState`: everything that a checkpoint holds, and how it becomes tensors and JSON and back."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from training.engine.ema import Ema


@dataclass
class Best:
    """The best validation so far, by the selection metric."""

    step: int
    value: float


@dataclass
class RunningMean:
    """A mean over steps, weighted by items."""

    total: float = 0.0
    items: int = 0

    def add(self, value: float, items: int) -> None:
        self.total += value * items
        self.items += items

    def reset(self) -> None:
        self.total, self.items = 0.0, 0

    def mean(self) -> float | None:
        return self.total / self.items if self.items else None


@dataclass
class Progress:
    """Where a run stands, at a boundary.

    ``epoch`` counts within the phase, ``batch`` is the next batch of that epoch (its number of batches when the
    epoch's steps are done and its validation is not), ``step`` counts optimizer steps over all phases, ``stale``
    validations since the last one that beat ``patience_from``.
    """

    phase: int = 0
    epoch: int = 0
    batch: int = 0
    step: int = 0
    phase_first_step: int = 0
    best: Best | None = None
    patience_from: float | None = None  # what early stopping wants beaten by `min_delta`
    stale: int = 0
    skipped: int = 0
    milestones: list[int] = field(default_factory=list)
    epoch_loss: RunningMean = field(default_factory=RunningMean)
    logged_loss: RunningMean = field(default_factory=RunningMean)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Progress:
        best = value["best"]
        return cls(
            **{
                **value,
                "best": Best(**best) if best else None,
                "epoch_loss": RunningMean(**value["epoch_loss"]),
                "logged_loss": RunningMean(**value["logged_loss"]),
            }
        )


def is_better(value: float, best: float | None, mode: str, min_delta: float = 0.0) -> bool:
    """Whether ``value`` improves on ``best`` by more than ``min_delta``; a non-finite value never does."""
    if not math.isfinite(value):
        return False
    if best is None:
        return True
    return value < best - min_delta if mode == "min" else value > best + min_delta


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's state by parameter names: ``<parameter>/<entry>``."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        f"{names[id(parameter)]}/{entry}": value
        for parameter, entries in optimizer.state.items()
        for entry, value in entries.items()
    }


def load_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put ``optimizer_tensors`` back, on the parameters' devices (step counters where the optimizer wants them)."""
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        name, entry = key.rsplit("/", 1)
        parameter = parameters[name]
        on_host = entry == "step" and not any(
            group.get("fused") or group.get("capturable") for group in optimizer.param_groups
        )
        optimizer.state[parameter][entry] = value if on_host else value.to(parameter.device)


def scaler_state(scaler: torch.amp.GradScaler | None) -> dict[str, Any] | None:
    """An fp16 scaler's numbers, as plain values."""
    return None if scaler is None else dict(scaler.state_dict())


def model_tensors(model: nn.Module, ema: Ema | None, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    """What a checkpoint stores, by file."""
    files = {"model": dict(model.state_dict()), "optimizer": optimizer_tensors(model, optimizer)}
    if ema is not None:
        files["ema"] = ema.tensors()
    return files
