"""What the engine promises for every task: micro-batches add up, counts are known beforehand, steps resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.runs import ALL_TASKS, SHORT, register_tiny, small_sample
from training.config import load_config
from training.config.keys import keys_of
from training.engine.loader import Loader
from training.engine.order import epoch_keys
from training.engine.step import combine, row_count, seed_step, split_rows
from training.tasks import config_class, task_class
from training.tasks.protocol import Batch, PrepareContext, Prepared, Task


def made(name: str, place: Path) -> tuple[Task, Prepared]:
    """The task with its short settings, without dropout, and its sample prepared."""
    has_dropout = "model.dropout" in keys_of(config_class(name)).leaves
    sets = [*SHORT[name], *(["model.dropout=0"] if has_dropout else [])]
    task = task_class(name)(load_config(name, sets=sets).config)
    context = PrepareContext(small_sample(name), place / "cache", 1, lambda line: None, lambda *_: None, lambda: None)
    return task, task.prepare(context)


def first_batch(task: Task, prepared: Prepared) -> Batch:
    items = prepared.splits["train"]
    keys = list(epoch_keys(42, 0, 0, len(items), 3))[:1]
    return next(Loader(task, items, 42, 0, torch.device("cpu")).batches(keys))


def gradients(task: Task, model: torch.nn.Module, batch: Batch, micro: int) -> dict[str, torch.Tensor]:
    model.zero_grad()
    counts = task.counts(batch)
    seed_step(1, 0)
    for part in split_rows(batch, row_count(batch), micro):
        combine(task.loss(model, part), counts).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


RECTIFIED = {"detection"}
"""Where a rectifier's input may be zero but for rounding, and open in one batch and shut in the other: a step in all
gradients below it. tests/losses/test_detection.py compares these in double precision, to 1e-7."""


def the_same(gradient: torch.Tensor, other: torch.Tensor) -> None:
    rounding = 1e-6 + 1e-5 * float(other.abs().max())
    torch.testing.assert_close(gradient, other, rtol=1e-4, atol=rounding)


def nearly_the_same(gradient: torch.Tensor, other: torch.Tensor) -> None:
    assert float((gradient - other).norm()) <= 1e-2 * float(other.norm()) + 1e-6


def freeze_batch_norms(model: torch.nn.Module) -> None:
    """They are the named exception: what they compute depends on who is in a micro-batch."""
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()


@pytest.mark.parametrize("name", ALL_TASKS)
def test_micro_batches_give_the_gradient_of_the_whole_batch(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_tiny(monkeypatch)
    task, prepared = made(name, tmp_path)
    batch = first_batch(task, prepared)
    torch.manual_seed(0)
    model = task.build_model(prepared.facts)
    model.train()
    task.enter_phase(model, task.phases()[-1])
    freeze_batch_norms(model)
    whole = gradients(task, model, batch, row_count(batch))
    assert whole
    for micro in (1, 2):
        parts = gradients(task, model, batch, micro)
        assert parts.keys() == whole.keys()
        for key, gradient in parts.items():
            check = nearly_the_same if name in RECTIFIED else the_same
            check(gradient, whole[key])


@pytest.mark.parametrize("name", ALL_TASKS)
def test_counts_of_the_parts_add_up_to_those_known_beforehand(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_tiny(monkeypatch)
    task, prepared = made(name, tmp_path)
    batch = first_batch(task, prepared)
    model = task.build_model(prepared.facts)
    known = {key: float(count) for key, count in task.counts(batch).items()}
    summed = dict.fromkeys(known, 0.0)
    for part in split_rows(batch, row_count(batch), 1):
        terms = task.loss(model, part)
        assert set(terms) == set(known)
        for key, term in terms.items():
            summed[key] += float(term.count)
            assert term.sum.dtype is torch.float32
    assert summed == pytest.approx(known)


@pytest.mark.parametrize("name", ALL_TASKS)
def test_every_row_of_a_batch_belongs_together(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_tiny(monkeypatch)
    task, prepared = made(name, tmp_path)
    batch = first_batch(task, prepared)
    assert len({len(value) for value in batch.values()}) == 1
    for split, items in prepared.splits.items():
        assert len(items) == len(prepared.members[split])
