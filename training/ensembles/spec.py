"""What an ensemble is made of: named on the command line, or written in a file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from backend.errors import ConfigError, UsageError
from training.yaml_core import read_any_yaml

CLAIMS = {"clahe": bool, "clahe_clip": float, "clahe_tile": int}
SPLIT_SEEDS = 2**32  # as many as there are
_KINDS = {"name": str, "tta": bool, "split_seed": int, **CLAIMS}
_KEYS = ("models", "members", "weights", *_KINDS)
_WORDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class Spec:
    """Members by what names a run, how much each counts, and what is claimed of how they see an image.

    Raises:
        UsageError: fewer than two members, or weights that are not theirs.
    """

    members: tuple[str, ...]
    name: str
    weights: tuple[float, ...] | None = None  # None: all alike
    tta: bool | None = None  # None: where mirror pairs are known
    split_seed: int | None = None  # None: the first member's split
    claims: Mapping[str, Any] = field(default_factory=dict)  # of CLAIMS

    def __post_init__(self) -> None:
        if len(self.members) < 2:
            raise UsageError(f"an ensemble has two members or more, not {len(self.members)}; name more runs")
        if not self.name.strip():
            raise UsageError("the name of the result is empty")
        if self.split_seed is not None and not 0 <= self.split_seed < SPLIT_SEEDS:
            raise UsageError(f"split seed {self.split_seed}: expected 0 or more and less than {SPLIT_SEEDS}")
        if self.weights is not None:
            _check_weights(self.weights, len(self.members))


def _check_weights(weights: Sequence[float], members: int) -> None:
    if len(weights) != members:
        raise UsageError(f"{len(weights)} weights for {members} members; give one for each, in their order")
    if not all(map(math.isfinite, weights)) or min(weights) < 0 or not sum(weights) > 0:
        raise UsageError(f"weights {', '.join(f'{one:g}' for one in weights)}: expected 0 or more, not all of them 0")


def make_spec(runs: Sequence[str], config: Path | None, called: str = "ensemble", **given: Any) -> Spec:
    """The members ``runs``, or those of the file ``config``; what else is ``given`` (None: is not) stands over it.

    ``called`` is its name where nothing names it.

    Raises:
        UsageError: both name members, or they make no ensemble.
        ConfigError: the file is missing or holds something else.
    """
    if config is not None and runs:
        raise UsageError("--config names the members: name no runs beside it")
    found: dict[str, Any] = read_spec(config) if config is not None else {"members": tuple(runs)}
    said = {key: value for key, value in given.items() if value is not None}
    claims = {**found.get("claims", {}), **said.pop("claims", {})}
    return Spec(**{"name": called, **found, **said, "claims": claims})


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
    _check_keys(content, path)
    values = {key: _typed(content[key], key, path) for key in _KINDS if content.get(key) is not None}
    claims = {key: values.pop(key) for key in CLAIMS if key in values}
    weights = content.get("weights")
    return {
        "members": _members(content, path),
        **values,
        **({} if weights is None else {"weights": _numbers(weights, path)}),
        "claims": claims,
    }


def _check_keys(content: Mapping[str, Any], path: Path) -> None:
    for key in content:
        if key not in _KEYS:
            near = get_close_matches(str(key), _KEYS, n=1)
            raise ConfigError(f"{path}: there is no key {key}" + (f"; did you mean {near[0]}?" if near else ""))
    if "models" in content and "members" in content:
        raise ConfigError(f"{path}: models and members are two words for one list; keep one of them")


def _members(content: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    members = content.get("models", content.get("members"))
    if not isinstance(members, list) or not all(isinstance(member, str) for member in members):
        raise ConfigError(f"{path}: models is {members!r}, expected a list of runs")
    return tuple(_placed(member, path.parent) for member in members)


def _placed(member: str, beside: Path) -> str:
    there = beside / member
    return str(there) if not Path(member).exists() and there.exists() else member


def _typed(value: Any, key: str, path: Path) -> Any:
    kind = _KINDS[key]
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ConfigError(f"{path}: {key} is {value!r}, expected {_WORDS[kind]}")
    return value


def _numbers(weights: Any, path: Path) -> tuple[float, ...]:
    if not isinstance(weights, list) or not all(type(weight) in (int, float) for weight in weights):
        raise ConfigError(f"{path}: weights is {weights!r}, expected a list of numbers")
    return tuple(map(float, weights))
