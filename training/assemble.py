"""Puts a training together: model, precision, checkpoints and logs of a run, from where the run stands."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backend.errors import BadDataError, ConfigError
from backend.files import write_atomic
from training.config.named_files import check_same_files
from training.engine.checkpoint import CheckpointStore, read_tensors
from training.engine.device import Choice, Precision
from training.engine.ema import Ema
from training.engine.interruption import StopRequest
from training.engine.loop import Engine, Observer
from training.engine.state import Progress
from training.fetching.archive import Tellers
from training.files import JsonLines, read_json_lines, to_json
from training.machine import available_cpus, available_memory, free_shared_memory
from training.runs.run import Run
from training.runs.side_files import read_side_file
from training.tasks.protocol import Prepared, Task

_MICRO_BATCH = "micro_batch.json"  # rows that fitted, by GPU
_MEMORY_SHARE = 0.5  # of what the machine has free, for the activations of one micro-batch on the CPU
_SHARED_MEMORY_SHARE = 0.9  # of what /dev/shm has free


def assemble(
    run: Run,
    task: Task,
    prepared: Prepared,
    *,
    device: torch.device,
    precision: Precision,
    observer: Observer,
    stop: StopRequest,
    tell: Tellers,
    identity: Mapping[str, Any],
    publish: Callable[[Path, str], None],
) -> tuple[Engine, dict[str, Choice]]:
    """An engine that continues from the run's newest sound checkpoint, or starts; and what each `auto` became.

    Raises:
        BadDataError: the training or validation split is empty.
        ConfigError: a file that a new run starts from is another than it was made for.
    """
    check_splits(task, prepared)
    training = task.config.training
    check_selection(task, prepared.facts)  # told now, not at the first validation
    check_goals(task, prepared.facts)
    torch.manual_seed(training.seed)
    model = task.build_model(prepared.facts)
    store = CheckpointStore(run.path("checkpoints"), training.keep_checkpoints, observer.say)
    store.sweep()
    newest = store.newest()
    if newest is None:
        check_same_files(run, task.config)
        task.init_weights(model, tell)
    model.to(device)
    ema = Ema(model, training.ema_decay) if training.ema_decay is not None else None
    progress = _restore(run, store, newest, model, ema, observer)
    history = _cut_back(run.path("metrics.jsonl"), progress.step)
    workers, micro = choose_workers(task, prepared.facts, device), choose_micro(run, task, model, device, precision)
    engine = Engine(
        task=task,
        config=task.config,
        model=model,
        splits=prepared.splits,
        precision=precision,
        device=device,
        store=store,
        metrics=JsonLines(run.path("metrics.jsonl")),
        history=[],
        observer=observer,
        stop=stop,
        identity=identity,
        facts=prepared.facts,
        workers=int(workers.value),
        micro=rows_of(micro),
        remember_micro=lambda size: _remember_micro(run, device, size),
        publish=publish,
        progress=progress,
        ema=ema,
        restored=newest[0] if newest else None,
    )
    for record in history:
        if record["kind"] == "validation":
            engine.remember(record)
    return engine, {"training.num_workers": workers, "training.micro_batch_size": micro}


def check_splits(task: Task, prepared: Prepared) -> None:
    """Raise BadDataError where there is nothing to train or to validate on."""
    for split in ("train", "val"):
        if not len(prepared.splits[split]):
            raise BadDataError(
                f"the {split} split holds no {task.item_word}; look at the split settings under data.split"
            )


def check_selection(task: Task, facts: Mapping[str, Any]) -> None:
    """Refuse a selection metric that no validation gives or that ranks nothing, and a mode that keeps the worst.

    Raises:
        ConfigError: naming the nearest metric, or the mode that fits.
    """
    selection = task.config.selection
    known = {f"val/{name}": way for name, way in _scored(task, facts).items()}
    metric = selection.metric
    if metric not in known:
        near = get_close_matches(metric, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"selection.metric is {metric}, which no validation of this configuration gives{hint}")
    way = known[metric]
    if way is None:
        raise ConfigError(
            f"selection.metric is {metric}, which ranks no checkpoints: neither more nor less of it is better, or it "
            "does not depend on the model; take another, such as val/loss"
        )
    if way != selection.mode:
        raise ConfigError(f"selection.mode is {selection.mode}, but {metric} is better the other way: set it to {way}")


def check_goals(task: Task, facts: Mapping[str, Any]) -> None:
    """Refuse a goal about a metric that no evaluation gives: it could never be reached, nor missed.

    Raises:
        ConfigError: naming the nearest metric.
    """
    known = {f"{split}/{name}" for split in ("val", "test") for name in _scored(task, facts)}
    unknown = [name for name in task.config.goals if name not in known]
    if unknown:
        near = get_close_matches(unknown[0], sorted(known), n=1)
        hint = f"; did you mean {near[0]}?" if near else "; its metrics begin with val/ or test/"
        raise ConfigError(f"goals names {unknown[0]}, which no evaluation of this configuration gives{hint}")


def _scored(task: Task, facts: Mapping[str, Any]) -> dict[str, str | None]:
    """Every metric of an evaluation, without its split, and the way that is better."""
    losses = dict.fromkeys(["loss", *(f"loss_{term}" for term in task.terms())], "min")
    return {**losses, **task.new_scores(facts).names()}


def _restore(
    run: Run,
    store: CheckpointStore,
    newest: tuple[Path, dict[str, Any]] | None,
    model: torch.nn.Module,
    ema: Ema | None,
    observer: Observer,
) -> Progress:
    """Weights and progress of the newest checkpoint, and an event that says which steps will be done again."""
    reached = max((record["step"] for record in read_json_lines(run.path("metrics.jsonl"))), default=0)
    if newest is None:
        store.mark_best(None)
        if reached:
            observer.event("resumed", {"step": 0, "steps_done_again": reached})
        return Progress()
    folder, state = newest
    progress = Progress.from_json(state["progress"])
    if progress.best is not None and store.sound(progress.best.step) is None:
        observer.say(
            f"the best checkpoint, of step {progress.best.step}, is gone or damaged; the best is searched anew"
        )
        progress.best = None
    store.mark_best(progress.best.step if progress.best else None)
    model.load_state_dict(read_tensors(folder, "model"))
    if ema is not None:
        ema.load(read_tensors(folder, "ema"), state["ema_updates"])
    observer.event("resumed", {"step": progress.step, "steps_done_again": max(reached - progress.step, 0)})
    return progress


def _cut_back(path: Path, step: int) -> list[dict[str, Any]]:
    """Drop what was logged after the checkpoint: those steps are done again and logged again."""
    records = read_json_lines(path)
    kept = [record for record in records if record["step"] <= step]
    if len(kept) != len(records):
        write_atomic(path, "".join(to_json(record) + "\n" for record in kept))
    return kept


def choose_workers(task: Task, facts: Mapping[str, Any], device: torch.device) -> Choice:
    """Loader processes: as many as are asked for or useful, but no more than /dev/shm has room for."""
    wanted = wanted_workers(task, device)
    if wanted.value == "0":
        return wanted
    return fitting_workers(wanted, free_shared_memory(), batch_bytes(task, facts))


def fitting_workers(wanted: Choice, free: int | None, batch: int) -> Choice:
    """``wanted``, or fewer where ``free`` bytes of /dev/shm (None: there is none) do not hold their batches.

    Batches travel through it with every sharing strategy of torch, `file_system` too; a full one kills the loader.
    """
    fit = int(wanted.value) if free is None else workers_that_fit(free, batch)
    if free is None or fit >= int(wanted.value):
        return wanted
    return Choice(
        str(fit),
        f"not {wanted.value}, because /dev/shm has {free / 2**20:,.0f} MiB free and a batch takes "
        f"{batch / 2**20:,.0f} MiB; docker's --shm-size 8g gives more room",
    )


def workers_that_fit(free: int, batch: int) -> int:
    """Loader processes whose batches, two waiting for each and two in use, fit into ``free`` bytes."""
    return max(0, int((_SHARED_MEMORY_SHARE * free / max(batch, 1) - 2) // 2))


def batch_bytes(task: Task, facts: Mapping[str, Any]) -> int:
    """What a batch takes on its way from the loader."""
    item = task.trial_item(facts, np.random.default_rng(0))
    tensors = [value for value in item.values() if isinstance(value, torch.Tensor)]
    return task.config.training.batch_size * sum(tensor.nbytes for tensor in tensors)


def wanted_workers(task: Task, device: torch.device) -> Choice:
    """Loader processes that are asked for, or useful on ``device``, whatever room there is."""
    asked = task.config.training.num_workers
    if asked != "auto":
        return Choice(str(asked), "training.num_workers says so")
    if task.cheap_items:
        return Choice("0", "an item is a slice of a memory map")
    cpus = available_cpus()
    if device.type == "cpu":
        return Choice(str(min(2, cpus // 2)), "the CPU trains")
    return Choice(str(max(1, min(8, cpus - 1))), f"{cpus} CPUs feed the GPU")


def rows_of(micro: Choice) -> int | None:
    """What `choose_micro` chose as a number; None for the whole batch."""
    return int(micro.value) if micro.value.isdigit() else None


def choose_micro(run: Run, task: Task, model: torch.nn.Module, device: torch.device, precision: Precision) -> Choice:
    """Rows per micro-batch, or "all" for the whole batch at once; remembered in ``run``, which holds its lock."""
    known = known_micro(run, device)
    choice = planned_micro(known, task, model, device, precision)
    computed = task.config.training.micro_batch_size == "auto" and known is None and device.type == "cpu"
    if computed and choice.value.isdigit():
        _remember_micro(run, device, int(choice.value))  # sums are rounded by their order: later splits must be alike
    return choice


def known_micro(run: Run, device: torch.device) -> int | None:
    """Rows per micro-batch that ``run`` came to on such a device before."""
    size = read_side_file(run, _MICRO_BATCH).get(_gpu_key(device))
    return size if isinstance(size, int) and size > 0 else None


def planned_micro(
    known: int | None, task: Task, model: torch.nn.Module, device: torch.device, precision: Precision
) -> Choice:
    """The same choice, with nothing remembered; ``known`` is what the run came to before."""
    asked = task.config.training.micro_batch_size
    if asked != "auto":
        return Choice(str(asked), "training.micro_batch_size says so")
    if known is not None:
        return Choice(str(known), "as before in this run")
    if device.type == "cuda":
        return Choice("all", "halved when memory runs out")
    row = task.row_bytes(model, precision.dtype or torch.float32)
    if row is None:
        return Choice("all", "the task does not say what a row needs")
    fits = max(1, math.floor(_MEMORY_SHARE * available_memory() / row))
    return Choice(str(fits), f"about {row / 2**20:.0f} MiB a row, {available_memory() / 2**30:.1f} GiB free")


def _gpu_key(device: torch.device) -> str:
    return "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)


def _remember_micro(run: Run, device: torch.device, size: int) -> None:
    run.write_json(_MICRO_BATCH, {**read_side_file(run, _MICRO_BATCH), _gpu_key(device): size})
