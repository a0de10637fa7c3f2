"""Every preset that ships."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.config import config_hash, dump_yaml, layers, load_config
from training.config import preset_names as presets_of
from training.config.keys import keys_of
from training.tasks import TASKS, config_class

SHIPPED = [(task, name) for task in TASKS for name in presets_of(task)]


@pytest.mark.parametrize(("task", "preset"), SHIPPED)
def test_every_shipped_preset_is_valid_and_sets_nothing_without_effect(task: str, preset: str) -> None:
    assert load_config(task, preset_or_file=preset).preset == preset
    assert load_config(task, preset_or_file=str(layers.PRESETS / task / f"{preset}.yaml")).notes == ()


@pytest.mark.parametrize("task", TASKS)
def test_every_task_ships_its_three_presets_and_its_default_is_the_schemas(task: str) -> None:
    assert {"default", "cpu", "sample"} <= set(presets_of(task))
    assert load_config(task).config == config_class(task)(task=task)


@pytest.mark.parametrize("task", TASKS)
def test_conditions_name_keys_and_values_that_exist(task: str) -> None:
    schema = config_class(task)
    keys = keys_of(schema)
    for key in keys.leaves.values():
        assert key.about, f"{key.path} says nothing about itself"
        for other, values in [*key.when.items(), *key.unless.items()]:
            assert other in keys.leaves, f"{key.path} hangs on {other}, which is no key"
            for value in values:
                accepted = keys.leaves[other].expected()
                assert str(value) in accepted or value is None or not isinstance(value, str), (key.path, value)


@pytest.mark.parametrize("task", TASKS)
def test_a_saved_default_loads_into_an_equal_one(task: str, tmp_path: Path) -> None:
    config = load_config(task).config
    (tmp_path / "saved.yaml").write_text(dump_yaml(config))
    again = load_config(task, preset_or_file=str(tmp_path / "saved.yaml"))
    assert (again.config, config_hash(again.config)) == (config, config_hash(config))
