"""The whole list as CSV: a row for each run, and a column for whatever any of them has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from training.registry.entry import Entry
from training.registry.results import all_metrics
from training.registry.tables import csv_text

# First what the street-scene framework's export had, under its names.
_FIRST = ("run_id", "task", "config_hash", "checkpoint_path", "timestamp", "dataset_version")
_NEXT = ("run_name", "subtask", "state", "error", "dataset_name", "dataset_fingerprint", "is_sample", "folder")
_GROUPS = {"selection": "selection_", "metadata": "metadata_", "metrics": "metric_"}


def export_csv(entries: Sequence[Entry], *, every_metric: bool = False) -> str:
    """All entries; the columns are the union over the runs, ``metric_val/loss`` and the like.

    With ``every_metric`` also the metrics that only the runs' folders have.
    """
    complete = [{**entry, "metrics": all_metrics(entry)} for entry in entries] if every_metric else entries
    rows = [_row(entry) for entry in complete]
    columns = list(dict.fromkeys((*_FIRST, *_NEXT, *sorted(_names(rows) - {*_FIRST, *_NEXT}, key=_order))))
    return csv_text(columns, [[row.get(column) for column in columns] for row in rows])


def _row(entry: Entry) -> dict[str, Any]:
    flat = {name: entry.get(name) for name in (*_FIRST, *_NEXT)}
    for group, prefix in _GROUPS.items():
        flat |= {f"{prefix}{name}": value for name, value in entry[group].items()}
    return flat


def _names(rows: Iterable[dict[str, Any]]) -> set[str]:
    return {name for row in rows for name in row}


def _order(name: str) -> tuple[int, str]:
    """Selection, origins, metrics; by name within each."""
    prefixes = list(_GROUPS.values())
    return next((at for at, prefix in enumerate(prefixes) if name.startswith(prefix)), len(prefixes)), name
