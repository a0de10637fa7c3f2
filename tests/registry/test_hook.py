"""What trainings tell the registry, and that they never fail because of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from backend import errors
from tests.runs import places, register_tiny, run_of, train
from tests.tiny_task import TinyTask
from training.cli import main
from training.registry import hook
from training.registry.folders import stamp_of
from training.registry.index import Registry

from .made import make_run


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    register_tiny(monkeypatch)


def stored(place: Path) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = json.loads((place / "out" / "registry.json").read_text())["runs"]
    return runs


def test_a_training_is_listed_from_its_start_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    register = Registry.register

    def watched(self: Registry, folder: Path, seconds: float = 1.0) -> dict[str, Any]:
        entry = register(self, folder, seconds)
        seen.append(stored(tmp_path)[0]["state"])
        return entry

    monkeypatch.setattr(Registry, "register", watched)
    assert train(tmp_path, "tiny") == 0
    assert seen == ["running", "finished"]
    (entry,) = stored(tmp_path)
    run = run_of(tmp_path, "tiny")
    assert entry["run_id"] == run.name
    assert entry["metrics"].keys() >= {"best_val_metric", "val/mae", "test/mae"}
    assert entry["stamp"] == stamp_of(str(run))  # nothing was written after it
    assert (tmp_path / "out" / entry["checkpoint_path"]).samefile(run / "best_model.pth")


def test_interrupted_failed_and_diverged_runs_stand_there_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wild = ("training.learning_rate=1e30", "training.clip_grad_norm=null", "training.max_skipped_steps=1")
    assert train(tmp_path, "tiny", sets=(*wild, "training.schedule=constant")) == errors.DIVERGED
    assert stored(tmp_path)[0]["state"] == "diverged"
    assert "training.learning_rate" in stored(tmp_path)[0]["error"]

    def fail(*_: Any) -> None:
        raise errors.BadDataError("numbers.csv: gone")

    monkeypatch.setattr(TinyTask, "prepare", fail)
    assert train(tmp_path, "tiny", "--run-name", "no-data") == errors.BAD_DATA
    assert (stored(tmp_path)[1]["state"], stored(tmp_path)[1]["error"]) == ("failed", "numbers.csv: gone")

    def stop(*_: Any) -> None:
        raise errors.InterruptedRunError("stopped")

    monkeypatch.setattr(TinyTask, "prepare", stop)
    assert train(tmp_path, "tiny", "--run-name", "stopped") == errors.INTERRUPTED
    assert stored(tmp_path)[2]["state"] == "interrupted"


def test_evaluating_again_brings_the_new_scores(tmp_path: Path) -> None:
    train(tmp_path, "tiny")
    run = run_of(tmp_path, "tiny")
    (run / "evaluations" / "val" / "metrics.json").unlink()
    lines = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").unlink()
    Registry(tmp_path / "out" / "registry.json").register(run)
    before = stored(tmp_path)[0]["metrics"]
    assert "test/mae" in before
    assert "val/mae" not in before
    (run / "metrics.jsonl").write_text(lines)
    assert main(["evaluate", run.name, *places(tmp_path)]) == 0
    assert stored(tmp_path)[0]["metrics"].keys() >= {"best_val_metric", "val/mae", "test/mae"}


def test_a_run_is_noted_where_its_output_folder_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, "tiny")
    run = run_of(tmp_path, "tiny")
    (tmp_path / "out" / "registry.json").unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["evaluate", str(run), "--datasets", str(tmp_path / "datasets")]) == 0
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert stored(tmp_path)[0]["folder"] == f"tiny/{run.name}"


def test_a_run_that_lies_by_itself_is_noted_in_the_list_that_was_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "archive", "20261125_100000_a")
    alone = run.rename(tmp_path / run.name)
    hook.register_run(alone, tmp_path / "out", lambda line: None)
    assert stored(tmp_path)[0]["folder"] == f"../{alone.name}"


def test_a_training_goes_on_where_the_registry_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "blocked").write_text("")
    monkeypatch.setenv("TRAIN_WORKER_REGISTRY", str(tmp_path / "blocked" / "registry.json"))
    assert train(tmp_path, "tiny") == 0
    log = (run_of(tmp_path, "tiny") / "train.log").read_text()
    assert log.count("warning: the run is not noted in") == 2
    assert "the training goes on" in capsys.readouterr().out
    monkeypatch.delenv("TRAIN_WORKER_REGISTRY")
    assert main(["runs", "list", "--output", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["state"] == "finished"


def test_whatever_breaks_in_the_registry_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Registry, "register", broken)
    said: list[str] = []
    hook.register_run(tmp_path, tmp_path, said.append)
    assert len(said) == 1
    assert "a bug" in said[0]


def test_a_damaged_registry_is_told_in_the_log_and_the_training_goes_on(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "registry.json").write_text('{"format": 1, "runs": [')
    assert train(tmp_path, "tiny") == 0
    log = (run_of(tmp_path, "tiny") / "train.log").read_text()
    assert log.count("is damaged (no valid JSON") == 1
    assert [entry["state"] for entry in stored(tmp_path)] == ["finished"]
    assert len(list((tmp_path / "out").glob("registry.damaged-*"))) == 1


def test_looking_at_runs_does_not_turn_a_worker_away(tmp_path: Path) -> None:
    import fcntl
    import threading

    from training.runs.run import create_run

    run = create_run(tmp_path, "tiny", "x", "", {})
    descriptor = os.open(run.path(".lock"), os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_SH)  # as `at_work` does for an instant
    threading.Timer(0.02, os.close, [descriptor]).start()
    with run.locked():
        run.event("started")
    assert run.events()[0]["event"] == "started"


def test_a_run_that_another_container_makes_with_the_same_process_number_is_left_alone(tmp_path: Path) -> None:
    from training.runs.run import create_run

    others = tmp_path / "tiny" / f".new-{os.getpid()}"
    others.mkdir(parents=True)
    (others / "config.yaml").write_text("task: tiny")
    run = create_run(tmp_path, "tiny", "x", "", {})
    assert (others / "config.yaml").read_text() == "task: tiny"
    assert run.folder.stat().st_mode & 0o777 == 0o755
    assert {path.name for path in (tmp_path / "tiny").iterdir()} == {others.name, run.run_id}


def test_nothing_is_left_of_a_run_that_could_not_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.runs import run

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run, "write_atomic", full)
    with pytest.raises(errors.DiskError, match="No space left"):
        run.create_run(tmp_path, "tiny", "x", "", {})
    assert list((tmp_path / "tiny").iterdir()) == []
