"""Attention along rows and columns (Hou, Zhou and Feng 2021, Coordinate Attention, arXiv:2103.02907)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEAST_MID = 8
REDUCTION = 32


class CoordinateAttention(nn.Module):
    """Weighs each feature by its row and by its column, seen over the whole other direction.

    As in the paper, but with ReLU in place of its hard swish and without biases before the sigmoids.

    Args:
        channels: of the features.
        mid: channels that rows and columns are squeezed to; None is the paper's max(8, channels / 32).
    """

    def __init__(self, channels: int, mid: int | None = None) -> None:
        super().__init__()
        mid = mid or max(LEAST_MID, channels // REDUCTION)
        self.squeeze = nn.Conv2d(channels, mid, 1, bias=False)
        self.norm = nn.BatchNorm2d(mid)
        self.rows = nn.Conv2d(mid, channels, 1, bias=False)
        self.columns = nn.Conv2d(mid, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` ``[n, C, H, W]`` weighed, in the same shape.

        Pooling is a mean over one dimension: adaptive pooling has no deterministic gradient on CUDA.
        """
        height, width = x.shape[2:]
        lines = torch.cat([x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)], dim=2)  # [n, C, H + W, 1]
        lines = torch.relu(self.norm(self.squeeze(lines)))
        rows, columns = lines.split([height, width], dim=2)
        return x * self.rows(rows).sigmoid() * self.columns(columns.transpose(2, 3)).sigmoid()
