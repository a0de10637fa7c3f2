"""Which parts of a run's metadata.yaml are mappings, for those who read one that somebody may have edited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NEEDED = frozenset(("data", "dataset", "device", "determinism", "files_sha256"))  # never null where they are there
_OTHERS = "audit automatic differences facts git parameters preprocessing result set_by_user usage versions"
GROUPS = _NEEDED.union(_OTHERS.split())


def without_wrong(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """``metadata`` without the groups that are no mappings, as if they were not recorded."""
    return {name: value for name, value in metadata.items() if name not in GROUPS or isinstance(value, dict)}


def what_is_wrong(metadata: Mapping[str, Any]) -> str | None:
    """The first thing for which nothing can be done with the run, in words."""
    if not isinstance(metadata.get("task"), str):
        return f"task is {_kind(metadata.get('task'))}, expected a task's name"
    for name in sorted(GROUPS & metadata.keys()):
        value = metadata[name]
        if not isinstance(value, dict) and (value is not None or name in _NEEDED):
            return f"{name} is {_kind(value)}, expected a mapping"
    return None


def _kind(value: Any) -> str:
    """Its type as YAML calls it; never the value, which may be long or a secret."""
    kinds: dict[type, str] = {str: "a text", list: "a list", type(None): "null", dict: "a mapping", bool: "a boolean"}
    return kinds.get(type(value), "a number")
