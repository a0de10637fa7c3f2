"""`training_history.json`: a dict of lists with a row per validation, for whoever plots with a line of pandas."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training.files import write_json
from training.reporting.run_folder import Record, read_lines

COLUMNS = ("epoch", "step", "phase", "train_loss")
_REST = 20  # times as long as a writing took is waited until the next one


class History:
    """Keeps `training_history.json` in step with `metrics.jsonl`, from which it is made anew each time.

    So it is right after a resume too. A disk that refuses costs the history and one warning, never the training. Nor
    does a long history: `refresh` takes a twentieth of the time at most, and leaves the rest to the next one.
    """

    def __init__(self, run_dir: Path, say: Callable[[str], None]) -> None:
        self._run_dir = run_dir
        self._say = say
        self._warned = False
        self._next = 0.0

    def refresh(self) -> None:
        """Bring the file up to date after a validation, unless that would take too large a share of the time."""
        if time.monotonic() >= self._next:
            self.write()

    def write(self) -> None:
        """Bring the file up to date, atomically; call it when a training begins, goes on or ends."""
        began = time.monotonic()
        self._write()
        ended = time.monotonic()
        self._next = ended + _REST * (ended - began)

    def _write(self) -> None:
        path = self._run_dir / "training_history.json"
        validations = [
            record
            for record in read_lines(self._run_dir / "metrics.jsonl", only='"validation"')
            if record.get("kind") == "validation"
        ]
        try:
            write_json(path, history_of(validations))
        except OSError as error:
            if not self._warned:
                self._warned = True
                self._say(f"warning: {path} cannot be written ({error.strerror}); metrics.jsonl has the same numbers")


def history_of(validations: list[Record]) -> dict[str, list[Any]]:
    """Columns of equal length: `COLUMNS`, then every metric in order of appearance; None where a row has none."""
    names = dict.fromkeys(name for record in validations for name in record.get("metrics", {}))
    columns = {name: [_plain(record.get(name)) for record in validations] for name in COLUMNS}
    return columns | {name: [_plain(record.get("metrics", {}).get(name)) for record in validations] for name in names}


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
