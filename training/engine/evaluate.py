"""Scores a model on a split: loss terms and the task's scores, pooled over the whole split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pandas as pd
import torch
from torch import Tensor, nn

from training.engine.answers import Answers, ModelAnswers
from training.engine.device import Precision
from training.engine.loader import Loader
from training.engine.order import BatchKey, evaluation_keys
from training.engine.step import is_out_of_memory, out_of_memory, row_count, split_rows
from training.tasks.protocol import Scores, Task, Term


@dataclass(frozen=True)
class Evaluation:
    """What was found on a split: metrics without the split's prefix, what stands beside them, and how much was seen."""

    metrics: dict[str, float]
    record: dict[str, Any]
    table: str
    frame: pd.DataFrame
    n: int
    of: int


@contextmanager
def evaluation_mode(model: nn.Module | None) -> Iterator[None]:
    """Evaluation mode without gradients; every module's own mode is put back (a frozen trunk stays frozen)."""
    modules = [] if model is None else list(model.modules())
    modes = [(module, module.training) for module in modules]
    for module in modules[:1]:
        module.eval()
    try:
        # not inference_mode: what a model or loss caches here must still serve training
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def evaluate_split(
    task: Task,
    model: nn.Module | None,
    loader: Loader,
    length: int,
    *,
    facts: Mapping[str, Any],
    batch_size: int,
    precision: Precision,
    micro: int | None = None,
    max_items: int | None = None,
    check_stop: Callable[[], None] = lambda: None,
    tick: Callable[[int, int], None] = lambda done, total: None,
    answers: Answers | None = None,
) -> Evaluation:
    """Evaluate ``model`` on ``length`` items of ``loader``'s split, or on an evenly spaced subset.

    ``answers`` take the place of the model's own: kept ones (then without a model), or those that are being kept.

    Raises:
        InterruptedRunError: from ``check_stop``, between two micro-batches.
        ConfigError: a single row does not fit.
    """
    keys = list(evaluation_keys(length, batch_size, max_items))
    seen = sum(len(key.indices) for key in keys)
    largest = micro
    answers = answers or ModelAnswers(task, cast("nn.Module", model))
    while True:
        pools = _Pools(task.new_scores(facts))
        answers.begin()
        try:
            with evaluation_mode(model):
                _pool(task, answers, loader, keys, pools, precision, largest, check_stop, lambda done: tick(done, seen))
            break
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            rows = pools.rows_at_once
            if rows <= 1:  # none: the batch itself found no room
                raise out_of_memory() from error
        largest = -(-rows // 2)  # begun anew, so that nothing is counted twice
    check_stop()
    return Evaluation(pools.metrics(), pools.scores.record(), pools.scores.table(), pools.scores.frame(), seen, length)


@dataclass
class _Pools:
    """What is summed over a split: the task's scores, and each loss term's sum and count."""

    scores: Scores
    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, Tensor | float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    rows_at_once: int = 0

    def add(self, terms: dict[str, Term]) -> None:
        for name, term in terms.items():
            total = term.sum.double()
            self.sums[name] = self.sums[name] + total if name in self.sums else total
            self.counts[name] = self.counts.get(name, 0.0) + term.count
            self.weights[name] = term.weight

    def metrics(self) -> dict[str, float]:
        counts = {name: float(count) for name, count in self.counts.items()}
        means = {name: float(total) / counts[name] for name, total in self.sums.items() if counts[name] > 0}
        found = {f"loss_{name}": value for name, value in means.items()}
        if means and len(means) == len(self.sums):  # a loss without one of its terms would be another loss
            found["loss"] = sum(self.weights[name] * value for name, value in means.items())
        return {**found, **self.scores.compute()}


def _pool(
    task: Task,
    answers: Answers,
    loader: Loader,
    keys: list[BatchKey],
    pools: _Pools,
    precision: Precision,
    micro: int | None,
    check_stop: Callable[[], None],
    tick: Callable[[int], None],
) -> None:
    done = 0
    for key, batch in zip(keys, loader.batches(keys), strict=True):
        rows = row_count(batch)
        pools.rows_at_once = min(micro or rows, rows)
        for part in split_rows(batch, rows, pools.rows_at_once):
            check_stop()
            with precision.autocast():
                pools.add(task.score(answers.to(part, row_count(part)), part, pools.scores))
        done += len(key.indices)
        tick(done)
