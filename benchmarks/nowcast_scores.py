"""Time of one scores update against the `scores` package, on one core.

python benchmarks/nowcast_scores.py
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import xarray as xr

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from training.scores.radar import NowcastScores

THRESHOLDS = (20.0, 30.0, 35.0, 40.0, 45.0, 50.0)
SHAPE = (32, 7, 64, 64)


def main() -> None:
    """Print medians of both, and what our parts take."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    target = torch.rand(SHAPE)
    prediction = (target + 0.2 * torch.randn(SHAPE)).clamp(0, 1)
    valid = torch.ones(SHAPE, dtype=torch.bool)
    last = target[:, 0].roll(1, -1)
    scores = NowcastScores(THRESHOLDS, SHAPE[1], -29, 65, "64x64 cells")
    whole = median_ms(lambda: scores.update(prediction, target, valid, last, valid[:, 0]))
    forecasts = (prediction, last.unsqueeze(1))
    parts = {
        "contingency counts": median_ms(lambda: scores._count_events(forecasts, target, valid)),
        "errors": median_ms(lambda: scores._sum_errors(forecasts, target, valid)),
        "SSIM": median_ms(lambda: scores._sum_ssim(forecasts, target, valid)),
    }
    persistence = last.unsqueeze(1).expand(SHAPE)
    theirs = median_ms(lambda: independent(prediction, persistence, target), times=3)
    print(f"{SHAPE}: one update, model and persistence, {whole:.1f} ms")
    for name, value in parts.items():
        print(f"  of it {name}: {value:.1f} ms")
    print(f"  the same contingency counts by the scores package: {theirs:.1f} ms,")
    print(f"  {theirs / parts['contingency counts']:.1f} times ours")


def independent(prediction: torch.Tensor, persistence: torch.Tensor, target: torch.Tensor) -> None:
    """Contingency counts per threshold and lead, for two forecasts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from scores.categorical import BinaryContingencyManager
    names = ("row", "lead", "y", "x")
    for threshold in ((t + 29) / 94 for t in THRESHOLDS):
        observed = xr.DataArray((target >= threshold).numpy(), dims=names)
        for forecast in (prediction, persistence):
            events = xr.DataArray((forecast >= threshold).numpy(), dims=names)
            BinaryContingencyManager(events, observed).transform(preserve_dims=["lead"])


def median_ms(action: Callable[[], object], times: int = 15) -> float:
    """Median time of ``action`` in ms, after one call to warm up."""
    action()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        taken.append(time.perf_counter() - began)
    return 1000 * statistics.median(taken)


if __name__ == "__main__":
    main()
