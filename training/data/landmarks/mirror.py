"""Whether a landmark set's mirror pairs can be right, judged from the labels alone; and what mirroring needs.

**The criterion.** The mean shape is taken free of place, size and rotation (generalised Procrustes: Gower,
Psychometrika 40, 1975), with a root mean square radius of 1. It is mirrored, its points renamed by the pairs, and
turned to fit itself as well as it can; what is left is the *residual* (root mean square over the points, in radii).
Beside it stands the *best residual*, with the pairing that fits best of all, over all axes.

* The residual is at most `NEAR`: the pairs make the shape its own mirror image. Then each point must also fall near its
  partner: one that falls more than `_FAR` from it and on another point instead has the wrong partner, and is refused.
* It is more, but another pairing brings it below `_FRACTION` of that and below `_GOOD`: the objects are symmetric
  and the pairs are not their symmetry. Refused.
* Else the objects are not symmetric (a hand, a car from the side) and no labels can confirm any pairs. That is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from backend.errors import BadDataError, ConfigError
from backend.preprocessing.landmark_set import LandmarkSet

if TYPE_CHECKING:
    from training.schemas.landmarks import LandmarkConfig

NEAR = 0.2
_FAR = 0.1
_GOOD = 0.1
_FRACTION = 0.25
_AXES = 180  # that are tried for the best pairing
_ROUNDS = 5  # of aligning shapes to their mean: it stands still after three


def check_mirroring(landmark_set: LandmarkSet, config: LandmarkConfig) -> None:
    """Raises ConfigError where images are to be mirrored, but nobody knows which points change places."""
    if landmark_set.mirrors:
        return
    wanted = [f"augmentation.flip is {config.augmentation.flip:g}"] * (config.augmentation.flip > 0)
    wanted += ["evaluation.tta is true"] * config.evaluation.tta
    if wanted:
        raise ConfigError(
            f"{' and '.join(wanted)}, but it is not known which points change places in a mirror. Name them under "
            "pairs in landmarks.yaml in the dataset's folder ([] where none do), or set augmentation.flip=0 and "
            "evaluation.tta=false."
        )


@dataclass(frozen=True)
class _Fit:
    residual: float
    distances: np.ndarray  # [P, P]: of point i from the mirror image of point k


def check_pairs(landmark_set: LandmarkSet, points: np.ndarray) -> list[str]:
    """Holds the pairs against the labels ``points`` [n, P, 2] in pixels; returns lines for the user.

    Raises:
        BadDataError: the pairs are wrong; it names the worst.
    """
    if not landmark_set.mirrors or len(landmark_set) < 3:
        return []
    mean = procrustes_mean(points)
    if mean is None:
        return []
    order = np.array(landmark_set.mirrored_order())
    with_pairs = _fit(mean, order)
    if with_pairs.residual <= NEAR:
        _check_each(landmark_set, order, with_pairs)
        return [_confirmed(with_pairs.residual, _fit(mean, np.arange(len(mean))).residual)]
    best, pairing = _best_pairing(mean)
    if best.residual <= min(_GOOD, _FRACTION * with_pairs.residual):
        worst = int(np.argmax(best.distances[np.arange(len(mean)), order]))
        raise _wrong(landmark_set, order, worst, int(pairing[worst]))
    told = (
        "warning: mirror pairs: with them the shapes are not their own mirror image (off by "
        f"{with_pairs.residual:.0%} of their radius), so the labels cannot confirm them; look at some mirrored images, "
        "or set augmentation.flip=0 and evaluation.tta=false"
    )
    return [told]


def _confirmed(residual: float, without: float) -> str:
    return (
        f"mirror pairs: confirmed by the labels (the mean shape and its mirror image differ by {residual:.1%} of its "
        f"radius, without the pairs by {without:.1%})"
    )


def _check_each(landmark_set: LandmarkSet, order: np.ndarray, fit: _Fit) -> None:
    own = fit.distances[np.arange(len(order)), order]
    other = np.argmin(fit.distances, axis=1)
    misses = own * ((own > _FAR) & (fit.distances.min(axis=1) < _FRACTION * own))
    worst = int(np.argmax(misses))
    if misses[worst]:
        raise _wrong(landmark_set, order, worst, int(other[worst]))


def _wrong(landmark_set: LandmarkSet, order: np.ndarray, point: int, found: int) -> BadDataError:
    names = landmark_set.names
    has = f"is paired with {names[order[point]]}" if order[point] != point else "has no partner"
    where = f"on {names[found]}" if found != point else "on itself"
    return BadDataError(
        f"{landmark_set.origin}: pairs: {names[point]} {has}, but in the mirrored mean shape it falls {where}. Name in "
        "landmarks.yaml, under pairs, the two points each that a mirror exchanges; without the key pairs nothing is "
        "mirrored (augmentation.flip=0, evaluation.tta=false)."
    )


# --- shapes: points as complex numbers, x + iy ------------------------------------------------------------------------


def procrustes_mean(points: np.ndarray) -> np.ndarray | None:
    """complex [P]: the mean of ``points`` [n, P, 2], centred, with radius 1; None where no image has two places."""
    shapes = points[..., 0] + 1j * points[..., 1]
    shapes = shapes - shapes.mean(axis=1, keepdims=True)
    radii = np.sqrt((abs(shapes) ** 2).mean(axis=1, keepdims=True))
    shapes = shapes[radii[:, 0] > 0] / radii[radii[:, 0] > 0]
    if not len(shapes):
        return None
    mean = shapes[0]
    for _ in range(_ROUNDS):
        turns = shapes.conj() @ mean
        mean = (shapes * np.exp(1j * np.angle(turns))[:, None]).mean(axis=0)
        mean = mean / np.sqrt((abs(mean) ** 2).mean())
    return mean


def _fit(mean: np.ndarray, order: np.ndarray) -> _Fit:
    """The mirror image, renamed by ``order`` and turned to fit best."""
    turn = np.exp(1j * np.angle((mean * mean[order]).sum()))
    distances = abs(mean[:, None] - turn * mean.conj()[None])
    return _Fit(float(np.sqrt((distances[np.arange(len(mean)), order] ** 2).mean())), distances)


def _best_pairing(mean: np.ndarray) -> tuple[_Fit, np.ndarray]:
    """The fit with the pairing that is best of all, and that pairing: the axis is searched by nearest points."""
    from scipy.optimize import linear_sum_assignment

    turns = np.exp(2j * np.pi * np.arange(_AXES) / _AXES)
    nearest = [(abs(mean[:, None] - turn * mean.conj()[None]).min(axis=1) ** 2).mean() for turn in turns]
    distances = abs(mean[:, None] - turns[int(np.argmin(nearest))] * mean.conj()[None])
    _, pairing = linear_sum_assignment(distances**2)
    return _fit(mean, pairing), pairing
