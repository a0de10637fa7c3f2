"""`import`: old weights become a run that can be scored and can forecast, and nothing about them is made up."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from backend.artifact import open_artifact
from tests.runs import ALL_TASKS, SHORT, places, register_tiny, run_of, train
from training.cli import main
from training.files import read_json
from training.runs.run import Run, read_yaml


@pytest.fixture(autouse=True)
def every_task(monkeypatch: pytest.MonkeyPatch) -> None:
    register_tiny(monkeypatch)


def import_(place: Path, task: str, file: Path, *more: str, data: str = "sample") -> int:
    sets = [word for text in SHORT[task] for word in ("--set", text)]
    return main(["import", str(file), "--task", task, "--data", data, *places(place), *sets, *more])


@pytest.fixture
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Weights as another program saved them, with what it told of them."""
    assert train(tmp_path / "made", request.param, sets=("training.max_steps=1",)) == 0
    weights = open_artifact(run_of(tmp_path / "made", request.param)).weights
    told = {"epoch": 7, "val_loss": 0.25, "history": list(range(1000))}
    torch.save({"model_state_dict": {f"module.{k}": v for k, v in weights.items()}, **told}, tmp_path / "old.pth")
    return tmp_path / "old.pth"


@pytest.mark.parametrize(("task", "old"), [(task, task) for task in ALL_TASKS], indirect=["old"])
def test_old_weights_can_be_scored_like_new_ones(
    task: str, old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "place"
    assert import_(place, task, old) == 0
    run = run_of(place, task)
    out = capsys.readouterr().out
    assert f"run id: {run.name}" in out
    assert ("the weights are those of a detector of 4 classes, its head too" in out) == (task == "detection")
    made = run_of(tmp_path / "made", task)
    theirs, ours = open_artifact(made).weights, open_artifact(run).weights
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)
    metadata = read_yaml(run / "metadata.yaml")
    assert metadata["state"] == "imported"
    assert metadata["imported"]["told"] == {"epoch": 7, "val_loss": 0.25}
    assert "its split" in metadata["imported"]["unknown"]
    assert not (run / "split.json").exists()
    assert main(["evaluate", run.name, "--split", "test", *places(place)]) == 0
    assert "nobody knows what this model was trained on" in capsys.readouterr().out
    found = run / "evaluations/test/metrics.json"  # the headline: what was imported is about these data
    expected = read_json(made / "evaluations/test/metrics.json")["metrics"]
    assert read_json(found)["metrics"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("old", ["tiny"], indirect=True)
def test_an_imported_run_is_never_continued(old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "place"
    assert import_(place, "tiny", old, "--run-name", "run") == 0
    imported = run_of(place, "tiny")
    assert train(place, "tiny", "--run-name", "run") == 0
    runs = [Run(path) for path in (place / "out/tiny").iterdir() if not path.name.startswith(".")]
    assert sorted(run.metadata["state"] for run in runs) == ["finished", "imported"]
    assert train(place, "tiny", "--resume", imported.name) == 2
    assert "model.init_from=" in capsys.readouterr().err


@pytest.mark.parametrize("old", ["tiny"], indirect=True)
def test_what_cannot_be_imported(old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "place"

    def refusal(file: Path, code: int, *more: str) -> str:
        capsys.readouterr()
        assert import_(place, "tiny", file, *more) == code
        assert not list((place / "out").glob("tiny/2*"))
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    assert "no such file" in refusal(tmp_path / "none.pth", 2)
    assert "of another model" in refusal(old, 78, "--set", "model.hidden=9")
    (tmp_path / "bad.pth").write_bytes(pickle.dumps(print))
    assert "bad.pth" in refusal(tmp_path / "bad.pth", 65)
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    assert "as safetensors" in refusal(tmp_path / "bad.safetensors", 65)
    assert "becomes a folder's name" in refusal(old, 78, "--run-name", "a/b")


@pytest.mark.parametrize("old", ["tiny"], indirect=True)
def test_safetensors_are_weights_too(old: Path, tmp_path: Path) -> None:
    made = open_artifact(run_of(tmp_path / "made", "tiny"))
    assert import_(tmp_path / "place", "tiny", made.folder / "model.safetensors") == 0
    ours = open_artifact(run_of(tmp_path / "place", "tiny")).weights
    assert all(torch.equal(made.weights[name], ours[name]) for name in ours)


@pytest.mark.parametrize("old", ["tiny"], indirect=True)
def test_an_imported_run_is_listed_with_its_scores_and_verified(
    old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "place"
    assert import_(place, "tiny", old) == 0
    run = run_of(place, "tiny")
    assert main(["evaluate", run.name, *places(place)]) == 0
    assert main(["runs", "show", run.name, "--output", str(place / "out")]) == 0
    assert "val/mae" in capsys.readouterr().out
    assert main(["runs", "verify", run.name, *places(place)]) == 0
    assert "these are imported weights" in capsys.readouterr().out


@pytest.mark.parametrize("old", ["tiny"], indirect=True)
def test_the_data_must_be_named(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", str(old), "--task", "tiny", *places(tmp_path / "place")]) == 65
    assert "--data FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize("old", ["tiny"], indirect=True)
def test_a_split_that_is_known_is_looked_at_for_leaks(
    old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "place"
    assert import_(place, "tiny", old, "--split-known") == 0
    assert "unknown: the seed, the settings of training\n" in capsys.readouterr().out
    run, made = run_of(place, "tiny"), run_of(tmp_path / "made", "tiny")
    assert read_json(run / "split.json") == read_json(made / "split.json")
    told = read_yaml(run / "metadata.yaml")["imported"]
    assert told["split_told"] is True
    assert told["unknown"] == ["the seed", "the settings of training"]
    assert main(["evaluate", run.name, "--split", "test", *places(place)]) == 0
    out = capsys.readouterr().out
    assert "nobody knows" not in out
    assert "its split is what was said with --split-known; nothing can check it" in out
    assert main(["runs", "verify", run.name, *places(place)]) == 0
    assert "the same pairs in each" in capsys.readouterr().out
    assert main(["audit", run.name, "--output", str(place / "out")]) == 0
