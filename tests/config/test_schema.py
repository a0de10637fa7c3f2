"""The JSON Schema of the settings: kept beside the presets, current, and of one mind with the loader."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from backend.errors import ConfigError
from training.cli import main
from training.config import load_config, preset_names
from training.config.json_schema import SCHEMA_FILE, json_schema, schema_text
from training.config.keys import keys_of
from training.config.layers import PRESETS
from training.tasks import TASKS, config_class
from training.yaml_core import parse_yaml

SHIPPED = list(TASKS)  # before tests add theirs


def check(*files: Path, task: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--schemafile", str(PRESETS / task / SCHEMA_FILE)]
    return subprocess.run([*command, *map(str, files)], capture_output=True, text=True, check=False)


def node_of(schema: dict[str, Any], path: str) -> dict[str, Any]:
    for name in path.split("."):
        schema = schema["properties"][name]
    return schema


def refused_by_schema(task: str, text: str) -> bool:
    return not Draft202012Validator(json_schema(task)).is_valid(parse_yaml(text, "test"))


@pytest.mark.parametrize("task", SHIPPED)
def test_the_file_beside_the_presets_is_current(task: str) -> None:
    command = f"training/train_worker.py config schema --task {task} > training/configs/{task}/{SCHEMA_FILE}"
    assert (PRESETS / task / SCHEMA_FILE).read_text("utf-8") == schema_text(task), f"make it anew: {command}"


@pytest.mark.parametrize("task", SHIPPED)
def test_every_preset_names_its_schema_and_is_valid_by_it(task: str) -> None:
    presets = [PRESETS / task / f"{name}.yaml" for name in preset_names(task)]
    for preset in presets:
        assert preset.read_text("utf-8").splitlines()[0] == f"# yaml-language-server: $schema={SCHEMA_FILE}"
    done = check(*presets, task=task)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("task", SHIPPED)
def test_a_wrong_file_is_refused_by_a_common_checker(task: str, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("training:\n  learnin_rate: 1e-4\n  epochs: many\n")
    done = check(wrong, task=task)
    assert done.returncode == 1
    assert "learnin_rate" in done.stdout
    assert "'many'" in done.stdout


@pytest.mark.parametrize("task", SHIPPED)
def test_every_key_has_its_sentence_and_the_default_that_the_loader_takes(task: str) -> None:
    schema, config = json_schema(task), load_config(task).config.model_dump(mode="json")
    Draft202012Validator.check_schema(schema)
    for path, key in keys_of(config_class(task)).leaves.items():
        node = node_of(schema, path)
        assert node["description"].startswith(key.about), path
        value = config
        for name in path.split("."):
            value = value[name]
        assert node["default"] == value, path
        assert Draft202012Validator(node).is_valid(value), path


@pytest.mark.parametrize(
    "text",
    [
        "training: {epochs: 0}",
        "training: {epochs: 2.5}",
        "training: {deterministic: yes}",
        "training: {lr_factor: 1}",
        "training: {amp: bf}",
        "training: {clip_grad_norm: -1}",
        "training: {micro_batch_size: x}",
        "training: 5",
        "selection: {metric: test/loss}",
        "goals: {a: 1}",
        "task: other",
        "data: {size: [250]}",
        "data: {split: {method: x}}",
        "zzz: 1",
    ],
)
def test_schema_and_loader_refuse_the_same(text: str) -> None:
    assert refused_by_schema("small", text)
    Path("my.yaml").write_text(text)
    with pytest.raises(ConfigError):
        load_config("small", preset_or_file="my.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "training: {learning_rate: 1e-4, clip_grad_norm: null, num_workers: 3}",
        "data: {size: null, split: {fractions: [0.8, 0.1, 0.1]}}",
        "data: {size: [3, 4]}",
        "goals: {test/csi_35: '>0.4'}",
        "training.seed: 3",
        "task: small",
    ],
)
def test_schema_and_loader_take_the_same(text: str) -> None:
    assert not refused_by_schema("small", text)
    Path("my.yaml").write_text(text)
    load_config("small", preset_or_file="my.yaml")


def test_when_a_key_has_an_effect_is_told() -> None:
    schema = json_schema("small")
    assert node_of(schema, "training.lr_patience")["description"].endswith("Only with training.schedule: plateau.")
    assert node_of(schema, "data.reduce")["description"].endswith("Not with data.size: null.")
    assert node_of(schema, "training.epochs")["default"] == 7  # the task's own


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema", "--task", "convlstm"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema("convlstm")


def test_an_unknown_task_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema", "--task", "convlst"]) == 2
    assert "did you mean convlstm" in capsys.readouterr().err
