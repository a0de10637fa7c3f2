"""How an evaluation is shown: tables whose cells are metrics or counts, and what the model is held against.

A task's `Scores.record` carries its layout as plain JSON under the key ``layout``. Reports, model cards and lists of
runs speak of every task from that alone, and of none by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Way = Literal["max", "min", "one"]  # higher is better, lower is better, nearer to 1 is better
Cell = str | int | None  # a metric's name without the split's prefix, a count, or nothing


@dataclass(frozen=True)
class Row:
    """One row of a table; ``better`` says which way its metrics are better, None that neither is."""

    name: str
    cells: Sequence[Cell]
    better: Way | None = None


@dataclass(frozen=True)
class Table:
    """``columns`` are the heads over ``cells``, ``corner`` the head over the rows' names.

    With ``pooled`` the last column is made from all others. ``about`` says what the numbers are.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    about: str = ""
    corner: str = ""
    pooled: bool = False


@dataclass(frozen=True)
class Baseline:
    """What is to be beaten: the metric ``prefix + name`` is the baseline's counterpart of ``name``."""

    name: str  # as in "beats persistence"
    about: str  # as in "which …"
    prefix: str
    without: str = ""  # metrics that begin with this have no counterpart

    def counterpart(self, name: str) -> str | None:
        """The baseline's metric beside ``name``; None where there is none."""
        return None if self.without and name.startswith(self.without) else self.prefix + name


@dataclass(frozen=True)
class Judged:
    """Where the verdict comes from: the table called ``table``, row by row.

    ``measure`` is what its cells are, in words. ``rows`` puts rows into a sentence (``{} dBZ``), ``column`` is the word
    for one column (``lead``). ``counts`` has a number for each row, of what ``counted`` says. ``columns`` says how
    many columns are judged, from the first; None that all are. ``against`` names rows of other tables by title: where
    the baseline is ahead in them, the verdict says so, whatever the judged table shows.
    """

    table: str
    measure: str
    rows: str = "{}"
    column: str = ""
    counted: str = ""
    counts: Sequence[int] = ()
    columns: int | None = None
    against: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """Tables of scores and of the counts behind them, a baseline and a verdict where there is one, and warnings."""

    tables: Sequence[Table]
    counts: Sequence[Table] = ()
    baseline: Baseline | None = None
    judged: Judged | None = None
    warnings: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """For an evaluation's record."""
        return asdict(self)

    def metrics(self) -> set[str]:
        """Every metric that stands in a table, the baseline's too."""
        names = {cell for table in self.tables for row in table.rows for cell in row.cells if isinstance(cell, str)}
        counterparts = {self.baseline.counterpart(name) for name in names} if self.baseline else set()
        return names | {name for name in counterparts if name is not None}


def layout_of(record: Mapping[str, Any]) -> Layout | None:
    """The layout in an evaluation's record; None where there is none, or none that is understood."""
    try:
        found = record["layout"]
        return Layout(
            tables=[_table(table) for table in found["tables"]],
            counts=[_table(table) for table in found["counts"]],
            baseline=Baseline(**found["baseline"]) if found["baseline"] else None,
            judged=Judged(**found["judged"]) if found["judged"] else None,
            warnings=list(found["warnings"]),
        )
    except (KeyError, TypeError):
        return None


def _table(found: Mapping[str, Any]) -> Table:
    return Table(**{**found, "rows": [Row(**row) for row in found["rows"]]})
