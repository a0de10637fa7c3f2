"""Runs the worker and kills it with a real SIGKILL at a step, once the store holds a checkpoint.

python -m tests.sync.victim STEP STORE_FOLDER -- train --task …
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tests.runs import TINY


def main() -> int:
    split = sys.argv.index("--")
    step, folder = int(sys.argv[1]), Path(sys.argv[2])
    from training.cli import main as worker
    from training.engine import loop
    from training.engine.step import Stepper
    from training.tasks import TASKS

    TASKS["tiny"] = TINY
    loop._TICK_SECONDS = 0.0  # a checkpoint at every step
    decide = Stepper._decide

    def decide_or_die(stepper: Any, *arguments: Any, **named: Any) -> Any:
        nonlocal step
        step -= 1
        if step == 0:
            while not list(folder.glob("*/*/checkpoints/step-*/manifest.json")):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        return decide(stepper, *arguments, **named)

    Stepper._decide = decide_or_die  # type: ignore[method-assign]
    return worker(sys.argv[split + 1 :])


if __name__ == "__main__":
    sys.exit(main())
