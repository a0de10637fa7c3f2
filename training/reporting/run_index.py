"""The runs under an output folder as rows, newest first: what lists of runs are made of."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from training.registry.entry import BEST, Entry
from training.registry.index import GONE, Registry
from training.registry.place import registry_place
from training.registry.ranking import MODES, datasets_of, in_order, losses_of, may_be_best


@dataclass(frozen=True)
class RunRow:
    """One run. ``folder`` is relative to the output folder, with slashes."""

    run_id: str
    task: str
    state: str
    folder: str
    is_sample: bool
    subtask: str = ""  # empty for a run on all that there is
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
    best_losses: int = 0  # how many losses its metric stands for in those; 0 where it is no loss


def index_rows(output: Path) -> list[RunRow]:
    """All runs under ``output``, newest first, from the registry; folders that did not change are not read again.

    Raises:
        DiskError: the registry is there and cannot be read.
    """
    registry = Registry(registry_place(output, os.environ), output)
    place = output.resolve()
    found = [entry for entry in registry.entries() if entry["state"] != GONE]
    entries = [entry for entry in found if Path(entry["folder"]).is_relative_to(place)]
    best = _best(entries)
    rows = [replace(_row(place, entry), **best.get(entry["folder"], {})) for entry in entries]
    return sorted(rows, key=lambda row: (row.run_id, row.task), reverse=True)


def _row(place: Path, entry: Mapping[str, Any]) -> RunRow:
    folder, chosen = Path(entry["folder"]), entry["selection"]
    return RunRow(
        run_id=entry["run_id"],
        task=entry["task"],
        subtask=entry.get("subtask") or "",
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


def _best(entries: Iterable[Entry]) -> dict[str, dict[str, Any]]:
    """By its folder, what the best finished run of each task and metric beat; runs on the sample never count."""
    groups: dict[tuple[str, str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        chosen = entry["selection"]
        if may_be_best(entry) and BEST in entry["metrics"] and chosen.get("mode") in MODES:
            groups[entry["task"], chosen["metric"], chosen["mode"]].append(entry)
    first = {key: in_order(group, BEST, key[2])[0]["folder"] for key, group in groups.items()}
    return {first[key]: _beaten(group, key[1]) for key, group in groups.items()}


def _beaten(group: Sequence[Entry], metric: str) -> dict[str, Any]:
    losses = losses_of(group, metric)
    return {"best_of": len(group), "best_over": len(datasets_of(group)), "best_losses": len(losses)}
