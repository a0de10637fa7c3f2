"""Modules that answer as the models do, with their weights, in operations that torch's ONNX exporter knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend.models.convlstm import ConvLSTMLayer, ConvLSTMNowcaster
from backend.models.landmarks import LandmarkNet


class PlainNowcaster(nn.Module):
    """A ConvLSTM frame by frame, its equations as `convlstm_cell` gives them, without its function of its own."""

    def __init__(self, model: ConvLSTMNowcaster) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor) -> Tensor:
        """Forecast ``[n, prediction_steps, H, W]`` from ``frames`` ``[n, T, H, W]``, both from 0 to 1."""
        sequence = [frames[:, step : step + 1] for step in range(frames.shape[1])]
        for number, layer in enumerate(self.model.layers):
            sequence = _hidden(cast(ConvLSTMLayer, layer), sequence)
            if number + 1 < len(self.model.layers):
                sequence = [_normalised(cast(ConvLSTMLayer, layer), hidden) for hidden in sequence]
        weight, bias = self.model.output_conv.weight.squeeze(2), self.model.output_conv.bias
        return torch.sigmoid(F.conv2d(sequence[-1], weight, bias, padding=self.model.output_conv.padding[-1]))


def _hidden(layer: ConvLSTMLayer, sequence: list[Tensor]) -> list[Tensor]:
    """The layer's hidden state after each frame."""
    conv, inputs = layer.cell.conv, sequence[0].shape[1]
    found: list[Tensor] = []
    cell: Tensor | None = None
    for frame in sequence:
        seen = torch.cat([frame, found[-1]], dim=1) if found else frame
        weight = conv.weight if found else conv.weight[:, :inputs]  # at a state of zero
        into, forget, out, new = F.conv2d(seen, weight, conv.bias, padding=conv.padding[-1]).chunk(4, dim=1)
        added = into.sigmoid() * new.tanh()
        cell = added if cell is None else forget.sigmoid() * cell + added
        found.append(out.sigmoid() * cell.tanh())
    return found


def _normalised(layer: ConvLSTMLayer, hidden: Tensor) -> Tensor:
    norm = layer.layer_norm or layer.group_norm
    return hidden if norm is None else norm(hidden)


class PlainLandmarks(nn.Module):
    """A landmark network that takes uint8 images ``[n, 3, S, S]`` and gives points ``[n, P, 2]`` from 0 to 1."""

    def __init__(self, model: LandmarkNet, normalise: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.normalise = model, normalise
        self.head = nn.Sequential(*(_of_maps(part) for part in model.head))

    def forward(self, images: Tensor) -> Tensor:
        """Points of ``images``, without test-time augmentation."""
        features = self.model.trunk(self.normalise(images))
        if self.model.attention is not None:
            features = self.model.attention(features)
        return cast(Tensor, self.head(features.mean((2, 3)))).unflatten(1, (-1, 2))


def _of_maps(part: nn.Module) -> nn.Module:
    """A group norm for what is no map: the exporter knows it with at least one dimension behind the channels."""
    return nn.Sequential(nn.Unflatten(1, (-1, 1)), part, nn.Flatten(1)) if isinstance(part, nn.GroupNorm) else part
