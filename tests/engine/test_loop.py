"""The loop: exact resume, micro-batches, out-of-memory, refused steps, early stopping, phases."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.artifact import checkpoints, open_checkpoint, step_of
from backend.errors import ConfigError, DivergedError, InterruptedRunError
from tests.engine.assembly import make_engine
from tests.tiny_task import TinyConfig, TinyTask
from training.engine import loop
from training.engine.loop import Engine, fit
from training.files import read_json_lines
from training.tasks.protocol import Batch, Phase, Term

TIMES = ("time", "seconds", "items_per_second", "data_wait")


def tiny(**changes: Any) -> TinyTask:
    training = {
        "epochs": 6,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "log_every_steps": 2,
        "schedule": "cosine",
        "amp": "off",
        **changes.pop("training", {}),
    }
    return TinyTask(TinyConfig.model_validate({"training": training, **changes}))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    TinyTask.make_sample(folder)
    return folder


def weights(engine: Engine) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in engine.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def log_of(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if k not in TIMES} for r in read_json_lines(run / "metrics.jsonl")]


class StopAfter(TinyTask):
    """Asks for a stop once ``calls`` forward passes were made."""

    calls = 10**9
    engine: Engine

    def loss(self, model: torch.nn.Module, batch: Batch) -> dict[str, Term]:
        self.calls -= 1
        if self.calls == 0:
            self.engine.stop.signal_name = "SIGTERM"
        return super().loss(model, batch)


@pytest.mark.parametrize("calls", [1, 3, 5, 6, 13, 14, 29, 40, 53])
@pytest.mark.parametrize("settings", [{}, {"training": {"ema_decay": 0.9}}, {"model": {"batch_norm": True}}])
def test_a_stopped_run_continues_to_the_same_weights_and_log(
    data: Path, tmp_path: Path, calls: int, settings: dict[str, Any]
) -> None:
    whole = make_engine(tiny(**settings), data, tmp_path / "whole", micro=6)
    fit(whole)

    task = StopAfter(tiny(**settings).config)
    task.calls = calls
    first = make_engine(task, data, tmp_path / "cut", micro=6)
    task.engine = first
    with pytest.raises(InterruptedRunError, match="SIGTERM"):
        fit(first)
    second = make_engine(tiny(**settings), data, tmp_path / "cut", micro=6)
    assert second.progress.step == first.progress.step
    fit(second)

    assert same(weights(second), weights(whole))
    assert log_of(tmp_path / "cut") == log_of(tmp_path / "whole")
    assert second.progress == whole.progress


def test_loader_processes_change_nothing(data: Path, tmp_path: Path) -> None:
    alone = make_engine(tiny(), data, tmp_path / "alone")
    fit(alone)
    helped = make_engine(tiny(), data, tmp_path / "helped", workers=2)
    fit(helped)
    assert same(weights(alone), weights(helped))


@pytest.mark.parametrize("micro", [1, 3, 5, 16])
def test_micro_batches_give_the_step_of_the_whole_batch(data: Path, tmp_path: Path, micro: int) -> None:
    settings = {"model": {"dropout": 0.0}, "training": {"max_steps": 3}}
    whole = make_engine(tiny(**settings), data, tmp_path / "whole")
    fit(whole)
    parts = make_engine(tiny(**settings), data, tmp_path / "parts", micro=micro)
    fit(parts)
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], value, rtol=0, atol=2e-6)


class SmallMemory(TinyTask):
    """Runs out of memory above ``limit`` rows."""

    limit = 3

    def loss(self, model: torch.nn.Module, batch: Batch) -> dict[str, Term]:
        if len(batch["y"]) > self.limit:
            raise torch.OutOfMemoryError("made up")
        return super().loss(model, batch)


def test_out_of_memory_halves_the_micro_batch_and_redoes_the_same_step(data: Path, tmp_path: Path) -> None:
    settings = {"model": {"dropout": 0.0}}
    small = make_engine(SmallMemory(tiny(**settings).config), data, tmp_path / "small")
    fit(small)
    fitting = make_engine(tiny(**settings), data, tmp_path / "fitting", micro=2)
    fit(fitting)
    assert small.micro == 2
    assert [facts["to"] for name, facts in small.observer.events if name == "micro-batch"] == [8, 4, 2]  # type: ignore[attr-defined]
    assert same(weights(small), weights(fitting))


def test_one_row_that_does_not_fit_is_told(data: Path, tmp_path: Path) -> None:
    task = SmallMemory(tiny().config)
    task.limit = 0
    with pytest.raises(ConfigError, match="does not hold a single row"):
        fit(make_engine(task, data, tmp_path / "run"))


class Poisoned(TinyTask):
    """Gives a non-finite loss at chosen calls."""

    bad: frozenset[int] = frozenset()
    call = 0

    def loss(self, model: torch.nn.Module, batch: Batch) -> dict[str, Term]:
        terms = super().loss(model, batch)
        self.call += 1
        if self.call in self.bad:
            terms["squared"] = Term(terms["squared"].sum * math.nan, terms["squared"].count, 0.7)
        return terms


def test_a_step_that_is_not_finite_is_not_taken(data: Path, tmp_path: Path) -> None:
    task = Poisoned(tiny(model={"batch_norm": True}).config)
    task.bad = frozenset({2, 7})
    engine = make_engine(task, data, tmp_path / "run")
    fit(engine)
    refused = [facts["step"] for name, facts in engine.observer.events if name == "refused step"]  # type: ignore[attr-defined]
    assert refused == [2, 7]
    assert all(torch.isfinite(value).all() for value in weights(engine).values())


def test_many_refused_steps_in_a_row_end_the_run(data: Path, tmp_path: Path) -> None:
    task = Poisoned(tiny(training={"max_skipped_steps": 3}).config)
    task.bad = frozenset(range(8, 100))
    engine = make_engine(task, data, tmp_path / "run")
    with pytest.raises(DivergedError, match="learning_rate"):
        fit(engine)
    newest = checkpoints(tmp_path / "run" / "checkpoints")[-1]
    assert all(torch.isfinite(value).all() for value in open_checkpoint(newest).weights.values())


def test_best_is_the_lowest_validation_loss_and_its_checkpoint_is_kept(data: Path, tmp_path: Path) -> None:
    engine = make_engine(tiny(training={"epochs": 9, "learning_rate": 0.05}), data, tmp_path / "run")
    fit(engine)
    losses = {r["step"]: r["metrics"]["val/loss"] for r in engine.history}
    assert engine.progress.best is not None
    assert engine.progress.best.step == min(losses, key=losses.__getitem__)
    kept = [step_of(folder) for folder in checkpoints(tmp_path / "run" / "checkpoints")]
    assert engine.progress.best.step in kept
    assert kept[-2:] == sorted(losses)[-2:]
    assert len(kept) <= 3


class Begun(TinyTask):
    """Notes what the second phase begins with."""

    def enter_phase(self, model: torch.nn.Module, phase: Phase) -> list[dict[str, Any]]:
        self.begun = {name: value.clone() for name, value in model.state_dict().items()}
        return super().enter_phase(model, phase)


def test_the_second_phase_begins_with_the_best_of_the_first(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_selected", lambda engine, record: float(record["step"]))  # the first one is the best
    task = Begun(tiny(training={"epochs": 9, "keep_checkpoints": 9}).config)
    fit(make_engine(task, data, tmp_path / "run"))
    first, *_, last = [
        open_checkpoint(tmp_path / "run" / "checkpoints" / f"step-{record['step']:08d}").weights
        for record in log_of(tmp_path / "run")
        if record["kind"] == "validation" and record["phase"] == "head"
    ]
    assert same(task.begun, first)
    assert not same(task.begun, last)


def test_early_stopping_ends_the_phase(data: Path, tmp_path: Path) -> None:
    engine = make_engine(
        tiny(training={"epochs": 60, "patience": 2, "learning_rate": 0.3, "schedule": "constant"}),
        data,
        tmp_path / "run",
    )
    fit(engine)
    assert engine.progress.step < 60 * 5
    assert engine.progress.best is not None
    tail = [r for r in engine.history if r["step"] > engine.progress.best.step and r["phase"] == "all"]
    assert len(tail) >= 2


def test_periodic_checkpoints_stay(data: Path, tmp_path: Path) -> None:
    engine = make_engine(
        tiny(training={"epochs": 6, "keep_every_epochs": 2, "keep_checkpoints": 1}), data, tmp_path / "run"
    )
    published: list[int] = []
    engine.publish = lambda folder, name: published.append(step_of(folder)) if "epoch" in name else None
    fit(engine)
    kept = {step_of(folder) for folder in checkpoints(tmp_path / "run" / "checkpoints")}
    assert set(published) <= kept
    assert published


def test_validation_on_record_is_not_made_again(data: Path, tmp_path: Path) -> None:
    engine = make_engine(tiny(), data, tmp_path / "run")
    fit(engine)
    again = make_engine(tiny(), data, tmp_path / "run")
    fit(again)
    assert [name for name, _ in again.observer.events] == []  # type: ignore[attr-defined]
    assert again.progress.best == engine.progress.best


@pytest.mark.parametrize("schedule", ["constant", "plateau", "cosine", "linear", "step"])
def test_every_schedule_resumes_exactly(data: Path, tmp_path: Path, schedule: str) -> None:
    settings = {"training": {"schedule": schedule, "warmup_steps": 4, "epochs": 9}}
    whole = make_engine(tiny(**settings), data, tmp_path / "whole")
    fit(whole)
    task = StopAfter(tiny(**settings).config)
    task.calls = 31
    first = make_engine(task, data, tmp_path / "cut")
    task.engine = first
    with pytest.raises(InterruptedRunError):
        fit(first)
    second = make_engine(tiny(**settings), data, tmp_path / "cut")
    fit(second)
    assert same(weights(second), weights(whole))
    assert log_of(tmp_path / "cut") == log_of(tmp_path / "whole")
