"""``training.api``: registry and configurations under the names that the street-scene framework's documents use."""

from __future__ import annotations

import csv
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from backend.errors import BadDataError, ConfigError, UsageError
from tests.runs import register_tiny, run_of, train
from tests.tiny_task import TinyTask
from training.api import ConfigManager, ModelRegistry
from training.config import config_hash, load_config

from .made import HASH, make_run

ROOT = Path(__file__).parent.parent.parent
A, B = "20261125_100000_a", "20261125_110000_b"


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    make_run(tmp_path, A, metrics={"val/loss": 0.5})
    make_run(tmp_path, B, metrics={"val/loss": 0.4, "val/map": 0.3}, subtask="vehicle_detection", state="finished")
    return ModelRegistry(tmp_path)


def test_the_methods_of_the_documents_work(registry: ModelRegistry, tmp_path: Path) -> None:
    assert [entry["run_id"] for entry in registry.list_all_entries()] == [B, A]
    found = registry.find_entry_by_run_id(A)
    assert found is not None
    assert found["config_hash"] == HASH
    assert registry.find_entry_by_run_id("2025") is None
    assert len(registry.find_entries_by_task("convlstm")) == 2
    assert [entry["run_id"] for entry in registry.find_entries_by_task("vehicle_detection")] == [B]
    assert len(registry.find_entries_by_config_hash(HASH[:8])) == 2
    assert registry.find_entries_by_config_hash("") == []
    best = registry.find_best_entry_by_metric(task="convlstm", metric_name="best_val_metric", mode="min")
    assert best is not None
    assert (best["run_id"], best["metrics"]["best_val_metric"]) == (B, 0.4)
    assert registry.find_best_entry_by_metric("video", "val/loss", "min") is None
    assert registry.get_summary() == {
        "total_entries": 2,
        "tasks": {"convlstm": {"count": 2, "states": {"finished": 2}}},
    }
    registry.export_to_csv(tmp_path / "runs.csv")
    rows = list(csv.DictReader((tmp_path / "runs.csv").read_text().splitlines()))
    assert [row["metric_val/map"] for row in rows] == ["0.3", ""]


def test_the_wrong_way_to_rank_is_refused(registry: ModelRegistry) -> None:
    with pytest.raises(UsageError, match="whose mode is min, not max"):
        registry.find_best_entry_by_metric("convlstm", "best_val_metric", "max")
    with pytest.raises(UsageError, match="matches 2 runs"):
        registry.find_entry_by_run_id("2026")


def test_an_entry_that_was_deleted_stays_so_and_the_folder_stays_too(registry: ModelRegistry, tmp_path: Path) -> None:
    assert registry.delete_entry(A)
    assert not registry.delete_entry(A)
    assert [entry["run_id"] for entry in registry.list_all_entries()] == [B]
    assert (tmp_path / "convlstm" / A / "best_model.pth").is_file()
    registry.register(tmp_path / "convlstm" / A)
    assert len(registry.list_all_entries()) == 2
    with pytest.raises(UsageError, match="no run folder"):
        registry.register(tmp_path)


def test_without_arguments_the_configured_one_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert ModelRegistry().path == tmp_path / "model_output" / "registry.json"
    monkeypatch.setenv("TRAIN_WORKER_OUTPUT_DIR", str(tmp_path / "other"))
    make_run(tmp_path / "other", A)
    assert ModelRegistry().path == tmp_path / "other" / "registry.json"
    monkeypatch.setenv("TRAIN_WORKER_REGISTRY", "lists/mine.json")
    registry = ModelRegistry()
    (entry,) = registry.list_all_entries()
    monkeypatch.chdir("/")
    assert registry.path == tmp_path / "lists" / "mine.json"
    assert Path(entry["checkpoint_path"]).read_bytes() == b"weights"
    assert len(registry.list_all_entries()) == 1


# --- configurations -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        register_tiny(patch)
        assert train(place, "tiny", "--run-name", "mine", sets=("model.hidden=4",)) == 0
        return run_of(place, "tiny")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    register_tiny(monkeypatch)


@pytest.mark.usefixtures("tiny")
def test_a_runs_config_is_the_runs(trained: Path) -> None:
    manager = ConfigManager(trained / "config.yaml")
    (entry,) = ModelRegistry(trained.parent.parent).list_all_entries()
    assert manager.get_config_hash() == entry["config_hash"]
    assert (manager.run_id, manager.run_dir) == (trained.name, trained)
    assert manager.get_config()["model"]["hidden"] == 4


@pytest.mark.usefixtures("tiny")
def test_overrides_are_checked_and_change_the_hash(trained: Path, tmp_path: Path) -> None:
    same = ConfigManager(trained / "config.yaml", ["model.hidden=4"], output_dir=tmp_path)
    other = ConfigManager(trained / "config.yaml", {"model.hidden": 5}, run_name="x", output_dir=tmp_path)
    assert same.get_config_hash() == ConfigManager(trained / "config.yaml").get_config_hash()
    assert other.get_config_hash() != same.get_config_hash()
    assert re.fullmatch(r"\d{8}_\d{6}_x", other.run_id)
    assert other.run_dir.parent == tmp_path / "tiny"
    assert other.user_set["model.hidden"] == "--set model.hidden"
    with pytest.raises(ConfigError, match=r"did you mean model\.hidden"):
        ConfigManager(trained / "config.yaml", ["model.hiden=4"])


@pytest.mark.usefixtures("tiny")
def test_what_is_saved_loads_into_the_same(trained: Path, tmp_path: Path) -> None:
    manager = ConfigManager(trained / "config.yaml", {"model.hidden": 5}, output_dir=tmp_path)
    assert manager.save_config() == manager.run_dir / "config.yaml"
    again = ConfigManager(manager.run_dir / "config.yaml")
    assert again.get_config_hash() == manager.get_config_hash()
    metadata = manager.save_metadata(tmp_path / "kept" / "metadata.yaml").read_text()
    assert f"config_hash: {manager.get_config_hash()}" in metadata
    assert "model.hidden=5" in metadata


@pytest.mark.usefixtures("tiny")
def test_a_runs_metadata_are_not_replaced(trained: Path, tmp_path: Path) -> None:
    record = trained / "metadata.yaml"
    before = record.read_bytes()
    manager = ConfigManager(trained / "config.yaml")
    with pytest.raises(UsageError, match="save_metadata: name a file"):
        manager.save_metadata()
    with pytest.raises(UsageError, match="is there already"):
        manager.save_metadata(record)
    assert record.read_bytes() == before
    with pytest.raises(UsageError, match="name a file"):
        ConfigManager(trained / "config.yaml", {"model.hidden": 5}, output_dir=tmp_path / "new").save_metadata()
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("tiny")
def test_a_checkpoint_tells_its_config(trained: Path, caplog: pytest.LogCaptureFixture) -> None:
    manager = ConfigManager(trained / "config.yaml")
    step = sorted((trained / "checkpoints").glob("step-*"))[-1]
    for path in (trained, trained / "best_model.pth", str(step)):
        assert ConfigManager.from_checkpoint(path).get_config_hash() == manager.get_config_hash()
        assert ConfigManager.load_config_from_checkpoint(path)["model"]["hidden"] == 4
        metadata = ConfigManager.load_metadata_from_checkpoint(path)
        assert (metadata["run_id"], metadata["config_hash"]) == (trained.name, manager.get_config_hash())
        assert manager.verify_config_hash(path)
    assert caplog.records == []
    other = ConfigManager(trained / "config.yaml", {"model.hidden": 5})
    with caplog.at_level(logging.WARNING):
        assert not other.verify_config_hash(trained / "best_model.pth")
    there, here = manager.get_config_hash()[:8], other.get_config_hash()[:8]  # as short as `evaluate` says it
    told = f"Config hash mismatch! Checkpoint config hash: {there}, Current config hash: {here}. "
    assert caplog.messages == [told + "This may affect reproducibility."]
    assert other.verify_config_hash(trained, expected=manager.get_config_hash())


def test_what_is_no_checkpoint_of_ours_is_one_line(tmp_path: Path) -> None:
    from backend.weights import write_pth

    write_pth(tmp_path / "other.pth", {"model_state_dict": {}})
    with pytest.raises(BadDataError, match="holds no configuration"):
        ConfigManager.load_config_from_checkpoint(tmp_path / "other.pth")
    with pytest.raises(BadDataError, match="no such file"):
        ConfigManager.from_checkpoint(tmp_path / "none.pth")
    with pytest.raises(BadDataError, match="no checkpoint"):
        ConfigManager.from_checkpoint(tmp_path)


@pytest.mark.usefixtures("tiny")
def test_a_config_of_another_version_is_one_line(tmp_path: Path) -> None:
    from backend.weights import write_pth

    config = {**TinyTask.config_type(task="tiny").model_dump(mode="json"), "gone": 1}
    write_pth(tmp_path / "old.pth", {"config": config, "config_hash": "x"})
    with pytest.raises(BadDataError, match="of another version"):
        ConfigManager.from_checkpoint(tmp_path / "old.pth")


def test_a_preset_is_a_configuration_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAIN_WORKER_TRAINING__SEED", "7")
    manager = ConfigManager("sample", task="convlstm")
    assert manager.get_config_hash() == config_hash(load_config("convlstm", preset_or_file="sample").config)
    assert manager.run_name == "sample"
    assert ConfigManager("sample", environ={"TRAIN_WORKER_TRAINING__SEED": "7"}).get_config()["training"]["seed"] == 7


# --- documentation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("face", [ModelRegistry, ConfigManager])
def test_what_the_documentation_names_is_there(face: type) -> None:
    text = (ROOT / "docs" / "coming-from.md").read_text("utf-8")
    table = text.split(f"### {face.__name__}\n")[1].split("\n#")[0]
    firsts = "\n".join(re.findall(r"(?m)^\|([^|]*)\|", table))
    named = {name for name in re.findall(r"`(\w+)\(", firsts) if name != face.__name__}
    assert len(named) >= 3
    assert [name for name in sorted(named) if not hasattr(face, name)] == []
    page = (ROOT / "docs" / "registry.md").read_text("utf-8")
    listed = re.findall(
        r"`([a-z_]+)`", page.split(f"`{face.__name__}`: ")[1].split(". ")[0].split("`ConfigManager`")[0]
    )
    assert len(listed) >= 8
    assert [name for name in listed if not hasattr(face, name)] == []


def test_the_example_of_the_documentation_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "registry.md").read_text("utf-8"), re.DOTALL)
    run = make_run(tmp_path / "model_output", A, metrics={"val/loss": 0.5})
    config = load_config("convlstm", preset_or_file="sample").config
    saved = ConfigManager("sample", task="convlstm").save_config(run / "config.yaml")
    assert saved.is_file()
    from backend.weights import write_pth

    content = {"config": config.model_dump(mode="json"), "config_hash": config_hash(config)}
    write_pth(run / "best_model.pth", content)
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == f"{A} 0.5 val/loss"
    assert lines[-2:] == ["different configurations", "True"]
    assert (tmp_path / "runs.csv").read_text().startswith("run_id,task,")
