"""A batch's lists of tensors as one tensor each, for their way from a loader process and onto the device.

Each tensor on that way is an open file in both processes and a copy of its own to a GPU: some hundred images with
lists of boxes would open more files than a process may (1024 is usual).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from training.tasks.protocol import Batch


class Ragged(NamedTuple):  # a tuple's parts are pinned by torch's loader
    """A list of tensors that differ in length alone."""

    rows: Tensor  # one after another
    lengths: list[int]


def packed(batch: Batch) -> Batch:
    """``batch`` with a `Ragged` for each list that can be one."""
    return {key: _packed(value) for key, value in batch.items()}


def unpacked(batch: Batch) -> Batch:
    """What `packed` was given; tensors of a list share their memory."""
    return {key: _unpacked(value) for key, value in batch.items()}


def _packed(value: Any) -> Any:
    if not isinstance(value, list) or not all(isinstance(part, Tensor) and part.ndim for part in value):
        return value
    if len({(part.dtype, part.shape[1:]) for part in value}) != 1:
        return value
    return Ragged(torch.cat(value), [len(part) for part in value])


def _unpacked(value: Any) -> Any:
    return list(value.rows.split(value.lengths)) if isinstance(value, Ragged) else value
