"""Scores a finished model on a split, and keeps what was found under ``evaluations/<place>/``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from backend.artifact import Artifact
from backend.files import write_atomic
from training.clock import now_utc
from training.engine.answers import Answers
from training.engine.device import Precision
from training.engine.evaluate import Evaluation, evaluate_split
from training.engine.interruption import StopRequest
from training.engine.loader import Loader
from training.runs.run import Run
from training.runs.side_files import read_side_file
from training.tasks.protocol import ItemSource, Prepared, Task


@dataclass(frozen=True)
class Bench:
    """What scoring needs besides the model: the task and its data, the device, and who is told or may stop it."""

    run: Run
    task: Task
    prepared: Prepared
    precision: Precision
    device: torch.device
    progress: Callable[[str, int, int], None]
    stop: StopRequest
    micro: int | None = None  # rows at once
    is_sample: bool = False

    def score(
        self, model: nn.Module | None, split: str, answers: Answers | None = None, items: ItemSource | None = None
    ) -> Evaluation:
        """``model`` (or kept ``answers``) on a whole split, or on ``items`` of it."""
        items = items or self.prepared.splits[split]
        return evaluate_split(
            self.task,
            model,
            Loader(self.task, items, self.task.config.training.seed, 0, self.device),
            len(items),
            facts=self.prepared.facts,
            batch_size=self.task.config.training.batch_size,
            precision=self.precision,
            micro=self.micro,
            check_stop=self.stop.check,
            tick=lambda done, total: self.progress(f"evaluating {split}", done, total),
            answers=answers,
        )

    def result(self, found: Evaluation, split: str, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
        """What is kept of ``found``; ``checkpoint`` names the one that was scored and which of its weights."""
        return {
            "run_id": self.run.run_id,
            "split": split,
            **checkpoint,
            "n": found.n,
            "item": self.task.item_word,
            "is_sample": self.is_sample,
            "dataset": self.prepared.fingerprint,
            "metrics": with_split(found, split),
            "record": found.record,
        }


def of_checkpoint(artifact: Artifact) -> dict[str, Any]:
    """How a result names what was scored."""
    return {"checkpoint": artifact.folder.name, "weights": artifact.state["weights"]}


def with_split(found: Evaluation, split: str) -> dict[str, float]:
    """The metrics under their full names; what is not finite is left out."""
    return {f"{split}/{name}": value for name, value in found.metrics.items() if math.isfinite(value)}


def keep(run: Run, place: str, found: Evaluation, result: Mapping[str, Any]) -> dict[str, Any]:
    """Publish an evaluation under ``evaluations/<place>/``, counted as one look at its split; the complete result."""
    folder = run.path("evaluations", place)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "table.txt", found.table + "\n")
    write_atomic(folder / "scores.csv", found.frame.to_csv(index=False))
    complete = {**result, "looks": _looks(run, result["split"]) + 1, "time": now_utc()}
    run.write_json(f"evaluations/{place}/metrics.json", complete)  # last: says that the evaluation is complete
    return complete


def _looks(run: Run, split: str) -> int:
    """How often a split was looked at, with whichever checkpoint and data; also where a file is damaged."""
    kept = [path.parent.name for path in run.path("evaluations").glob(f"{split}*/metrics.json")]
    files = [read_side_file(run, f"evaluations/{place}/metrics.json").get("looks", 1) for place in kept]
    told = [event["looks"] for event in run.events() if event["event"] == "evaluated" and event.get("split") == split]
    return max([*files, *told], default=0)
