"""Exponential moving average of the weights, by torch's AveragedModel."""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Ema:
    """Keeps averaged weights beside a model; buffers are averaged with them."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)

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
