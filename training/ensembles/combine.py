"""Combinations of models from their kept predictions: arrays in, errors out; thousands of combinations in seconds.

Arrays: predictions [M, N, P, 2] of M models for N images with P points, and the truth [N, P, 2], in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
_CHUNK_BYTES = 1 << 25  # of means at once: larger ones leave the processor's caches, and are slower


def mean_prediction(predictions: Floats, weights: Sequence[float] | NDArray[np.floating] | None = None) -> Floats:
    """The members' (weighted) mean [N, P, 2]."""
    mean: Floats = np.average(predictions, axis=0, weights=weights)
    return mean


def mean_errors(predictions: Floats, truth: Floats) -> Floats:
    """Mean Euclidean distance over images and points of each of the predictions [C, N, P, 2]; [C]."""
    offset = predictions - truth
    errors: Floats = np.sqrt(np.einsum("cnpd,cnpd->cnp", offset, offset)).mean(axis=(1, 2), dtype=np.float64)
    return errors


def all_combinations(models: int, sizes: Sequence[int]) -> list[tuple[int, ...]]:
    """Every choice of ``sizes`` out of ``models``, by size and then in order."""
    return [chosen for size in sizes for chosen in combinations(range(models), size)]


def count_combinations(models: int, sizes: Sequence[int]) -> int:
    """How many `all_combinations` gives."""
    return sum(comb(models, size) for size in sizes)


def combination_errors(
    predictions: Floats,
    truth: Floats,
    chosen: Sequence[tuple[int, ...]],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Floats:
    """The mean error of each combination's mean prediction [C]; ``progress`` is told (done, of) between chunks.

    A combination is a row of a matrix that holds 1/size for its members, so that all means of a chunk are one product.
    """
    models = len(predictions)
    flat = predictions.reshape(models, -1).astype(np.float32)
    target = truth.astype(np.float32)
    chunk = max(1, _CHUNK_BYTES // max(flat[0].nbytes, 1))
    errors = np.empty(len(chosen))
    for first in range(0, len(chosen), chunk):
        part = chosen[first : first + chunk]
        means = (_membership(part, models) @ flat).reshape(len(part), *truth.shape)
        errors[first : first + len(part)] = mean_errors(means, target)
        progress(first + len(part), len(chosen))
    return errors


def _membership(chosen: Sequence[tuple[int, ...]], models: int) -> NDArray[np.float32]:
    rows = np.zeros((len(chosen), models), np.float32)
    for row, members in zip(rows, chosen, strict=True):
        row[list(members)] = 1 / len(members)
    return rows


def worth(predictions: Floats, truth: Floats, weights: Sequence[float] | None = None) -> Floats:
    """What each member is worth [M]: how much larger the error is without it. Below 0, the rest is better alone.

    NaN where the rest weighs nothing.
    """
    own = np.ones(len(predictions)) if weights is None else np.asarray(weights, dtype=np.float64)
    without = [np.where(np.arange(len(own)) == left_out, 0, own) for left_out in range(len(own))]
    together = _error_of(predictions, truth, own)
    return np.array([_error_of(predictions, truth, rest) - together for rest in without])


def _error_of(predictions: Floats, truth: Floats, weights: NDArray[np.floating]) -> float:
    if not weights.sum() > 0:
        return float("nan")
    return float(mean_errors(mean_prediction(predictions, weights)[None], truth)[0])
