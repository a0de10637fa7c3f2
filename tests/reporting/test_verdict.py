"""Verdicts in words, for any task; and where training and validation part ways."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from training.reporting.overfitting import parting
from training.reporting.verdict import better, verdict_of
from training.scores.layout import Baseline, Judged, Layout, Row, Table, layout_of

LEADS = ["lead 1", "lead 2", "lead 3", "lead 4", "lead 5"]


def sentence(won: Mapping[str, Sequence[bool | None]], *, pooled: bool = True, rows: str = "{} dBZ") -> str:
    """The sentence for rows whose leads are won (True), lost (False) or undefined (None)."""
    metrics = {}
    for name, leads in won.items():
        for lead, is_won in enumerate(leads, start=1):
            if is_won is not None:
                metrics |= {f"test/csi_{name}_{lead}": 0.5, f"test/still_csi_{name}_{lead}": 0.4 if is_won else 0.6}
    columns = [*LEADS[: len(next(iter(won.values())))], *(["all leads"] if pooled else [])]
    cells = {name: [f"csi_{name}_{lead}" for lead in range(1, len(leads) + 1)] for name, leads in won.items()}
    if pooled:
        cells = {name: [*own, f"csi_{name}"] for name, own in cells.items()}
        metrics |= {f"test/csi_{name}": 0.1 for name in won} | {f"test/still_csi_{name}": 0.9 for name in won}
    table = Table("CSI", columns, [Row(name, own, "max") for name, own in cells.items()], pooled=pooled)
    judged = Judged("CSI", "CSI", rows=rows, column="lead")
    layout = Layout([table], baseline=Baseline("persistence", "stands still", "still_"), judged=judged)
    verdict = verdict_of({"split": "test", "metrics": metrics, "record": {"layout": layout.to_json()}})
    assert verdict is not None
    return verdict.sentence


@pytest.mark.parametrize(
    ("won", "words"),
    [
        ({"20": [True] * 5, "30": [True] * 5}, "Beats persistence at every lead for 20 and 30 dBZ."),
        (
            {"20": [False, False, True, True, True], "30": [False, False, True, True, True], "40": [False] * 5},
            "Beats persistence at leads 3 to 5 for 20 and 30 dBZ, but not for 40 dBZ.",
        ),
        (
            {"20": [True, True, False, True, False], "30": [False, False, False, False, True]},
            "Beats persistence at leads 1 to 2 and 4 for 20 dBZ, and at lead 5 for 30 dBZ.",
        ),
        ({"20": [False] * 5, "30": [False] * 5}, "Does not beat persistence for 20 and 30 dBZ at any lead."),
        (
            {"20": [True] * 5, "30": [False] * 5, "40": [None] * 5, "50": [None] * 5},
            "Beats persistence at every lead for 20 dBZ, but not for 30 dBZ; 40 and 50 dBZ cannot be judged.",
        ),
        ({"20": [None] * 5}, "Whether it beats persistence cannot be judged: no score that both have is defined."),
    ],
)
def test_the_verdict_is_one_sentence(won: dict[str, list[bool | None]], words: str) -> None:
    assert sentence(won) == words


def test_where_the_baseline_is_ahead_in_other_tables_is_not_passed_over() -> None:
    metrics = {"csi_1": 0.5, "still_csi_1": 0.4, "csi_2": 0.5, "still_csi_2": 0.4, "rmse_1": 9.0, "still_rmse_1": 1.0}
    metrics |= {"mae_1": 3.0, "still_mae_1": 4.0, "mae_2": 5.0, "still_mae_2": 4.5, "ssim_1": 0.3, "still_ssim_1": 0.3}
    rows = [
        Row(name, [f"{name}_1", f"{name}_2"], way) for name, way in (("mae", "min"), ("rmse", "min"), ("ssim", "max"))
    ]
    tables = [Table("CSI", LEADS[:2], [Row("20", ["csi_1", "csi_2"], "max")]), Table("Errors", LEADS[:2], rows)]
    judged = Judged("CSI", "CSI", rows="{} dBZ", column="lead", against={"Errors": ["mae", "ssim"]})
    layout = Layout(tables, baseline=Baseline("persistence", "stands still", "still_"), judged=judged)
    found = {f"val/{name}": value for name, value in metrics.items()}
    verdict = verdict_of({"split": "val", "metrics": found, "record": {"layout": layout.to_json()}})
    assert verdict is not None
    assert verdict.sentence == "Beats persistence at every lead for 20 dBZ. Behind persistence in mae at lead 2."


def test_a_table_with_one_column_speaks_of_rows_alone() -> None:
    won: dict[str, list[bool | None]] = {"cars": [True], "cycles": [False], "trucks": [True]}
    assert sentence(won, pooled=False, rows="{}") == "Beats persistence for cars and trucks, but not for cycles."


@pytest.mark.parametrize(
    ("model", "other", "way", "won"),
    [
        (0.5, 0.4, "max", True),
        (0.5, 0.4, "min", False),
        (0.8, 1.1, "one", False),
        (1.05, 1.1, "one", True),
        (0.5, 0.5, "max", None),
        (0.5, None, "max", None),
        (None, 0.5, "max", None),
        (0.5, 0.4, None, None),
    ],
)
def test_better_is_a_matter_of_the_way(model: Any, other: Any, way: Any, won: bool | None) -> None:
    assert better(model, other, way) is won


@pytest.mark.parametrize("lost", ["tables", "baseline", "judged"])
def test_a_layout_that_is_not_understood_is_none(lost: str) -> None:
    layout = Layout([Table("A", ["x"], [Row("r", ["m"])])], counts=[], warnings=[])
    whole = layout.to_json()
    assert layout_of({"layout": whole}) == layout
    assert layout_of({"layout": {key: value for key, value in whole.items() if key != lost}}) is None
    assert layout_of({"layout": {**whole, "tables": [{"heading": "A"}]}}) is None
    assert verdict_of({"split": "test", "metrics": {}, "record": {"layout": whole}}) is None


# --- overfitting ----------------------------------------------------------------------------------------------------


def course(val: Sequence[float], train: Sequence[float], phase: str = "main", first: int = 1) -> list[dict[str, Any]]:
    """Validations, one an epoch, ten steps each."""
    pairs = enumerate(zip(val, train, strict=True), start=first)
    return [
        {"phase": phase, "epoch": e, "step": 10 * e, "train_loss": t, "metrics": {"val/loss": v}} for e, (v, t) in pairs
    ]


def falling(count: int) -> list[float]:
    return [0.1 + math.exp(-epoch / 6) for epoch in range(count)]


def turning(count: int, turn: int) -> list[float]:
    return [0.3 + 0.002 * (epoch - turn) ** 2 for epoch in range(count)]


def test_a_rising_validation_loss_beside_a_falling_training_loss_is_told_with_its_epoch() -> None:
    found = parting(course(turning(24, 10), falling(24)))
    assert found is not None
    assert (found.epoch, found.step, found.phase) == (11, 110, "main")
    assert found.val_at == pytest.approx(0.302)
    assert found.rise == pytest.approx((np.median([0.002 * n**2 for n in range(8, 14)]) - 0.002) / 0.302)
    assert found.train_now < found.train_at


@pytest.mark.parametrize(
    ("val", "train"),
    [
        (falling(24), falling(24)),  # both fall
        (turning(24, 10), turning(24, 10)),  # both rise: that is no overfitting
        (turning(24, 22), falling(24)),  # two validations after the lowest say nothing
        ([0.3 * 1.001**n for n in range(12)], falling(12)),  # a rise by 1 %
        ([], []),
        ([0.5], [0.5]),
        ([float("nan")] * 9, falling(9)),
        ([0.0, *[0.5] * 9], falling(10)),
    ],
)
def test_other_courses_are_not(val: list[float], train: list[float]) -> None:
    assert parting(course(val, train)) is None


@pytest.mark.parametrize("seed", range(50))
def test_noise_alone_is_not(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 0.02, 60)
    assert parting(course([0.3 + n for n in noise], falling(60))) is None


@pytest.mark.parametrize("seed", range(20))
def test_a_rise_is_seen_through_noise(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 0.004, 30)
    found = parting(course([v + n for v, n in zip(turning(30, 12), noise, strict=True)], falling(30)))
    assert found is not None
    assert abs(found.epoch - 13) <= 3


def test_only_the_last_phase_is_looked_at() -> None:
    first = course(turning(24, 10), falling(24), "frozen")
    assert parting([*first, *course(falling(9), falling(9), "all", first=25)]) is None
    assert (
        parting([*course(falling(9), falling(9), "frozen"), *course(turning(24, 10), falling(24), "all")]) is not None
    )
