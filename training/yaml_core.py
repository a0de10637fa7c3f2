"""YAML in and out: the core schema of YAML 1.2, without anything that surprises.

``1e-4`` is a number, ``yes`` and ``no`` are words, ``20100826_0000`` and ``2010-08-26`` are words, a key that stands
twice is refused, and no tag makes an object.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter
from ruamel.yaml.resolver import VersionedResolver

from backend.errors import ConfigError, UsageError
from backend.files import write_atomic
from training.files import to_json

_PLAIN_SCALARS = [  # tag, pattern, possible first characters ("" for an empty scalar)
    ("null", r"null|Null|NULL|~|", ["n", "N", "~", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
]


class CoreResolver(VersionedResolver):
    """Decides what a plain scalar is, by section 10.3.2 of the YAML 1.2.2 specification."""

    @property
    def versioned_resolver(self) -> Mapping[str, list[tuple[str, re.Pattern[str]]]]:
        """First character of a scalar to the tags it may have."""
        return _TAGS_BY_FIRST_CHARACTER


def _tags_by_first_character() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    tags: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for name, pattern, firsts in _PLAIN_SCALARS:
        for first in firsts:
            tags.setdefault(first, []).append((f"tag:yaml.org,2002:{name}", re.compile(f"(?:{pattern})\\Z")))
    return tags


_TAGS_BY_FIRST_CHARACTER = _tags_by_first_character()


_TEXT = "tag:yaml.org,2002:str"
_OLDER = VersionedResolver(version=(1, 1))  # as most other programs read YAML: off is false, 12:30 is a number


class PlainRepresenter(RoundTripRepresenter):
    """Writes null as the word, escapes what cannot be seen, and quotes what a YAML 1.1 reader would take for more."""


def _null(representer: RoundTripRepresenter, _: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def _text(representer: RoundTripRepresenter, text: str) -> Any:
    is_text_to_all = _OLDER.resolve(ScalarNode, text, (True, False)) == _TEXT
    style = (None if is_text_to_all else "'") if text.isprintable() else '"'
    return representer.represent_scalar(_TEXT, text, style=style)


PlainRepresenter.add_representer(type(None), _null)
PlainRepresenter.add_representer(str, _text)


def parse_yaml(text: str, name: str) -> Any:
    """The value of one YAML document. Raises ConfigError naming ``name``, the line and what is wrong there."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Resolver = CoreResolver
    try:
        return yaml.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{name}{where}: {_problem(error)}") from None
    except (YAMLError, ValueError) as error:
        raise ConfigError(f"{name}: no valid YAML: {' '.join(str(error).split())}") from None


def _problem(error: MarkedYAMLError) -> str:
    problem = str(error.problem).splitlines()[0]
    duplicate = re.match(r'found duplicate key "?([^"\s]+)', problem)
    return f"the key {duplicate[1]} stands twice" if duplicate else f"no valid YAML: {problem}"


def yaml_text(tree: Mapping[str, Any]) -> str:
    """A mapping of plain values (and ruamel's commented ones) as YAML, in its own order, a line for each scalar."""
    yaml = YAML(typ="rt", pure=True)
    yaml.Resolver = CoreResolver
    yaml.Representer = PlainRepresenter
    yaml.width = 4096
    text = io.StringIO()
    yaml.dump(tree, text)
    return text.getvalue()


def read_any_yaml(path: Path) -> Any:
    """The value of a file with one YAML document. Raises ConfigError naming the file, the line and what is wrong."""
    try:
        return parse_yaml(path.read_text("utf-8"), str(path))
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: no text in UTF-8, expected YAML") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """A mapping that ``write_yaml`` wrote.

    Raises:
        UsageError: the file is not one.
    """
    try:
        value = read_any_yaml(path)
    except ConfigError as error:
        raise UsageError(str(error)) from error
    if not isinstance(value, dict):
        raise UsageError(f"{path}: expected a mapping of keys to values")
    return value


def write_yaml(path: Path, value: Mapping[str, Any]) -> None:
    """A mapping of JSON values as YAML, atomically."""
    write_atomic(path, yaml_text(json.loads(to_json(value))))
