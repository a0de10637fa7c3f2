"""The smallest task there can be: a regression on made numbers, in two phases.

It proves the task protocol: everything that runs over all tasks runs over this one, with no line of the engine
knowing of it.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from backend.errors import BadDataError
from backend.weights import load_matching, read_state_dict
from training.fetching.archive import Tellers
from training.leaks.members import Member
from training.schemas.shared import RunConfig, Section, setting
from training.tasks.protocol import Batch, Glance, Outputs, Phase, PrepareContext, Prepared, Scores, Task, Term


class TinyDataSection(Section):
    cache_dir: str | None = setting(None, "Unused by so small a task, yet every task has it.", neutral=True)
    manifest: str | None = setting(None, "A dataset manifest.", neutral=True)
    rows_per_item: int = setting(2, "Rows that make an item.", ge=1)


class TinyModelSection(Section):
    hidden: int = setting(8, "Width.", ge=1)
    dropout: float = setting(0.1, "Dropout.", ge=0, lt=1)
    batch_norm: bool = setting(False, "Batch norm, the named exception to micro-batch equality.")
    init_from: str | None = setting(None, "A .pth file of weights to start from.", content=True)


class TinyConfig(RunConfig):
    task: Literal["tiny"] = "tiny"
    data: TinyDataSection = setting(TinyDataSection, "Data.")
    model: TinyModelSection = setting(TinyModelSection, "Model.")


class TinyItems:
    """Rows of numbers: inputs [rows, 4], target [rows], a mask [rows] of rows that count."""

    def __init__(self, table: np.ndarray, rows: int) -> None:
        self.table, self.rows = table, rows

    def __len__(self) -> int:
        return len(self.table) // self.rows

    def item(self, index: int, rng: np.random.Generator | None) -> Batch:
        part = torch.from_numpy(self.table[index * self.rows : (index + 1) * self.rows])
        noise = 0.0 if rng is None else torch.from_numpy(rng.normal(0, 0.01, (self.rows, 4)).astype(np.float32))
        return {"x": part[:, :4] + noise, "y": part[:, 4].clone(), "counts": part[:, 5] > 0}


class TinyScores:
    def __init__(self) -> None:
        self.error, self.n = 0.0, 0

    def compute(self) -> dict[str, float]:
        return {"mae": self.error / self.n} if self.n else {}

    def names(self) -> dict[str, str | None]:
        return {"mae": "min"}

    def record(self) -> dict[str, Any]:
        return {"scale": "made numbers", "n": self.n, "definitions": {"mae": "mean absolute error"}}

    def table(self) -> str:
        return f"mae {self.compute().get('mae', float('nan')):.4f} over {self.n} rows"

    def frame(self) -> pd.DataFrame:
        return pd.DataFrame([{"n": self.n, **self.compute()}])


class TinyNet(nn.Module):
    def __init__(self, hidden: int, dropout: float, batch_norm: bool) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Linear(4, hidden),
            nn.BatchNorm1d(hidden) if batch_norm else nn.Identity(),
            nn.Tanh(),
            nn.Dropout(dropout),
        )
        self.head = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x)).squeeze(1)


class TinyTask(Task):
    name = "tiny"
    config_type = TinyConfig
    item_word = "pairs"
    augments = True

    @staticmethod
    def make_sample(folder: Path, seed: int = 42) -> None:
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(120, 4))
        y = np.tanh(x @ np.array([1.0, -2.0, 0.5, 0.0])) + 0.05 * rng.normal(size=120)
        with (folder / "numbers.csv").open("w", newline="") as file:
            csv.writer(file).writerows(
                [*row, target, int(rng.random() < 0.8)] for row, target in zip(x, y, strict=True)
            )

    def prepare(self, context: PrepareContext) -> Prepared:
        path = context.source / "numbers.csv"
        if not path.is_file():
            raise BadDataError(f"{path}: missing; expected rows of six numbers")
        table = np.loadtxt(path, delimiter=",", dtype=np.float32, ndmin=2)
        for done in range(3):
            context.check_stop()
            context.progress("reading", done + 1, 3)
        rows = self.config.data.rows_per_item
        cuts = [0, *(int(len(table) // rows * share) * rows for share in (0.6, 0.8)), len(table) // rows * rows]
        names = ("train", "val", "test")
        parts = {name: table[a:b] for name, a, b in zip(names, cuts, cuts[1:], strict=False)}
        return Prepared(
            fingerprint=_digest(table, rows),
            splits={name: TinyItems(part, rows) for name, part in parts.items()},
            audit={
                "method": "order",
                "weak": False,
                "splits": {name: {"items": len(part) // rows} for name, part in parts.items()},
            },
            members={
                name: [_member(part[i * rows : (i + 1) * rows]) for i in range(len(part) // rows)]
                for name, part in parts.items()
            },
            preprocessing={"kind": "numbers", "columns": 4},
            summary=[f"{len(table)} rows"],
            facts={"columns": 4},
        )

    def glance(self, source: Path | None, cache_dir: Path) -> Glance:
        if source is None:
            return Glance({"columns": 4}, "no numbers yet")
        path = source / "numbers.csv"
        if not path.is_file():
            raise BadDataError(f"{path}: missing; expected rows of six numbers")
        items = len(path.read_text().splitlines()) // self.config.data.rows_per_item
        train = int(items * 0.6)
        shares = {"train": train, "val": (items - train) // 2, "test": (items - train) // 2}
        return Glance({"columns": 4}, f"about {items} pairs", shares)

    def trial_item(self, facts: Mapping[str, Any], rng: np.random.Generator) -> Batch:
        rows = self.config.data.rows_per_item
        x = torch.from_numpy(rng.normal(size=(rows, 4)).astype(np.float32))
        return {"x": x, "y": x.sum(1), "counts": x[:, 0] > 0}

    def build_model(self, facts: Mapping[str, Any]) -> nn.Module:
        model = self.config.model
        return TinyNet(model.hidden, model.dropout, model.batch_norm)

    def init_weights(self, model: nn.Module, tell: Tellers) -> None:
        path = self.config.model.init_from
        if path is not None:
            load_matching(model, read_state_dict(path), path)

    def phases(self) -> list[Phase]:
        training = self.config.training
        head = max(training.epochs // 3, 1)
        return [
            Phase("head", head, training.learning_rate * 10),
            Phase(
                "all", max(training.epochs - head, 1), training.learning_rate, training.patience, start_from_best=True
            ),
        ]

    def enter_phase(self, model: nn.Module, phase: Phase) -> list[dict[str, Any]]:
        model.trunk.requires_grad_(phase.name == "all")
        if phase.name == "head":
            return [{"params": list(model.head.parameters())}]
        return [{"params": list(model.trunk.parameters()), "lr_scale": 0.5}, {"params": list(model.head.parameters())}]

    def counts(self, batch: Batch) -> dict[str, float | Tensor]:
        return {"squared": batch["counts"].sum(), "absolute": float(len(batch["y"]))}

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Term]:
        error = (model(batch["x"]) - batch["y"]).float()
        return {
            "squared": Term((error.square() * batch["counts"]).sum(), batch["counts"].sum(), 0.7),
            "absolute": Term(error.abs().sum(), float(len(error)), 0.3),
        }

    def terms(self) -> list[str]:
        return ["squared", "absolute"]

    def new_scores(self, facts: Mapping[str, Any]) -> Scores:
        return TinyScores()

    def outputs(self, model: nn.Module, batch: Batch) -> Outputs:
        return {"y": model(batch["x"])}

    def score(self, outputs: Outputs, batch: Batch, scores: Any) -> dict[str, Term]:
        error = outputs["y"].float() - batch["y"]
        scores.error += float(error.abs().sum())
        scores.n += len(error)
        return {
            "squared": Term((error.square() * batch["counts"]).sum(), batch["counts"].sum(), 0.7),
            "absolute": Term(error.abs().sum(), float(len(error)), 0.3),
        }


def _member(part: np.ndarray) -> Member:
    digest = _digest(part, len(part))[:16]
    return Member(f"pair {digest}", content=(digest,))


def _digest(table: np.ndarray, rows: int) -> str:
    import hashlib

    return hashlib.sha256(table.tobytes() + bytes([rows])).hexdigest()
