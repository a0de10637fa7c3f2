"""The part of a report that says how good the model is: verdict, score tables, counts; the same for every task."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from training.reporting.run_folder import RunFolder
from training.reporting.units import significant
from training.reporting.verdict import better, verdict_of
from training.scores.layout import Baseline, Row, Table, layout_of

Metrics = Mapping[str, float]
_MOST_ROWS = 200
_MOST_HEADLINES = 5


def evaluation_part(run: RunFolder, place: str) -> dict[str, Any]:
    """What the page shows of one evaluation; ``place`` is its split where the data are the run's own, else longer."""
    evaluation = run.evaluations[place]
    split = evaluation.get("split") or place
    record = evaluation.get("record") or {}
    layout = layout_of(record)
    metrics = {name.removeprefix(f"{split}/"): value for name, value in evaluation["metrics"].items()}
    shown = layout.metrics() if layout else set()
    baseline = layout.baseline if layout else None
    return {
        "split": split,
        "place": place,
        "leaks": _leaks(evaluation),
        "n": evaluation.get("n"),
        "item": evaluation.get("item", "items"),
        "checkpoint": evaluation.get("checkpoint"),
        "averaged": evaluation.get("weights") == "ema",
        "looks": evaluation.get("looks"),
        "scale": record.get("scale"),
        "definitions": record.get("definitions", {}),
        "baseline": baseline,
        "verdict": verdict_of(evaluation),
        "headlines": headlines(record, metrics),
        "tables": [_table(table, metrics, baseline) for table in layout.tables] if layout else [],
        "counts": [_table(table, metrics, None) for table in layout.counts] if layout else [],
        "warnings": layout.warnings if layout else [],
        "numbers": _numbers(metrics, lambda name: name not in shown),
        "frame": None if layout else _frame(run.path / "evaluations" / place / "scores.csv"),
    }


def _leaks(evaluation: Mapping[str, Any]) -> dict[str, Any] | None:
    """That the scored items share something with what the model learned from, and what is left without those."""
    found, clean = evaluation.get("leaks"), evaluation.get("clean") or {}
    if not found:
        return None
    split = evaluation.get("split")
    metrics = {name.removeprefix(f"{split}/"): value for name, value in (clean.get("metrics") or {}).items()}
    return {"n": clean.get("n"), "numbers": _numbers(metrics, lambda name: "_lead_" not in name)}


def headlines(record: Mapping[str, Any], metrics: Metrics) -> list[tuple[str, str]]:
    """The scores that the task itself calls the headlines, the first few."""
    named = [name for name in record.get("headlines") or () if name in metrics][:_MOST_HEADLINES]
    return [(name.replace("_", " "), _short(metrics[name])) for name in named]


def _numbers(metrics: Metrics, wanted: Callable[[str], bool]) -> list[tuple[str, str]]:
    return [(name.replace("_", " "), significant(value)) for name, value in metrics.items() if wanted(name)]


def _table(table: Table, metrics: Metrics, baseline: Baseline | None) -> dict[str, Any]:
    return {
        "title": table.title,
        "about": table.about,
        "corner": table.corner,
        "columns": list(table.columns),
        "pooled": table.pooled,
        "rows": [(row.name, list(_cells(row, metrics, baseline))) for row in table.rows],
    }


def _cells(row: Row, metrics: Metrics, baseline: Baseline | None) -> Iterable[dict[str, str]]:
    for cell in row.cells:
        if not isinstance(cell, str):
            yield {"own": "–" if cell is None else f"{cell:,}", "other": "", "kind": "count"}
            continue
        model = metrics.get(cell)
        counterpart = baseline.counterpart(cell) if baseline else None
        other = metrics.get(counterpart) if counterpart else None
        won = better(model, other, row.better)
        kind = "" if won is None else "better" if won else "worse"
        yield {"own": _short(model), "other": _short(other) if counterpart else "", "kind": kind}


def _short(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def _frame(path: Path) -> dict[str, Any] | None:
    """`scores.csv`, for tasks that lay out nothing."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            heads, *rows = list(csv.reader(file))
    except (OSError, ValueError):  # missing, torn, or empty
        return None
    return {
        "columns": [head.replace("_", " ") for head in heads],
        "rows": [[_plain(cell) for cell in row] for row in rows[:_MOST_ROWS]],
        "left_out": max(len(rows) - _MOST_ROWS, 0),
    }


def _plain(text: str) -> str:
    """A number of the table with four digits, anything else as it is."""
    try:
        return text if text.lstrip("-").isdigit() else significant(float(text))
    except ValueError:
        return text or "–"
