"""The same configuration gives the same weights, bit for bit: in another process, another folder, another hash seed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backend.artifact import best_checkpoint
from backend.files import sha256_of
from tests.runs import ALL_TASKS, SHORT, places, run_of
from training.files import read_json_lines

ROOT = Path(__file__).parent.parent
STEPS = ("training.max_steps=3", "training.log_every_steps=1")
WORKER = (
    "import sys; from tests.runs import TASKS, TINY; from training.cli import main; "
    "TASKS['tiny'] = TINY; sys.exit(main())"
)


def trained(place: Path, task: str, hash_seed: str, workers: str) -> Path:
    settings = [*SHORT[task], *STEPS, f"training.num_workers={workers}"]
    sets = [word for text in settings for word in ("--set", text)]
    command = [sys.executable, "-c", WORKER, "train", "--task", task, "--data", "sample", *places(place), *sets]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    return run_of(place, task)


@pytest.mark.parametrize("task", ALL_TASKS)
def test_two_processes_and_two_folders(task: str, tmp_path: Path) -> None:
    one, other = trained(tmp_path / "a", task, "1", "0"), trained(tmp_path / "b" / "deeper", task, "2", "2")
    hashes = [sha256_of(best_checkpoint(run) / "model.safetensors") for run in (one, other)]
    print(f"{task}: {hashes[0]}")  # noqa: T201
    assert hashes[0] == hashes[1]
    losses = [[line["loss"] for line in read_json_lines(run / "metrics.jsonl", '"train"')] for run in (one, other)]
    assert losses[0] == losses[1] and len(losses[0]) >= 2
