"""Evaluation: pooled over the split, whatever the micro-batch; modes and memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from backend.errors import ConfigError
from tests.tiny_task import TinyConfig, TinyItems, TinyTask
from training.engine.device import Precision
from training.engine.evaluate import evaluate_split
from training.engine.loader import Loader
from training.engine.step import is_out_of_memory
from training.tasks.protocol import Batch, Outputs, Term

CPU = torch.device("cpu")


def evaluate(task: TinyTask, model: nn.Module, **named: Any) -> dict[str, float]:
    table = np.random.default_rng(0).normal(size=(46, 6)).astype(np.float32)
    loader = Loader(task, TinyItems(table, 2), 1, 0, CPU)
    found = evaluate_split(task, model, loader, 23, facts={}, batch_size=4, precision=Precision("off", CPU), **named)
    return found.metrics


@pytest.fixture
def task() -> TinyTask:
    return TinyTask(TinyConfig())


@pytest.fixture
def model(task: TinyTask) -> nn.Module:
    torch.manual_seed(0)
    return task.build_model({})


@pytest.mark.parametrize("micro", [1, 3, 5, None])
def test_micro_batches_do_not_change_what_is_found(task: TinyTask, model: nn.Module, micro: int | None) -> None:
    assert evaluate(task, model, micro=micro) == pytest.approx(evaluate(task, model, micro=8), rel=1e-6)


def test_the_loss_is_the_weighted_sum_of_its_terms(task: TinyTask, model: nn.Module) -> None:
    found = evaluate(task, model)
    assert found["loss"] == pytest.approx(0.7 * found["loss_squared"] + 0.3 * found["loss_absolute"])
    assert found["mae"] == pytest.approx(found["loss_absolute"], rel=1e-5)


def test_each_module_gets_its_own_mode_back(task: TinyTask, model: nn.Module) -> None:
    model.train()
    model.trunk.eval()  # type: ignore[union-attr]
    evaluate(task, model)
    assert model.training
    assert not model.trunk.training  # type: ignore[union-attr]


class SmallMemory(TinyTask):
    """Runs out of memory above three rows, and says so after it has counted."""

    def score(self, outputs: Outputs, batch: Batch, scores: Any) -> dict[str, Term]:
        terms = super().score(outputs, batch, scores)
        if len(batch["y"]) > 3:
            raise torch.OutOfMemoryError("made up")
        return terms


def test_out_of_memory_begins_anew_with_smaller_micro_batches(model: nn.Module, task: TinyTask) -> None:
    small = SmallMemory(TinyConfig())
    assert evaluate(small, model) == pytest.approx(evaluate(task, model), rel=1e-6)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("made up"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
    ],
)
def test_memory_that_runs_out_is_known_by_its_many_names(error: RuntimeError) -> None:
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


class FullBeforeTheFirstRow(TinyTask):
    def outputs(self, model: nn.Module, batch: Batch) -> Outputs:
        raise torch.OutOfMemoryError("made up")


def test_a_batch_that_never_fits_ends_with_a_clear_error(model: nn.Module) -> None:
    with pytest.raises(ConfigError, match="memory"):
        evaluate(FullBeforeTheFirstRow(TinyConfig()), model)


class NothingCounts(TinyTask):
    """One of the two terms has no row that counts."""

    def score(self, outputs: Outputs, batch: Batch, scores: Any) -> dict[str, Term]:
        return super().score(outputs, {**batch, "counts": torch.zeros_like(batch["counts"])}, scores)


def test_a_loss_without_one_of_its_terms_is_absent(model: nn.Module) -> None:
    found = evaluate(NothingCounts(TinyConfig()), model)
    assert "loss" not in found
    assert "loss_squared" not in found
    assert found["loss_absolute"] > 0
