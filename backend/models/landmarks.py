"""Landmarks by regression: an image in, the coordinates of its points out.

A ResNet-18 (He et al. 2016, arXiv:1512.03385) without its classifier, attention along rows and columns
(`coordinate_attention`), the mean over all positions, and a head of linear layers that ends in a sigmoid.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from backend.errors import ConfigError
from backend.models.coordinate_attention import CoordinateAttention

Head = Literal["deep", "shallow"]

FEATURES = 512  # channels that the trunk gives
DEEP_WIDTH = 512  # of the deep head's first hidden layer
DEEP_GROUPS = (32, 16)  # of its two group norms
_STAGES = (64, 128, 256, 512)  # channels of the trunk's stages, two blocks of two convolutions each
_INDEX_BYTES = 8  # max pooling keeps where each maximum was


class LandmarkNet(nn.Module):
    """Finds ``points`` points in an image.

    Args:
        points: how many.
        coordinate_attention: between trunk and head.
        head: ``deep`` (three linear layers, group norm) or ``shallow`` (two).
        hidden_dim: width of the head's last hidden layer.
        dropout: before the shallow head's first and after the deep head's first layer; the second one is half of it.
        mirrored_order: where each point of a mirrored image is found; None where that is not known.

    Raises:
        ConfigError: there are no points, or the deep head's ``hidden_dim`` cannot be grouped.
    """

    def __init__(
        self,
        points: int,
        coordinate_attention: bool = True,
        head: Head = "deep",
        hidden_dim: int = 768,
        dropout: float = 0.3,
        mirrored_order: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if points < 1:
            raise ConfigError(f"a landmark model needs at least one point; the dataset names {points}.")
        self.trunk_frozen = False
        self.mirrored_order = None if mirrored_order is None else list(mirrored_order)
        self.trunk = _trunk()
        self.attention = CoordinateAttention(FEATURES) if coordinate_attention else None
        self.head = _deep_head(points, hidden_dim, dropout) if head == "deep" else _shallow(points, hidden_dim, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Points ``[n, P, 2]`` as (x, y), from 0 (left, top) to 1, of images ``x`` ``[n, 3, S, S]``, normalised.

        The head runs in fp32 also under autocast: near 1 a step of bf16 is a pixel wide.
        """
        features = self.trunk(x.contiguous(memory_format=_layout(x)))
        if self.attention is not None:
            features = self.attention(features)
        with torch.autocast(x.device.type, enabled=False):
            pooled = features.to(self._head_dtype()).mean((2, 3))
            return cast(Tensor, self.head(pooled)).unflatten(1, (-1, 2))

    def freeze_trunk(self, frozen: bool) -> None:
        """Keep trunk and attention as they are, the statistics of their batch norms too, or let them learn again."""
        self.trunk_frozen = frozen
        for part in self._body():
            part.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> LandmarkNet:
        """As every module's, but a frozen trunk stays in evaluation: in training batch norm's statistics move."""
        super().train(mode)
        if self.trunk_frozen:
            for part in self._body():
                part.eval()
        return self

    def trunk_parameters(self) -> list[nn.Parameter]:
        """Parameters of trunk and attention: all but the head's."""
        return [p for part in self._body() for p in part.parameters()]

    def activation_bytes_per_row(self, dtype: torch.dtype = torch.float32, image_size: int = 224) -> int:
        """Memory that one image takes in a training step at its peak, without the weights.

        Args:
            dtype: of the convolutions: fp32, or autocast's.
            image_size: rows and columns.
        """
        stem, *sides = _sides(image_size)
        first = _STAGES[0] * stem**2
        pooled = _STAGES[0] * sides[0] ** 2
        blocks = sum(
            (8 if stage == 0 else 9) * channels * side**2  # four maps a block, and one where the sides are halved
            for stage, (channels, side) in enumerate(zip(_STAGES, sides, strict=True))
        )
        kept = 3 * image_size**2 + 2 * first + pooled + blocks + 3 * self._attended(sides[-1])
        passing = 2 * first  # gradients of one layer
        return (kept + passing) * dtype.itemsize + pooled * _INDEX_BYTES

    def flops_per_row(self, image_size: int = 224) -> int:
        """Multiplications and additions of one image's forward pass, the usual two per weight and position."""
        stem, *sides = _sides(image_size)
        total = _STAGES[0] * 3 * 49 * stem**2 + self._head_weights()
        for stage, (channels, side) in enumerate(zip(_STAGES, sides, strict=True)):
            below = _STAGES[max(stage - 1, 0)]
            halved = 0 if stage == 0 else below * channels
            total += side**2 * (9 * below * channels + 27 * channels**2 + halved)
        if self.attention is not None:
            mid = self.attention.squeeze.out_channels
            total += 4 * mid * FEATURES * sides[-1]  # rows and columns, squeezed and widened
        return 2 * total

    def _attended(self, side: int) -> int:
        return FEATURES * side**2 if self.attention is not None else 0

    def _head_weights(self) -> int:
        return sum(layer.weight.numel() for layer in self.head if isinstance(layer, nn.Linear))

    def _body(self) -> list[nn.Module]:
        return [self.trunk] if self.attention is None else [self.trunk, self.attention]

    def _head_dtype(self) -> torch.dtype:
        return next(self.head.parameters()).dtype


def predict_points(net: nn.Module, x: Tensor, mirrored: bool = False) -> tuple[Tensor, Tensor | None]:
    """Points ``[n, P, 2]`` of images ``x``, and with ``mirrored`` also with test-time augmentation, else None.

    That is the mean of an image's points and its mirror image's, which are mirrored back, pairs exchanged.

    Raises:
        ConfigError: it is not known which points a mirror exchanges.
    """
    plain: Tensor = net(x)
    if not mirrored:
        return plain, None
    order = cast(LandmarkNet, net).mirrored_order
    if order is None:
        raise ConfigError(
            "it is not known which points a mirror exchanges, so that no mirror image can be scored: set "
            "evaluation.tta to false, or name the dataset's pairs"
        )
    back = net(x.flip(3))[:, order]
    return plain, (plain + torch.stack([1 - back[..., 0], back[..., 1]], dim=-1)) / 2


def _sides(image_size: int) -> list[int]:
    """Rows and columns after the first convolution and in each stage."""
    sides = [math.ceil(image_size / 2)]
    for _ in range(4):
        sides.append(math.ceil(sides[-1] / 2))
    return sides


def _layout(x: Tensor) -> torch.memory_format:
    """Channels last is what tensor cores want; a training step on a CPU takes twice as long with it.

    Not where determinism was asked for: max pooling's gradient adds up in that layout.
    """
    wanted = x.is_cuda and not torch.are_deterministic_algorithms_enabled()
    return torch.channels_last if wanted else torch.contiguous_format


def _trunk() -> nn.Sequential:
    """A ResNet-18's layers under torchvision's names, without pooling and classifier."""
    from torchvision.models import resnet18

    layers = resnet18(weights=None).named_children()
    return nn.Sequential(OrderedDict((name, layer) for name, layer in layers if name not in ("avgpool", "fc")))


def _deep_head(points: int, hidden: int, dropout: float) -> nn.Sequential:
    first, second = DEEP_GROUPS
    if hidden % second:
        raise ConfigError(f"model.hidden_dim must be a multiple of {second} for a deep head; it is {hidden}.")
    return nn.Sequential(
        nn.Linear(FEATURES, DEEP_WIDTH),
        nn.GroupNorm(first, DEEP_WIDTH),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(DEEP_WIDTH, hidden),
        nn.GroupNorm(second, hidden),
        nn.ReLU(),
        nn.Dropout(dropout / 2),
        nn.Linear(hidden, 2 * points),
        nn.Sigmoid(),
    )


def _shallow(points: int, hidden: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(FEATURES, hidden),
        nn.ReLU(),
        nn.Dropout(dropout / 2),
        nn.Linear(hidden, 2 * points),
        nn.Sigmoid(),
    )
