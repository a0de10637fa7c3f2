"""What `docs/coming-from.md` maps commands to is run here, and stands there in the same words."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.runs import SHORT, register_tiny
from training.cli import main
from training.config import load_config
from training.files import read_json
from training.runs.run import read_yaml

PAGE = (Path(__file__).parents[1] / "docs" / "coming-from.md").read_text("utf-8")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, where the worker is called with the settings that make the tiny task short."""
    register_tiny(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAIN_WORKER_DATA", "sample")
    Path("mine.yaml").write_text(
        "training: {max_steps: 4, batch_size: 4, log_every_steps: 1}\nmodel: {hidden: 3}\n", "utf-8"
    )
    return tmp_path


def here(words: str, **names: str) -> list[str]:
    """The command that stands on the page with the placeholders ``names``, as the worker is given it."""
    assert f"`{words}`" in PAGE or f"`{words};" in PAGE or words in PAGE, f"not on the page: {words}"
    for name, value in names.items():
        words = re.sub(rf"\b{name}\b", value, words)
    return words.split()


def trained(place: Path, name: str, *more: str) -> Path:
    """A run by the first command of the page."""
    command = here("train --task TASK --config FILE --run-name NAME", TASK="tiny", FILE="mine.yaml", NAME=name)
    assert main([*command, *more]) == 0
    (run,) = (place / "model_output/tiny").glob(f"*_{name}")
    return run


def test_a_named_run_with_overrides(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["training.learning_rate=0.5", "training.patience=3", "model.batch_norm=true"]
    run = trained(place, "exp", *(word for text in overrides for word in ("--config-override", text)), "--seed", "42")
    assert capsys.readouterr().out.strip().splitlines()[-1] == f"run id: {run.name}"
    config, metadata = read_yaml(run / "config.yaml"), read_yaml(run / "metadata.yaml")
    assert (config["training"]["learning_rate"], config["training"]["patience"]) == (0.5, 3)
    assert config["model"]["batch_norm"] is True
    assert {"training.learning_rate", "training.patience", "model.batch_norm"} <= set(metadata["overrides"])
    assert metadata["seed"] == 42


def test_the_saved_config_repeats_the_run(place: Path) -> None:
    run = trained(place, "first")
    words = "train --task TASK --config model_output/TASK/RUN/config.yaml --seed 42"
    assert main([*here(words, TASK="tiny", RUN=run.name), "--run-name", "again"]) == 0
    (again,) = (place / "model_output/tiny").glob("*_again")
    hashes = [read_yaml(one / "metadata.yaml")["config_hash"] for one in (run, again)]
    assert hashes[0] == hashes[1]
    first, second = (read_json(one / "evaluations/test/metrics.json")["metrics"] for one in (run, again))
    assert first == second


def test_evaluation_with_the_configuration_verified(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(place, "one")
    words = "evaluate model_output/TASK/RUN/best_model.pth --config FILE --verify-config"
    command = here(words, TASK="tiny", RUN=run.name, FILE="mine.yaml")
    capsys.readouterr()
    assert main(command) == 0
    assert "the configuration is the checkpoint's" in capsys.readouterr().out
    Path("mine.yaml").write_text("training: {max_steps: 5}\n", "utf-8")
    assert main(command) == 0
    assert "Config hash mismatch! Checkpoint config hash: " in capsys.readouterr().out
    assert main([*command, "--strict"]) == 1


def test_all_runs_of_a_task(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [trained(place, name).name for name in ("one", "two")]
    capsys.readouterr()
    assert main(here("evaluate --all --task TASK --split test", TASK="tiny")) == 0
    out = capsys.readouterr().out
    assert all(f"{run}  test/loss" in out for run in runs)


def test_the_variables(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRAIN_WORKER_OUTPUT_DIR", "TRAIN_WORKER_REGISTRY", "TRAIN_WORKER_SEED"):
        assert name in PAGE
    monkeypatch.setenv("TRAIN_WORKER_OUTPUT_DIR", str(place / "experiments"))
    monkeypatch.setenv("TRAIN_WORKER_REGISTRY", str(place / "elsewhere" / "registry.json"))
    monkeypatch.setenv("TRAIN_WORKER_SEED", "123")
    assert main(["train", "--task", "tiny", "--config", "mine.yaml"]) == 0
    (run,) = (place / "experiments/tiny").glob("2*")
    assert read_yaml(run / "metadata.yaml")["seed"] == 123
    registry = json.loads((place / "elsewhere/registry.json").read_text("utf-8"))
    assert [entry["run_id"] for entry in registry["runs"]] == [run.name]


def test_the_same_again_gives_the_same(place: Path) -> None:
    run = trained(place, "one")
    assert main(here("runs verify RUN --retrain", RUN=run.name)) == 0


SEED_CONFIG = {
    "data.downsample_size": [250, 250],
    "data.input_steps": 18,
    "data.prediction_steps": 7,
    "data.stride": 5,
    "data.min_dbz": -29,
    "data.max_dbz": 65,
    "data.downsample_method": "linear",
    "model.hidden_dims": [128, 128, 128],
    "model.kernel_size": 3,
    "model.norm": "layer",
    "training.batch_size": 8,
    "training.epochs": 50,
    "training.learning_rate": 1e-5,
    "training.weight_decay": 1e-5,
    "training.lr_patience": 3,
    "training.clip_grad_norm": 1.0,
    "loss.ssim_weight": 0.5,
    "loss.high_threshold": 0.4,
    "loss.high_penalty_weight": 10,
    "training.log_every_steps": 10,
    "training.keep_every_epochs": 1,
    "training.seed": 42,
}


def test_the_radar_pipelines_own_configuration_is_one_here() -> None:
    assert all(f"`{key}`" in PAGE or f"`{key} " in PAGE or f"`{key}:" in PAGE for key in SEED_CONFIG)
    sets: Sequence[str] = [f"{key}={json.dumps(value)}" for key, value in SEED_CONFIG.items()]
    loaded = load_config("convlstm", sets=list(sets))
    assert set(loaded.user_set) == set(SEED_CONFIG)


def test_the_radar_pipelines_command_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``python -u training/train_worker.py`` with nothing else; variables stand for an edited CONFIG."""
    monkeypatch.chdir(tmp_path)
    for text in SHORT["convlstm"]:
        key, _, value = text.partition("=")
        monkeypatch.setenv("TRAIN_WORKER_" + key.upper().replace(".", "__"), value)
    assert main([]) == 0
    run = next((tmp_path / "model_output/convlstm").glob("2*"))
    assert (run / "best_model.pth").is_file()
    assert main([]) == 0
    assert list(run.parent.glob("2*")) == [run]
