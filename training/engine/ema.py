"""Exponential moving average of the weights, by torch's AveragedModel."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Ema:
    """Keeps averaged weights beside a model; buffers are averaged with them.

    After n updates the decay is (1 + n) / (10 + n), but never above ``decay``: a plain average of decay 0.9999 would
    still be nine tenths of the first weights after a thousand steps, and it is what is evaluated.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._average = AveragedModel(model, multi_avg_fn=self._move, use_buffers=True)

    def _move(self, averaged: Any, current: Any, updates: Any) -> None:
        done = self.updates  # ``updates`` may lie on a GPU, which would be waited for
        get_ema_multi_avg_fn(min(self._decay, (1 + done) / (10 + done)))(averaged, current, updates)

    @property
    def model(self) -> nn.Module:
        return self._average.module

    def update(self, model: nn.Module) -> None:
        self._average.update_parameters(model)

    @property
    def updates(self) -> int:
        """How many steps went into the average (the first one is copied)."""
        return int(self._average.n_averaged.item())

    def tensors(self) -> dict[str, Tensor]:
        """The averaged weights by their plain names."""
        return dict(self.model.state_dict())

    def load(self, tensors: dict[str, Tensor], updates: int) -> None:
        self.model.load_state_dict(tensors)
        self._average.n_averaged.fill_(updates)
