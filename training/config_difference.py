"""In which settings a configuration differs from its preset."""

from __future__ import annotations

from typing import Any

from training.config import LoadedConfig, load_config, preset_names
from training.config_keys import flat_values


def from_preset(loaded: LoadedConfig) -> dict[str, Any]:
    """What was changed: ``{"preset": name, "keys": {key: [the preset's value, the value here]}}``.

    A configuration from a file is held against the preset `default`, and where a task has none, ``preset`` is None and
    the values are the schema's defaults.
    """
    task = loaded.config.task
    preset = loaded.preset or ("default" if "default" in preset_names(task) else None)
    there = flat_values(load_config(task, preset_or_file=preset).config)
    here = flat_values(loaded.config)
    return {"preset": preset, "keys": {key: [there[key], here[key]] for key in here if here[key] != there[key]}}
