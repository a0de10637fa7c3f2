"""Contrastive denoising (Zhang et al. 2022, DINO, arXiv:2203.03605): true boxes, disturbed, for a decoder to repair.

Each image's copies depend on the image and its ``draw`` alone, never on the others of its batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from backend.models.detector_rtdetr import Noisy

OTHER_LABEL = 0.25
"""Share of copies whose label is drawn anew."""

_EDGE = 1e-5  # no share of the image is nearer to 0 or 1: the sigmoid must be undone


@dataclass(frozen=True)
class Copies:
    """The copies of one image, in ``groups`` that cannot see each other: k near true boxes, then k farther away.

    The near ones are to become the true boxes, the farther ones nothing.
    """

    labels: Tensor  # [2 * k * groups] int64
    boxes: Tensor  # [2 * k * groups, 4], before the sigmoid
    groups: int

    @property
    def near(self) -> Tensor:
        """Which copies are near: ``[k * groups]``, of each group the true boxes in their order."""
        whole = len(self.labels) // self.groups
        return (
            torch.arange(len(self.labels), device=self.labels.device)
            .view(self.groups, whole)[:, : whole // 2]
            .flatten()
        )


def copies_of(labels: Tensor, boxes: Tensor, classes: int, amount: int, draw: int) -> Copies:
    """About ``amount`` near copies, and as many farther ones, of k true boxes (k > 0).

    A corner is moved by up to half the box's side (near), or by that to the whole side (farther), each coordinate by
    itself.

    Args:
        labels: ``[k]`` int64.
        boxes: ``[k, 4]``, centre, width, height as shares of the image.
        classes: how many there are.
        amount: of near copies; there is one of each true box at least.
        draw: seeds what is drawn.
    """
    groups = max(1, amount // len(labels))
    shape = (groups, 2, len(labels))
    drawn = torch.Generator().manual_seed(draw)
    replaced = (torch.rand(shape, generator=drawn) < OTHER_LABEL).to(labels.device)
    others = torch.randint(classes, shape, generator=drawn).to(labels.device)
    size = torch.rand((*shape, 4), generator=drawn)
    size[:, 1] += 1  # the farther ones
    sign = torch.randint(2, (*shape, 4), generator=drawn) * 2 - 1
    return Copies(
        torch.where(replaced, others, labels).flatten(),
        _moved(boxes, (size * sign).to(boxes)).flatten(0, 2),
        groups,
    )


def _moved(boxes: Tensor, by: Tensor) -> Tensor:
    """``boxes`` with their corners moved ``by`` so many half sides, before the sigmoid."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    corners = torch.cat([centre - half, centre + half], dim=1) + by * half.repeat(1, 2)
    start, end = corners.clamp(0, 1).chunk(2, dim=-1)
    return torch.cat([(start + end) / 2, end - start], dim=-1).clamp(_EDGE, 1 - _EDGE).logit()


def together(copies: Sequence[Copies | None], classes: int) -> Noisy | None:
    """The copies of all images of a batch as queries, padded to the longest; None where there are none."""
    some = [one for one in copies if one is not None]
    if not some:
        return None
    rows, device = len(copies), some[0].labels.device
    longest = max(len(one.labels) for one in some)
    labels = torch.full((rows, longest), classes, device=device)
    boxes = torch.zeros(rows, longest, 4, dtype=some[0].boxes.dtype, device=device)
    hidden = ~torch.eye(longest, dtype=torch.bool, device=device).expand(rows, -1, -1)
    hidden = hidden.contiguous()
    for row, one in enumerate(copies):
        if one is None:
            continue
        length = len(one.labels)
        labels[row, :length], boxes[row, :length] = one.labels, one.boxes
        group = torch.arange(length, device=device) // (length // one.groups)
        hidden[row, :length, :length] = group[:, None] != group[None]
    return Noisy(labels, boxes, hidden)
