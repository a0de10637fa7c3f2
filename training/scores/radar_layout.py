"""How a nowcast's scores are shown: a table for each score, thresholds by leads, beside persistence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.scores.layout import Baseline, Judged, Layout, Row, Table, Way
from training.scores.radar_table import CATEGORICAL, CONTINUOUS, Better, higher, lower, nearer_one

_WAYS: dict[Better, Way] = {higher: "max", lower: "min", nearer_one: "one"}
_ERRORS = "Errors and similarity"
_KINDS = ("hits", "misses", "false_alarms", "correct_negatives")


def nowcast_layout(record: Mapping[str, Any]) -> Layout:
    """The layout of what `NowcastScores.record` counted."""
    thresholds = [f"{threshold:g}" for threshold in record["thresholds_dbz"]]
    leads = [f"lead {lead}" for lead in range(1, record["leads"] + 1)]
    not_finite = sum(record["not_finite"])
    return Layout(
        tables=[*_categorical(record, thresholds, leads), _continuous(leads)],
        counts=[_pooled_counts(record, thresholds), _observed(record, thresholds, leads)],
        baseline=Baseline("persistence", "forecasts that nothing moves or changes", "persistence_"),
        judged=Judged(
            table=CATEGORICAL["csi"][0],
            measure="the critical success index (CSI)",
            rows="{} dBZ",
            column="lead",
            counted="pixels observed",
            counts=[sum(record["observed_pixels"][threshold]) for threshold in thresholds],
            against={_ERRORS: [CONTINUOUS["mae_dbz"][0], CONTINUOUS["ssim"][0]]},
        ),
        warnings=[f"The forecast is not a finite number at {not_finite:,} pixels; leads with any have no score."]
        if not_finite
        else [],
    )


def _cells(name: str, leads: Sequence[str]) -> list[str]:
    return [*(f"{name}_lead_{lead}" for lead in range(1, len(leads) + 1)), name]


def _categorical(record: Mapping[str, Any], thresholds: Sequence[str], leads: Sequence[str]) -> list[Table]:
    return [
        Table(
            title=title,
            about=record["definitions"].get(score, ""),
            corner="dBZ",
            columns=[*leads, "all leads"],
            rows=[Row(t, _cells(f"{score}_{t}", leads), _WAYS[better]) for t in thresholds],
            pooled=True,
        )
        for score, (title, better) in CATEGORICAL.items()
    ]


def _continuous(leads: Sequence[str]) -> Table:
    return Table(
        title=_ERRORS,
        corner="score",
        columns=[*leads, "all leads"],
        rows=[Row(title, _cells(name, leads), _WAYS[better]) for name, (title, better) in CONTINUOUS.items()],
        pooled=True,
    )


def _pooled_counts(record: Mapping[str, Any], thresholds: Sequence[str]) -> Table:
    return Table(
        title="Pixel counts",
        about="Pixels over all leads. Scores without a lead are made from these sums.",
        corner="dBZ and forecast",
        columns=[kind.replace("_", " ") for kind in _KINDS],
        rows=[
            Row(f"{threshold}, {who}", [sum(counts[threshold][kind]) for kind in _KINDS])
            for threshold in thresholds
            for who, counts in record["counts"].items()
        ],
    )


def _observed(record: Mapping[str, Any], thresholds: Sequence[str], leads: Sequence[str]) -> Table:
    rows = [Row(threshold, record["observed_pixels"][threshold]) for threshold in thresholds]
    return Table(
        title="Observed pixels",
        about="Observed pixels at or above the threshold, of all pixels that count, at each lead.",
        corner="dBZ",
        columns=leads,
        rows=[*rows, Row("all pixels", record["pixels"])],
    )
