"""Is the model better than its baseline? Row by row, and in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

from training.reporting.units import significant
from training.scores.layout import Baseline, Judged, Layout, Row, Table, Way, layout_of


@dataclass(frozen=True)
class RowVerdict:
    """One row of the table that is judged: the columns where both are known, and those that the model wins."""

    name: str  # as in "for 30 dBZ", without the preposition
    known: tuple[int, ...]
    won: tuple[int, ...]
    count: int | None
    numbers: Sequence[tuple[float | None, float | None]] = ()  # the model's and the baseline's in each column

    @property
    def kind(self) -> str:
        """``good`` where every known column is won, ``bad`` where none is, else ``mixed``; ``none`` without any."""
        if not self.known:
            return "none"
        return "good" if self.won == self.known else "mixed" if self.won else "bad"


@dataclass(frozen=True)
class Verdict:
    """How a model stands beside its baseline on one split."""

    baseline: Baseline
    judged: Judged
    rows: Sequence[RowVerdict]
    columns: Sequence[str]  # the judged ones, without what pools them
    sentence: str

    def words(self, row: RowVerdict) -> str:
        """What is to be said of one row."""
        name = self.baseline.name
        if not row.known:
            return "cannot be judged: a score is undefined, there was nothing to divide by"
        text = f"better than {name}" if row.won else f"not better than {name}"
        if not self._many:
            return f"{text}: {' against '.join(significant(value) for value in row.numbers[0] if value is not None)}"
        where = _where(row.won, self.columns, self.judged.column) if row.won else f"at any {self.judged.column}"
        return f"{text} {where}"

    @property
    def _many(self) -> bool:
        return len(self.columns) > 1


def better(model: float | None, other: float | None, way: Way | None) -> bool | None:
    """Whether the model's number is the better one; None for a tie, an undefined number, or where neither way is."""
    if model is None or other is None or way is None or model == other:
        return None
    if way == "one":
        return abs(model - 1) < abs(other - 1)
    return model > other if way == "max" else model < other


def verdict_of(evaluation: Mapping[str, Any]) -> Verdict | None:
    """The verdict on an evaluation (the content of `metrics.json`); None where no baseline was scored."""
    layout = layout_of(evaluation.get("record") or {})
    if layout is None or layout.baseline is None or layout.judged is None:
        return None
    table = next((table for table in layout.tables if table.title == layout.judged.table), None)
    if table is None:
        return None
    split = evaluation.get("split")
    metrics = {name.removeprefix(f"{split}/"): value for name, value in evaluation.get("metrics", {}).items()}
    columns = _single_columns(table)[: layout.judged.columns]
    rows = _judge(layout, table, metrics, len(columns), layout.judged.counts)
    sentence = _sentence(layout.baseline, layout.judged, rows, columns)
    behind = _behind(layout, layout.judged, metrics)
    told = f"{sentence} Behind {layout.baseline.name} in {_joined(behind)}." if behind else sentence
    return Verdict(layout.baseline, layout.judged, rows, columns, told)


def _single_columns(table: Table) -> list[str]:
    """The columns but the one that pools them."""
    return list(table.columns[:-1] if table.pooled else table.columns)


def _behind(layout: Layout, judged: Judged, metrics: Mapping[str, float]) -> list[str]:
    """Where the baseline is ahead in the rows that the verdict must not be silent about."""
    assert layout.baseline is not None
    found = []
    for table in layout.tables:
        columns = _single_columns(table)
        for row in table.rows:
            if row.name in judged.against.get(table.title, ()):
                pairs = _pairs(row, layout.baseline, metrics)[: len(columns)]
                lost = [i for i, (model, other) in enumerate(pairs) if better(other, model, row.better)]
                where = f" {_where(lost, columns, judged.column)}" if len(columns) > 1 and lost else ""
                found += [f"{row.name}{where}"] if lost else []
    return found


def _judge(
    layout: Layout, table: Table, metrics: Mapping[str, float], columns: int, counts: Sequence[int] = ()
) -> list[RowVerdict]:
    assert layout.baseline is not None
    found = []
    for number, row in enumerate(table.rows):
        pairs = _pairs(row, layout.baseline, metrics)[:columns]
        known = tuple(i for i, (model, other) in enumerate(pairs) if model is not None and other is not None)
        won = tuple(i for i, (model, other) in enumerate(pairs) if better(model, other, row.better))
        found.append(RowVerdict(row.name, known, won, counts[number] if number < len(counts) else None, pairs))
    return found


def _pairs(row: Row, baseline: Baseline, metrics: Mapping[str, float]) -> list[tuple[float | None, float | None]]:
    return [(metrics.get(str(cell)), metrics.get(baseline.counterpart(str(cell)) or "")) for cell in row.cells]


def _sentence(baseline: Baseline, judged: Judged, rows: Sequence[RowVerdict], columns: Sequence[str]) -> str:
    """``Beats persistence at every lead for 20 and 30 dBZ, and at leads 1 to 5 for 35 dBZ, but not for 40 dBZ.``"""
    winners = [row for row in rows if row.won]
    losers = [row for row in rows if row.known and not row.won]
    unknown = [row for row in rows if not row.known]
    if not winners and not losers:
        return f"Whether it beats {baseline.name} cannot be judged: no score that both have is defined."
    if winners:
        text = f"Beats {baseline.name} {_joined(_wins(judged, winners, columns))}"
        text += f", but not for {_named(judged, losers)}" if losers else ""
    else:
        text = f"Does not beat {baseline.name} for {_named(judged, losers)}"
        text += f" at any {judged.column}" if len(columns) > 1 else ""
    return text + (f"; {_named(judged, unknown)} cannot be judged" if unknown else "") + "."


def _wins(judged: Judged, winners: Sequence[RowVerdict], columns: Sequence[str]) -> list[str]:
    """Neighbouring rows that are won at the same columns together: ``at leads 3 to 5 for 20 and 30 dBZ``."""
    parts = []
    for won, group in groupby(winners, key=lambda row: row.won):
        where = f"{_where(won, columns, judged.column)} " if len(columns) > 1 else ""
        parts.append(f"{where}for {_named(judged, list(group))}")
    return parts


def _named(judged: Judged, rows: Sequence[RowVerdict]) -> str:
    return judged.rows.format(listed([row.name for row in rows]))


def _joined(parts: Sequence[str]) -> str:
    """Parts that may hold "and" themselves."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])}, and {parts[-1]}"


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _where(won: Sequence[int], columns: Sequence[str], word: str) -> str:
    """``at every lead``, ``at lead 3``, ``at leads 1 to 3 and 5``."""
    if len(won) == len(columns):
        return f"at every {word}"
    spans = [(columns[a], columns[b]) for a, b in _spans(won)]
    bare = [(first.removeprefix(f"{word} "), last.removeprefix(f"{word} ")) for first, last in spans]
    texts = [first if first == last else f"{first} to {last}" for first, last in bare]
    return f"at {word}{'s' if len(won) > 1 else ''} {listed(texts)}"


def _spans(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """``[1, 2, 3, 5]`` as ``[(1, 3), (5, 5)]``."""
    starts = [numbers[0], *(b for a, b in pairwise(numbers) if b != a + 1)]
    ends = [*(a for a, b in pairwise(numbers) if b != a + 1), numbers[-1]]
    return list(zip(starts, ends, strict=True))
