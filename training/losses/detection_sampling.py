"""Which anchors and regions an image learns from: drawn, seeded by the image alone."""

from __future__ import annotations

import torch
from torch import Tensor

from training.losses.detection_matching import BACKGROUND


def generator_of(draw: int, device: torch.device) -> torch.Generator:
    """The source of an image's random choices."""
    return torch.Generator(device).manual_seed(draw)


def sample(matched: Tensor, count: int, positives: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices of the positive and of the background samples among ``matched`` (as `matches` gives them, ``[A]``).

    Args:
        matched: what each anchor or region is to find.
        count: how many samples, both kinds together, where there are enough.
        positives: the largest share of positive ones.
        generator: on the device of ``matched``.
    """
    order = torch.randperm(len(matched), generator=generator, device=matched.device)
    drawn = matched[order]
    chosen = order[drawn >= 0][: int(count * positives)]
    return chosen, order[drawn == BACKGROUND][: count - len(chosen)]
