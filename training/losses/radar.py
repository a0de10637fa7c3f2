"""The nowcasting loss: Huber, weighted towards strong echo, and structural dissimilarity.

    loss = (1 - w) * sum(weight * huber) / valid pixels  +  w * sum(1 - SSIM) / valid positions

Both are terms as `training.tasks.protocol` defines them, so micro-batches add up to the whole batch.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from backend.errors import ConfigError
from training.losses.ssim import ssim_map, ssim_valid
from training.schemas.convlstm import RadarLossSection
from training.tasks.protocol import Term


def radar_counts(valid: Tensor, settings: RadarLossSection) -> dict[str, float | Tensor]:
    """What each term's sum is divided by: valid pixels, and valid positions of the SSIM map, weighted by lead.

    Args:
        valid: ``[rows, leads, H, W]`` of bool; False is no data.
        settings: the loss section.

    Raises:
        ConfigError: `lead_weights` does not fit the leads, or a frame is smaller than the SSIM window.
    """
    leads = _lead_weights(valid, settings)
    counts: dict[str, float | Tensor] = {}
    if settings.ssim_weight < 1:
        counts["huber"] = _weighted_sum(valid, leads)
    if settings.ssim_weight > 0:
        counts["ssim"] = _weighted_sum(ssim_valid(valid, settings.ssim_window), leads)
    return counts


def radar_loss(prediction: Tensor, target: Tensor, valid: Tensor, settings: RadarLossSection) -> dict[str, Term]:
    """The loss terms ``huber`` and ``ssim``; one that weighs nothing is left out. Computed in fp32, without autocast.

    Args:
        prediction: ``[rows, leads, H, W]``, normalised; any floating dtype.
        target: of the same shape; what stands at no-data pixels is not read.
        valid: of the same shape, bool; False is no data, which takes no gradient.
        settings: the loss section.

    Raises:
        ConfigError: `lead_weights` does not fit the leads, or a frame is smaller than the SSIM window.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        wide = torch.promote_types(prediction.dtype, torch.float32)
        prediction = prediction.to(wide).masked_fill(~valid, 0)
        target = target.to(wide).masked_fill(~valid, 0)
        leads, weight = _lead_weights(valid, settings), settings.ssim_weight
        terms = {}
        if weight < 1:
            errors = _huber(prediction, target, settings)
            terms["huber"] = Term(_weighted_sum(errors, leads), _weighted_sum(valid, leads), 1 - weight)
        if weight > 0:
            where = ssim_valid(valid, settings.ssim_window)
            similarity = ssim_map(prediction, target, settings.ssim_window, settings.ssim_sigma)
            dissimilarity = (1 - similarity).masked_fill(~where, 0)
            terms["ssim"] = Term(_weighted_sum(dissimilarity, leads), _weighted_sum(where, leads), weight)
        return terms


def _huber(prediction: Tensor, target: Tensor, settings: RadarLossSection) -> Tensor:
    errors = F.huber_loss(prediction, target, reduction="none", delta=settings.huber_delta)
    if settings.high_penalty_weight == 1:
        return errors
    return torch.where(target > settings.high_threshold, errors * settings.high_penalty_weight, errors)


def _lead_weights(valid: Tensor, settings: RadarLossSection) -> Tensor | None:
    if settings.lead_weights is None:
        return None
    if len(settings.lead_weights) != valid.shape[1]:
        raise ConfigError(
            f"loss.lead_weights has {len(settings.lead_weights)} values, but {valid.shape[1]} frames are forecast: "
            "give one for each of data.prediction_steps."
        )
    return _weights_on(tuple(settings.lead_weights), valid.device)


@lru_cache
def _weights_on(weights: tuple[float, ...], device: torch.device) -> Tensor:
    """Kept, because a copy from the host at each call would make it wait for the GPU."""
    return torch.tensor(weights, device=device)


def _weighted_sum(values: Tensor, leads: Tensor | None) -> Tensor:
    """Sum over everything, each lead times its weight. Booleans are counted exactly, as integers."""
    if leads is None:
        return values.sum()
    return (values.sum((0, 2, 3)) * leads).sum()
