"""What an ensemble is made of: named on the command line, or written in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from backend.errors import ConfigError, UsageError
from training.yaml_core import read_any_yaml

_KEYS = ("name", "models", "members", "weights", "tta", "clahe", "clahe_clip", "clahe_tile", "split_seed")


@dataclass(frozen=True)
class Spec:
    """Members by what names a run, how much each counts, and what is claimed of how they see an image."""

    members: tuple[str, ...]
    name: str = "ensemble"
    weights: tuple[float, ...] | None = None  # None: all alike
    tta: bool | None = None
    split_seed: int | None = None
    claims: Mapping[str, Any] | None = None  # clahe, clahe_clip, clahe_tile

    def __post_init__(self) -> None:
        if len(self.members) < 2:
            raise UsageError(f"an ensemble has two members or more, not {len(self.members)}; name more runs")
        if self.weights is None:
            return
        if len(self.weights) != len(self.members):
            raise UsageError(f"{len(self.weights)} weights for {len(self.members)} members; give one for each")
        if min(self.weights) < 0 or not sum(self.weights) > 0:
            raise UsageError("weights are 0 or more, and one of them is more")


def read_spec(path: Path) -> dict[str, Any]:
    """The keyword arguments of `Spec` that a YAML or JSON file holds.

    Members are run ids, their beginnings, or folders; one that lies beside the file may be named relative to it.

    Raises:
        ConfigError: the file is missing or holds something else.
    """
    if not path.is_file():
        raise ConfigError(f"--config {path}: no such file; expected YAML or JSON with models: [RUN, RUN, …]")
    content = read_any_yaml(path)
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path}: expected models: [RUN, RUN, …]")
    for key in content:
        if key not in _KEYS:
            near = get_close_matches(str(key), _KEYS, n=1)
            raise ConfigError(f"{path}: there is no key {key}" + (f"; did you mean {near[0]}?" if near else ""))
    members = content.get("models", content.get("members"))
    if not isinstance(members, Sequence) or isinstance(members, str) or not all(isinstance(m, str) for m in members):
        raise ConfigError(f"{path}: models is {members!r}, expected a list of runs")
    found: dict[str, Any] = {"members": tuple(_placed(member, path.parent) for member in members)}
    for key in ("name", "tta", "split_seed"):
        _take(content, key, {"name": str, "tta": bool, "split_seed": int}[key], found, path)
    if content.get("weights") is not None:
        found["weights"] = _numbers(content["weights"], path)
    claims = {key: content[key] for key in ("clahe", "clahe_clip", "clahe_tile") if content.get(key) is not None}
    return {**found, "claims": claims} if claims else found


def _placed(member: str, beside: Path) -> str:
    there = beside / member
    return str(there) if not Path(member).exists() and there.exists() else member


def _take(content: Mapping[str, Any], key: str, kind: type, found: dict[str, Any], path: Path) -> None:
    value = content.get(key)
    if value is None:
        return
    if type(value) is not kind:
        raise ConfigError(f"{path}: {key} is {value!r}, expected {kind.__name__}")
    found[key] = value


def _numbers(weights: Any, path: Path) -> tuple[float, ...]:
    is_list = isinstance(weights, Sequence) and not isinstance(weights, str)
    if not is_list or not all(isinstance(weight, int | float) for weight in weights):
        raise ConfigError(f"{path}: weights is {weights!r}, expected a list of numbers")
    return tuple(map(float, weights))
