"""Order and augmentation as pure functions of (seed, phase, epoch, position).

Nothing here has state, so the number of loader processes, of GPUs, or the point where a run was resumed cannot
change which item a step sees or how it is augmented.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_ORDER, _AUGMENTATION, _STEP = 0, 1, 2  # separate streams of one seed


def _generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def permutation(seed: int, phase: int, epoch: int, length: int) -> np.ndarray:
    """The order of an epoch: item indices, int64 [length]."""
    return _generator(seed, _ORDER, phase, epoch).permutation(length)


def item_rng(seed: int, phase: int, epoch: int, position: int) -> np.random.Generator:
    """The generator for augmenting the item at ``position`` of an epoch's order."""
    return _generator(seed, _AUGMENTATION, phase, epoch, position)


def step_seed(seed: int, step: int) -> int:
    """The seed of torch's generators for one optimizer step (dropout and the like); 63 bits."""
    mixed = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + _STEP) & (2**64 - 1)
    return (mixed ^ (mixed >> 31)) >> 1


@dataclass(frozen=True, slots=True)
class BatchKey:
    """What a loader process needs to build one batch. ``start`` is the position of the batch's first item."""

    phase: int
    epoch: int
    start: int
    indices: tuple[int, ...]


def batches_in_epoch(length: int, batch_size: int) -> int:
    """How many batches an epoch has, the last one perhaps smaller."""
    return -(-length // batch_size)


def epoch_keys(
    seed: int, phase: int, epoch: int, length: int, batch_size: int, first_batch: int = 0, rank: int = 0, world: int = 1
) -> Iterator[BatchKey]:
    """The batches of an epoch from ``first_batch`` on; each of ``world`` processes takes its slice of every batch."""
    order = permutation(seed, phase, epoch, length)
    for batch in range(first_batch, batches_in_epoch(length, batch_size)):
        start, stop = batch * batch_size, min((batch + 1) * batch_size, length)
        share = -(-(stop - start) // world)
        low, high = min(start + rank * share, stop), min(start + (rank + 1) * share, stop)
        yield BatchKey(phase, epoch, low, tuple(order[low:high].tolist()))


def evaluation_keys(length: int, batch_size: int, max_items: int | None = None) -> Iterator[BatchKey]:
    """Batches of a split in its own order; with ``max_items``, an evenly spaced subset that is always the same."""
    indices = np.arange(length)
    if max_items is not None and max_items < length:
        indices = (np.arange(max_items) * length) // max_items
    for start in range(0, len(indices), batch_size):
        yield BatchKey(-1, -1, start, tuple(indices[start : start + batch_size].tolist()))
