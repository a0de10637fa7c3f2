"""`training_history.json`: a dict of lists with a row per validation, for whoever plots with a line of pandas."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training.files import write_json
from training.reporting.run_folder import Record, read_lines

COLUMNS = ("epoch", "step", "phase", "train_loss")


class History:
    """Keeps `training_history.json` in step with `metrics.jsonl`, from which it is made anew each time.

    So it is right after a resume too. A disk that refuses costs the history and one warning, never the training.
    """

    def __init__(self, run_dir: Path, say: Callable[[str], None]) -> None:
        self._run_dir = run_dir
        self._say = say
        self._warned = False

    def write(self) -> None:
        """Bring the file up to date, atomically; call it after each validation and each resume."""
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
