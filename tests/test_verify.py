"""`runs verify`: an untouched run holds, each kind of damage is found, and training again gives the same bits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from backend.artifact import best_checkpoint
from tests.runs import ALL_TASKS, register_tiny, run_of, train
from training.commands.verify import _compared, verify_run
from training.files import read_json, write_json
from training.requests import VerifyRequest
from training.runs.run import read_yaml, write_yaml

ONE_STEP = ("training.max_steps=1",)


@pytest.fixture(autouse=True)
def every_task(monkeypatch: pytest.MonkeyPatch) -> None:
    register_tiny(monkeypatch)


def verify(place: Path, run: Path, **facts: bool) -> tuple[int, dict[str, bool]]:
    """The exit code, and for each check whether it held."""
    code = verify_run(VerifyRequest(run=run.name, output=place / "out", datasets=place / "datasets", **facts))
    report = read_json(run / "verification_report.json")
    assert report["ok"] == (code == 0)
    return code, {check["name"]: check["ok"] for check in report["checks"]}


@pytest.mark.parametrize("task", ALL_TASKS)
def test_an_untouched_run_holds_also_when_it_is_trained_again(task: str, tmp_path: Path) -> None:
    assert train(tmp_path, task, sets=ONE_STEP) == 0
    run = run_of(tmp_path, task)
    before = read_json(run / "evaluations/test/metrics.json")
    code, checks = verify(tmp_path, run, retrain=True)
    assert code == 0, checks
    assert {"configuration", "dataset", "split", "evaluation of val", "evaluation of test"} <= set(checks)
    assert {"retrained weights", "retrained, val", "retrained, test", "best_model.pth"} <= set(checks)
    assert read_json(run / "evaluations/test/metrics.json") == before, "the record was changed"
    assert run_of(tmp_path, task) == run
    assert not list((tmp_path / "out").glob(".verify-*"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    assert train(tmp_path, "tiny", sets=ONE_STEP) == 0
    return run_of(tmp_path, "tiny")


def failed(place: Path, run: Path) -> set[str]:
    code, checks = verify(place, run)
    assert code == 1
    return {name for name, ok in checks.items() if not ok}


def test_a_flipped_bit(tmp_path: Path, run: Path) -> None:
    weights = best_checkpoint(run) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 4
    weights.write_bytes(content)
    assert failed(tmp_path, run) == {best_checkpoint(run).name, "evaluation of val", "evaluation of test"}


def test_other_numbers_in_the_record(tmp_path: Path, run: Path) -> None:
    path = run / "evaluations/test/metrics.json"
    result = read_json(path)
    result["metrics"]["test/mae"] *= 0.9
    write_json(path, result)
    assert failed(tmp_path, run) == {"evaluation of test"}
    del result["metrics"]["test/mae"]
    write_json(path, result)
    assert failed(tmp_path, run) == {"evaluation of test"}


def test_other_settings_data_and_members(tmp_path: Path, run: Path) -> None:
    config = (run / "config.yaml").read_text()
    write_yaml(run / "config.yaml", {**read_yaml(run / "config.yaml"), "selection": {"metric": "val/mae"}})
    assert failed(tmp_path, run) == {"configuration"}
    (run / "config.yaml").write_text(config)
    split = read_json(run / "split.json")
    moved = {**split, "splits": {**split["splits"], "test": split["splits"]["val"]}}
    write_json(run / "split.json", moved)
    assert failed(tmp_path, run) == {"split"}
    write_json(run / "split.json", split)
    numbers = tmp_path / "datasets/.samples/tiny/numbers.csv"
    numbers.write_text("\n".join(numbers.read_text().splitlines()[2:]))
    assert {"dataset", "split"} == failed(tmp_path, run)


@pytest.mark.parametrize("content", ["training: {epochs: 4, momentum: 1}", "training: [", None])
def test_settings_that_cannot_be_read(content: str | None, tmp_path: Path, run: Path) -> None:
    (run / "config.yaml").unlink()
    if content is not None:
        (run / "config.yaml").write_text(content)
    assert failed(tmp_path, run) == {"configuration"}


def test_a_published_file_that_is_gone_or_changed(tmp_path: Path, run: Path) -> None:
    (run / "best_model.pth").write_bytes(b"other")
    assert failed(tmp_path, run) == {"best_model.pth"}
    (run / "best_model.pth").unlink()
    assert failed(tmp_path, run) == {"best_model.pth"}


def test_small_scores_are_compared_by_their_size(tmp_path: Path, run: Path) -> None:
    path = run / "evaluations/test/metrics.json"
    result = read_json(path)
    result["metrics"]["test/mae"] += 1.5e-4 * result["metrics"]["test/mae"]
    write_json(path, result)
    assert failed(tmp_path, run) == {"evaluation of test"}
    check = _compared("x", {"a": 0.00015}, {"a": 0.00006}, 1e-4)
    assert not check.ok
    assert _compared("x", {"a": 0.0}, {"a": 1e-9}, 1e-4).ok


def test_a_split_that_nobody_knows_any_more(tmp_path: Path, run: Path) -> None:
    (run / "split.json").unlink()
    assert failed(tmp_path, run) == {"split"}


def test_a_training_that_comes_out_otherwise_is_told(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is of another training: one with another seed, whose name is kept."""
    from tests.tiny_task import TinyTask

    build = TinyTask.build_model

    def other_start(self: TinyTask, facts: dict) -> torch.nn.Module:
        torch.manual_seed(9)
        return build(self, facts)

    monkeypatch.setattr(TinyTask, "build_model", other_start)
    code, checks = verify(tmp_path, run, retrain=True)
    assert code == 1
    wrong = {name for name, ok in checks.items() if not ok}
    assert wrong == {"retrained weights", "retrained, val", "retrained, test"}


def test_the_second_training_is_nobodys_run(tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = tmp_path / "registry.json"
    monkeypatch.setenv("TRAIN_WORKER_REGISTRY", str(registry))
    monkeypatch.setenv("TRAIN_WORKER_TRAINING__LEARNING_RATE", "0.5")
    left_behind = tmp_path / "out" / ".verify-killed"
    left_behind.mkdir()
    code, checks = verify(tmp_path, run, retrain=True)
    assert code == 0, checks
    assert not registry.exists()
    assert os.environ["TRAIN_WORKER_REGISTRY"] == str(registry)
    assert not left_behind.exists()
