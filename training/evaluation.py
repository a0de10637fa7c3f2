"""Scores a finished model on a split and keeps what was found under ``evaluations/<split>/``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from backend.artifact import Artifact
from backend.files import write_atomic
from training.clock import now_utc
from training.engine.device import Precision
from training.engine.evaluate import evaluate_split
from training.engine.interruption import StopRequest
from training.engine.loader import Loader
from training.run import Run
from training.tasks.protocol import Prepared, Task


def evaluate_artifact(
    run: Run,
    task: Task,
    artifact: Artifact,
    model: nn.Module,
    prepared: Prepared,
    split: str,
    *,
    precision: Precision,
    device: torch.device,
    progress: Callable[[str, int, int], None],
    stop: StopRequest,
    micro: int | None = None,
    is_sample: bool = False,
    place: str | None = None,
) -> dict[str, Any]:
    """Evaluate ``model`` (with the artifact's weights) on a whole split and publish the result, once complete.

    It is kept under ``evaluations/<place>/``; ``place`` is the split unless the data are not the run's own.
    """
    items = prepared.splits[split]
    found = evaluate_split(
        task,
        model,
        Loader(task, items, task.config.training.seed, 0, device),
        len(items),
        facts=prepared.facts,
        batch_size=task.config.training.batch_size,
        precision=precision,
        micro=micro,
        check_stop=stop.check,
        tick=lambda done, total: progress(f"evaluating {split}", done, total),
    )
    name = f"evaluations/{place or split}/metrics.json"
    result = {
        "run_id": run.run_id,
        "split": split,
        "checkpoint": artifact.folder.name,
        "weights": artifact.state["weights"],
        "n": found.n,
        "item": task.item_word,
        "is_sample": is_sample,
        "dataset": prepared.fingerprint,
        "metrics": {f"{split}/{name}": value for name, value in found.metrics.items() if math.isfinite(value)},
        "record": found.record,
        "looks": _looks(run, split) + 1,
        "time": now_utc(),
    }
    folder = run.path("evaluations", place or split)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "table.txt", found.table + "\n")
    write_atomic(folder / "scores.csv", found.frame.to_csv(index=False))
    run.write_json(name, result)  # last: its being there says that the evaluation is complete
    return result


def _looks(run: Run, split: str) -> int:
    """How often a split was looked at, with whichever checkpoint and data."""
    kept = run.path("evaluations").glob(f"{split}*/metrics.json")
    return max(
        (run.read_json(f"evaluations/{path.parent.name}/metrics.json").get("looks", 0) for path in kept), default=0
    )
