"""`train --seeds`: a run for each seed, alike but for it, and none trained twice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backend.errors import DivergedError, InterruptedRunError
from tests.runs import places, register_tiny, train
from training.cli import main
from training.commands import train as pipeline
from training.commands.seeds import requests_by_seed
from training.config.compare import parse
from training.config.keys import flat_values
from training.requests import TrainRequest
from training.runs.run import Run, read_yaml
from training.tasks import config_class


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    register_tiny(monkeypatch)


def runs(place: Path) -> dict[str, Run]:
    """By run name."""
    found = [Run(path) for path in sorted((place / "out/tiny").glob("2*"))]
    return {run.metadata["run_name"]: run for run in found}


def test_runs_differ_by_seed_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, "tiny", "--seeds", "3,1", sets=("training.max_steps=2",)) == 0
    found = runs(tmp_path)
    assert {*found} == {"seed3", "seed1"}
    assert [run.metadata["state"] for run in found.values()] == ["finished", "finished"]
    schema = config_class("tiny")
    one, other = (
        flat_values(parse(schema, read_yaml(run.path("config.yaml")), "")) for run in (found["seed3"], found["seed1"])
    )
    assert {key: (one[key], other[key]) for key in one if one[key] != other[key]} == {"training.seed": (3, 1)}
    assert found["seed3"].read_json("split.json") == found["seed1"].read_json("split.json")
    ids = f"{found['seed3'].run_id} {found['seed1'].run_id}"
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"--- 2 trained: {ids}",
        f"next: python training/train_worker.py runs compare {ids}",
    ]


def test_the_same_command_trains_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--seeds", "1,2,3", "--run-name", "set")
    trained_run = pipeline.trained_run

    def stopped_at_2(request: TrainRequest) -> Run:
        if request.seed == 2:
            raise InterruptedRunError("stopped by SIGTERM; run the same command to continue")
        return trained_run(request)

    monkeypatch.setattr(pipeline, "trained_run", stopped_at_2)
    assert train(tmp_path, "tiny", *words, sets=("training.max_steps=2",)) == 75
    assert [*runs(tmp_path)] == ["set_seed1"]
    before = (runs(tmp_path)["set_seed1"].path("metadata.yaml")).stat().st_mtime_ns
    monkeypatch.setattr(pipeline, "trained_run", trained_run)
    capsys.readouterr()
    assert train(tmp_path, "tiny", *words, sets=("training.max_steps=2",)) == 0
    assert [*runs(tmp_path)] == ["set_seed1", "set_seed2", "set_seed3"]
    assert (runs(tmp_path)["set_seed1"].path("metadata.yaml")).stat().st_mtime_ns == before
    out = capsys.readouterr().out
    assert "finished before" in out
    assert f"--- 3 trained: {' '.join(run.run_id for run in runs(tmp_path).values())}" in out


def test_a_stop_between_two_trainings_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def finished(request: TrainRequest) -> Run:
        os.kill(os.getpid(), 15)
        return Run(tmp_path / "run")

    monkeypatch.setattr(pipeline, "trained_run", finished)
    assert train(tmp_path, "tiny", "--seeds", "1,2") == 75


def test_a_seed_that_diverges_does_not_keep_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained_run = pipeline.trained_run

    def diverging(request: TrainRequest) -> Run:
        if request.seed == 1:
            raise DivergedError("the loss is not finite")
        return trained_run(request)

    monkeypatch.setattr(pipeline, "trained_run", diverging)
    assert train(tmp_path, "tiny", "--seeds", "1,2", sets=("training.max_steps=2",)) == 76
    assert [*runs(tmp_path)] == ["seed2"]
    said = capsys.readouterr()
    assert said.err.strip() == "error: seed 1: the loss is not finite"
    assert f"--- 1 trained: {runs(tmp_path)['seed2'].run_id}" in said.out
    assert "next:" not in said.out


def test_only_the_last_seed_gives_the_machine_back() -> None:
    found = requests_by_seed(TrainRequest(task="tiny", on_finish="destroy"), "5, 4")
    assert [(one.seed, one.run_name, one.on_finish, one.more_follow) for one in found] == [
        (5, "seed5", "destroy", True),
        (4, "seed4", "destroy", False),
    ]


def test_what_would_be_trained_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, "tiny", "--seeds", "7,8", "--print-config") == 0
    out = capsys.readouterr().out
    assert out.startswith("# of seed 7; --seeds 7,8: the others differ in training.seed and the run's name\n")
    assert "  seed: 7\n" in out
    assert train(tmp_path, "tiny", "--seeds", "7,8", "--dry-run") == 0
    assert "_seed7" in capsys.readouterr().out
    assert not (tmp_path / "out/tiny").exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--seeds", "1,x"), "expected whole numbers from 0"),
        (("--seeds", "1,,2"), "expected whole numbers from 0"),
        (("--seeds", "-1"), "expected whole numbers from 0"),
        (("--seeds", "1,2,1"), "1 stands twice"),
        (("--seeds", "1,2", "--seed", "3"), "named a second time"),
        (("--seeds", "1,2", "--set", "training.seed=3"), "named a second time"),
        (("--seeds", "1,2", "--resume", "some_run"), "drop --resume some_run"),
    ],
)
@pytest.mark.parametrize("more", [(), ("--print-config",)])
def test_what_makes_no_set(
    words: tuple[str, ...], why: str, more: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--task", "tiny", "--data", "sample", *places(tmp_path), *words, *more]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: --seeds '")
    assert why in line
    assert not (tmp_path / "out").exists()
