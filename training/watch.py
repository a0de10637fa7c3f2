"""Who watches a training: terminal, train.log, history, TensorBoard, events, status. None of them can stop it."""

from __future__ import annotations

from typing import Any

from training.reporting.history import History
from training.reporting.log import RunLog
from training.reporting.progress import Progress
from training.reporting.tensorboard import TensorBoardLog
from training.reporting.trackers.follow import Trackers
from training.runs.run import Run
from training.runs.status import Status


class RunObserver:
    """The engine's observer for one run folder."""

    def __init__(
        self, run: Run, log: RunLog, display: Progress, item_word: str, selection: str, trackers: Trackers
    ) -> None:
        self.run, self.log, self.display, self.trackers = run, log, display, trackers
        self.item_word, self.selection = item_word, selection
        self.history = History(run.folder, log.say)
        self.tensorboard: TensorBoardLog | None = None
        self.status = Status(run.folder)

    def begin(self, step: int) -> None:
        """Training starts or goes on from ``step``: the mirrors of metrics.jsonl are brought to it."""
        self.history.write()
        self.tensorboard = TensorBoardLog(self.run.path("tensorboard"), step, self.log.say)

    def close(self) -> None:
        self.display.finish("training")
        self.history.write()
        if self.tensorboard is not None:
            self.tensorboard.close()

    def say(self, line: str) -> None:
        self.log.say(line)

    def event(self, name: str, facts: dict[str, Any]) -> None:
        self.run.event(name, **facts)
        if name in ("resumed", "refused step", "micro-batch"):
            self.log.say(f"{name}: " + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items()))

    def tick(self, facts: dict[str, Any]) -> None:
        if self.status.write(facts):
            self.trackers.poll()
        if facts["stage"] == "validation":
            self.display.update("validation", facts["done"], facts["total"])
            return
        self.display.update(
            "training",
            facts["done"],
            facts["total"],
            detail=f"{facts['phase']}, epoch {facts['epoch']} of {facts['epochs']}",
            loss=facts["loss"],
            items_per_second=facts["items_per_second"],
            data_wait=facts["data_wait"],
        )

    def trained(self, record: dict[str, Any]) -> None:
        if self.tensorboard is not None:
            self.tensorboard.write(record)

    def validated(self, record: dict[str, Any]) -> None:
        self.display.finish("validation")
        self.log.say(self._line(record))
        if self.tensorboard is not None:
            self.tensorboard.write(record)
        self.history.refresh()

    def _line(self, record: dict[str, Any]) -> str:
        metrics = record["metrics"]
        shown = [("train loss", record["train_loss"]), ("val loss", metrics.get("val/loss"))]
        if self.selection != "val/loss":
            shown.append((self.selection, metrics.get(self.selection)))
        numbers = "  ".join(f"{name} {value:.5f}" for name, value in shown if value is not None)
        part = "" if record["n"] == record["of"] else f" on {record['n']} of {record['of']} {self.item_word}"
        best = "  (best)" if record["best"] else ""
        return f"{record['phase']} epoch {record['epoch']}  step {record['step']}  {numbers}{part}{best}"
