"""What the parts of a run's metadata.yaml are, for those who read one that somebody may have edited."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_NEEDED = frozenset(("data", "dataset", "device", "determinism", "files_sha256"))  # never null where they are there
_OTHERS = "audit automatic differences facts git parameters preprocessing result set_by_user usage versions"
GROUPS = _NEEDED.union(_OTHERS.split())


# What commands read inside: dotted key -> its types; null stands for what is not recorded.
_TEXT, _FLAG, _NUMBER, _LIST, _MAPPING = (str,), (bool,), (int, float), (list,), (dict,)
_INSIDE: dict[str, tuple[type, ...]] = {
    "config_hash": _TEXT,
    "run_name": _TEXT,
    "state": _TEXT,
    "token": _TEXT,
    "data.path": _TEXT,
    "data.is_sample": _FLAG,
    "data.drive_id": _TEXT,
    "data.manifest": _MAPPING,
    "data.manifest.sources": _LIST,
    "data.fetched": _MAPPING,
    "data.fetched.sha256": _TEXT,
    "dataset.fingerprint": _TEXT,
    "dataset.is_sample": _FLAG,
    "dataset.item": _TEXT,
    "dataset.items": _MAPPING,
    "dataset.summary": _LIST,
    "determinism.asked": _FLAG,
    "determinism.not_deterministic": _LIST,
    "device.kind": _TEXT,
    "differences.keys": _MAPPING,
    "facts.cadence_seconds": _NUMBER,
    "parameters.total": _NUMBER,
    "result.best_step": _NUMBER,
    "result.selection": _MAPPING,
    "usage.seconds": _NUMBER,
    "usage.hours": _NUMBER,
    "usage.cost": _NUMBER,
}
_NEVER_NULL = {"data.manifest", "data.fetched"}
_WORDS = {_TEXT: "a text", _FLAG: "true or false", _NUMBER: "a number", _LIST: "a list of texts", _MAPPING: "a mapping"}


def without_wrong(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """``metadata`` without the parts that are not of their type, as if they were not recorded."""
    found = {name: value for name, value in metadata.items() if name not in GROUPS or isinstance(value, dict)}
    for path, _ in _wrong_inside(found):
        found = _without(found, path)
    return found


def what_is_wrong(metadata: Mapping[str, Any]) -> str | None:
    """The first thing for which nothing can be done with the run, in words."""
    if not isinstance(metadata.get("task"), str):
        return f"task is {_kind(metadata.get('task'))}, expected a task's name"
    for name in sorted(GROUPS & metadata.keys()):
        value = metadata[name]
        if not isinstance(value, dict) and (value is not None or name in _NEEDED):
            return f"{name} is {_kind(value)}, expected a mapping"
    for path, value in _wrong_inside(metadata):
        key = ".".join(path)
        return f"{key} is {_kind(value)}, expected {_WORDS[_INSIDE.get(key, _TEXT)]}"
    return None


def _wrong_inside(metadata: Mapping[str, Any]) -> Iterator[tuple[list[str], Any]]:
    """The keys inside that are not of their type, each as the names on the way to it, with its value."""
    for path, types in _INSIDE.items():
        *groups, name = names = path.split(".")
        tree: Any = metadata
        for group in groups:
            tree = tree.get(group) if isinstance(tree, Mapping) else None
        if isinstance(tree, Mapping) and name in tree and not _fits(tree[name], types, path in _NEVER_NULL):
            yield names, tree[name]
    files = metadata.get("files_sha256")
    for name, value in (files if isinstance(files, Mapping) else {}).items():
        if not isinstance(value, str):
            yield ["files_sha256", name], value


def _fits(value: Any, types: tuple[type, ...], never_null: bool) -> bool:
    if value is None:
        return not never_null
    if types is _LIST and isinstance(value, list):
        return all(isinstance(one, str) for one in value)
    return isinstance(value, types) and (types is _FLAG or not isinstance(value, bool))


def _without(tree: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    first, *rest = names
    return {
        name: _without(value, rest) if name == first and rest else value
        for name, value in tree.items()
        if name != first or rest
    }


def _kind(value: Any) -> str:
    """Its type as YAML calls it; never the value, which may be long or a secret."""
    kinds: dict[type, str] = {str: "a text", list: "a list", type(None): "null", dict: "a mapping", bool: "a boolean"}
    return kinds.get(type(value), "a number")
