"""Losses of landmark regression, on coordinates from 0 to 1.

Each term is a mean over points of each image, then a mean over images in which an image counts its class's weight:

    sum over images of (weight * mean over points) / sum over images of weights

A batch brings ``points`` ``[n, P, 2]`` as (x, y) from 0 to 1 and ``weight`` ``[n]``, how much each image counts
(`class_weights`). Lengths are given in pixels of a 224-pixel image, the scale on which the constants were chosen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from backend.errors import ConfigError
from backend.preprocessing.landmark_set import LUNGS, LandmarkSet
from training.schemas.landmarks import LandmarkLossSection
from training.tasks.protocol import Batch, Term

PIXELS = 224  # of the image that lengths in pixels refer to
SYMMETRY_MARGIN = 6 / PIXELS  # lungs are not symmetrical: only more than this costs
ADAPTIVE_WING = {"omega": 14 / PIXELS, "epsilon": 1 / PIXELS, "theta": 0.5 / PIXELS, "alpha": 2.1}
SOFT_WING = {"omega_1": 2 / PIXELS, "omega_2": 20 / PIXELS, "epsilon": 0.5 / PIXELS}

POINT_WEIGHTS = {
    "inverse_variance": (
        1.16, 0.79, 1.07, 1.11, 1.00, 1.04, 0.85, 0.89, 1.30, 1.21, 0.99, 1.06, 1.07, 0.71, 0.74,
    ),
    "custom": (1.5, 1.5, 1.2, 1.2, 1.3, 1.3, 1.1, 1.1, 1.5, 1.4, 1.4, 1.0, 1.0, 2.0, 2.0),
}  # fmt: skip

_AXIS = (0, 1)  # of the fifteen lung points: the ends of the middle line
_CENTRAL = (8, 9, 10)  # and those that lie on it
_LEAST_LENGTH = 1e-8


def loss_terms(settings: LandmarkLossSection) -> list[str]:
    """Names of the terms that this loss has; one that weighs nothing is left out."""
    if settings.kind != "combined":
        return [settings.kind]
    shares = {"central": settings.central_weight, "symmetry": settings.symmetry_weight}
    return ["wing", *(name for name, weight in shares.items() if weight > 0)]


def check_loss(points: LandmarkSet, classes: Sequence[str], settings: LandmarkLossSection) -> None:
    """That the loss fits the dataset's points and classes.

    Raises:
        ConfigError: it is made for the fifteen lung points and these are others, there is not a weight for each
            point, or a class is named that the dataset has not.
    """
    weights = settings.point_weights
    is_named = settings.kind == "weighted_wing" and weights in [*POINT_WEIGHTS]
    if (settings.kind == "combined" or is_named) and (len(points), points.pairs) != (len(LUNGS), LUNGS.pairs):
        key = "loss.kind: combined" if settings.kind == "combined" else f"loss.point_weights: {weights}"
        raise ConfigError(
            f"{key} is made for the {len(LUNGS)} points of the lung contour and their pairs, but the dataset has "
            f"{len(points)} other ones: choose "
            + ("another loss.kind, such as wing" if settings.kind == "combined" else "uniform, or give a list")
        )
    if settings.kind == "weighted_wing" and isinstance(weights, list) and len(weights) != len(points):
        raise ConfigError(
            f"loss.point_weights has {len(weights)} values, but the dataset has {len(points)} points: give one for "
            f"each, in the order {', '.join(points.names)}"
        )
    unknown = [name for name in settings.class_weights if name not in classes]
    if unknown:
        raise ConfigError(
            f"loss.class_weights names {', '.join(unknown)}, but the dataset's classes are {', '.join(classes)}"
        )


def landmark_counts(batch: Batch, settings: LandmarkLossSection) -> dict[str, float | Tensor]:
    """What each term's sum is divided by: the images, each as often as it counts."""
    return dict.fromkeys(loss_terms(settings), batch["weight"].sum())


def landmark_loss(prediction: Tensor, batch: Batch, settings: LandmarkLossSection) -> dict[str, Term]:
    """The terms that `loss_terms` names, of predicted points ``[n, P, 2]``; in fp32, without autocast.

    `check_loss` says whether ``settings`` fit the points.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        wide = torch.promote_types(prediction.dtype, torch.float32)
        prediction, target, images = (field.to(wide) for field in (prediction, batch["points"], batch["weight"]))
        counts = landmark_counts(batch, settings)
        shares = {"central": settings.central_weight, "symmetry": settings.symmetry_weight}
        return {
            name: Term((_of_images(name, prediction, target, settings) * images).sum(), count, shares.get(name, 1.0))
            for name, count in counts.items()
        }


def _of_images(name: str, prediction: Tensor, target: Tensor, settings: LandmarkLossSection) -> Tensor:
    """One term of each image, ``[n]``."""
    if name == "central":
        return central(prediction)
    if name == "symmetry":
        return symmetry(prediction)
    errors = (prediction - target).abs()
    if name == "adaptive_wing":
        return adaptive_wing(errors, **ADAPTIVE_WING).mean((1, 2))
    if name == "soft_wing":
        return soft_wing(errors, **SOFT_WING).mean((1, 2))
    points = wing(errors, settings.omega / PIXELS, settings.epsilon / PIXELS).mean(2)
    if name == "wing":
        return points.mean(1)
    weights = _on(_point_weights(settings, points.shape[1]), points.device)
    return (points * weights).sum(1) / weights.sum()


def wing(errors: Tensor, omega: float, epsilon: float) -> Tensor:
    """Wing loss of absolute ``errors`` (Feng et al. 2018, Wing Loss for Robust Facial Landmark Localisation).

    ``omega * ln(1 + e / epsilon)`` below ``omega``, from there on ``e - C``, where both meet.
    """
    meeting = omega - omega * math.log1p(omega / epsilon)
    return torch.where(errors < omega, omega * torch.log1p(errors / epsilon), errors - meeting)


def adaptive_wing(errors: Tensor, omega: float, epsilon: float, theta: float, alpha: float) -> Tensor:
    """Adaptive wing loss of absolute ``errors`` (Wang, Bo and Fuxin 2019, arXiv:1904.07399).

    The paper's exponent is ``alpha - y`` with y the value of a heatmap, 1 at a landmark. A coordinate is a landmark
    wherever it lies, so y is 1 here.
    """
    power = alpha - 1
    at_theta = (theta / epsilon) ** power
    slope = omega * power * at_theta / theta / (1 + at_theta)
    meeting = theta * slope - omega * math.log1p(at_theta)
    curved = omega * torch.log1p((errors / epsilon) ** power)
    return torch.where(errors < theta, curved, slope * errors - meeting)


def soft_wing(errors: Tensor, omega_1: float, omega_2: float, epsilon: float) -> Tensor:
    """Soft wing loss of absolute ``errors`` (Lin et al. 2021, Structure-Coherent Deep Feature Learning).

    Linear below ``omega_1``, so that small errors (of labels, too) do not weigh most, a logarithm above.
    """
    meeting = omega_1 - omega_2 * math.log1p(omega_1 / epsilon)
    return torch.where(errors < omega_1, errors, omega_2 * torch.log1p(errors / epsilon) + meeting)


def central(points: Tensor) -> Tensor:
    """Mean distance of L9, L10 and L11 to the line through L1 and L2, for each image of ``[n, 15, 2]``: ``[n]``."""
    return _signed_distances(points)[:, list(_CENTRAL)].abs().mean(1)


def symmetry(points: Tensor) -> Tensor:
    """How unequally far pairs are from the axis, beyond `SYMMETRY_MARGIN`, squared; mean over pairs: ``[n]``."""
    far = _signed_distances(points).abs()
    left, right = zip(*LUNGS.pairs, strict=True)
    unequal = (far[:, list(left)] - far[:, list(right)]).abs()
    return torch.relu(unequal - SYMMETRY_MARGIN).square().mean(1)


def _signed_distances(points: Tensor) -> Tensor:
    """Distance of each point of ``[n, 15, 2]`` to the line through L1 and L2, ``[n, 15]``; its sign is the side."""
    start, end = (points[:, i : i + 1] for i in _AXIS)
    axis, away = end - start, points - start
    area = axis[..., 0] * away[..., 1] - axis[..., 1] * away[..., 0]
    return area / torch.linalg.vector_norm(axis, dim=2).clamp_min(_LEAST_LENGTH)


def _point_weights(settings: LandmarkLossSection, points: int) -> tuple[float, ...]:
    weights = settings.point_weights
    if isinstance(weights, list):
        return tuple(weights)
    return POINT_WEIGHTS.get(weights, (1.0,) * points)


@lru_cache
def _on(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Kept, because a copy from the host at each call would make it wait for the GPU."""
    return torch.tensor(values, device=device)
