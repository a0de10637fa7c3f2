"""Errors and CSI beside torchmetrics, which knows nothing of our accumulators."""

from __future__ import annotations

import pytest
import torch
from torchmetrics.regression import CriticalSuccessIndex, MeanAbsoluteError, MeanSquaredError

from training.scores.radar import NowcastScores

LOW, HIGH = -29.0, 65.0


def test_errors_and_csi_agree_with_torchmetrics() -> None:
    torch.manual_seed(3)
    forecast, target = torch.rand(2, 5, 3, 24, 20).unbind()
    forecast = 0.5 * forecast + 0.5 * target
    valid = torch.ones_like(target, dtype=torch.bool)
    ours = NowcastScores([20.0, 35.0], 3, LOW, HIGH, "made fields")
    ours.update(forecast, target, valid, target[:, 0], valid[:, 0])
    found = ours.compute()

    def dbz(field: torch.Tensor) -> torch.Tensor:
        return (field * (HIGH - LOW) + LOW).double()

    absolute, square = (
        MeanAbsoluteError().set_dtype(torch.double),
        MeanSquaredError(squared=False).set_dtype(torch.double),
    )
    assert found["mae_dbz"] == pytest.approx(float(absolute(dbz(forecast), dbz(target))), rel=1e-5)
    assert found["rmse_dbz"] == pytest.approx(float(square(dbz(forecast), dbz(target))), rel=1e-5)
    for threshold in (20.0, 35.0):
        for lead in range(3):
            csi = CriticalSuccessIndex(threshold)(dbz(forecast)[:, lead], dbz(target)[:, lead])
            assert found[f"csi_{threshold:g}_lead_{lead + 1}"] == pytest.approx(float(csi), abs=1e-7)
