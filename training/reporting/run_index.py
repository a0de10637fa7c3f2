"""The runs under an output folder as rows, newest first: what lists of runs are made of."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from training.reporting.report_parts import goals, identity
from training.reporting.report_story import device_kind, noted_use
from training.reporting.run_folder import RunFolder
from training.reporting.verdict import verdict_of


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
    """All runs under ``output``, newest first; a run whose metadata cannot be read stands there as ``unreadable``."""
    rows = [
        _row(output, path.parent) for path in output.glob("*/*/metadata.yaml") if not path.parent.name.startswith(".")
    ]
    return sorted(_with_best(rows), key=lambda row: (row.run_id, row.task), reverse=True)


def _row(output: Path, folder: Path) -> RunRow:
    run = RunFolder(folder)
    relative = Path(os.path.relpath(folder, output)).as_posix()
    if not run.metadata:
        return RunRow(folder.name, folder.parent.name, "unreadable", relative, is_sample=False)
    head, (seconds, _) = identity(run), noted_use(run)
    selection = head["selection"]
    verdicts = [goal["verdict"] for goal in goals(run)]
    verdict = verdict_of(run.evaluations["test"]) if "test" in run.evaluations else None
    return RunRow(
        run_id=head["run_id"],
        task=head["task"],
        state=head["state"],
        folder=relative,
        is_sample=head["is_sample"],
        data=str((run.metadata.get("dataset") or {}).get("fingerprint") or ""),
        metric=selection["metric"] or "",
        mode=selection["mode"] or "",
        value=selection["value"],
        verdict=verdict.sentence if verdict else "",
        goals_reached=verdicts.count("reached"),
        goals=len(verdicts) if run.evaluations else 0,
        hours=seconds / 3600 if seconds else None,
        device=device_kind(run),
        has_report=(folder / "report.html").is_file(),
        has_card=(folder / "MODEL_CARD.md").is_file(),
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
