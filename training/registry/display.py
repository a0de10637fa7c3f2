"""The list, one run and a comparison as people see them in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from training.registry.comparison import Comparison
from training.registry.entry import BEST, Entry
from training.registry.tables import NOTHING, shown

_WIDTH_IN_A_PIPE = 200
_SHORT = 7  # digits of a hash, so that a usual row fits into 80 columns
_STATE_STYLES = {
    "running": "cyan",
    "finished": "green",
    "interrupted": "yellow",
    "killed": "yellow",
    "failed": "bold red",
    "diverged": "bold red",
    "damaged": "bold red",
    "gone": "dim",
}


def console() -> Console:
    """The standard output; wide where no terminal says how wide it is."""
    found = Console(highlight=False, emoji=False, markup=False)
    return found if found.is_terminal else Console(highlight=False, emoji=False, markup=False, width=_WIDTH_IN_A_PIPE)


def print_tables(tables: Sequence[Table]) -> None:
    """Tables one below the other, with an empty line between them."""
    place = console()
    for number, table in enumerate(tables):
        if number:
            place.print()
        place.print(table)


def runs_table(entries: Sequence[Entry], metric: str | None = None) -> Table:
    """A row for each run; ``metric`` gets a column of its own, else the one by which each chose its checkpoint."""
    table = _table()
    table.add_column("run", no_wrap=True, overflow="fold")
    for name in ("task", "state", metric or "best validation"):
        table.add_column(name)
    for name in ("data", "config"):
        table.add_column(name, style="dim")
    for entry in entries:
        value = _metric(entry, metric) if metric else _chosen(entry)
        table.add_row(
            entry["run_id"], _task(entry), state_text(entry), value, _data(entry), _short(entry["config_hash"])
        )
    return table


def state_text(entry: Entry) -> Text:
    """The state in its colour; what is wrong stands in `runs show`."""
    return Text(entry["state"], _STATE_STYLES.get(entry["state"], ""))


def run_tables(entry: Entry, metrics: dict[str, float]) -> list[Table]:
    """What is known of one run, and its scores."""
    facts = _table("fact", "value")
    for name, value in _facts(entry):
        facts.add_row(name, Text(shown(value) if isinstance(value, bool | float) else str(value)))
    scores = _table("metric", "value")
    scores.columns[1].justify = "right"
    for name, number in metrics.items():
        if name != BEST:
            scores.add_row(name, shown(number))
    return [facts, scores] if scores.row_count else [facts]


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Facts, settings that differ, metrics: a column for each run."""
    tables = []
    for what, rows in sections(comparison):
        table = _table(what, *comparison.runs)
        for name, values in rows:
            table.add_row(name, *(Text(shown(value)) for value in values))
        tables.append(table)
    return tables


def sections(comparison: Comparison) -> list[tuple[str, list[tuple[str, list[Any]]]]]:
    """The tables that have rows, by the name of their first column."""
    named = [("run", comparison.facts), ("setting", comparison.settings), ("metric", comparison.metrics)]
    return [(what, rows) for what, rows in named if rows]


def _facts(entry: Entry) -> list[tuple[str, Any]]:
    selection = entry["selection"]
    chosen = {f"chosen by {selection.get('metric')} ({selection.get('mode')})": selection.get("value")}
    names = ("task", "subtask", "state", "error", "timestamp", "folder", "checkpoint_path")
    identity = ("config_hash", "dataset_fingerprint", "dataset_name", "dataset_version", "is_sample")
    facts = {name: entry.get(name) for name in ("run_id", *names)} | chosen | {n: entry.get(n) for n in identity}
    return [(name, value) for name, value in {**facts, **entry["metadata"]}.items() if value is not None]


def _metric(entry: Entry, metric: str) -> str:
    return shown(entry["metrics"].get(metric))


def _chosen(entry: Entry) -> str:
    chosen = entry["selection"]
    if chosen.get("value") is None:
        return NOTHING
    is_part = chosen.get("n") != chosen.get("of")
    return f"{chosen['metric']} {shown(chosen['value'])}" + (f" ({chosen['n']} of {chosen['of']})" if is_part else "")


def _task(entry: Entry) -> str:
    return f"{entry['task']}, {entry['subtask']}" if entry.get("subtask") else entry["task"]


def _data(entry: Entry) -> str:
    return "sample" if entry["is_sample"] else _short(entry["dataset_fingerprint"])


def _short(text: str | None) -> str:
    return text[:_SHORT] if text else NOTHING


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
