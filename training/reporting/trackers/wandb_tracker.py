"""Weights & Biases: online, or offline with its files in the run folder for `wandb sync`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from training.reporting.tensorboard import scalars
from training.reporting.trackers.tracker import Outcome, Record, Subject, Tracker

_CODES = {"finished": 0, "interrupted": 75, "failed": 1}
_KINDS = {"train": "train/step", "validation": "val/step"}


class WandbTracker(Tracker):
    """Logs with a step of its own, so that what was logged at one step need not come in order."""

    name: ClassVar[str] = "wandb"
    drops_doubles: ClassVar[bool] = False

    def __init__(self, mode: Literal["online", "offline"]) -> None:
        self._mode = mode
        self._run: Any = None
        self._folder = Path()

    @property
    def place(self) -> str:
        return f"wandb {self._mode}"

    def open(self, subject: Subject, known_id: str | None) -> str:
        import wandb

        quiet = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            save_code=False,
            x_disable_stats=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
        )
        self._folder = subject.folder
        self._run = wandb.init(
            project=subject.project,
            id=known_id or subject.token,
            name=subject.name,
            dir=str(subject.folder),
            mode=self._mode,
            resume="allow",
            allow_val_change=True,  # a run that was extended has other settings than it began with
            config={"settings": dict(subject.settings), "run": dict(subject.tags)},
            settings=quiet,
        )
        self._run.define_metric("*", step_metric="step")
        return str(self._run.id)

    def reached(self) -> dict[str, int]:
        if not self._run.resumed:  # offline nothing of what was logged before is known
            return {}
        return {kind: int(self._run.summary.get(name, -1)) for kind, name in _KINDS.items()}

    def log(self, records: Sequence[Record]) -> None:
        for record in records:
            step = record["step"]
            self._run.log({"step": step, _KINDS[record["kind"]]: step, **scalars(record)})

    def finish(self, outcome: Outcome) -> str:
        self._run.summary.update(dict(outcome.metrics))
        url = self._run.url
        self._run.finish(exit_code=_CODES[outcome.state])
        return f"{url}" if url else f"{self._folder / 'wandb'} (`wandb sync` brings it online)"
