"""Size and time of the pages of a long run, and of the list of many runs.

python benchmarks/report_pages.py [--epochs 500] [--steps 200] [--runs 200]
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.reporting.made_run import light, make_run, write_lines
from training.reporting.curves import draw_curves
from training.reporting.index_page import write_index
from training.reporting.model_card import write_model_card
from training.reporting.report import write_report


def main() -> None:
    """Print a line for each page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=500)
    parser.add_argument("--steps", type=int, default=200, help="optimizer steps of an epoch; every tenth is logged")
    parser.add_argument("--runs", type=int, default=200)
    wanted = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        run = make_run(folder / "convlstm")
        scores = json.loads((run / "evaluations" / "val" / "metrics.json").read_text("utf-8"))["metrics"]
        write_lines(run / "metrics.jsonl", lines(wanted.epochs, wanted.steps, scores))
        size = (run / "metrics.jsonl").stat().st_size
        print(f"{wanted.epochs} epochs of {wanted.steps} steps, metrics.jsonl {size / 1e6:.1f} MB")
        tell("curves", lambda: draw_curves(run)[1])
        tell("report.html", lambda: write_report(run))
        tell("MODEL_CARD.md", lambda: write_model_card(run))
        for number in range(wanted.runs):
            light(folder / "out", "convlstm", f"run_{number:05d}", 1 / (number + 1))
        began = time.perf_counter()
        write_index(folder / "out")
        print(f"index.html of {wanted.runs} runs that nobody registered: {time.perf_counter() - began:.2f} s")
        tell(f"index.html of {wanted.runs} runs", lambda: write_index(folder / "out"))
    finally:
        shutil.rmtree(folder)


def tell(what: str, write: Callable[[], Path | None]) -> None:
    """The best of three times, and the size of what was written."""
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        path = write()
        seconds.append(time.perf_counter() - began)
    assert path is not None
    print(f"{what}: {min(seconds):.2f} s, {path.stat().st_size / 1e3:,.0f} kB")


def lines(epochs: int, steps: int, scores: dict[str, float]) -> list[dict[str, Any]]:
    """`metrics.jsonl` of a run that validates every epoch with all scores of the radar task."""
    found: list[dict[str, Any]] = []
    for step in range(10, epochs * steps + 1, 10):
        loss = 0.07 + 0.4 / (1 + step / 5000) + 0.01 * ((step * 7919) % 101) / 101
        common = {"step": step, "phase": "main", "epoch": (step - 1) // steps + 1, "time": "2026-11-21T09:00:00Z"}
        rates = {"lr": 1e-4, "grad_norm": 0.4, "data_wait": 0.012, "items_per_second": 21.0}
        found.append({"kind": "train", **common, "loss": loss, "terms": {"huber": loss / 2, "ssim": loss}, **rates})
        if step % steps == 0:
            metrics = {"val/loss": loss, **scores}
            found.append(
                {"kind": "validation", **common, "train_loss": loss, "metrics": metrics, "n": 8, "of": 8, "seconds": 2}
            )
    return found


if __name__ == "__main__":
    main()
