"""From the command to the run folder, for every task there is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from backend.artifact import open_artifact
from backend.weights import class_names_in, read_state_dict
from tests.runs import ALL_TASKS, SHORT, places, register_tiny, run_of, train
from training.cli import main
from training.files import read_json_lines
from training.runs.run import Run
from training.yaml_core import read_yaml

EXPECTED = [
    "config.yaml",
    "metadata.yaml",
    "split.json",
    "metrics.jsonl",
    "events.jsonl",
    "train.log",
    "training_history.json",
    "tensorboard",
    "checkpoints",
    "best_model.pth",
    "evaluations/val/metrics.json",
    "evaluations/test/metrics.json",
    "evaluations/test/table.txt",
    "evaluations/test/scores.csv",
    "report.html",
]


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    register_tiny(monkeypatch)


@pytest.mark.parametrize("task", ALL_TASKS)
def test_train_leaves_a_complete_run(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, task) == 0
    run = run_of(tmp_path, task)
    assert [name for name in EXPECTED if not (run / name).exists()] == []
    metadata = read_yaml(run / "metadata.yaml")
    assert metadata["state"] == "finished"
    assert metadata["dataset"]["is_sample"] is True
    test = json.loads((run / "evaluations/test/metrics.json").read_text())
    assert test["is_sample"] is True
    assert test["n"] > 0
    assert all(name.startswith("test/") for name in test["metrics"])
    printed = capsys.readouterr().out
    assert "sample" in printed
    assert "--data" in printed
    assert printed.splitlines()[0].endswith("train.log")
    assert printed.splitlines()[-1] == f"run id: {run.name}"
    assert not [event for event in read_json_lines(run / "events.jsonl") if event["event"] == "not drawn"]


@pytest.mark.parametrize("task", ALL_TASKS)
def test_a_finished_run_is_not_trained_again(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, task) == 0
    run = run_of(tmp_path, task)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert train(tmp_path, task) == 0
    assert "finished before" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("task", ALL_TASKS)
def test_the_same_command_gives_the_same_weights_elsewhere(task: str, tmp_path: Path) -> None:
    for place in ("a", "b"):
        assert train(tmp_path / place, task) == 0
    a, b = (open_artifact(run_of(tmp_path / place, task)) for place in ("a", "b"))
    assert all(torch.equal(a.weights[name], b.weights[name]) for name in a.weights)


@pytest.mark.parametrize("task", ALL_TASKS)
def test_the_saved_config_repeats_the_run(task: str, tmp_path: Path) -> None:
    assert train(tmp_path / "a", task) == 0
    first = run_of(tmp_path / "a", task)
    words = [
        "train",
        "--task",
        task,
        *places(tmp_path / "b"),
        "--data",
        "sample",
        "--config",
        str(first / "config.yaml"),
    ]
    assert main(words) == 0
    second = run_of(tmp_path / "b", task)
    assert read_yaml(first / "metadata.yaml")["config_hash"] == read_yaml(second / "metadata.yaml")["config_hash"]
    a, b = open_artifact(first), open_artifact(second)
    assert all(torch.equal(a.weights[name], b.weights[name]) for name in a.weights)


@pytest.mark.parametrize("task", ALL_TASKS)
def test_best_model_pth_holds_the_best_weights(task: str, tmp_path: Path) -> None:
    assert train(tmp_path, task) == 0
    run = run_of(tmp_path, task)
    published = read_state_dict(run / "best_model.pth")
    weights = open_artifact(run).weights
    assert all(torch.equal(published[name], weights[name]) for name in weights)
    loaded = torch.load(run / "best_model.pth", weights_only=True)  # as other programs read it
    told = {"epoch", "config", "config_hash", "metrics", "preprocessing", "facts", "metadata"}
    assert {"model_state_dict", *told} <= set(loaded)
    assert class_names_in(run / "best_model.pth") == loaded["facts"].get("classes")
    assert loaded["metadata"]["run_id"] == run.name


def test_a_damaged_published_file_is_written_again_on_extension(tmp_path: Path) -> None:
    assert train(tmp_path, "tiny") == 0
    run = run_of(tmp_path, "tiny")
    (run / "best_model.pth").write_bytes(b"damaged")
    words = ["train", "--resume", run.name, *places(tmp_path), "--set", "training.epochs=5"]
    assert main(words) == 0
    read_state_dict(run / "best_model.pth")
    events = read_json_lines(run / "events.jsonl")
    (extended,) = [event for event in events if event["event"] == "extended"]
    assert extended["changed"] == {"training.epochs": [4, 5]}
    assert read_yaml(run / "config.yaml")["training"]["epochs"] == 5
    first, second = [event["step"] for event in events if event["event"] == "finished"]
    assert second > first


def test_another_setting_or_resume_never_is_another_run(tmp_path: Path) -> None:
    assert train(tmp_path, "tiny") == 0
    assert train(tmp_path, "tiny", sets=("training.learning_rate=0.02",)) == 0
    assert train(tmp_path, "tiny", "--resume", "never") == 0
    assert len(list((tmp_path / "out" / "tiny").iterdir())) == 3


def test_a_changed_dataset_begins_a_new_run(tmp_path: Path) -> None:
    data = tmp_path / "numbers"
    data.mkdir()
    from tests.tiny_task import TinyTask

    TinyTask.make_sample(data, seed=1)
    assert train(tmp_path, "tiny", data=str(data)) == 0
    (data / "numbers.csv").unlink()
    TinyTask.make_sample(data, seed=2)
    assert train(tmp_path, "tiny", data=str(data)) == 0
    assert len(list((tmp_path / "out" / "tiny").iterdir())) == 2


def test_two_datasets_under_one_setting_keep_their_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.tiny_task import TinyTask

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        TinyTask.make_sample(tmp_path / name, seed=ord(name))
        assert train(tmp_path, "tiny", data=str(tmp_path / name)) == 0
    capsys.readouterr()
    assert train(tmp_path, "tiny", data=str(tmp_path / "a")) == 0
    assert "finished before" in capsys.readouterr().out
    (tmp_path / "a").rename(tmp_path / "moved")
    assert train(tmp_path, "tiny", data=str(tmp_path / "b")) == 0
    assert len(list((tmp_path / "out" / "tiny").iterdir())) == 2


def test_other_data_do_not_replace_a_run_s_own_scores(tmp_path: Path) -> None:
    from tests.tiny_task import TinyTask

    assert train(tmp_path, "tiny") == 0
    run = run_of(tmp_path, "tiny")
    own = (run / "evaluations/test/metrics.json").read_bytes()
    (tmp_path / "other").mkdir()
    TinyTask.make_sample(tmp_path / "other", seed=9)
    words = ["evaluate", run.name, "--split", "test", "--data", str(tmp_path / "other"), *places(tmp_path)]
    assert main(words) == 0
    assert (run / "evaluations/test/metrics.json").read_bytes() == own
    assert len(list((run / "evaluations").glob("test-*/metrics.json"))) == 1


@pytest.mark.parametrize(
    ("setting", "line"),
    [("selection.metric=val/maee", "did you mean val/mae"), ("selection.mode=max", "set it to min")],
)
def test_a_selection_that_cannot_work_is_told_before_training(
    setting: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, "tiny", sets=(setting,)) == 78
    assert line in capsys.readouterr().err
    assert not list(run_of(tmp_path, "tiny").glob("checkpoints/step-*"))


def test_an_extension_that_changes_the_experiment_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, "tiny") == 0
    run = run_of(tmp_path, "tiny")
    before = (run / "config.yaml").read_bytes(), (run / "metadata.yaml").read_bytes()
    assert main(["train", "--resume", run.name, *places(tmp_path), "--set", "model.hidden=3"]) == 78
    assert "model.hidden cannot change inside a run" in capsys.readouterr().err
    assert ((run / "config.yaml").read_bytes(), (run / "metadata.yaml").read_bytes()) == before


def test_the_best_survives_an_extension(tmp_path: Path) -> None:
    """The validation of a run's end counts for the longer run too, wherever its steps ended."""
    sets = ("training.max_steps=7", "training.epochs=6", "training.learning_rate=0.3", "training.keep_checkpoints=1")
    assert train(tmp_path, "tiny", sets=sets) == 0
    run = run_of(tmp_path, "tiny")
    assert main(["train", "--resume", run.name, *places(tmp_path), "--set", "training.max_steps=23"]) == 0
    validations = [line for line in read_json_lines(run / "metrics.jsonl") if line["kind"] == "validation"]
    best = min(validations, key=lambda line: line["metrics"]["val/loss"])["step"]
    assert open_artifact(run).state["progress"]["step"] == best


def test_a_second_worker_on_the_run_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, "tiny") == 0
    run = Run(run_of(tmp_path, "tiny"))
    with run.locked():
        run.update(state="interrupted")
        assert train(tmp_path, "tiny") == 78
    assert "another worker is at work" in capsys.readouterr().err


@pytest.mark.parametrize("task", ALL_TASKS)
def test_evaluate_counts_the_looks_at_test(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, task) == 0
    run = run_of(tmp_path, task)
    assert main(["evaluate", run.name[:12], "--split", "test", *places(tmp_path)]) == 0
    test = json.loads((run / "evaluations/test/metrics.json").read_text())
    assert test["looks"] == 2
    assert main(["report", run.name, *places(tmp_path)[:2]]) == 0


def test_prepare_prunes_the_other_caches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def prepare(size: str, *words: str) -> list[str]:
        sets = [*SHORT["convlstm"], "data.levels=max", f"data.downsample_size={size}"]
        asked = [word for text in sets for word in ("--set", text)]
        assert main(["prepare", *places(tmp_path), "--data", "sample", "--config", "sample", *asked, *words]) == 0
        caches = (tmp_path / "datasets/.prepared/convlstm").iterdir()
        return sorted(path.name for path in caches if not path.name.startswith("."))

    (first,) = prepare("[64, 64]")
    both = prepare("[8, 8]")
    assert len(both) == 2
    assert "freed" not in capsys.readouterr().out
    assert prepare("[8, 8]", "--prune") == [name for name in both if name != first]
    freed = float(capsys.readouterr().out.rpartition("deleted, ")[2].split()[0])
    assert freed > 0
    assert prepare("[8, 8]", "--prune") == [name for name in both if name != first]
    assert "deleted, 0.0 MB freed" in capsys.readouterr().out


def test_an_output_that_cannot_be_written_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("a file where the folder should be")
    assert train(tmp_path, "tiny") == 74
    assert "--output" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a/b", "..", "", "white space"])
def test_a_run_name_that_is_no_folder_name_is_told(name: str, tmp_path: Path) -> None:
    if name:
        assert train(tmp_path, "tiny", "--run-name", name) == 78


def test_an_unknown_run_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "20200101_000000_no", *places(tmp_path)]) == 2
    assert "no such run" in capsys.readouterr().err


def test_a_run_at_work_on_other_data_is_in_nobodys_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.tiny_task import TinyTask

    register_tiny(monkeypatch)
    for name, seed in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        TinyTask.make_sample(tmp_path / name, seed=seed)
    assert train(tmp_path, "tiny", data=str(tmp_path / "a")) == 0
    first = Run(run_of(tmp_path, "tiny"))
    with first.locked():
        first.update(state="running")
        assert train(tmp_path, "tiny", data=str(tmp_path / "b")) == 0
    assert len([path for path in (tmp_path / "out/tiny").iterdir() if not path.name.startswith(".")]) == 2
