"""`runs verify`: an untouched run holds, each kind of damage is found, and training again gives the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.artifact import best_checkpoint
from tests.runs import ALL_TASKS, register_tiny, run_of, train
from training.files import read_json, write_json
from training.requests import VerifyRequest
from training.run import read_yaml, write_yaml
from training.verify import verify_run

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


def test_a_published_file_that_is_gone_or_changed(tmp_path: Path, run: Path) -> None:
    (run / "best_model.pth").write_bytes(b"other")
    assert failed(tmp_path, run) == {"best_model.pth"}
    (run / "best_model.pth").unlink()
    assert failed(tmp_path, run) == {"best_model.pth"}
