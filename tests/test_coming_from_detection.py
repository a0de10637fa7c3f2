"""The commands of the street-scene framework, as `docs/coming-from.md` maps them, on the task they were made for."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runs import SHORT, small_sample
from tests.test_coming_from import here
from training.api import ConfigManager, ModelRegistry
from training.cli import main
from training.files import read_json
from training.runs.run import read_yaml

CONFIG = "detection_config.yaml"
TRAIN = "train --task detection --config FILE --set data.subtask=vehicle_detection --data YAML --run-name NAME"
OVERRIDES = ["detection.training.learning_rate=0.001", "detection.training.batch_size=4"]


def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of a short training, as variables: the document's commands stay as they are."""
    for text in SHORT["detection"]:
        key, _, value = text.partition("=")
        if not key.startswith("training.batch_size"):  # a variable would win over the file's
            monkeypatch.setenv("TRAIN_WORKER_" + key.upper().replace(".", "__"), value)


def train(name: str, *more: str) -> int:
    return main([*here(TRAIN, FILE=CONFIG, YAML=data_yaml(), NAME=name), *more])


def data_yaml() -> str:
    return str(small_sample("detection") / "data.yaml")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with two runs of the sub-task: one by the file alone, one with overrides."""
    place = tmp_path_factory.mktemp("street_scenes")
    (place / CONFIG).write_text("training: {batch_size: 2, seed: 42, log_every_steps: 1}\n", "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        short(patch)
        assert train("my_vehicle_detector_v1") == 0
        assert train("exp_high_lr", *(word for text in OVERRIDES for word in ("--config-override", text))) == 0
    return place


@pytest.fixture
def place(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same, as the current folder."""
    monkeypatch.chdir(trained)
    short(monkeypatch)
    yield trained


def run_called(name: str) -> Path:
    (run,) = Path("model_output/detection").glob(f"2*_{name}")
    return run


def test_a_run_directory_holds_what_the_document_says(place: Path) -> None:
    run = run_called("my_vehicle_detector_v1")
    assert all((run / name).is_file() for name in ("config.yaml", "metadata.yaml", "best_model.pth"))
    metadata = read_yaml(run / "metadata.yaml")
    assert metadata["subtask"] == "vehicle_detection"
    assert metadata["facts"]["classes"] == ["car", "truck", "bus"]  # the sample's fourth class is no vehicle


def test_overrides_with_the_tasks_name_in_front_change_the_training(place: Path) -> None:
    run = run_called("exp_high_lr")
    config = read_yaml(run / "config.yaml")
    assert (config["training"]["learning_rate"], config["training"]["batch_size"]) == (0.001, 4)
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert max(entry["lr"] for entry in logged if "lr" in entry) == pytest.approx(0.001)


def test_the_saved_config_repeats_the_run(place: Path) -> None:
    first = run_called("my_vehicle_detector_v1")
    words = "train --task detection --config model_output/detection/RUN/config.yaml --data YAML --seed 42"
    assert main([*here(words, RUN=first.name, YAML=data_yaml()), "--run-name", "again"]) == 0
    again = run_called("again")
    hashes = {read_yaml(run / "metadata.yaml")["config_hash"] for run in (first, again)}
    scores = [read_json(run / "evaluations/test/metrics.json")["metrics"] for run in (first, again)]
    assert len(hashes) == 1
    assert scores[0] == scores[1]


def test_evaluation_with_the_configuration_verified(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_called("my_vehicle_detector_v1")
    words = "evaluate model_output/detection/RUN/best_model.pth --config FILE --split test --data YAML --verify-config"
    saved = str(run / "config.yaml")
    capsys.readouterr()
    assert main(here(words, RUN=run.name, FILE=saved, YAML=data_yaml())) == 0
    assert "the configuration is the checkpoint's" in capsys.readouterr().out
    other = Path("other.yaml")
    other.write_text("training: {batch_size: 8}\n", "utf-8")
    assert main(here(words, RUN=run.name, FILE=str(other), YAML=data_yaml())) == 0
    assert "Config hash mismatch! Checkpoint config hash: " in capsys.readouterr().out


def test_the_best_of_a_sub_task_is_found_and_all_are_exported(place: Path) -> None:
    registry = ModelRegistry("model_output/registry.json")
    entries = registry.find_entries_by_task("vehicle_detection")
    assert {entry["run_name"] for entry in entries} >= {"my_vehicle_detector_v1", "exp_high_lr"}
    best = registry.find_best_entry_by_metric(task="vehicle_detection", metric_name="best_val_metric", mode="max")
    assert best is not None
    assert Path(best["checkpoint_path"]).is_file()
    assert best["metrics"]["best_val_metric"] == max(entry["metrics"]["best_val_metric"] for entry in entries)
    registry.export_to_csv("model_registry.csv")
    with Path("model_registry.csv").open(newline="", encoding="utf-8") as file:
        assert {row["run_id"] for row in csv.DictReader(file)} == {entry["run_id"] for entry in entries}


def test_runs_are_found_by_their_configuration(place: Path) -> None:
    run = run_called("my_vehicle_detector_v1")
    manager = ConfigManager(str(run / "config.yaml"))
    entries = ModelRegistry("model_output/registry.json").find_entries_by_config_hash(manager.get_config_hash())
    assert run.name in {entry["run_id"] for entry in entries}
    other = ConfigManager(str(run_called("exp_high_lr") / "config.yaml"))
    assert manager.get_config_hash() != other.get_config_hash()


def test_all_runs_are_evaluated(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(here("evaluate --all --task TASK --split test", TASK="detection")) == 0
    out = capsys.readouterr().out
    assert all(run_called(name).name in out for name in ("my_vehicle_detector_v1", "exp_high_lr"))
