"""Combinations of models from their kept predictions: arrays in, errors out; thousands of combinations in seconds.

Arrays: predictions [M, N, P, 2] of M models for N images with P points, and the truth [N, P, 2], in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, islice
from math import comb

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
_CHUNK_BYTES = 1 << 27


def mean_prediction(predictions: Floats, weights: Sequence[float] | None = None) -> Floats:
    """The members' (weighted) mean [N, P, 2]."""
    return np.average(predictions, axis=0, weights=weights)


def mean_errors(predictions: Floats, truth: Floats) -> Floats:
    """Mean Euclidean distance over images and points of each of the predictions [C, N, P, 2]; [C]."""
    return np.linalg.norm(predictions - truth, axis=-1).mean(axis=(1, 2))


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
    """The mean error of each combination's mean prediction [C].

    A combination is a row of a matrix that holds 1/size for its members, so that all means of a chunk are one product.
    """
    models = len(predictions)
    flat = predictions.reshape(models, -1).astype(np.float32)
    chunk = max(1, _CHUNK_BYTES // max(flat[0].nbytes, 1))
    errors = np.empty(len(chosen))
    for first in range(0, len(chosen), chunk):
        part = list(islice(chosen, first, first + chunk))
        means = (_membership(part, models) @ flat).reshape(len(part), *truth.shape)
        errors[first : first + len(part)] = mean_errors(means, truth.astype(np.float32))
        progress(first + len(part), len(chosen))
    return errors


def _membership(chosen: Sequence[tuple[int, ...]], models: int) -> NDArray[np.float32]:
    rows = np.zeros((len(chosen), models), np.float32)
    for row, members in zip(rows, chosen, strict=True):
        row[list(members)] = 1 / len(members)
    return rows


def worth(predictions: Floats, truth: Floats, weights: Sequence[float] | None = None) -> Floats:
    """What each member is worth [M]: how much larger the error is without it. Below 0, the rest is better alone."""
    together = mean_errors(mean_prediction(predictions, weights)[None], truth)[0]
    found = []
    for left_out in range(len(predictions)):
        rest = [index for index in range(len(predictions)) if index != left_out]
        kept = None if weights is None else [weights[index] for index in rest]
        if kept is not None and not sum(kept) > 0:
            found.append(float("nan"))
            continue
        found.append(float(mean_errors(mean_prediction(predictions[rest], kept)[None], truth)[0] - together))
    return np.array(found)
