"""`train --dry-run`: everything up to the first step, told instead of begun. No run folder is made or changed.

The dataset is fetched and prepared as for the training itself, which then finds that done.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backend.artifact import checkpoints, step_of
from training.assemble import check_goals, check_selection, check_splits, choose_workers, known_micro, planned_micro
from training.commands.train import begin, other_data_error, run_about, run_name
from training.doctor.run import job_of, preflight
from training.engine.device import Choice, Precision, choose_device
from training.engine.evaluate import evaluation_mode
from training.engine.interruption import StopRequest
from training.engine.loader import to_device
from training.engine.order import batches_in_epoch
from training.engine.step import row_count, split_rows
from training.heartbeat import beat
from training.rented.machine import RentedMachine
from training.reporting.progress import Progress
from training.requests import TrainRequest
from training.runs.provenance import prepare_environment
from training.runs.run import Run
from training.tasks.protocol import Batch, Prepared, Task
from training.work import Work


def dry_run(request: TrainRequest) -> int:
    """Say what `train` would do with the same words.

    Raises:
        WorkerError: what `train` itself would raise before its first step.
    """
    with StopRequest(beat) as stop, RentedMachine(request, os.environ, stop):  # what cannot work is refused here too
        local = replace(request, sync_to=None, on_finish="none")  # the store is left alone
        run, work = begin(local, stop, RentedMachine(local, os.environ, stop))
        work.warnings = preflight(job_of(work.task, request, work.source, run.folder if run else None))
        with Progress(work.log) as work.display:
            for line in _plan(local, work, run):
                work.log.say(line)
                stop.check()
        if request.sync_to is not None:
            work.log.say("the store of --sync-to was not asked; a run that is further on there would be continued")
    return 0


def _plan(request: TrainRequest, work: Work, run: Run | None) -> Iterator[str]:
    work.say_settled()
    config = work.loaded.config
    prepare_environment(config.training.deterministic)
    device, device_choice = choose_device(config.training.device)
    precision = Precision(config.training.amp, device)
    yield f"device: {device_choice}; precision: {precision.choice}"
    prepared = work.searched_for_leaks(work.prepare())
    run = _run_to_continue(request, work, run, prepared)
    yield from prepared.summary
    yield from data_lines(work.task, prepared)
    check_splits(work.task, prepared)
    check_selection(work.task, prepared.facts)
    check_goals(work.task, prepared.facts)
    yield from _model_lines(work, prepared, device, precision, run)
    yield steps_line(work.task, prepared)
    yield _run_line(request, work, run)
    yield "dry run: nothing was trained"


def _run_to_continue(request: TrainRequest, work: Work, run: Run | None, prepared: Prepared) -> Run | None:
    """The run that `train` would go on with, now that the data are known."""
    if run is None:
        return None
    if run.metadata.get("dataset", {}).get("fingerprint") in (None, prepared.fingerprint):
        return run
    if request.resume != "auto":
        raise other_data_error(run, work.source)
    return run_about(request, work.loaded, prepared.fingerprint)


def data_lines(task: Task, prepared: Prepared) -> Iterator[str]:
    """Split sizes, what the audit found between the splits, and how the classes are spread."""
    sizes = ", ".join(f"{name} {len(items):,}" for name, items in prepared.splits.items())
    yield f"splits: {sizes} {task.item_word}; dataset fingerprint {prepared.fingerprint[:12]}"
    overlaps = prepared.audit.get("overlaps")
    if isinstance(overlaps, Mapping):
        found = ", ".join(f"{what} {count}" for what, count in overlaps.items())
        yield f"overlaps between splits: {found}"
    else:
        yield "overlaps between splits: the audit of this task counts none"
    for split, counts in task.class_counts(prepared).items():
        yield f"classes of {split}: " + ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _model_lines(
    work: Work, prepared: Prepared, device: torch.device, precision: Precision, run: Run | None
) -> Iterator[str]:
    task = work.task
    torch.manual_seed(task.config.training.seed)
    model = task.build_model(prepared.facts)
    if run is None or not checkpoints(run.path("checkpoints")):
        task.init_weights(model, work.tellers())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    yield f"model: {sum(p.numel() for p in model.parameters()):,} numbers, {trained:,} of them trained"
    model.to(device)
    given, returned = shapes_of_a_row(task, model, prepared, device, precision)
    yield f"a row: input {given}; output {returned}"
    known = known_micro(run, device) if run is not None else None
    micro: Choice = planned_micro(known, task, model, device, precision)
    yield f"micro_batch_size: {micro}"
    yield f"num_workers: {choose_workers(task, prepared.facts, device)}"


def shapes_of_a_row(
    task: Task, model: nn.Module, prepared: Prepared, device: torch.device, precision: Precision
) -> tuple[str, str]:
    """What the model takes and gives, seen at one real forward pass of one row of the training split.

    Of a task that calls parts of its model, not the model, what the task takes and gives.
    """
    seen: dict[str, str] = {}

    def note(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        inputs = [*args, *kwargs.values()]
        seen.setdefault("input", describe(inputs[0] if len(inputs) == 1 else inputs))
        seen.setdefault("output", describe(output))

    handle = model.register_forward_hook(note, with_kwargs=True)
    try:
        with evaluation_mode(model), precision.autocast():
            row = to_device(_first_row(task, prepared), device)
            outputs = task.outputs(model, row)
    finally:
        handle.remove()
    return seen.get("input", describe(row)), seen.get("output", describe(outputs))


def _first_row(task: Task, prepared: Prepared) -> Batch:
    batch = task.collate([prepared.splits["train"].item(0, None)])
    return next(split_rows(batch, row_count(batch), 1))


def describe(value: Any) -> str:
    """Shapes and types of tensors, inside lists and dicts too."""
    if isinstance(value, Tensor):
        return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {describe(part)}" for name, part in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "(" + ", ".join(describe(part) for part in value) + ")"
    return type(value).__name__


def steps_line(task: Task, prepared: Prepared) -> str:
    """How long the training is, in optimizer steps."""
    training = task.config.training
    each = batches_in_epoch(len(prepared.splits["train"]), training.batch_size)
    phases = ", ".join(f"{phase.name} {phase.epochs}" for phase in task.phases())
    steps = each * sum(phase.epochs for phase in task.phases())
    limit = "" if training.max_steps is None else f", at most {training.max_steps:,} by training.max_steps"
    an_epoch = f"{each:,} step{'' if each == 1 else 's'} of {training.batch_size} {task.item_word} each"
    return f"epochs: {phases}; {an_epoch}, {steps:,} in all{limit}"


def _run_line(request: TrainRequest, work: Work, run: Run | None) -> str:
    if run is None:
        place: Path = request.output / work.task.name / f"<date>_<time>_{run_name(request, work.loaded)}"
        return f"it would begin a new run: {place}"
    found = checkpoints(run.path("checkpoints"))
    at = f"from step {step_of(found[-1])}" if found else "from its beginning, since it has no checkpoint yet"
    if run.metadata.get("state") == "finished" and request.resume == "auto":
        return f"it would do nothing: {run.folder} is finished (run id {run.run_id}); --resume never trains anew"
    return f"it would continue {run.folder} {at}"
