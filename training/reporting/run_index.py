"""The runs under an output folder as rows, newest first: what lists of runs are made of."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from training.registry.index import GONE, Registry
from training.registry.place import registry_place


@dataclass(frozen=True)
class RunRow:
    """One run. ``folder`` is relative to the output folder, with slashes."""

    run_id: str
    task: str
    state: str
    folder: str
    is_sample: bool
    data: str = ""  # the dataset's fingerprint
    metric: str = ""  # by which the run chose its best checkpoint, on val
    mode: str = ""  # min or max
    value: float | None = None  # of that metric
    verdict: str = ""
    goals_reached: int = 0
    goals: int = 0  # 0 also where nothing was evaluated yet
    hours: float | None = None
    device: str = ""  # GPU or CPU
    has_report: bool = False
    has_card: bool = False
    best_of: int = 0  # how many runs it is the best of; 0 for a run that is not the best
    best_over: int = 0  # on how many datasets those were validated


def index_rows(output: Path) -> list[RunRow]:
    """All runs under ``output``, newest first, from the registry; folders that did not change are not read again.

    Raises:
        DiskError: the registry is there and cannot be read.
    """
    registry = Registry(registry_place(output, os.environ), output)
    place = output.resolve()
    found = [entry for entry in registry.entries() if entry["state"] != GONE]
    rows = [_row(place, entry) for entry in found if Path(entry["folder"]).is_relative_to(place)]
    return sorted(_with_best(rows), key=lambda row: (row.run_id, row.task), reverse=True)


def _row(place: Path, entry: Mapping[str, Any]) -> RunRow:
    folder, chosen = Path(entry["folder"]), entry["selection"]
    return RunRow(
        run_id=entry["run_id"],
        task=entry["task"],
        state=entry["state"],
        folder=folder.relative_to(place).as_posix(),
        is_sample=entry["is_sample"],
        data=entry["dataset_fingerprint"] or "",
        metric=chosen.get("metric") or "",
        mode=chosen.get("mode") or "",
        value=chosen.get("value"),
        has_report=(folder / "report.html").is_file(),
        has_card=(folder / "MODEL_CARD.md").is_file(),
        **(entry.get("page") or {}),
    )


def _with_best(rows: Iterable[RunRow]) -> Iterator[RunRow]:
    """Mark the best finished run of each task and metric, by what was validated; runs on the sample never count."""
    rows = list(rows)
    groups: dict[tuple[str, str, str], list[RunRow]] = defaultdict(list)
    for row in rows:
        if _counts(row):
            groups[row.task, row.metric, row.mode].append(row)
    best = {_best(group).folder: group for group in groups.values()}
    for row in rows:
        group = best.get(row.folder)
        yield replace(row, best_of=len(group), best_over=len({one.data for one in group})) if group else row


def _counts(row: RunRow) -> bool:
    return row.state == "finished" and not row.is_sample and row.value is not None and row.mode in ("min", "max")


def _best(group: Sequence[RunRow]) -> RunRow:
    """The best value; of equal ones the earliest run's."""
    sign = 1 if group[0].mode == "min" else -1
    return min(group, key=lambda row: (sign * (row.value or 0.0), row.run_id))
