"""Errors of landmarks as plain arrays: distances, what is told of them, intervals. In numpy, fast enough for searches.

N images, P points. Coordinates are (x, y) from 0 to 1, sizes (width, height) in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backend.preprocessing.landmark_set import Span

Floats = NDArray[np.floating[Any]]

PIXELS = 224  # both axes of the field's scale, whatever the images' size and the model's
PERCENTILES = (75, 90, 95)
_AT_ONCE = 1 << 21  # drawn images


def point_errors(prediction: ArrayLike, target: ArrayLike, size: ArrayLike = PIXELS) -> Floats:
    """Euclidean distance of each point, ``[N, P]``, in pixels of images of ``size`` (one number, or ``[N, 2]``).

    ``prediction`` is ``[N, P, 2]``, or ``[P, 2]`` for all images alike.
    """
    scale = np.asarray(size, dtype=np.float64)
    offset = np.asarray(prediction, dtype=np.float64) - np.asarray(target, dtype=np.float64)
    offset *= scale[:, None, :] if scale.ndim == 2 else scale
    return np.sqrt(np.einsum("npc,npc->np", offset, offset))


def summarise(errors: Floats, thresholds: Sequence[float] = ()) -> dict[str, float]:
    """What is told of finite ``errors`` ``[N, P]``, by the keys of `SUMMARY` and ``found_<t>`` (`success_rates`).

    Standard deviations are those of the images at hand (divided by N). Nothing is told of no images.
    """
    if not errors.size:
        return {}
    ordered, images = np.sort(errors, axis=None), errors.mean(1)
    median, *tails = _quantiles(ordered, (50, *PERCENTILES))
    found = {"error": images.mean(), "median": median, "std": errors.std()}
    found |= {f"p{percent}": tail for percent, tail in zip(PERCENTILES, tails, strict=True)}
    found |= {"image_median": _quantiles(np.sort(images), (50,))[0], "image_std": images.std()}
    return {name: float(value) for name, value in found.items()} | success_rates(ordered, thresholds)


def _quantiles(ordered: Floats, percents: Sequence[float]) -> Floats:
    """As numpy's percentiles, of what is in order already: ten times as fast for a hundred images."""
    places = np.asarray(percents) / 100 * (len(ordered) - 1)
    return np.interp(places, np.arange(len(ordered)), ordered)


SUMMARY: Mapping[str, str] = {
    "error": "mean over all points of all images",
    "median": "median over all points of all images",
    "std": "standard deviation over all points of all images",
    **{f"p{percent}": f"{percent}th percentile over all points of all images" for percent in PERCENTILES},
    "image_median": "median over images of each image's mean",
    "image_std": "standard deviation over images of each image's mean",
}
"""What `summarise` tells, each in words."""


def success_rates(ordered: Floats, thresholds: Sequence[float]) -> dict[str, float]:
    """``found_<t>``: the share of points whose error is at most ``t``; ``ordered`` errors go upwards."""
    within = np.searchsorted(ordered, thresholds, side="right")
    return {f"found_{t:g}": float(count) / len(ordered) for t, count in zip(thresholds, within, strict=True)}


def intervals(values: Floats, resamplings: int, seed: int = 0, level: float = 0.95) -> Floats:
    """Intervals of means over images, by percentile bootstrap (Efron and Tibshirani 1993).

    Args:
        values: ``[N, K]``, K numbers of each image; all columns are drawn together.
        resamplings: how often N images are drawn from the N, with replacement.
        seed: of the draws.
        level: how much of the resampled means lies inside.

    Returns:
        ``[2, K]``, lower and upper ends.
    """
    generator = np.random.default_rng(seed)
    count = len(values)
    block = max(1, _AT_ONCE // count)
    means = np.concatenate(
        [
            _times_drawn(generator, min(block, resamplings - begun), count) @ values / count
            for begun in range(0, resamplings, block)
        ]
    )
    outside = 50 * (1 - level)
    return np.asarray(np.percentile(means, (outside, 100 - outside), axis=0))


def _times_drawn(generator: np.random.Generator, resamplings: int, count: int) -> Floats:
    """How often each of ``count`` images was drawn in each resampling, ``[resamplings, count]``."""
    drawn = generator.integers(0, count, (resamplings, count), dtype=np.int32)
    drawn += np.arange(resamplings, dtype=np.int32)[:, None] * np.int32(count)
    times = np.bincount(drawn.ravel(), minlength=resamplings * count)
    return times.reshape(resamplings, count).astype(np.float64)


def span_lengths(target: ArrayLike, size: ArrayLike, span: Span) -> Floats:
    """Length of ``span`` in each image, ``[N]``, between the true points ``[N, P, 2]``, in pixels of ``size``."""
    points = _in_pixels(target, size)
    ends = points[:, list(span.end)].mean(1) - points[:, list(span.start)].mean(1)
    return np.asarray(np.linalg.norm(ends, axis=1))


def box_lengths(target: ArrayLike, size: ArrayLike) -> Floats:
    """``sqrt(width * height)`` of the box around each image's true points ``[N, P, 2]``, in pixels: ``[N]``."""
    points = _in_pixels(target, size)
    return np.asarray(np.sqrt((points.max(1) - points.min(1)).prod(1)))


def nme(errors: Floats, lengths: Floats) -> float | None:
    """Normalised mean error in percent: the mean over images of mean error / length.

    None without an image whose length is more than nothing; others do not count.
    """
    usable = lengths > 0
    return float(100 * (errors[usable].mean(1) / lengths[usable]).mean()) if usable.any() else None


def _in_pixels(points: ArrayLike, size: ArrayLike) -> Floats:
    return np.asarray(points, dtype=np.float64) * np.asarray(size, dtype=np.float64)[:, None, :]
