"""Runs the worker and kills it, with a real SIGKILL, at a chosen moment of a chosen stage.

    python -m tests.crash.victim STAGE COUNT FILE -- train --task …

The process dies at the COUNT-th moment of its STAGE and notes that in FILE first:

* preparation: a block was made and journalled
* training: a gradient is there, the weights are not changed yet
* validation: a micro-batch was scored
* checkpoint: a file or folder is about to be made durable or renamed
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Executioner:
    """Counts moments and kills the process at the chosen one."""

    def __init__(self, stage: str, count: int, record: Path) -> None:
        self.stage, self.left, self.record = stage, count, record
        self.now = "start"

    def moment(self, stage: str) -> None:
        if stage != self.stage:
            return
        self.left -= 1
        if self.left == 0:
            with self.record.open("a") as file:
                file.write(f"{stage}\n")
            os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, action: Callable[..., None]) -> None:
    """Call ``action`` before ``owner.name``."""
    original = getattr(owner, name)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        action(*arguments, **named)
        return original(*arguments, **named)

    setattr(owner, name, wrapped)


def arm(executioner: Executioner) -> None:
    """Put the hooks into the worker."""
    from training.data import prepared_build
    from training.engine import loop
    from training.engine.step import Stepper
    from training.runs.run import Run

    def event(run: Any, name: str, **facts: Any) -> None:
        executioner.now = name if name != "stage" else facts["stage"]

    def in_checkpoint(*_: Any, **__: Any) -> None:
        if executioner.now == "checkpoint":
            executioner.moment("checkpoint")

    before(Run, "event", event)
    before(prepared_build, "journal_line", lambda *_: executioner.moment("preparation"))
    before(Stepper, "_decide", lambda *_, **__: executioner.moment("training"))
    for name in ("fsync", "rename", "replace"):
        before(os, name, in_checkpoint)
    evaluate = loop.evaluate_split

    def scored(*arguments: Any, **named: Any) -> Any:
        check = named["check_stop"]
        named["check_stop"] = lambda: (executioner.moment("validation"), check())
        return evaluate(*arguments, **named)

    loop.evaluate_split = scored
    loop._TICK_SECONDS = 0.02  # the short runs of the tests take timed checkpoints too


def main() -> int:
    split = sys.argv.index("--")
    stage, count, record = sys.argv[1:split]
    from tests.pictures import render_nothing
    from training.cli import main as worker

    render_nothing()
    arm(Executioner(stage, int(count), Path(record)))
    return worker(sys.argv[split + 1 :])


if __name__ == "__main__":
    sys.exit(main())
