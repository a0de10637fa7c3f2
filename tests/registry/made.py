"""Run folders as trainings leave them, as far as the registry looks at them, in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.yaml_core import write_yaml

HASH = "c998c24a3fff97a5ccb810f7386b44a7879782832d7b12bf5f6c38b36906a8b8"


def make_run(
    output: Path,
    run_id: str,
    *,
    task: str = "convlstm",
    state: str = "finished",
    metrics: Mapping[str, float] | None = None,
    is_sample: bool = False,
    selection: tuple[str, str] = ("val/loss", "min"),
    dataset: str = "d" * 32,
    config: Mapping[str, Any] | None = None,
    **metadata: Any,
) -> Path:
    """A run with these metrics in its evaluations (``val/…`` and ``test/…``), a checkpoint and a config."""
    run = output / task / run_id
    run.mkdir(parents=True)
    (run / "best_model.pth").write_bytes(b"weights")
    chosen = {"selection": {"metric": selection[0], "mode": selection[1]}}
    write_yaml(run / "config.yaml", {"task": task, **chosen, **(config or {})})
    for split in ("val", "test"):
        of_split = {name: value for name, value in (metrics or {}).items() if name.startswith(split)}
        if of_split:
            write_evaluation(run, split, of_split)
    write_metadata(run, task=task, state=state, is_sample=is_sample, dataset=dataset, **metadata)
    return run


def write_evaluation(run: Path, split: str, metrics: Mapping[str, float]) -> None:
    folder = run / "evaluations" / split
    folder.mkdir(parents=True, exist_ok=True)
    content = {"checkpoint": "step-00000024", "n": 12, "metrics": dict(metrics)}
    (folder / "metrics.json").write_text(json.dumps(content))


def write_metadata(
    run: Path,
    *,
    task: str = "convlstm",
    state: str = "finished",
    is_sample: bool = False,
    dataset: str = "d" * 32,
    **more: Any,
) -> None:
    content = {
        "run_id": run.name,
        "run_name": run.name.split("_", 2)[-1],
        "state": state,
        "task": task,
        "config_hash": HASH,
        "seed": 42,
        "versions": {"python": "3.11.7", "torch": "2.5.1"},
        "git": {"commit": "0" * 40, "dirty": False},
        "dataset": {"fingerprint": dataset, "is_sample": is_sample},
        **more,
    }
    write_yaml(run / "metadata.yaml", content)


def write_validations(run: Path, *values: float, metric: str = "val/loss", n: int = 12, of: int = 12) -> None:
    """A validation every 10 steps, with a torn line at the end as a kill leaves it."""
    records = [
        {"kind": "validation", "step": 10 * at, "metrics": {metric: value, "val/other": 1.0}, "n": n, "of": of}
        for at, value in enumerate(values, start=1)
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (run / "metrics.jsonl").write_text(lines + '{"kind": "vali')
