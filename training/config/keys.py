"""What a schema says about its keys: their dotted paths, what they accept, and when they have an effect."""

from __future__ import annotations

import types
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from training.shown import without_secrets

Flat = dict[str, Any]

_TYPE_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}
_LIMIT_WORDS = {"gt": "> {}", "ge": ">= {}", "lt": "< {}", "le": "<= {}", "pattern": "matching {}"}
_LENGTHS = ("min_length", "max_length")
_VALUE_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "a list"}


@dataclass(frozen=True)
class Key:
    """One setting of a schema under its dotted path."""

    path: str
    field: FieldInfo
    neutral: bool
    content: bool
    when: Mapping[str, list[Any]]
    unless: Mapping[str, list[Any]]

    @property
    def is_open(self) -> bool:
        """Whether the key is a mapping whose entries have names of the user's own."""
        return get_origin(self.field.annotation) is dict

    @property
    def about(self) -> str:
        """The sentence that the schema says about the key."""
        return self.field.description or ""

    def expected(self) -> str:
        """What the key accepts, in words."""
        limits = " and ".join(_limit_words(self.field))
        return f"{_type_words(self.field.annotation, _lengths(self.field))} {limits}".rstrip()

    def idle_because(self, values: Flat) -> str | None:
        """The condition that takes this key's effect away under ``values``, or None when it has its effect."""
        for other, allowed in self.when.items():
            if values.get(other) not in allowed:
                return f"it needs {other} to be {_either(allowed)}, which is {show(values.get(other))}"
        for other, refused in self.unless.items():
            if values.get(other) in refused:
                return f"{other} is {show(values.get(other))}"
        return None


@dataclass(frozen=True)
class Keys:
    """All keys and sections of a schema, in the schema's order."""

    leaves: Mapping[str, Key]
    sections: frozenset[str]
    open_leaves: tuple[str, ...]


@cache
def keys_of(schema: type[BaseModel]) -> Keys:
    """Walk ``schema`` once."""
    sections: set[str] = set()
    leaves = {key.path: key for key in _walk(schema, "", False, sections)}
    return Keys(leaves, frozenset(sections), tuple(path for path, key in leaves.items() if key.is_open))


def _walk(schema: type[BaseModel], prefix: str, neutral: bool, sections: set[str]) -> Iterator[Key]:
    for name, field in schema.model_fields.items():
        path = f"{prefix}{name}"
        marks = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        is_neutral = neutral or bool(marks.get("neutral"))
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            sections.add(path)
            yield from _walk(field.annotation, f"{path}.", is_neutral, sections)
        else:
            when, unless = marks.get("when") or {}, marks.get("unless") or {}
            yield Key(path, field, is_neutral, bool(marks.get("content")), when, unless)  # type: ignore[arg-type]


def flat_values(model: BaseModel) -> Flat:
    """The values of a validated config by dotted path, as JSON types."""
    return {path: _at(model.model_dump(mode="json"), path) for path in keys_of(type(model)).leaves}


def nested(flat: Flat) -> dict[str, Any]:
    """``{"a.b": 1}`` as ``{"a": {"b": 1}}``."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *groups, name = path.split(".")
        branch = tree
        for group in groups:
            branch = branch.setdefault(group, {})
        branch[name] = value
    return tree


def idle_keys(keys: Keys, values: Flat) -> dict[str, str]:
    """The keys that have no effect under ``values``, each with the reason."""
    reasons = {path: key.idle_because(values) for path, key in keys.leaves.items()}
    return {path: reason for path, reason in reasons.items() if reason is not None}


def nearest_key(path: str, paths: Collection[str]) -> str | None:
    """The key most like ``path``: its last word counts first, then the groups before it. None when nothing is alike.

    A last word may also be the initials of the key's, as `lr` is of `learning_rate`.
    """
    word = path.rpartition(".")[2].lower()
    last_words = sorted({known.rpartition(".")[2] for known in paths})
    words = get_close_matches(word, last_words, n=1) or [known for known in last_words if _initials(known) == word]
    if not words:
        return None
    alike = [known for known in paths if known.rpartition(".")[2] == words[0]]
    return max(alike, key=lambda known: SequenceMatcher(None, path.lower(), known).ratio())


def _initials(word: str) -> str:
    return "".join(part[0] for part in word.split("_") if part)


def show(value: Any) -> str:
    """A value as it would be written in YAML, shortened, without secrets."""
    text = {None: "null", True: "true", False: "false"}.get(value, repr(value)) if _is_plain(value) else repr(value)
    text = without_secrets(text)  # before it is shortened: half an address is not known as one
    return text if len(text) <= 60 else f"{text[:57]}..."


def kind(value: Any) -> str:
    """A value's kind in words, empty where showing the value says enough."""
    return _VALUE_WORDS.get(type(value), "a group of settings" if isinstance(value, Mapping) else "")


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _either(values: list[Any]) -> str:
    return " or ".join(show(value) for value in values)


def _at(tree: Mapping[str, Any], path: str) -> Any:
    for name in path.split("."):
        tree = tree[name]
    return tree


def _lengths(field: FieldInfo) -> str:
    """How long a list has to be: `` of 3``, `` of 1 or more``."""
    marks = {name: getattr(mark, name) for mark in field.metadata for name in _LENGTHS if hasattr(mark, name)}
    least, most = (marks.get(name) for name in _LENGTHS)
    if least is not None and least == most:
        return f" of {least}"
    return "" if least is None else f" of {least} or more"


def _type_words(annotation: Any, lengths: str = "") -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(_type_words(one, lengths) for one in inner)
    if origin is Literal:
        return (
            ("one of " if len(inner) > 2 else "")
            + ", ".join(map(str, inner[:-2]))
            + (", " if len(inner) > 2 else "")
            + " or ".join(map(str, inner[-2:]))
        )
    if origin is dict:
        return "a mapping"
    if origin is tuple and Ellipsis not in inner:
        return f"a list of {len(inner)}, each {_type_words(inner[0])}"
    if origin in (list, tuple):
        return f"a list{lengths}, each {_type_words(inner[0])}"
    return _TYPE_WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _limit_words(field: FieldInfo) -> Iterator[str]:
    for mark in field.metadata:
        for name, words in _LIMIT_WORDS.items():
            limit = getattr(mark, name, None)
            if limit is not None:
                yield words.format(limit)
