"""One real step of the configured model and one checkpoint written and read, both timed, on random data.

A GPU does the real thing, as many rows at once as its memory seems to hold. A CPU gets as much of the work as takes a
few seconds, down to a part of one row; the pace is then scaled by the arithmetic of the convolutions and said to be.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from backend.artifact import FORMAT
from backend.errors import DiskError
from training.doctor.job import Job, shapes_of
from training.engine.checkpoint import CheckpointStore, read_tensors
from training.engine.device import Precision
from training.engine.ema import Ema
from training.engine.loader import to_device
from training.engine.state import model_tensors
from training.engine.step import Stepper, row_count
from training.machine import available_memory
from training.runs.provenance import determinism
from training.tasks.protocol import Batch, Task

PLACE = ".doctor-"  # + something random: the folder of the trial's checkpoint, in the output folder
_STEP_SECONDS = 8.0  # what the timed steps may take on a CPU, each
_CALIBRATION_FLOPS, _CALIBRATION_SECONDS = 3e10, 1.0
_REPEATS, _REPEAT_SECONDS = 5, 10.0
_LONG_SECONDS = {"cpu": 5.0, "cuda": 20.0}  # a step beside which warming up is nothing
_GPU_SHARE, _CPU_SHARE = 0.9, 0.5  # of the free memory, for activations
_BACKWARD = 3.0  # a training step's arithmetic beside the forward pass's


@dataclass(frozen=True)
class Pace:
    """How fast training steps are."""

    rows: int  # in the micro-batch that was timed
    batch_rows: int  # in a whole batch
    row_seconds: float  # for a full row
    share: float  # of a full row's arithmetic that each row of the trial had; 1 is the real thing
    finite: bool  # whether loss and gradient were

    @property
    def step_seconds(self) -> float:
        """For a whole batch."""
        return self.row_seconds * self.batch_rows


@dataclass(frozen=True)
class Saving:
    """How long a checkpoint takes."""

    size: int
    save_seconds: float
    load_seconds: float


class Bench:
    """A model with its optimizer on the device, and one batch of ``rows`` random rows to step on."""

    def __init__(self, task: Task, facts: Mapping[str, Any], device: torch.device, rows: int) -> None:
        training = task.config.training
        torch.manual_seed(training.seed)
        self.device, self.rows = device, rows
        self.model = task.build_model(facts).to(device)
        self.model.train()
        phase = task.phases()[-1]
        self.optimizer = torch.optim.AdamW(
            task.enter_phase(self.model, phase),
            lr=phase.learning_rate,
            weight_decay=training.weight_decay,
            fused=device.type == "cuda" or None,
        )
        self.ema = Ema(self.model, training.ema_decay) if training.ema_decay is not None else None
        self.batch = to_device(_rows_of(task, facts, rows), device)
        self.stepper = Stepper(
            task,
            self.model,
            self.optimizer,
            Precision(training.amp, device),
            seed=training.seed,
            clip=training.clip_grad_norm,
            ema=self.ema,
            micro=None,
            should_stop=lambda: False,
            on_micro=lambda old, new: None,
        )
        self.finite = True

    def step(self) -> float:
        """One step; its seconds."""
        started = time.perf_counter()
        rates = [self.optimizer.defaults["lr"] * scale for scale in self.stepper.scales]
        result = self.stepper.take(self.batch, 0, rates)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.finite = result.taken or result.overflow
        return time.perf_counter() - started

    def pace(self, repeats: int) -> float:
        """The median of up to ``repeats`` steps in a bounded time; a first one that is short only warms up."""
        first = self.step()
        times = [first] if first > _LONG_SECONDS[self.device.type] else []
        while len(times) < repeats and sum(times) < _REPEAT_SECONDS:
            times.append(self.step())
        return statistics.median(times)


def try_steps(job: Job, check_stop: Callable[[], None]) -> tuple[Pace, Bench | None]:
    """The pace of training, and the bench of it where that holds the model in full.

    Raises:
        ConfigError: not even one row fits into the GPU's memory.
        RuntimeError: an operation of the model does not work on this device.
    """
    task, facts = job.task, job.glance.facts
    batch_rows = rows_per_item(task, facts) * job.config.training.batch_size
    with determinism(job.config.training.deterministic, job.device):
        rows, share = min(batch_rows, _rows_that_fit(job)), 1.0
        if job.device.type == "cpu":
            rows, share = _affordable(job, rows)
            check_stop()
        small, small_facts = task.smaller(facts, share) if share < 1 else (task, facts)
        share = _flops(small, small_facts) / _flops(task, facts) if share < 1 else 1.0
        bench = Bench(small, small_facts, job.device, rows)
        seconds = bench.pace(_REPEATS if job.device.type == "cuda" else 2)
    done = min(bench.stepper.micro or rows, rows)
    return Pace(done, batch_rows, seconds / rows / share, share, bench.finite), bench if share == 1 else None


def rows_per_item(task: Task, facts: Mapping[str, Any]) -> int:
    """Rows that one item has."""
    return row_count(task.collate([task.trial_item(facts, np.random.default_rng(0))]))


def _affordable(job: Job, most: int) -> tuple[int, float]:
    """Rows, at most ``most``, and the share of each, that a CPU does in a few seconds.

    Told by the pace of a small piece, and again of a larger one, because small ones are slower by their overhead.
    """
    task, facts = job.task, job.glance.facts
    full = _flops(task, facts)
    if full == 0:
        return most, 1.0
    rate = _rate(job, min(1.0, _CALIBRATION_FLOPS / full))
    rate = _rate(job, min(1.0, _CALIBRATION_SECONDS * rate / full))
    rows = _STEP_SECONDS * rate / full
    return (min(most, int(rows)), 1.0) if rows >= 1 else (1, rows)


def _rate(job: Job, share: float) -> float:
    """Arithmetic per second on ``share`` of a row."""
    piece, facts = job.task.smaller(job.glance.facts, share)
    bench = Bench(piece, facts, job.device, 1)
    bench.step()  # warms up
    return _flops(piece, facts) / bench.step()


def _flops(task: Task, facts: Mapping[str, Any]) -> float:
    """Arithmetic of one row in a training step; 0 where the task does not say."""
    return _BACKWARD * (task.row_flops(shapes_of(task, facts)) or 0.0)


def _rows_that_fit(job: Job) -> int:
    row = job.sizes.row
    if not row:
        return 1 << 30
    if job.device.type == "cpu":
        return max(1, int(_CPU_SHARE * available_memory() // row))
    return max(1, int((_GPU_SHARE * job.gpu.free - job.sizes.state) // row))


def _rows_of(task: Task, facts: Mapping[str, Any], rows: int) -> Batch:
    """Random items, cut to ``rows`` rows."""
    rng = np.random.default_rng(task.config.training.seed)
    items = [task.trial_item(facts, rng)]
    while row_count(batch := task.collate(items)) < rows:
        items.append(items[0])
    return {key: value[:rows] for key, value in batch.items()}


def try_saving(job: Job, bench: Bench | None) -> Saving:
    """Write the configured model's checkpoint into the output folder, read it back, compare, delete it.

    Raises:
        DiskError: it cannot be written, or is not what was written.
    """
    tensors = _tensors(job, bench)
    job.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=PLACE, dir=job.output, ignore_cleanup_errors=True) as place:
        store = CheckpointStore(Path(place), 1, lambda line: None)
        started = time.perf_counter()
        folder = store.save(1, tensors, {"format": FORMAT, "trial": True})
        saved = time.perf_counter()
        if store.newest() is None:
            raise DiskError(f"{job.output}: a checkpoint does not read back as it was written; the disk is failing")
        read = {stem: read_tensors(folder, stem) for stem in tensors}
        loaded = time.perf_counter()
        _compare(tensors, read, job.output)
        size = sum(path.stat().st_size for path in folder.iterdir())
    return Saving(size, saved - started, loaded - saved)


def _tensors(job: Job, bench: Bench | None) -> dict[str, dict[str, Tensor]]:
    """What a checkpoint of the full model holds; zeros stand for what a smaller trial has not made."""
    if bench is not None:
        return model_tensors(bench.model, bench.ema, bench.optimizer)
    model: nn.Module = job.task.build_model(job.glance.facts)
    moments = ("exp_avg", "exp_avg_sq")
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    tensors = {
        "model": dict(model.state_dict()),
        "optimizer": {f"{name}/{moment}": torch.zeros_like(p) for name, p in trained for moment in moments},
    }
    if job.config.training.ema_decay is not None:
        tensors["ema"] = dict(model.state_dict())
    return tensors


def _compare(
    written: Mapping[str, Mapping[str, Tensor]], read: Mapping[str, Mapping[str, Tensor]], place: Path
) -> None:
    for stem, named in written.items():
        for name, tensor in named.items():
            if not torch.equal(read[stem][name], tensor.cpu()):
                raise DiskError(f"{place}: {name} of a checkpoint is not what was written; the disk is failing")
