"""The CSV of a landmark dataset: a row of points for each image, with a header or without.

Without a header a row is ``idx, x1, y1, …, xN, yN, image``. With one, the columns are ``image``, ``NAME_x`` and
``NAME_y`` for each point, and where wanted ``class`` and ``group`` (or ``patient``); others are left alone.
Coordinates are continuous pixels: the pixel in column i reaches from i to i + 1, so x goes from 0 to the width.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backend.errors import BadDataError
from backend.preprocessing.landmark_set import LUNGS
from training.data.landmarks.layout import Layout
from training.data.problems import raise_problems

IMAGE = "image"
_GROUPS = ("group", "patient")


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    line: int  # in the file, from 1
    image: str  # as it is written
    points: tuple[tuple[float, float], ...]  # (x, y) in pixels
    label: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Table:
    """The rows in their order, and the points' names."""

    path: Path
    points: tuple[str, ...]
    rows: Sequence[Row]

    def at(self, row: Row) -> str:
        """Where ``row`` stands, for errors."""
        return f"{self.path}, line {row.line}"


@dataclass(frozen=True)
class _Columns:
    """What stands where in a row."""

    width: int
    image: int
    points: dict[str, tuple[int, int]]  # name -> columns of x and y, in the order of the points
    label: int | None = None
    group: int | None = None


def read_table(path: Path, layout: Layout) -> Table:
    """Reads ``path``. Raises BadDataError with all that is wrong in its rows, a line for each."""
    lines = _lines_of(path)
    columns, rows = _columns_of(path, lines, layout)
    problems: list[str] = []
    read = [_row(number, cells, columns, problems) for number, cells in rows]
    raise_problems([f"{path}, {problem}" for problem in problems])
    if not read:
        raise BadDataError(f"{path}: has a header and no rows; expected a row for each image")
    return Table(path, tuple(columns.points), [row for row in read if row is not None])


def _lines_of(path: Path) -> list[tuple[int, list[str]]]:
    """Line number and cells of each line that is not empty."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadDataError(f"{path}: cannot be read as CSV ({error}); expected commas and UTF-8") from error
    lines = [(number, cells) for number, cells in lines if any(cells)]
    if not lines:
        raise BadDataError(f"{path}: is empty; expected a row of points for each image")
    return lines


# --- which column is what ---------------------------------------------------------------------------------------------


def _columns_of(
    path: Path, lines: list[tuple[int, list[str]]], layout: Layout
) -> tuple[_Columns, list[tuple[int, list[str]]]]:
    number, first = lines[0]
    numeric = sum(_number(cell) is not None for cell in first)
    if numeric >= len(first) / 2:
        return _without_header(path, len(first), layout), lines
    if len(first) == 1:
        raise BadDataError(f"{path}, line {number}: has one cell, {first[0][:60]}; expected cells parted by commas")
    return _with_header(f"{path}, line {number}", first, layout), lines[1:]


def _without_header(path: Path, width: int, layout: Layout) -> _Columns:
    count = (width - 2) // 2
    if count < 1 or width != 2 * count + 2:
        raise BadDataError(
            f"{path}: has {width} columns and no header; expected idx, x1, y1, …, xN, yN, image: 2 and 2 a point"
        )
    for key in ("class_column", "group_column"):
        if getattr(layout, key) is not None:
            raise BadDataError(f"{path}: has no header, so {key} {getattr(layout, key)} in landmarks.yaml is not there")
    names = layout.points or (LUNGS.names if count == len(LUNGS) else [f"P{i + 1}" for i in range(count)])
    if len(names) != count:
        raise BadDataError(f"{path}: has {count} points, but landmarks.yaml names {len(names)}")
    return _Columns(width, width - 1, {name: (2 * i + 1, 2 * i + 2) for i, name in enumerate(names)})


def _with_header(at: str, header: list[str], layout: Layout) -> _Columns:
    where = {name: column for column, name in enumerate(header)}
    names = layout.points or [name[:-2] for name in header if name.endswith("_x") and len(name) > 2]
    wanted = [IMAGE, *(f"{name}{end}" for name in names for end in ("_x", "_y"))]
    wanted += [name for name in (layout.class_column, layout.group_column) if name is not None]
    problems = [f"{at}: the column {name} stands twice" for name in sorted({n for n in header if header.count(n) > 1})]
    problems += [f"{at}: there is no column {name}" for name in wanted if name not in where]
    if not names:
        problems.append(f"{at}: has no columns NAME_x and NAME_y; expected two for each point")
    if not layout.points:
        xless = [name for name in header if name.endswith("_y") and f"{name[:-2]}_x" not in where]
        problems += [f"{at}: there is no column {name[:-2]}_x, but {name}" for name in xless]
    raise_problems(problems)
    group = [layout.group_column] if layout.group_column else [name for name in _GROUPS if name in where]
    return _Columns(
        width=len(header),
        image=where[IMAGE],
        points={name: (where[f"{name}_x"], where[f"{name}_y"]) for name in names},
        label=where.get(layout.class_column or "class"),
        group=where[group[0]] if group else None,
    )


# --- rows -------------------------------------------------------------------------------------------------------------


def _row(number: int, cells: list[str], columns: _Columns, problems: list[str]) -> Row | None:
    if len(cells) != columns.width:
        problems.append(f"line {number}: has {len(cells)} columns, expected {columns.width}")
        return None
    wrong = [f"line {number}: there is no image's name"] * (not cells[columns.image])
    if columns.label is not None and not cells[columns.label]:
        wrong.append(f"line {number}: there is no class")
    points = []
    for name, places in columns.points.items():
        x, y = (_number(cells[place]) for place in places)
        if x is None or y is None:
            bad = cells[places[0] if x is None else places[1]]
            wrong.append(f"line {number}: {name} has {bad or 'nothing'}, expected a number of pixels")
        else:
            points.append((x, y))
    problems += wrong
    label = None if columns.label is None else cells[columns.label]
    group = None if columns.group is None else cells[columns.group] or None
    return None if wrong else Row(number, cells[columns.image], tuple(points), label, group)


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def points_of(table: Table) -> np.ndarray:
    """float64 [rows, points, 2] in pixels."""
    return np.array([row.points for row in table.rows], np.float64)
