"""Settings: where they come from, how they are merged, checked, saved and hashed.

Schema defaults < preset < file < environment < ``--set`` < named flags. Everything that is wrong is told at once.

**Settings without effect.** A schema says when a key has an effect (`when`, `unless`). A key without effect that the
user set is an error: silently ignoring it would make the saved configuration lie. Set by the user means

* in a config file, when the key has no effect among that file's own settings;
* by environment, ``--set`` or flag, when the key has no effect in the final configuration.

A key of a file that only the command line makes idle (``--config run.yaml --set training.schedule=cosine`` where the
file sets `lr_patience`) is dropped and noted. Keys without effect always hold their default and are neither saved nor
hashed, so a saved config loads into an equal one, and neither what they are nor a preset's leftovers change the hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from backend.errors import ConfigError
from training.config.keys import Flat, Keys, flat_values, idle_keys, keys_of, kind, nested, show
from training.config.layers import (
    Layer,
    environment_layer,
    file_layer,
    find_config,
    flags_layer,
    over,
    preset_names,
    sets_layer,
)
from training.config.secrets import secret_settings
from training.files import canonical_json
from training.schemas.shared import SCHEMA_VERSION, RunConfig
from training.shown import without_secrets
from training.tasks import DEFAULT_TASK, config_class
from training.yaml_core import read_any_yaml


@dataclass(frozen=True)
class LoadedConfig:
    """A resolved configuration and how it came about."""

    config: RunConfig
    user_set: Mapping[str, str]  # dotted key -> where the user set it; presets and defaults are not in it
    preset: str | None
    notes: tuple[str, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)  # what environment, --set and flags said, by dotted key


def load_config(
    task: str,
    *,
    preset_or_file: str | None = None,
    sets: list[str] | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> LoadedConfig:
    """The configuration of a run of ``task``.

    ``preset_or_file`` is a preset's name or a file's path; None stands for the preset `default`. ``flags`` maps dotted
    keys to the values of named flags. Raises ConfigError with a line for each thing that is wrong.
    """
    schema = config_class(task)
    keys, defaults = keys_of(schema), flat_values(schema(task=task))
    preset, path = find_config(task, preset_or_file)
    origin = f"preset {preset}" if preset else str(path)
    base = file_layer(schema.of_file(read_any_yaml(path), origin), origin, keys) if path else Layer()
    now = environment_layer(environ or {}, keys)
    for upper in (sets_layer(sets or [], keys, task), flags_layer(flags or {}, keys)):
        now = over(now, upper, keys)
    merged = over(base, now, keys)
    values = {**defaults, **merged.values}

    wrong = _wrong_values(schema, values, merged.origins, task) | secret_settings(values, merged.origins)
    idle = _idle_set(keys, values, now.origins, wrong)
    if not preset:
        own = _idle_set(keys, {**defaults, **base.values}, base.origins, wrong)
        idle |= {path: line for path, line in own.items() if keys.leaves[path].idle_because(values)}
    if problems := [*merged.problems, *wrong.values(), *idle.values()]:
        raise ConfigError(_told(problems))

    dropped = _settle_idle(keys, values, defaults)
    config = schema.model_validate_json(json.dumps(nested(values)))
    user_origins = now.origins if preset else merged.origins
    user_set = {path: origin for path, origin in user_origins.items() if not keys.leaves[path].idle_because(values)}
    notes = [
        f"{merged.origins[path]}: {path} is dropped: {why}" for path, why in dropped.items() if path in user_origins
    ]
    overrides = {path: values[path] for path in now.origins if path in user_set}
    return LoadedConfig(config, user_set, preset, tuple(notes), overrides)


def with_sets(config: RunConfig, sets: Iterable[str]) -> RunConfig:
    """``config`` with ``--set key=value`` on top of it. Raises ConfigError with a line for each thing that is wrong."""
    schema = type(config)
    keys = keys_of(schema)
    now = sets_layer(sets, keys, config.task)
    values = {**flat_values(config), **now.values}
    wrong = _wrong_values(schema, values, now.origins, config.task) | secret_settings(now.values, now.origins)
    idle = _idle_set(keys, values, now.origins, wrong)
    if problems := [*now.problems, *wrong.values(), *idle.values()]:
        raise ConfigError(_told(problems))
    return schema.model_validate_json(json.dumps(nested(values)))


def name_of_task(flag: str | None, preset_or_file: str | None = None) -> str:
    """The task meant by ``--task`` or TASK, else by a config file's own `task`, else the default task."""
    if flag:
        return flag
    is_name = preset_or_file is None or preset_or_file in preset_names(DEFAULT_TASK)
    content = None if is_name else read_any_yaml(find_config(DEFAULT_TASK, preset_or_file)[1])  # type: ignore[arg-type]
    named = content.get("task") if isinstance(content, Mapping) else None
    return named if isinstance(named, str) else DEFAULT_TASK


def canonical(config: RunConfig) -> dict[str, Any]:
    """What decides the result: every key that has an effect, without the neutral ones (paths, workers, logging)."""
    keys, values = keys_of(type(config)), flat_values(config)
    idle = idle_keys(keys, values)
    return nested({path: values[path] for path, key in keys.leaves.items() if not key.neutral and path not in idle})


def config_hash(config: RunConfig) -> str:
    """SHA-256 (hex) of the canonical config and the schema's version as JSON."""
    content = {"schema": SCHEMA_VERSION, "config": canonical(config)}
    return hashlib.sha256(canonical_json(content)).hexdigest()


def _wrong_values(schema: type[RunConfig], values: Flat, origins: Mapping[str, str], task: str) -> dict[str, str]:
    """Key (or section) -> what is wrong with it."""
    keys = keys_of(schema)
    wrong: dict[str, str] = {}
    if values["task"] != task:
        origin = origins.get("task", "config")
        wrong["task"] = f"{origin}: task is {show(values['task'])}, but the task of this command is {task}"
    try:
        schema.model_validate_json(json.dumps(nested(values)))
    except ValidationError as error:
        for one in error.errors(include_url=False, include_context=False):
            path = _path_of(one["loc"], keys)
            own_words = one["msg"].removeprefix("Value error, ") if one["type"] == "value_error" else None
            wrong.setdefault(path, _line(path, values, origins, keys, own_words or one["msg"], own_words))
    return wrong


def _path_of(loc: tuple[int | str, ...], keys: Keys) -> str:
    """The longest beginning of a validation error's place that is a key or a section."""
    names = [str(part) for part in loc]
    paths = [".".join(names[:length]) for length in range(len(names), 0, -1)]
    return next((path for path in paths if path in keys.leaves or path in keys.sections), "")


def _line(path: str, values: Flat, origins: Mapping[str, str], keys: Keys, msg: str, own_words: str | None) -> str:
    if path not in keys.leaves:
        sources = {source for key, source in origins.items() if key.startswith(f"{path}." if path else "")}
        told = sorted(source for source in sources if not source.startswith("preset ")) or sorted(sources)
        return f"{', '.join(told) or 'defaults'}: {path or 'config'}: {msg}"
    value = values[path]
    kind_of_value = f" ({kind(value)})" if kind(value) else ""
    expected = own_words or f"expected {keys.leaves[path].expected()}"
    return f"{origins.get(path, 'default')}: {path} is {show(value)}{kind_of_value}, {expected}"


def _idle_set(keys: Keys, values: Flat, origins: Mapping[str, str], wrong: Mapping[str, str]) -> dict[str, str]:
    """Keys that the user set although they have no effect; those that hang on a wrong value are left alone."""
    return {
        path: f"{origins[path]}: {path} has no effect here: {reason}"
        for path, reason in idle_keys(keys, values).items()
        if path in origins and not wrong.keys() & {path, *keys.leaves[path].when, *keys.leaves[path].unless}
    }


def _settle_idle(keys: Keys, values: Flat, defaults: Flat) -> dict[str, str]:
    """Give keys without effect their default, in place; returns those that had another value, with the reason."""
    dropped: dict[str, str] = {}
    while fresh := {path: why for path, why in idle_keys(keys, values).items() if values[path] != defaults[path]}:
        dropped |= fresh
        values.update({path: defaults[path] for path in fresh})
    return dropped


def _told(problems: list[str]) -> str:
    lines = list(dict.fromkeys(map(without_secrets, problems)))
    return lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} settings are wrong:", *lines])
