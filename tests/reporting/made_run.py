"""Makes a run folder like the ones that trainings leave, in seconds and without a training."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.reporting.radar_figures import draw_nowcast
from training.scores.layout import Baseline, Judged, Layout, Row, Table
from training.scores.radar import NowcastScores
from training.yaml_core import write_yaml

LEADS, SIDE, ROWS = 7, 64, 8
THRESHOLDS = (20.0, 30.0, 35.0, 40.0, 45.0, 50.0)
RUN_ID = "20261121_090000_sample"


def make_run(folder: Path, *, finished: bool = True, is_sample: bool = True, weak: bool = True) -> Path:
    """A radar run with two phases of life: killed at step 95 and resumed from step 80, then stopped and resumed.

    With ``finished=False`` it is still training: no evaluations, no figures.
    """
    run = folder / RUN_ID
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "best").write_text("step-00000200\n" if finished else "step-00000120\n")
    write_yaml(run / "config.yaml", CONFIG)
    write_yaml(run / "metadata.yaml", metadata(finished, is_sample, weak))
    write_lines(run / "metrics.jsonl", metric_lines(240 if finished else 120))
    write_lines(run / "events.jsonl", EVENTS if finished else EVENTS[:6])
    (run / "usage.json").write_text('{"seconds": 720.0, "priced_seconds": 720.0, "cost": 0.08}\n')
    (run / "card.json").write_text(json.dumps(CARD))
    for name in ("split.json", "train.log", "training_history.json", "best_model.pth"):
        (run / name).write_text("{}\n")
    if finished:
        for seed, split in enumerate(("val", "test")):
            write_evaluation(run, split, seed, is_sample)
        write_figure(run)
    return run


def make_output(output: Path) -> Path:
    """Runs of two tasks, best to worst: convlstm's c, a, b (the sample is better and does not count), tiny's y, x."""
    light(output, "convlstm", "20261101_100000_a", 0.081)
    light(output, "convlstm", "20261102_100000_b", 0.092)
    light(output, "convlstm", "20261103_100000_c", 0.075, data="77aa00")
    light(output, "convlstm", "20261104_100000_sample", 0.01, is_sample=True)
    light(output, "convlstm", "20261105_100000_failed", None, state="failed")
    light(output, "tiny", "20261106_100000_x", 0.6, selection=("val/auc", "max"))
    light(output, "tiny", "20261107_100000_y", 0.7, selection=("val/auc", "max"))
    return output


def light(
    output: Path,
    task: str,
    run_id: str,
    value: float | None,
    *,
    state: str = "finished",
    is_sample: bool = False,
    data: str = "9d2a6f77c1",
    selection: tuple[str, str] = ("val/loss", "min"),
) -> Path:
    """A run with little but its metadata and config; one that is finished has one score, beside a baseline's."""
    run = output / task / run_id
    run.mkdir(parents=True)
    metric, mode = selection
    content = metadata(False, is_sample, False) | {"run_id": run_id, "task": task, "state": state}
    content["dataset"] |= {"fingerprint": data}
    if state == "finished":
        content["result"] = {"best_step": 200, "selection": {"metric": metric, "mode": mode, "value": value}}
        folder = run / "evaluations" / "test"
        folder.mkdir(parents=True)
        table = Table("AUC", ["all"], [Row("pairs", ["auc"], "max")])
        layout = Layout([table], baseline=Baseline("guessing", "draws lots", "guess_"), judged=Judged("AUC", "AUC"))
        found = {"test/auc": value, "test/guess_auc": 0.5}
        result = {"split": "test", "metrics": found, "record": {"layout": layout.to_json()}, "n": 9, "item": "pairs"}
        (folder / "metrics.json").write_text(json.dumps(result))
        validated = {"split": "val", "metrics": {metric: value}, "n": 9, "item": "pairs", "checkpoint": "step-200"}
        (run / "evaluations" / "val").mkdir()
        (run / "evaluations" / "val" / "metrics.json").write_text(json.dumps(validated))
    write_yaml(run / "metadata.yaml", content)
    write_yaml(run / "config.yaml", CONFIG | {"selection": {"metric": metric, "mode": mode}})
    return run


def write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def storms(seed: int, frames: int) -> NDArray[np.float64]:
    """Moving, growing and decaying cells: [ROWS, frames, SIDE, SIDE] in dBZ, -29 where there is nothing."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    time = np.arange(frames)[:, None, None]
    fields = np.full((ROWS, frames, SIDE, SIDE), -29.0)
    for row in range(ROWS):
        drift = rng.uniform(-1.5, 1.5, 2)
        for _ in range(9):
            cy, cx = rng.uniform(0, SIDE, 2)
            peak = rng.uniform(30, 62) - 12 * np.abs(np.sin(0.12 * time + rng.uniform(0, 3)))
            width = rng.uniform(3, 7)
            distance = np.hypot(y - cy - drift[0] * time, x - cx - drift[1] * time)
            fields[row] = np.maximum(fields[row], peak - 3.5 * (distance / width) ** 2 * 3)
    return fields.clip(-29, 65)


@cache
def nowcast(seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Truth [ROWS, 8 + LEADS, ...] and a forecast [ROWS, LEADS, ...] that moves the echo but smooths and fades it."""
    truth = storms(seed, 8 + LEADS)
    forecast = truth[:, 8:].copy()
    for lead in range(LEADS):
        for _ in range(lead + 1):
            around = [np.roll(forecast[:, lead], shift, axis) for shift in (-1, 1) for axis in (-1, -2)]
            forecast[:, lead] = (forecast[:, lead] * 2 + sum(around)) / 6
        forecast[:, lead] -= 1.7 * (lead + 1)
    return truth, forecast.clip(-29, 65)


def normalised(dbz: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy((dbz + 29) / 94).float()


def write_evaluation(run: Path, split: str, seed: int, is_sample: bool) -> None:
    truth, forecast = nowcast(seed)
    valid = torch.ones(ROWS, LEADS, SIDE, SIDE, dtype=torch.bool)
    valid[..., :4, :] = False
    scores = NowcastScores(THRESHOLDS, LEADS, -29, 65, "dBZ on 64x64 cells (area mean)")
    scores.update(normalised(forecast), normalised(truth[:, 8:]), valid, normalised(truth[:, 7]), valid[:, 0])
    metrics = {"loss": 0.0712, "huber": 0.0301, "ssim_term": 0.112, **scores.compute()}
    path = run / "evaluations" / split
    path.mkdir(parents=True)
    (path / "table.txt").write_text(scores.table())
    result = {
        "run_id": RUN_ID,
        "split": split,
        "checkpoint": "step-00000200",
        "weights": "model",
        "n": ROWS,
        "item": "windows",
        "is_sample": is_sample,
        "metrics": {f"{split}/{name}": value for name, value in metrics.items()},
        "record": scores.record(),
        "looks": 1 if split == "val" else 2,
        "time": "2026-11-21T09:14:02Z",
    }
    (path / "metrics.json").write_text(json.dumps(result))


def write_figure(run: Path) -> None:
    truth, forecast = nowcast(1)
    valid = np.ones((LEADS, SIDE, SIDE), dtype=bool)
    valid[:, :4] = False
    draw_nowcast(
        run / "figures" / "example_1",
        truth[0, :8],
        truth[0, 8:],
        forecast[0],
        valid,
        min_dbz=-29,
        max_dbz=65,
        cadence_seconds=185,
        spacing_km=4.0,
        title="20261001_1200, newest input 2026-10-01 12:24 UTC",
    )


def metric_lines(steps: int) -> list[dict[str, Any]]:
    """A train line every 5 steps and a validation every 20, as `metrics.jsonl` holds them."""
    rng = np.random.default_rng(0)
    lines: list[dict[str, Any]] = []
    for step in range(5, steps + 1, 5):
        loss = 0.07 + 0.4 * float(np.exp(-step / 45)) + float(rng.normal(0, 0.006))
        epoch = (step - 1) // 20 + 1
        common = {
            "step": step,
            "phase": "main",
            "epoch": epoch,
            "time": f"2026-11-21T09:{step // 20:02d}:{step % 60:02d}Z",
        }
        terms = {"huber": loss * 0.4, "ssim": loss * 1.6}
        rates = {"lr": 2e-3 * min(1, step / 10) * (0.5 if step > 160 else 1), "grad_norm": 0.4, "data_wait": 0.012}
        speed = {"items_per_second": 21 + float(rng.normal(0, 0.5))}
        lines.append({"kind": "train", **common, "loss": loss, "terms": terms, **rates, **speed})
        if step % 20 == 0:
            val = 0.075 + 0.38 * float(np.exp(-step / 50)) + 0.0004 * max(0, step - 200)
            metrics = {"val/loss": val, "val/csi_30": 0.75 - val, "val/persistence_csi_30": 0.41}
            counts = {"n": ROWS, "of": ROWS, "seconds": 1.9}
            lines.append({"kind": "validation", **common, "train_loss": loss, "metrics": metrics, **counts})
    return lines


def metadata(finished: bool, is_sample: bool, weak: bool) -> dict[str, Any]:
    audit = {**AUDIT, "weak": True, "weak_reason": WEAK} if weak else {**AUDIT, "weak": False}
    content = {
        "run_id": RUN_ID,
        "run_name": "sample",
        "state": "finished" if finished else "running",
        "task": "convlstm",
        "config_hash": "5f0c1e2d3b4a59687706f5e4d3c2b1a0ffeeddccbbaa99887766554433221100",
        "preset": "sample",
        "set_by_user": {"training.seed": "--set training.seed", "goals": "my.yaml"},
        "differences": {"preset": "sample", "keys": {"training.seed": [42, 7], "goals": [{}, CONFIG["goals"]]}},
        "command": "train --task convlstm --data sample --set training.seed=7",
        "data": {"path": None, "is_sample": is_sample},
        "seed": 7,
        "versions": {"python": "3.11.7", "torch": "2.5.1", "numpy": "2.4.6"},
        "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
        "dataset": {
            "fingerprint": "9d2a6f77c1",
            "kind": "sample" if is_sample else "folder",
            "is_sample": is_sample,
            "items": {"train": 84, "val": ROWS, "test": ROWS},
            "item": "windows",
            "summary": ["9 events, 225 frames, 1 levels, one frame every 185 s", "grid: 64x64 cells of 4.00 km"],
        },
        "audit": audit,
        "facts": {"cadence_seconds": 185.0, "spacing_km": [4.0, 4.0], "levels": 1},
        "device": {"kind": "cpu", "name": "x86_64", "threads": 2},
        "automatic": {
            "training.micro_batch_size": "4 (about 210 MiB a row, 6.1 GiB free)",
            "training.amp": "fp32 (the CPU has no matrix units for bf16)",
        },
        "parameters": {"total": 218431, "trained": 218431},
        "determinism": {"asked": False, "not_deterministic": []},
    }
    if finished:
        content["result"] = {
            "best_step": 200,
            "selection": {"metric": "val/loss", "mode": "min", "value": 0.0819},
            "val/loss": 0.0819,
            "test/loss": 0.0712,
        }
    return content


CARD: dict[str, Any] = {
    "what": "It forecasts radar.",
    "uses": ["Nowcasting."],
    "limits": ["No warning system."],
    "method": ["The model was a convolutional LSTM (Shi et al. 2015)."],
    "references": [
        {
            "key": "shi2015convlstm",
            "short": "Shi et al. 2015",
            "kind": "inproceedings",
            "author": "Shi, Xingjian and others",
            "title": "Convolutional LSTM Network",
            "year": 2015,
            "more": {"volume": "28"},
        }
    ],
}
WEAK = (
    "This split is weak: 0.40 h lie between two of its sides (a window is 0.77 h long), which may show the same "
    "weather, so scores may be too good. Honest scores need three or more separate events."
)
AUDIT: dict[str, Any] = {
    "method": "gap",
    "method_used": "cut",
    "why": "only 2 groups are 6 h apart",
    "splits": {
        "train": {
            "sequences": 5,
            "frames": 140,
            "windows": 84,
            "from": "2026-10-01T00:00:00Z",
            "to": "2026-10-01T07:12:00Z",
        },
        "val": {
            "sequences": 2,
            "frames": 40,
            "windows": 12,
            "from": "2026-10-01T07:40:00Z",
            "to": "2026-10-01T09:43:00Z",
        },
        "test": {
            "sequences": 2,
            "frames": 45,
            "windows": 12,
            "from": "2026-10-01T10:07:00Z",
            "to": "2026-10-01T12:26:00Z",
        },
    },
    "gaps_hours": {"train-val": 0.47, "val-test": 0.40},
    "purged_windows": 14,
    "overlaps": {"frames": 0, "windows": 0},
    "events": 9,
    "duplicates": {
        "frames": 8,
        "between": [
            {
                "used": "20261001_0000",
                "unused": "20261001_0030",
                "frames": 8,
                "from": "2026-10-01T00:30:00Z",
                "to": "2026-10-01T00:52:00Z",
            }
        ],
    },
    "joined": [["20261001_0000", "20261001_0030"]],
    "too_short": ["20261001_2300: 9 frames"],
}
EVENTS: list[dict[str, Any]] = [
    {"time": "2026-11-21T09:00:00Z", "event": "started", "command": "train --task convlstm --data sample", "pid": 11},
    {"time": "2026-11-21T09:00:01Z", "event": "stage", "stage": "preparation"},
    {"time": "2026-11-21T09:00:09Z", "event": "stage", "stage": "training"},
    {"time": "2026-11-21T09:04:20Z", "event": "started", "command": "train --task convlstm --data sample", "pid": 27},
    {"time": "2026-11-21T09:04:21Z", "event": "extended", "changed": {"training.epochs": [9, 12]}, "config_hash": "5f"},
    {"time": "2026-11-21T09:04:22Z", "event": "resumed", "step": 80, "steps_done_again": 15},
    {"time": "2026-11-21T09:04:23Z", "event": "stage", "stage": "training"},
    {"time": "2026-11-21T09:05:10Z", "event": "micro-batch", "step": 101, "from": 8, "to": 4, "why": "out of memory"},
    {"time": "2026-11-21T09:06:02Z", "event": "refused step", "step": 118, "loss": "nan", "grad_norm": "nan"},
    {"time": "2026-11-21T09:07:00Z", "event": "interrupted", "signal": "SIGTERM"},
    {"time": "2026-11-21T09:09:00Z", "event": "started", "command": "train --task convlstm --data sample", "pid": 40},
    {"time": "2026-11-21T09:09:02Z", "event": "resumed", "step": 130, "steps_done_again": 0},
    {"time": "2026-11-21T09:09:03Z", "event": "stage", "stage": "training"},
    {"time": "2026-11-21T09:13:40Z", "event": "stage", "stage": "evaluation of val"},
    {"time": "2026-11-21T09:13:55Z", "event": "stage", "stage": "evaluation of test"},
    {"time": "2026-11-21T09:14:10Z", "event": "stage", "stage": "report"},
    {"time": "2026-11-21T09:14:20Z", "event": "finished", "step": 240},
]
CONFIG: dict[str, Any] = {
    "task": "convlstm",
    "data": {"input_steps": 8, "prediction_steps": 7, "stride": 2, "downsample_size": [64, 64], "min_dbz": -29.0},
    "model": {"hidden_dims": [24, 24], "init_from": None},
    "training": {
        "epochs": 12,
        "batch_size": 4,
        "learning_rate": 0.002,
        "weight_decay": 1e-5,
        "schedule": "cosine",
        "warmup_steps": 10,
        "clip_grad_norm": 1.0,
        "seed": 7,
        "amp": "auto",
    },
    "selection": {"metric": "val/loss", "mode": "min"},
    "goals": {"test/csi_35_lead_1": ">0.4", "test/csi_50_lead_7": ">=0.5", "test/nothing": "<1"},
}
