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
    "from tests.pictures import render_nothing; TASKS['tiny'] = TINY; render_nothing(); sys.exit(main())"
)


def started(place: Path, task: str, hash_seed: str, workers: str) -> subprocess.Popen[bytes]:
    settings = [*SHORT[task], *STEPS, f"training.num_workers={workers}"]
    sets = [word for text in settings for word in ("--set", text)]
    command = [sys.executable, "-c", WORKER, "train", "--task", task, "--data", "sample", *places(place), *sets]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("task", ALL_TASKS)
def test_two_processes_and_two_folders(task: str, tmp_path: Path) -> None:
    here, there = tmp_path / "a", tmp_path / "b" / "deeper"
    with started(here, task, "1", "0") as one, started(there, task, "2", "2") as other:
        assert (one.wait(240), other.wait(240)) == (0, 0)
    runs = [run_of(place, task) for place in (here, there)]
    hashes = [sha256_of(best_checkpoint(run) / "model.safetensors") for run in runs]
    print(f"{task}: {hashes[0]}")  # noqa: T201
    assert hashes[0] == hashes[1]
    losses = [[line["loss"] for line in read_json_lines(run / "metrics.jsonl", '"train"')] for run in runs]
    assert losses[0] == losses[1] and len(losses[0]) >= 2
