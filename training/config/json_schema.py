"""A task's settings as JSON Schema, by which editors complete, explain and check its YAML files.

It is made of the same declarations that the loader checks with. What JSON Schema cannot say stays with the loader: when
a key has no effect, and rules between values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from training.config.keys import Flat, Key, flat_values, keys_of, show
from training.tasks import config_class

SCHEMA_FILE = "schema.json"
_MARKS = ("neutral", "content", "when", "unless", "title")


def json_schema(task: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a config file of ``task``. Raises UsageError for an unknown task."""
    config_type = config_class(task)
    made = config_type.model_json_schema()
    tree = _inlined(made, made.get("$defs", {}))
    keys, defaults = keys_of(config_type), flat_values(config_type(task=task))
    _explain(tree, "", keys.leaves, defaults)
    tree["properties"]["task"]["const"] = task
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Settings of the task {task}",
        "description": "A config file for --config. Keys that are left out have their defaults.",
    }
    return {**head, **{name: value for name, value in tree.items() if name not in head}}


def schema_text(task: str) -> str:
    """The same as the text of a file."""
    return json.dumps(json_schema(task), indent=2, ensure_ascii=False) + "\n"


def _inlined(node: Any, definitions: Mapping[str, Any]) -> Any:
    """``node`` with what its references stand for: sections are used once, and one tree is easier to read."""
    if isinstance(node, list):
        return [_inlined(one, definitions) for one in node]
    if not isinstance(node, Mapping):
        return node
    found = dict(node)
    reference = found.pop("$ref", None)
    if reference is not None:
        found = {**definitions[reference.rpartition("/")[2]], **found}
    found.pop("$defs", None)
    return {name: _inlined(value, definitions) for name, value in found.items()}


def _explain(tree: dict[str, Any], prefix: str, leaves: Mapping[str, Key], defaults: Flat) -> None:
    """Describe each key in the schema's own sentences, with its default; in place."""
    tree.pop("required", None)  # everything has a default, and a file may give a part
    for mark in _MARKS:
        tree.pop(mark, None)
    tree["patternProperties"] = {r"^\w+\..+": {}}  # the loader also takes `training.seed: 1`, and checks it
    for name, node in tree["properties"].items():
        path = f"{prefix}{name}"
        key = leaves.get(path)
        if key is None:
            _explain(node, f"{path}.", leaves, defaults)
            continue
        for mark in _MARKS:
            node.pop(mark, None)
        node["description"] = " ".join([key.about, *_conditions(key)])
        node["default"] = defaults[path]


def _conditions(key: Key) -> list[str]:
    """When the key has an effect, as sentences."""
    needs = [f"Only with {other}: {_either(values)}." for other, values in key.when.items()]
    return needs + [f"Not with {other}: {_either(values)}." for other, values in key.unless.items()]


def _either(values: list[Any]) -> str:
    return " or ".join(value if isinstance(value, str) else show(value) for value in values)
