"""Puts an engine together from a task, without the command line: what the engine's own tests train with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from backend.artifact import read_state
from training.engine.checkpoint import CheckpointStore, read_tensors
from training.engine.device import Precision
from training.engine.ema import Ema
from training.engine.interruption import StopRequest
from training.engine.loop import Engine
from training.engine.state import Progress
from training.files import JsonLines, read_json_lines
from training.tasks.protocol import PrepareContext, Task

OPENED: list[JsonLines] = []  # closed after each test


class Recorder:
    """An observer that remembers; ``on_step`` may act on what it sees."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.records: list[dict[str, Any]] = []
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def tick(self, facts: dict[str, Any]) -> None:
        pass

    def trained(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    def validated(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    def event(self, name: str, facts: dict[str, Any]) -> None:
        self.events.append((name, facts))


def make_engine(task: Task, data: Path, run: Path, *, micro: int | None = None, workers: int = 0) -> Engine:
    """An engine on the CPU, continuing from the newest checkpoint under ``run`` if there is one."""
    run.mkdir(parents=True, exist_ok=True)
    nothing = lambda *_: None  # noqa: E731
    prepared = task.prepare(PrepareContext(data, run / "cache", 1, nothing, nothing, lambda: None))
    torch.manual_seed(task.config.training.seed)
    model = task.build_model(prepared.facts)
    recorder = Recorder()
    store = CheckpointStore(run / "checkpoints", task.config.training.keep_checkpoints, recorder.say)
    store.sweep()
    ema = Ema(model, task.config.training.ema_decay) if task.config.training.ema_decay else None
    progress, restored = Progress(), None
    if newest := store.newest():
        restored, state = newest
        progress = Progress.from_json(state["progress"])
        model.load_state_dict(read_tensors(restored, "model"))
        if ema:
            ema.load(read_tensors(restored, "ema"), read_state(restored)["ema_updates"])
    kept = [r for r in read_json_lines(run / "metrics.jsonl") if r["step"] <= progress.step]
    (run / "metrics.jsonl").unlink(missing_ok=True)
    metrics = JsonLines(run / "metrics.jsonl")
    OPENED.append(metrics)
    for record in kept:
        metrics.append(record)
    return Engine(
        task=task,
        config=task.config,
        model=model,
        splits=prepared.splits,
        precision=Precision(task.config.training.amp, torch.device("cpu")),
        device=torch.device("cpu"),
        store=store,
        metrics=metrics,
        history=[r for r in kept if r["kind"] == "validation"],
        observer=recorder,
        stop=StopRequest(),
        facts=prepared.facts,
        identity={"run_id": "made", "task": task.name},
        workers=workers,
        micro=micro,
        progress=progress,
        ema=ema,
        restored=restored,
    )
