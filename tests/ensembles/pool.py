"""Commands on the pool of runs, and what is true of them, told without the code under test."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.cli import main


@dataclass(frozen=True)
class Pool:
    """Runs a to g in a folder of their own."""

    place: Path

    def run(self, name: str) -> Path:
        (folder,) = (self.place / "out/landmarks").glob(f"*_{name}")
        return folder

    def ids(self, names: str) -> list[str]:
        """``"ab"``: the run ids of both."""
        return [self.run(name).name for name in names]

    def call(self, command: str, names: str, *words: str) -> int:
        """`ensemble` or `sweep` of the runs in ``names``; the exit code."""
        places = ["--output", str(self.place / "out"), "--datasets", str(self.place / "datasets")]
        return main([command, *self.ids(names), *words, *places])

    def newest(self) -> Path:
        """What the last command kept."""
        return max((self.place / "out/ensembles").iterdir(), key=lambda path: path.stat().st_mtime_ns)

    def result(self) -> dict[str, Any]:
        return json.loads((self.newest() / "ensemble.json").read_text("utf-8"))

    def rows(self) -> list[dict[str, str]]:
        with (self.newest() / "images.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    def split(self, name: str, split: str) -> list[str]:
        """The images in a run's split."""
        found: list[str] = json.loads((self.run(name) / "split.json").read_text("utf-8"))["splits"][split]["names"]
        return found

    def truth(self) -> dict[str, np.ndarray]:
        """[15, 2] from 0 to 1 by image, from the dataset's table; images are 60 x 50."""
        with (self.place / "lungs/coordenadas/coordenadas_maestro.csv").open() as file:
            return {row[-1]: np.array(row[1:-1], float).reshape(-1, 2) / (60, 50) for row in csv.reader(file)}
