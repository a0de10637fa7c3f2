"""Killed in every stage and restarted by the same command, a run ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.artifact import checkpoints, sha256_of, step_of, verify
from tests.runs import SHORT, small_sample
from training.files import read_json_lines
from training.samples.radar import make_radar_sample

ROOT = Path(__file__).resolve().parent.parent.parent
TIMES = ("time", "seconds", "items_per_second", "data_wait")
STAGES = ("preparation", "training", "validation", "checkpoint")
SETTINGS = {
    "data.input_steps": 3,
    "data.prediction_steps": 2,
    "data.stride": 2,
    "data.downsample_size": "[16, 16]",
    "model.hidden_dims": "[4]",
    "training.epochs": 16,
    "training.batch_size": 2,
    "training.learning_rate": 0.003,
    "training.checkpoint_minutes": 0,
    "training.log_every_steps": 3,
    "training.schedule": "cosine",
}
FOUR_STEPS = {"training.max_steps": 4, "training.checkpoint_minutes": 0, "training.log_every_steps": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("radar")
    make_radar_sample(folder, events=6, frames=14, levels=2, size=32)
    return folder


class Command:
    """One and the same training command, in a place of its own, alive or with a death appointed."""

    def __init__(self, place: Path, data: Path, workers: int, task: str = "convlstm") -> None:
        self.place, self.record, self.task = place, place / "killed", task
        place.mkdir()
        own = SETTINGS if task == "convlstm" else {**dict(text.split("=", 1) for text in SHORT[task]), **FOUR_STEPS}
        sets = {**own, "training.num_workers": workers, "data.prepare_workers": 1 + workers}
        self.words = ["train", "--task", task, "--data", str(data), "--output", str(place / "out")]
        self.words += ["--datasets", str(place / "datasets"), "--run-name", "crash"]
        self.words += [] if task == "convlstm" else ["--config", "sample"]
        self.words += [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]

    def run(self, stage: str = "none", count: int = 0) -> int:
        victim = [sys.executable, "-m", "tests.crash.victim", stage, str(count), str(self.record), "--"]
        done = subprocess.run(
            [*victim, *self.words],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode in (0, -9), done.stderr[-3000:]
        return done.returncode

    @property
    def folder(self) -> Path:
        (found,) = (self.place / "out" / self.task).glob("*_crash")
        return found

    def newest_step(self) -> int:
        try:
            found = checkpoints(self.folder / "checkpoints")
        except ValueError:
            return 0
        return step_of(found[-1]) if found else 0

    def validated(self) -> set[int]:
        try:
            lines = read_json_lines(self.folder / "metrics.jsonl")
        except ValueError:
            return set()
        return {line["step"] for line in lines if line["kind"] == "validation" and line["step"] <= self.newest_step()}

    def events(self) -> list[dict[str, Any]]:
        return read_json_lines(self.folder / "events.jsonl")


def log_of(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in TIMES} for line in read_json_lines(run / "metrics.jsonl")]


def evaluations(run: Path) -> Iterator[Any]:
    for split in ("val", "test"):
        content = json.loads((run / "evaluations" / split / "metrics.json").read_text())
        yield content["metrics"], content["record"]


def blocks_made(place: Path) -> dict[str, str]:
    """Journalled blocks of a preparation under way."""
    lines: dict[str, str] = {}
    for journal in place.glob("datasets/.prepared/convlstm/.building-*/journal.jsonl"):
        for line in journal.read_text().splitlines()[1:]:
            lines[line] = journal.parent.name
    return lines


def kill_and_restart(plan: list[tuple[str, int]], place: Path, data: Path, workers: int) -> tuple[Command, list[str]]:
    """Die by ``plan``, one death a restart, checking after each; then run to the end."""
    command = Command(place, data, workers)
    for stage, count in plan:
        before, validated, made = command.newest_step(), command.validated(), blocks_made(place)
        known = len(command.events()) if list(place.glob("out/convlstm/*_crash")) else 0
        assert command.run(stage, count) == -9, f"the run ended before its death in {stage}"
        for folder in checkpoints(command.folder / "checkpoints"):
            verify(folder)
        new = command.events()[known:]
        resumed = [event for event in new if event["event"] == "resumed"]
        assert all(event["step"] == before for event in resumed), "resumed elsewhere than at the newest checkpoint"
        again = {event["step"] for event in new if event["event"] == "validation"}
        assert not again & validated, "a recorded validation was made again"
        if stage == "preparation":
            assert set(made) <= set(blocks_made(place)), "finished blocks were made again"
    deaths = command.record.read_text().split()
    assert command.run() == 0
    return command, deaths


def same_end(killed: Path, undisturbed: Path) -> None:
    mine, others = (checkpoints(run / "checkpoints")[-1] for run in (killed, undisturbed))
    assert mine.name == others.name
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert sha256_of(mine / name) == sha256_of(others / name), f"{name} differs"
    assert log_of(killed) == log_of(undisturbed)
    assert list(evaluations(killed)) == list(evaluations(undisturbed))


def plan_of(rounds: int) -> list[tuple[str, int]]:
    """``rounds`` deaths in each stage: preparation first, since it is over for good once it is done."""
    deaths = [("preparation", 5 + 4 * k) for k in range(rounds)]
    for k in range(rounds):
        deaths += [("training", 2 + 3 * k), ("checkpoint", 1 + 4 * k), ("validation", 1 + k)]
    return deaths


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    command = Command(tmp_path_factory.mktemp("whole") / "place", data, 0)
    assert command.run() == 0
    return command.folder


@pytest.mark.crash
@pytest.mark.timeout(600)
def test_killed_once_in_each_stage(tmp_path: Path, data: Path, undisturbed: Path) -> None:
    command, deaths = kill_and_restart(plan_of(1), tmp_path / "place", data, workers=0)
    assert sorted(deaths) == sorted(STAGES)
    same_end(command.folder, undisturbed)


@pytest.mark.crash
@pytest.mark.timeout(600)
@pytest.mark.parametrize("task", ["detection", pytest.param("landmarks", marks=pytest.mark.slow)])
def test_other_tasks_killed_and_continued(task: str, tmp_path: Path) -> None:
    whole, killed = (Command(tmp_path / name, small_sample(task), 0, task) for name in ("whole", "killed"))
    assert whole.run() == 0
    assert [killed.run("training", 2), killed.run("validation", 1), killed.run()] == [-9, -9, 0]
    assert killed.record.read_text().split() == ["training", "validation"]
    same_end(killed.folder, whole.folder)


@pytest.mark.crash
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("workers", [0, 2])
def test_twenty_kills(tmp_path: Path, data: Path, undisturbed: Path, workers: int) -> None:
    command, deaths = kill_and_restart(plan_of(5), tmp_path / "place", data, workers)
    assert len(deaths) == 20
    assert all(deaths.count(stage) == 5 for stage in STAGES)
    same_end(command.folder, undisturbed)
