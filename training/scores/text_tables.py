"""A layout's tables as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from training.scores.layout import Baseline, Row, Table


def text_table(table: Table, metrics: Mapping[str, float], baseline: Baseline | None = None) -> str:
    """``table`` with its title and what it is about.

    Cells are taken from ``metrics`` (unprefixed), beside the baseline's where one is.
    """
    rows = [[row.name, *_cells(row, metrics, baseline)] for row in table.rows]
    title = f"{table.title}: {table.about}" if table.about else table.title
    return f"{title}\n" + _grid([table.corner, *table.columns], rows)


def _cells(row: Row, metrics: Mapping[str, float], baseline: Baseline | None) -> list[str]:
    return [
        _cell(cell, row, metrics, baseline) if isinstance(cell, str) else "-" if cell is None else f"{cell:,}"
        for cell in row.cells
    ]


def _cell(cell: str, row: Row, metrics: Mapping[str, float], baseline: Baseline | None) -> str:
    model = metrics.get(cell)
    counterpart = baseline.counterpart(cell) if baseline else None
    if counterpart is None:
        return f"{_number(model)} "
    other = metrics.get(counterpart)
    told = _number(model), _number(other)
    won = model is not None and other is not None and (model > other if row.better == "max" else model < other)
    return f"{told[0]}|{told[1]}{'*' if won and row.better and told[0] != told[1] else ' '}"


def _number(value: float | None) -> str:
    return "-".rjust(6) if value is None else f"{value:6.3f}" if abs(value) < 10 else f"{value:6.2f}"


def _grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(heads), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    aligned = [
        [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        for line in lines
    ]
    return "\n".join("  ".join(line).rstrip() for line in aligned)
