"""In which settings a configuration differs from its preset."""

from __future__ import annotations

from typing import Any

from training.config import LoadedConfig, load_config, preset_names
from training.config_keys import flat_values


def from_preset(loaded: LoadedConfig, preset: str | None) -> dict[str, Any]:
    """What was changed: ``{"preset": name, "keys": {key: [the preset's value, the value here]}}``.

    ``preset`` is the one that the configuration was made from. One that came from a file is held against the preset
    `default`; where a task has none, the name is None and the values are the schema's defaults.
    """
    task = loaded.config.task
    names = preset_names(task)
    base = next((name for name in (preset, "default") if name in names), None)
    there = flat_values(load_config(task, preset_or_file=base).config)
    here = flat_values(loaded.config)
    return {"preset": base, "keys": {key: [there[key], here[key]] for key in here if here[key] != there[key]}}
