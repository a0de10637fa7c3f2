"""The training loop: phases, epochs, optimizer steps, validation, checkpoints. It knows no task.

Read `fit` from top to bottom; everything else here is one step of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol

import torch
from torch import nn

from backend.artifact import FORMAT, read_state
from backend.errors import DivergedError
from training.clock import now_utc
from training.engine.checkpoint import CheckpointStore, read_tensors
from training.engine.device import Precision
from training.engine.ema import Ema
from training.engine.evaluate import Evaluation, evaluate_split
from training.engine.interruption import StopRequest
from training.engine.loader import Loader
from training.engine.order import batches_in_epoch, epoch_keys
from training.engine.schedule import Schedule
from training.engine.state import Best, Progress, is_better, load_optimizer, model_tensors, scaler_state
from training.engine.step import PartialStepDropped, Stepper, StepResult
from training.files import JsonLines
from training.schemas.shared import RunConfig
from training.tasks.protocol import Batch, ItemSource, Phase, Task

_TICK_SECONDS = 0.25


class Observer(Protocol):
    """Who watches a training: the terminal, the log, TensorBoard. Called seldom, and must never raise."""

    def say(self, line: str) -> None: ...

    def tick(self, facts: dict[str, Any]) -> None: ...

    def trained(self, record: dict[str, Any]) -> None: ...

    def validated(self, record: dict[str, Any]) -> None: ...

    def event(self, name: str, facts: dict[str, Any]) -> None: ...


@dataclass
class Engine:
    """Everything a training works with. ``identity`` goes into every checkpoint as it is."""

    task: Task
    config: RunConfig
    model: nn.Module
    splits: Mapping[str, ItemSource]
    precision: Precision
    device: torch.device
    store: CheckpointStore
    metrics: JsonLines
    history: list[dict[str, Any]]  # validation records already in metrics.jsonl
    observer: Observer
    stop: StopRequest
    identity: Mapping[str, Any]
    facts: Mapping[str, Any]  # of the prepared dataset
    workers: int = 0
    micro: int | None = None
    remember_micro: Callable[[int], None] = lambda micro: None
    publish: Callable[[Path, str], None] = lambda folder, name: None  # derived copies: best, epoch_N
    progress: Progress = field(default_factory=Progress)
    ema: Ema | None = None
    restored: Path | None = None  # checkpoint whose optimizer, schedule and scaler the first phase takes over
    saved_step: int = -1
    saved_best: int | None = None
    saved_at: float = field(default_factory=time.monotonic)
    loaders: dict[str, Loader] = field(default_factory=dict)

    def loader(self, split: str) -> Loader:
        if split not in self.loaders:
            seed = self.config.training.seed
            self.loaders[split] = Loader(self.task, self.splits[split], seed, self.workers, self.device)
        return self.loaders[split]

    def remember(self, record: dict[str, Any]) -> None:
        """Add a validation. Only the newest keeps all its metrics: a long run has thousands, with hundreds each."""
        if self.history:
            metric, before = self.config.selection.metric, self.history[-1]
            kept = {name: value for name, value in before["metrics"].items() if name == metric}
            self.history[-1] = {**before, "metrics": kept}
        self.history.append(record)

    def close(self) -> None:
        """Let go of what outlives an error: the loaders' processes and the open metrics file."""
        for loader in self.loaders.values():
            loader.close()
        self.metrics.close()


@dataclass
class Session:
    """What one phase trains with."""

    phase: Phase
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    stepper: Stepper
    batches: int  # per epoch


def fit(engine: Engine) -> None:
    """Train from where ``engine.progress`` stands to the end.

    Raises:
        InterruptedRunError: a stop was asked for; the last boundary is saved.
        DivergedError: too many steps in a row were not finite.
        DiskError: a checkpoint could not be written.
    """
    progress = engine.progress
    phases = engine.task.phases()
    while progress.phase < len(phases):
        session = _start_phase(engine, phases[progress.phase])
        while progress.epoch < session.phase.epochs:
            _train_epoch(engine, session)
            if _end_epoch(engine, session):
                break
            _next_epoch(progress)
        progress.phase += 1
        progress.epoch = progress.batch = progress.stale = 0
        progress.epoch_loss.reset()
        progress.phase_first_step = progress.step
        if _out_of_steps(engine):
            break


def _start_phase(engine: Engine, phase: Phase) -> Session:
    progress, training = engine.progress, engine.config.training
    if phase.start_from_best and engine.restored is None and progress.best is not None:
        _load_weights(engine, engine.store.folder(progress.best.step))
    engine.model.train()
    groups = engine.task.enter_phase(engine.model, phase)
    optimizer = torch.optim.AdamW(
        groups,
        lr=phase.learning_rate,
        weight_decay=training.weight_decay,
        fused=engine.device.type == "cuda" or None,
    )
    batches = batches_in_epoch(len(engine.splits["train"]), training.batch_size)
    schedule = Schedule(training, phase, batches, engine.config.selection.mode)
    stepper = Stepper(
        engine.task,
        engine.model,
        optimizer,
        engine.precision,
        seed=training.seed,
        clip=training.clip_grad_norm,
        ema=engine.ema,
        micro=engine.micro,
        should_stop=lambda: engine.stop.requested,
        on_micro=lambda old, new: _micro_changed(engine, old, new),
    )
    session = Session(phase, optimizer, schedule, stepper, batches)
    if engine.restored is not None:
        _restore_session(engine, session, engine.restored)
        engine.restored = None
    return session


def _train_epoch(engine: Engine, session: Session) -> None:
    """Optimizer steps from ``progress.batch`` to the end of the epoch."""
    progress, training = engine.progress, engine.config.training
    clock = time.perf_counter
    meter = _Meter(clock())
    stepper, schedule, log_every = session.stepper, session.schedule, training.log_every_steps
    for batch, items in _epoch_batches(engine, session):
        meter.got_batch(clock())
        at = progress.step - progress.phase_first_step
        try:
            result = stepper.take(batch, progress.step, [schedule.rate(at, scale) for scale in stepper.scales])
        except PartialStepDropped:
            _interrupt(engine, session)
        progress.step += 1
        progress.batch += 1
        if result.taken:
            progress.skipped = 0
            progress.epoch_loss.add(result.loss, items)
            progress.logged_loss.add(result.loss, items)
        else:
            _refused(engine, session, result)
        now = clock()
        meter.stepped(now, items)
        if progress.step % log_every == 0:
            _log(engine, session, result, schedule.rate(at), meter)
        if now >= meter.next_tick:
            _tick(engine, session, meter, now)
        if engine.stop.requested:
            _interrupt(engine, session)
        meter.wait_from(clock())
    if meter.ticked_at != progress.step:
        _tick(engine, session, meter, clock())


def _epoch_batches(engine: Engine, session: Session) -> Iterator[tuple[Batch, int]]:
    """The rest of the epoch's batches, each with its number of items; none when the steps are used up."""
    progress, training = engine.progress, engine.config.training
    length = len(engine.splits["train"])
    left = math.inf if training.max_steps is None else training.max_steps - progress.step
    if progress.batch >= session.batches or left <= 0:
        return
    rest = epoch_keys(
        training.seed, progress.phase, progress.epoch, length, training.batch_size, first_batch=progress.batch
    )
    keys = [key for key, _ in zip(rest, range(int(min(left, session.batches))), strict=False)]
    for key, batch in zip(keys, engine.loader("train").batches(keys), strict=True):
        yield batch, len(key.indices)


def _end_epoch(engine: Engine, session: Session) -> bool:
    """Validate and save where due; whether the phase is over."""
    progress, phase = engine.progress, session.phase
    last = progress.epoch + 1 >= phase.epochs or _out_of_steps(engine)
    known = [record for record in engine.history if record["step"] == progress.step]
    due = last or bool(known) or (progress.epoch + 1) % engine.config.evaluation.every_epochs == 0
    every = engine.config.training.keep_every_epochs
    milestone = every is not None and (progress.epoch + 1) % every == 0
    if milestone and progress.step not in progress.milestones:
        progress.milestones.append(progress.step)
    if due or milestone:
        _save(engine, session)
    if due:
        record = known[0] if known else _validate(engine, session)
        _apply_validation(engine, session, record)
        if not known:
            engine.observer.validated(
                {**record, "best": progress.best == Best(progress.step, _selected(engine, record))}
            )
    if milestone:
        before = sum(earlier.epochs for earlier in engine.task.phases()[: progress.phase])
        engine.publish(engine.store.folder(progress.step), f"checkpoint_epoch_{before + progress.epoch + 1}.pth")
    _prune(engine)
    return last or (phase.patience is not None and progress.stale >= phase.patience)


def _validate(engine: Engine, session: Session) -> dict[str, Any]:
    """Validate this step, and record it before anything is decided by it."""
    progress = engine.progress
    started = time.perf_counter()
    engine.observer.event("validation", {"step": progress.step})
    found = _evaluate(engine)
    record = {
        "kind": "validation",
        "step": progress.step,
        "phase": session.phase.name,
        "epoch": progress.epoch + 1,
        "train_loss": progress.epoch_loss.mean(),
        "n": found.n,
        "of": found.of,
        "metrics": {f"val/{name}": value for name, value in found.metrics.items() if math.isfinite(value)},
        "seconds": round(time.perf_counter() - started, 3),
        "time": now_utc(),
    }
    engine.metrics.append(record, durable=True)
    engine.remember(record)
    return record


def _evaluate(engine: Engine) -> Evaluation:
    model = engine.model if engine.ema is None else engine.ema.model
    return evaluate_split(
        engine.task,
        model,
        engine.loader("val"),
        len(engine.splits["val"]),
        facts=engine.facts,
        batch_size=engine.config.training.batch_size,
        precision=engine.precision,
        micro=engine.micro,
        max_items=engine.config.evaluation.max_samples,
        check_stop=engine.stop.check,
        tick=lambda done, total: engine.observer.tick({"stage": "validation", "done": done, "total": total}),
    )


def _apply_validation(engine: Engine, session: Session, record: dict[str, Any]) -> None:
    """Best, early stopping and plateau: decided from the record alone, so a restarted run decides the same."""
    progress, selection = engine.progress, engine.config.selection
    value = _selected(engine, record)
    if math.isnan(value):
        engine.observer.say(f"warning: {selection.metric} is undefined at step {progress.step}; it cannot be the best")
    progress.stale += 1
    if is_better(value, progress.patience_from, selection.mode, engine.config.training.min_delta):
        progress.patience_from, progress.stale = value, 0
    if is_better(value, progress.best.value if progress.best else None, selection.mode):
        progress.best = Best(progress.step, value)
        engine.store.mark_best(progress.step)
        engine.publish(engine.store.folder(progress.step), "best_model.pth")
    session.schedule.validated(value)


def _selected(engine: Engine, record: dict[str, Any]) -> float:
    """The selection metric's value; NaN where it is undefined."""
    return record["metrics"].get(engine.config.selection.metric, math.nan)


def _next_epoch(progress: Progress) -> None:
    progress.epoch += 1
    progress.batch = 0
    progress.epoch_loss.reset()


def _out_of_steps(engine: Engine) -> bool:
    limit = engine.config.training.max_steps
    return limit is not None and engine.progress.step >= limit


def _prune(engine: Engine) -> None:
    progress = engine.progress
    keep = {*progress.milestones, *([progress.best.step] if progress.best else [])}
    if engine.saved_best is not None:  # what the newest checkpoint, from which a restart begins, calls the best
        keep.add(engine.saved_best)
    engine.store.prune(keep)


def _save(engine: Engine, session: Session) -> None:
    """Publish a checkpoint of this boundary, once."""
    progress = engine.progress
    if engine.saved_step == progress.step:
        return
    engine.observer.event("checkpoint", {"step": progress.step})
    newest = engine.history[-1]["metrics"] if engine.history else {}
    state = {
        "format": FORMAT,
        **engine.identity,
        "progress": progress.to_json(),
        "schedule": session.schedule.state_dict(),
        "scaler": scaler_state(engine.precision.scaler),
        "weights": "model" if engine.ema is None else "ema",
        "ema_updates": engine.ema.updates if engine.ema else 0,
        "metrics": newest,
    }
    engine.store.save(progress.step, model_tensors(engine.model, engine.ema, session.optimizer), state)
    engine.saved_step, engine.saved_at = progress.step, time.monotonic()
    engine.saved_best = progress.best.step if progress.best else None


def _interrupt(engine: Engine, session: Session) -> NoReturn:
    """Save this boundary and end the run so that the same command continues it."""
    _save(engine, session)
    raise engine.stop.error(f" at step {engine.progress.step}, which is saved")


def _refused(engine: Engine, session: Session, result: StepResult) -> None:
    """A step whose loss or gradient is not finite was not taken."""
    progress, limit = engine.progress, engine.config.training.max_skipped_steps
    if result.overflow:
        return
    progress.skipped += 1
    engine.observer.event(
        "refused step", {"step": progress.step, "loss": str(result.loss), "grad_norm": str(result.grad_norm)}
    )
    if progress.skipped >= limit:
        raise DivergedError(
            f"{limit} steps in a row up to step {progress.step} had a loss or gradient that is not finite; the last "
            "good checkpoint is kept; lower training.learning_rate, set training.amp=off, or look at the data"
        )


def _log(engine: Engine, session: Session, result: StepResult, rate: float, meter: _Meter) -> None:
    progress = engine.progress
    loss = progress.logged_loss.mean()
    progress.logged_loss.reset()
    record = {
        "kind": "train",
        "step": progress.step,
        "phase": session.phase.name,
        "epoch": progress.epoch + 1,
        "loss": loss,
        "terms": {name: _finite(value) for name, value in result.means().items()},
        "lr": rate,
        "grad_norm": _finite(result.grad_norm),
        "items_per_second": float(f"{meter.rate:.5g}"),  # a step of the full-size model takes a CPU an hour
        "data_wait": round(meter.data_wait, 4),
        "time": now_utc(),
    }
    engine.metrics.append(record)
    engine.observer.trained(record)
    meter.reset(time.perf_counter())


def _tick(engine: Engine, session: Session, meter: _Meter, now: float) -> None:
    """A few times a second: show where we are, and save when the last checkpoint is old."""
    progress, minutes = engine.progress, engine.config.training.checkpoint_minutes
    meter.next_tick, meter.ticked_at = now + _TICK_SECONDS, progress.step
    steps = session.phase.epochs * session.batches
    limit = engine.config.training.max_steps
    engine.observer.tick(
        {
            "stage": "training",
            "phase": session.phase.name,
            "epoch": progress.epoch + 1,
            "epochs": session.phase.epochs,
            "step": progress.step,
            "done": progress.step - progress.phase_first_step,
            "total": steps if limit is None else min(steps, limit - progress.phase_first_step),
            "loss": progress.epoch_loss.mean(),
            "items_per_second": meter.rate,
            "data_wait": meter.data_wait,
        }
    )
    if time.monotonic() - engine.saved_at >= minutes * 60:
        _save(engine, session)
        _prune(engine)


def _micro_changed(engine: Engine, old: int, new: int) -> None:
    engine.micro = new
    engine.remember_micro(new)
    engine.observer.event("micro-batch", {"step": engine.progress.step, "from": old, "to": new, "why": "out of memory"})


def _restore_session(engine: Engine, session: Session, folder: Path) -> None:
    state = read_state(folder)
    load_optimizer(engine.model, session.optimizer, read_tensors(folder, "optimizer"))
    session.schedule.load_state_dict(state["schedule"])
    if engine.precision.scaler is not None and state["scaler"]:
        engine.precision.scaler.load_state_dict(state["scaler"])
    engine.saved_step = engine.progress.step
    engine.saved_best = engine.progress.best.step if engine.progress.best else None
    if 0 < engine.progress.batch < session.batches and not _out_of_steps(engine):
        # the run had ended inside this epoch and is extended: the validation of its end counts
        for record in engine.history:
            if record["step"] == engine.progress.step:
                _apply_validation(engine, session, record)


def _load_weights(engine: Engine, folder: Path) -> None:
    """The best weights so far, for a phase that starts from them."""
    engine.model.load_state_dict(read_tensors(folder, "model"))
    if engine.ema is not None:
        engine.ema.load(read_tensors(folder, "ema"), engine.ema.updates)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


class _Meter:
    """Throughput and the share of time spent waiting for data, since the last logged line."""

    def __init__(self, now: float) -> None:
        self.next_tick = now
        self.ticked_at = -1
        self._mark = self._start = now
        self._wait = 0.0
        self._items = 0
        self.rate = self.data_wait = 0.0

    def got_batch(self, now: float) -> None:
        self._wait += now - self._mark

    def stepped(self, now: float, items: int) -> None:
        self._items += items
        elapsed = now - self._start
        if elapsed > 0:
            self.rate, self.data_wait = self._items / elapsed, self._wait / elapsed

    def wait_from(self, now: float) -> None:
        """The loop has nothing else to do from now on: what passes until the next batch is waiting for data."""
        self._mark = now

    def reset(self, now: float) -> None:
        self._start, self._wait, self._items = now, 0.0, 0
