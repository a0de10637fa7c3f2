"""What differs between two configurations, as far as it changes a result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from backend.errors import BadDataError
from training.config.keys import Flat, flat_values, idle_keys, keys_of, nested, show
from training.config.loading import LoadedConfig, config_hash, load_config, preset_names
from training.schemas.shared import RunConfig

_SHOWN_DIGITS = 8


def effective(config: RunConfig) -> Flat:
    """The values of all keys that have an effect on the result."""
    keys, values = keys_of(type(config)), flat_values(config)
    idle = idle_keys(keys, values)
    return {path: values[path] for path, key in keys.leaves.items() if not key.neutral and path not in idle}


def differences(there: RunConfig, here: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Keys whose values differ: key -> (there, here); None stands where a key has no effect."""
    one, other = effective(there), effective(here)
    paths = dict.fromkeys([*one, *other])
    return {path: (one.get(path), other.get(path)) for path in paths if one.get(path) != other.get(path)}


def from_preset(loaded: LoadedConfig, preset: str | None) -> dict[str, Any]:
    """What was changed: ``{"preset": name, "keys": {key: [the preset's value, the value here]}}``.

    ``preset`` is the one that the configuration was made from. One that came from a file is held against the preset
    `default`; where a task has none, the name is None and the values are the schema's defaults.
    """
    task = loaded.config.task
    names = preset_names(task)
    base = next((name for name in (preset, "default") if name in names), None)
    return {"preset": base, "keys": changes(load_config(task, preset_or_file=base).config, loaded.config)}


def changes(there: RunConfig, here: RunConfig) -> dict[str, list[Any]]:
    """Keys of one schema whose values differ, with an effect on the result or without: key -> [there, here]."""
    old, new = flat_values(there), flat_values(here)
    return {key: [old[key], new[key]] for key in new if old[key] != new[key]}


def parse(schema: type[RunConfig], values: Mapping[str, Any], origin: str) -> RunConfig:
    """The configuration that ``origin``, a checkpoint or the like, holds complete.

    Raises:
        BadDataError: it is not one of this version.
    """
    try:
        return schema.model_validate_json(json.dumps(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise BadDataError(
            f"{origin}: its configuration is not one of this version of the worker ({key}: {first['msg']}); use the "
            "version that wrote it"
        ) from None


def mismatch(checkpoint: str, current: str) -> str:
    """The warning about a checkpoint whose config hash is not the current one."""
    return (
        f"Config hash mismatch! Checkpoint config hash: {checkpoint[:_SHOWN_DIGITS]}, Current config hash: "
        f"{current[:_SHOWN_DIGITS]}. This may affect reproducibility."
    )


def with_neutral_of(own: RunConfig, around: RunConfig) -> RunConfig:
    """``own`` with what does not change a result (device, workers, places) taken from ``around``."""
    keys, values = keys_of(type(own)), flat_values(own)
    values |= {path: value for path, value in flat_values(around).items() if keys.leaves[path].neutral}
    return type(own).model_validate_json(json.dumps(nested(values)))


def mismatch_lines(checkpoint: RunConfig, current: RunConfig) -> list[str]:
    """The warning about two configurations that are not the same, and a line for each key; empty where they are."""
    one, other = config_hash(checkpoint), config_hash(current)
    if one == other:
        return []
    changed = differences(checkpoint, current)
    lines = [f"  {key}: {show(there)} there, {show(here)} here" for key, (there, here) in changed.items()]
    return [mismatch(one, other), *lines]
