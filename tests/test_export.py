"""`export` as a user meets it: every task, every format, and every reason why there is no file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from backend.artifact import best_checkpoint, open_artifact
from backend.files import sha256_of
from backend.weights import read_state_dict
from tests.runs import ALL_TASKS, TINY, places, run_of, train
from training.cli import main
from training.tasks import TASKS

WITHOUT_ONNX = {"tiny"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A place for short runs, one of each task that is asked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "tiny", TINY)
        yield tmp_path_factory.mktemp("trained")


def run_for(place: Path, task: str) -> Path:
    if not (place / "out" / task).is_dir():
        assert train(place, task) == 0
    return run_of(place, task)


def export(place: Path, run: Path | str, kind: str, *words: str) -> int:
    return main(["export", str(run), "--format", kind, *words, *places(place)])


def record(run: Path, kind: str) -> dict:
    return json.loads((run / "export" / "export.json").read_text())["exports"][kind]


@pytest.mark.parametrize("task", ALL_TASKS)
def test_weights_come_back_as_they_are(task: str, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_for(trained, task)
    weights = open_artifact(run).weights
    for kind in ("pth", "safetensors"):
        assert export(trained, run, kind) == 0
        path = run / "export" / f"model.{kind}"
        assert str(path) in capsys.readouterr().out
        found = read_state_dict(path)
        assert found.keys() == weights.keys()
        assert all(torch.equal(found[name], value) for name, value in weights.items())
        noted = record(run, kind)
        assert noted["sha256"] == sha256_of(path) and noted["bytes"] == path.stat().st_size
        assert noted["file"] == f"export/model.{kind}" and noted["checkpoint"] == best_checkpoint(run).name
        assert noted["versions"]["torch"] == torch.__version__.partition("+")[0] or noted["versions"]["torch"]
    assert set(json.loads((run / "export" / "export.json").read_text())["exports"]) >= {"pth", "safetensors"}


@pytest.mark.parametrize("task", ALL_TASKS)
def test_safetensors_tell_what_they_are(task: str, trained: Path) -> None:
    run = run_for(trained, task)
    assert export(trained, run, "safetensors") == 0
    with safe_open(run / "export" / "model.safetensors", "pt") as file:
        told = file.metadata()
    artifact = open_artifact(run)
    assert told["task"] == task and told["run_id"] == run.name
    assert told["config_hash"] == artifact.state["config_hash"]
    assert json.loads(told["preprocessing"]) == artifact.preprocessing
    assert json.loads(told["facts"]) == artifact.facts
    assert json.loads(told["classes"]) == artifact.facts.get("classes", [])


@pytest.mark.parametrize("task", sorted(set(ALL_TASKS) - WITHOUT_ONNX))
def test_onnx_runtime_says_the_same(task: str, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import onnx
    import onnxruntime

    run = run_for(trained, task)
    assert export(trained, run, "onnx") == 0
    said = capsys.readouterr().out
    assert "ONNX Runtime" in said and "rows of val" in said and "at most" in said
    noted = record(run, "onnx")
    path = run / noted["file"]
    assert noted["sha256"] == sha256_of(path) and noted["opset"] == 17
    compared = noted["compared"]
    assert compared["ok"] and set(compared["rows"]) == {"random rows", "rows of val"}
    assert all(0 <= value <= compared["limits"][name] for name, value in compared["differences"].items())
    told = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert told["task"] == task and told["run_id"] == run.name
    assert json.loads(told["preprocessing"]) == open_artifact(run).preprocessing
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    assert {one.name for one in session.get_inputs()} == set(noted["inputs"])
    assert [one.name for one in session.get_outputs()] == [noted["output"]]
    count = 3 if noted["any_batch"] else 1
    blank = {name: np.zeros((count, *size[2:]), size[0]) for name, size in noted["inputs"].items()}
    assert len(session.run(None, blank)[0]) == count


@pytest.mark.parametrize("task", sorted(WITHOUT_ONNX))
def test_a_task_without_onnx_says_so(task: str, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(trained, run_for(trained, task), "onnx") == 2
    line = capsys.readouterr().err.strip()
    assert "\n" not in line and f"the task {task} have no ONNX form" in line and "safetensors" in line


def test_a_file_of_ones_own(trained: Path, tmp_path: Path) -> None:
    run = run_for(trained, "tiny")
    assert export(trained, run.name, "pth", "--out", str(tmp_path / "deep" / "mine.pth")) == 0
    assert record(run, "pth")["file"] == str(tmp_path / "deep" / "mine.pth")
    assert read_state_dict(tmp_path / "deep" / "mine.pth")


def test_a_checkpoint_of_a_run(trained: Path, tmp_path: Path) -> None:
    run = run_for(trained, "tiny")
    oldest = min((run / "checkpoints").glob("step-*"))
    assert export(trained, oldest, "safetensors", "--out", str(tmp_path / "one.safetensors")) == 0
    found = read_state_dict(tmp_path / "one.safetensors")
    assert all(torch.equal(found[name], value) for name, value in open_artifact(oldest).weights.items())


def test_data_that_are_gone_leave_random_inputs(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.exporting.data.data_of", lambda run: "/gone")
    run = run_for(trained, "landmarks")
    assert export(trained, run, "onnx") == 0
    assert "note: compared on random inputs alone: the run's dataset is not at hand" in capsys.readouterr().out
    assert set(record(run, "onnx")["compared"]["rows"]) == {"random rows"}


def test_a_dataset_may_be_named_by_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places(tmp_path)
    data = next((tmp_path / "datasets" / ".samples" / "detection").resolve().glob("*.yaml"))
    assert train(tmp_path, "detection", data=str(data)) == 0
    run = run_of(tmp_path, "detection")
    assert export(tmp_path, run, "onnx") == 0
    assert "note: compared on random" not in capsys.readouterr().out
    assert record(run, "onnx")["compared"]["rows"]["rows of val"] > 0


def test_another_answer_is_a_failure(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A runtime that is off by more than is allowed: no file, a line, and a record of by how much."""
    from training.exporting.graph import Session

    right = Session.__call__
    monkeypatch.setattr(Session, "__call__", lambda self, inputs: right(self, inputs) + 0.01)
    run, out = run_for(trained, "landmarks"), tmp_path / "model.onnx"
    assert export(trained, run, "onnx", "--out", str(out)) == 1
    line = capsys.readouterr().err.strip()
    assert "\n" not in line and "difference 0.01 is over 0.0001" in line
    assert not out.exists()
    noted = record(run, "onnx")
    assert noted["file"] is None and not noted["compared"]["ok"]


def test_what_the_exporter_cannot_do_is_a_line(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no symbol for\nthis operator")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    assert export(trained, run_for(trained, "convlstm"), "onnx") == 78
    line = capsys.readouterr().err.strip()
    assert "\n" not in line and "(no symbol for this operator)" in line and "--format safetensors" in line


def test_bad_requests_are_a_line(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_for(trained, "tiny")
    assert export(trained, "nobody", "pth") == 2
    assert "nobody" in capsys.readouterr().err
    assert export(trained, run, "torchscript") == 2
    assert "torchscript" in capsys.readouterr().err
    assert export(trained, run, "pth", "--out", str(tmp_path)) == 2
    assert "--out names the file" in capsys.readouterr().err
    (tmp_path / "file").write_text("in the way")
    assert export(trained, run, "pth", "--out", str(tmp_path / "file" / "model.pth")) == 74
    line = capsys.readouterr().err.strip()
    assert "\n" not in line and "choose another --out" in line
