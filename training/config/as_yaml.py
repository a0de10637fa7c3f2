"""A configuration as YAML: every key that has an effect, in the schema's order, with what it means where asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from training.config.keys import flat_values, idle_keys, keys_of, nested
from training.yaml_core import yaml_text


def dump_yaml(config: BaseModel, *, comments: bool = False) -> str:
    """``config`` as YAML in the schema's order: every key that has an effect.

    Loading it again gives an equal config, because a key without effect always has its default.
    With ``comments`` what a key means stands above it.
    """
    keys, values = keys_of(type(config)), flat_values(config)
    idle = idle_keys(keys, values)
    tree = nested({path: value for path, value in values.items() if path not in idle})
    abouts = {path: key.about for path, key in keys.leaves.items()} if comments else {}
    return yaml_text(_block(tree, "", abouts))


def _block(tree: Mapping[str, Any], prefix: str, abouts: Mapping[str, str]) -> CommentedMap:
    block = CommentedMap()
    for name, value in tree.items():
        path = f"{prefix}{name}"
        is_group = isinstance(value, Mapping) and value
        block[name] = _block(value, f"{path}.", abouts) if is_group else _flow(value)
        if path in abouts and not is_group:
            block.yaml_set_comment_before_after_key(name, before=abouts[path], indent=2 * prefix.count("."))
    return block


def _flow(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    row = CommentedSeq(_flow(one) for one in value)
    row.fa.set_flow_style()
    return row
