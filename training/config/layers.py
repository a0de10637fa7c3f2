"""Where settings come from: each source read into one flat layer of dotted keys, with every problem found noted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from backend.errors import ConfigError
from training.config.keys import Flat, Keys, kind, nearest_key, show
from training.yaml_core import parse_yaml

PRESETS = Path(__file__).parents[1] / "configs"
ENVIRONMENT_PREFIX = "TRAIN_WORKER_"
# Variables of that prefix that are no settings.
ENVIRONMENT_WORDS = {
    "TRAIN_WORKER_DATA",
    "TRAIN_WORKER_DRIVE_ID",
    "TRAIN_WORKER_GIT_COMMIT",
    "TRAIN_WORKER_HEARTBEAT",
    "TRAIN_WORKER_IMAGE",
    "TRAIN_WORKER_MAX_COST",
    "TRAIN_WORKER_MAX_HOURS",
    "TRAIN_WORKER_ON_FINISH",
    "TRAIN_WORKER_OUTPUT_DIR",
    "TRAIN_WORKER_PRICE_PER_HOUR",
    "TRAIN_WORKER_REGISTRY",
    "TRAIN_WORKER_STALL_MINUTES",
    "TRAIN_WORKER_SYNC_TO",
    "TRAIN_WORKER_UNMOUNTED_OK",
}
# Short names of settings.
ENVIRONMENT_SHORT = {"TRAIN_WORKER_SEED": "training.seed"}


@dataclass
class Layer:
    """The settings of one or more sources: values by dotted key, and for each key the source in words."""

    values: Flat = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    once: bool = False  # a key given twice, say as `a: {b: 1}` and as `a.b: 2`, is a problem

    def put(self, path: str, value: Any, keys: Keys, origin: str) -> None:
        """Note a value that ``origin`` gives to ``path``, which is a key, a section or an entry of an open mapping."""
        open_path = next((known for known in keys.open_leaves if path.startswith(f"{known}.")), None)
        if path in keys.leaves:
            self._put_leaf(path, value, keys, origin)
        elif path == "" or path in keys.sections:
            self._put_section(path, value, keys, origin)
        elif open_path:
            self._put_leaf(open_path, {path[len(open_path) + 1 :]: value}, keys, origin)
        else:
            near = nearest_key(path, keys.leaves)
            self.problems.append(f"{origin}: there is no setting {path}" + (f"; did you mean {near}?" if near else ""))

    def _put_leaf(self, path: str, value: Any, keys: Keys, origin: str) -> None:
        if not _is_json(value):
            self.problems.append(f"{origin}: {path} is {show(value)}, expected {keys.leaves[path].expected()}, finite")
            return
        old = self.values.get(path)
        if self.once and path in self.values and not keys.leaves[path].is_open:
            self.problems.append(f"{origin}: the key {path} stands twice")
        merges = keys.leaves[path].is_open and isinstance(value, Mapping) and isinstance(old, Mapping)
        self.values[path] = {**old, **value} if merges else value  # type: ignore[dict-item]
        self.origins[path] = origin

    def _put_section(self, path: str, value: Any, keys: Keys, origin: str) -> None:
        if value is None:  # a section's name with nothing under it
            return
        if not isinstance(value, Mapping):
            self.problems.append(f"{origin}: {path or 'the file'} is {kind(value)}, expected settings as `key: value`")
            return
        for name, inner in value.items():
            self.put(f"{path}.{name}" if path else str(name), inner, keys, origin)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def over(lower: Layer, upper: Layer, keys: Keys) -> Layer:
    """Both layers as one; where both know a key, ``upper`` holds, and the entries of open mappings are joined."""
    both = Layer(dict(lower.values), dict(lower.origins), lower.problems + upper.problems)
    for path, value in upper.values.items():
        both._put_leaf(path, value, keys, upper.origins[path])
    return both


def preset_names(task: str) -> list[str]:
    """The presets that ship for ``task``."""
    return sorted(path.stem for path in (PRESETS / task).glob("*.yaml"))


def find_config(task: str, preset_or_file: str | None) -> tuple[str | None, Path | None]:
    """(preset's name, file to read): a preset's name wins over a file of the same name; None is `default`, if any.

    Raises ConfigError when ``preset_or_file`` is neither.
    """
    presets = preset_names(task)
    if preset_or_file is None:
        return ("default", PRESETS / task / "default.yaml") if "default" in presets else (None, None)
    if preset_or_file in presets:
        return preset_or_file, PRESETS / task / f"{preset_or_file}.yaml"
    path = Path(preset_or_file)
    if path.is_file():
        return None, path
    if path.is_dir():
        raise ConfigError(f"--config {preset_or_file} is a folder, expected a YAML file or a preset")
    near = get_close_matches(preset_or_file, presets, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ConfigError(
        f"--config {preset_or_file}: no such file, and no preset of {task}; {hint}presets: {', '.join(presets)}"
    )


def file_layer(content: Any, origin: str, keys: Keys) -> Layer:
    """The settings of a preset or a config file."""
    layer = Layer(once=True)
    layer.put("", content, keys, origin)
    return layer


def environment_layer(environ: Mapping[str, str], keys: Keys) -> Layer:
    """Settings from variables such as ``TRAIN_WORKER_TRAINING__SEED`` or TRAIN_WORKER_SEED (values in YAML)."""
    layer = Layer()
    known = {ENVIRONMENT_PREFIX + path.upper().replace(".", "__"): path for path in keys.leaves}
    known |= {name: path for name, path in ENVIRONMENT_SHORT.items() if path in keys.leaves}
    for name, text in sorted(environ.items()):
        if not name.startswith(ENVIRONMENT_PREFIX) or name in ENVIRONMENT_WORDS:
            continue
        if name not in known:
            near = get_close_matches(name, [*known, *ENVIRONMENT_WORDS], n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            layer.problems.append(f"environment: {name} is no setting{hint}")
            continue
        path, before = known[name], Layer(dict(layer.values), dict(layer.origins))
        _put_text(layer, path, text, keys, f"environment {name}")
        if path in before.values and before.values[path] != layer.values[path]:
            layer.problems.append(
                f"{before.origins[path]} says {show(before.values[path])} and {name} says {show(layer.values[path])}, "
                f"and both mean {path}; keep one of them"
            )
    return layer


def sets_layer(sets: Iterable[str], keys: Keys, task: str = "") -> Layer:
    """Settings from ``--set a.b=value`` (values in YAML); with the name of the ``task`` in front it means the same."""
    layer = Layer()
    for entry in sets:
        written, equals, text = entry.partition("=")
        written = written.strip()
        path = written.removeprefix(f"{task}.")
        if equals:
            _put_text(layer, path if path in keys.leaves else written, text, keys, f"--set {written}")
        else:
            layer.problems.append(f"--set {entry}: expected key=value, such as training.epochs=10")
    return layer


def flags_layer(flags: Mapping[str, Any], keys: Keys) -> Layer:
    """Settings that have a flag of their own, such as ``--seed``; None stands for a flag that was not given."""
    layer = Layer()
    for path, value in flags.items():
        if value is not None:
            layer.put(path, value, keys, "--" + path.rpartition(".")[2].replace("_", "-"))
    return layer


def _put_text(layer: Layer, path: str, text: str, keys: Keys, origin: str) -> None:
    if not text.strip():
        layer.problems.append(f"{origin}: no value; write null for none")
        return
    try:
        layer.put(path, parse_yaml(text, origin), keys, origin)
    except ConfigError as error:
        layer.problems.append(str(error))
