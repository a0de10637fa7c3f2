"""Two or more runs beside each other: what they are, in which settings they differ, what came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.errors import UsageError
from training.registry.entry import BEST, Entry
from training.registry.ranking import datasets_of, losses_of, unknown_metric
from training.registry.results import all_metrics, mapping
from training.shown import all_without_secrets

Row = tuple[str, list[Any]]  # a name, and a value of each run; None where a run has none

_FACTS = ("task", "state", "timestamp", "dataset_fingerprint", "is_sample", "config_hash")
_ORIGINS = ("seed", "git_commit", "git_dirty", "pytorch_version", "device", "parameters")


@dataclass(frozen=True)
class Comparison:
    """What stands in each column (``runs``), and the rows of three tables."""

    runs: list[str]
    facts: list[Row]
    settings: list[Row]  # only those that differ, without secrets that an older config.yaml may hold
    metrics: list[Row]
    notes: list[str]

    def as_json(self) -> dict[str, Any]:
        """For programs: each table as name -> run id -> value."""
        tables = {"facts": self.facts, "settings": self.settings, "metrics": self.metrics}
        found = {
            what: {name: dict(zip(self.runs, values, strict=True)) for name, values in rows}
            for what, rows in tables.items()
        }
        return {"runs": self.runs, **found, "notes": self.notes}


def compare(entries: Sequence[Entry], metrics: Sequence[str] = (), *, every_metric: bool = False) -> Comparison:
    """Put runs beside each other, with the ``metrics`` asked for, else their headlines or ``every_metric``.

    Raises:
        UsageError: a metric is in none of them.
    """
    found = [all_metrics(entry) for entry in entries]
    known = dict.fromkeys(name for one in found for name in one if name != BEST)
    headline = {name for entry in entries for name in entry["metrics"]}
    for name in metrics:
        if name not in known:
            complete = [{**entry, "metrics": one} for entry, one in zip(entries, found, strict=True)]
            raise UsageError(unknown_metric(complete, name))
    shown = list(metrics) or [name for name in known if every_metric or name in headline]
    return Comparison(
        runs=_columns(entries),
        facts=[*((name, [entry[name] for entry in entries]) for name in _FACTS), *_origins(entries)],
        settings=all_without_secrets(_differing_settings(entries)),
        metrics=[(name, [one.get(name) for one in found]) for name in shown],
        notes=_notes(entries, shown),
    )


def _columns(entries: Sequence[Entry]) -> list[str]:
    ids = [entry["run_id"] for entry in entries]
    return ids if len(set(ids)) == len(ids) else [f"{entry['task']}/{entry['run_id']}" for entry in entries]


def _origins(entries: Sequence[Entry]) -> list[Row]:
    rows = [(name, [entry["metadata"].get(name) for entry in entries]) for name in _ORIGINS]
    return [row for row in rows if any(value is not None for value in row[1])]


def _settings(folder: Path) -> dict[str, Any]:
    """The run's config.yaml by dotted keys; nothing where it cannot be read."""
    from training.reporting.run_folder import RunFolder

    return _flat(RunFolder(folder).config, "")


def _flat(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        flat |= _flat(value, f"{path}.") if isinstance(value, Mapping) and value else {path: value}
    return flat


def _differing_settings(entries: Sequence[Entry]) -> list[Row]:
    """Settings that differ; between tasks only those that both have, since the others differ anyway."""
    settings = [_settings(Path(entry["folder"])) for entry in entries]
    of_task: dict[str, set[str]] = {}
    for entry, one in zip(entries, settings, strict=True):
        of_task.setdefault(entry["task"], set()).update(one)
    shared = set.intersection(*of_task.values()) - {"task"} if len(of_task) > 1 else None
    return [row for row in _differences(settings) if shared is None or row[0] in shared]


def _differences(settings: Sequence[Mapping[str, Any]]) -> list[Row]:
    keys = dict.fromkeys(key for one in settings for key in one)
    rows = [(key, [one.get(key) for one in settings]) for key in keys]
    present = {key: [key in one for one in settings] for key in keys}
    return [
        (key, values)
        for key, values in rows
        if not all(present[key]) or any(value != values[0] or type(value) is not type(values[0]) for value in values)
    ]


def _notes(entries: Sequence[Entry], metrics: Sequence[str]) -> list[str]:
    notes = []
    if len({entry["task"] for entry in entries}) > 1:
        notes.append("these runs are of different tasks: settings that only one of them has are left out")
    elif len(datasets_of(entries)) > 1:
        notes.append("these runs were scored on different datasets or splits, so their numbers do not compare")
    if len({entry["task"] for entry in entries}) == 1 and any(len(losses_of(entries, name)) > 1 for name in metrics):
        notes.append("these runs differ in what the loss measures, so their losses do not compare")
    samples = [entry["run_id"] for entry in entries if entry["is_sample"]]
    if samples:
        notes.append(f"on the built-in sample, which says nothing about your data: {', '.join(samples)}")
    lost = [entry["run_id"] for entry in entries if not mapping(_settings(Path(entry["folder"])))]
    if lost:
        notes.append(f"settings cannot be read: {', '.join(lost)}")
    return notes
