"""Which of the runs a list shows, and in which order."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from backend.errors import UsageError
from training.registry.entry import DAMAGED, Entry
from training.registry.index import GONE
from training.registry.ranking import check_ranks, of_task, unknown_metric

STATES = ("running", "killed", "interrupted", "failed", "diverged", "finished", "imported", "unknown", DAMAGED, GONE)


def select(entries: Sequence[Entry], task: str | None, states: Collection[str], dataset: str | None) -> list[Entry]:
    """The runs of a task or sub-task, in one of the states, on the dataset whose fingerprint begins so.

    Raises:
        UsageError: there is no such state.
    """
    for state in states:
        if state not in STATES:
            raise UsageError(f"--state {state}: there is no such state; there are {', '.join(STATES)}")
    found = list(entries) if task is None else of_task(entries, task)
    return [
        entry
        for entry in found
        if (not states or entry["state"] in states)
        and (dataset is None or (entry["dataset_fingerprint"] or "").startswith(dataset))
    ]


def sort_by(entries: Sequence[Entry], metric: str, descending: bool) -> list[Entry]:
    """By a validation metric; the runs without it come last.

    Raises:
        UsageError: it is a test metric, or none of them has it.
    """
    check_ranks(metric)
    with_it = [entry for entry in entries if metric in entry["metrics"]]
    if entries and not with_it:
        raise UsageError(unknown_metric(entries, metric))
    ordered = sorted(with_it, key=lambda entry: entry["metrics"][metric], reverse=descending)
    return ordered + [entry for entry in entries if metric not in entry["metrics"]]
